//! Runs the cases of `tests/spec/*.md`; the README there describes their form.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use tailwater_logql::{LogQuery, Runner, ast::Expr, ast::MatchOp, parse, parse_selector, pretty};
use tailwater_model::{Labels, Timestamp};

/// Fewer cases than this mean that files were not found or not understood.
const FEWEST_CASES: usize = 300;

struct Case {
    place: String,
    query: String,
    /// What comes of it: markers and texts.
    results: Vec<(String, String)>,
}

const MARKERS: [&str; 10] = ["=>", "~>", "!!", "#!", "::", "@@", "<<", ">>", "--", "   "];

fn cases(path: &Path, text: &str) -> Vec<Case> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let mut cases: Vec<Case> = Vec::new();
    let mut inside = None;
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(fence) = line.strip_prefix("```") {
            inside = if inside.is_none() { Some(fence == "logql") } else { None };
            open = false;
            continue;
        }
        if inside != Some(true) {
            continue;
        }
        let marker = MARKERS.iter().find(|marker| line.starts_with(**marker));
        match (line.trim().is_empty(), marker) {
            (true, _) => open = false,
            (false, Some(marker)) if open => {
                let text = line[marker.len()..].trim_end();
                let text = if *marker == "   " { text.trim() } else { text.strip_prefix(' ').unwrap_or(text) };
                let case = cases.last_mut().expect("a result follows its query");
                case.results.push((marker.trim().to_owned(), text.replace('␤', "\n").replace('␛', "\u{1b}")));
            }
            (false, _) if open && cases.last().is_some_and(|case| case.results.is_empty()) => {
                let case = cases.last_mut().expect("the query has begun");
                let _ = write!(case.query, "\n{line}");
            }
            (false, _) => {
                assert!(!open, "{file}:{}: a query after results, without a blank line", number + 1);
                open = true;
                cases.push(Case {
                    place: format!("{file}:{}", number + 1),
                    query: line.to_owned(),
                    results: Vec::new(),
                });
            }
        }
    }
    cases
}

/// The labels that a query asks for by name.
fn own_labels(query: &LogQuery) -> Labels {
    let wanted = query.matchers().iter().filter(|matcher| matcher.op == MatchOp::Eq);
    Labels::from_pairs(wanted.map(|m| (m.name.as_str().into(), m.value.to_str_lossy().into_owned().into())).collect())
}

fn labels(text: &str) -> Vec<(String, String)> {
    if text.trim() == "{}" {
        return Vec::new();
    }
    let matchers = parse_selector(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    matchers.into_iter().map(|m| (m.name.clone(), m.value.to_str_lossy().into_owned())).collect()
}

/// What a case says should come of its query, and what did.
struct Differences {
    place: String,
    query: String,
    found: String,
}

impl Differences {
    fn compare(&mut self, what: &str, want: &str, got: &str) {
        if want.trim_end() != got.trim_end() {
            let _ = write!(
                self.found,
                "\n{} {what}\n   query {}\n  wanted {want}\n     got {got}\n",
                self.place, self.query
            );
        }
    }
}

fn run(case: &Case, differences: &mut Differences) {
    let parsed = parse(&case.query);
    let mut feed = None;
    let mut results = case.results.iter().peekable();
    while let Some((marker, text)) = results.next() {
        match marker.as_str() {
            "=>" => {
                let want = if text == "same" { &case.query } else { text };
                let got = parsed.as_ref().map_or_else(ToString::to_string, ToString::to_string);
                differences.compare("prints as", want, &got);
                let unspeakable = ["{\"", "NaN", "Inf", ">0B"].iter().any(|odd| got.contains(odd));
                if parsed.is_ok() && !unspeakable {
                    let again = parse(&got).map_or_else(|e| e.to_string(), |expr| expr.to_string());
                    differences.compare("prints again as", &got, &again);
                }
            }
            "~>" => {
                let mut want = text.clone();
                while let Some((_, line)) = results.next_if(|(marker, _)| marker == "~>") {
                    let _ = write!(want, "\n{line}");
                }
                let got = parsed.as_ref().map_or_else(ToString::to_string, pretty);
                differences.compare("prettified", &want, &got);
            }
            "!!" => {
                let got = parsed.as_ref().map_or_else(ToString::to_string, |expr| format!("valid: {expr}"));
                differences.compare("refused", text, &got);
            }
            "#!" => {
                let got = match &parsed {
                    Ok(Expr::Log(log)) => LogQuery::compile(log).map_or_else(|e| e.to_string(), |_| "valid".to_owned()),
                    Ok(Expr::Metric(metric)) => format!("valid: {metric}"),
                    Err(e) => format!("does not parse: {e}"),
                };
                differences.compare("pipeline refused", text, &got);
            }
            _ => {
                let feed = feed.get_or_insert_with(|| Feed::new(&case.query));
                feed.step(marker, text, differences);
            }
        }
    }
    if let Some(feed) = feed {
        feed.finish(differences);
    }
}

/// Lines on their way through a pipeline.
struct Feed {
    runner: Runner,
    metadata: Vec<(String, String)>,
    /// What came out for the last line, until the case says what should have.
    pending: Option<Option<(String, String)>>,
    labels: Option<String>,
    clock: i64,
}

impl Feed {
    fn new(query: &str) -> Self {
        let query = Arc::new(LogQuery::parse(query).unwrap_or_else(|e| panic!("{query}: {e}")));
        let mut runner = query.runner(false);
        runner.enter(&own_labels(&query));
        Self { runner, metadata: Vec::new(), pending: None, labels: None, clock: 0 }
    }

    fn step(&mut self, marker: &str, text: &str, differences: &mut Differences) {
        match marker {
            "::" => {
                let pairs = labels(text).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
                self.runner.enter(&Labels::from_pairs(pairs));
            }
            "@@" => self.metadata = labels(text),
            "<<" => {
                self.settle(differences);
                self.clock += 1;
                let metadata: Vec<_> = self.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let matched = self.runner.run(Timestamp(self.clock), text.as_bytes(), &metadata);
                self.pending =
                    Some(matched.map(|m| (String::from_utf8_lossy(m.line).into_owned(), m.labels.to_string())));
            }
            ">>" => {
                let (line, labels) =
                    self.pending.take().flatten().unwrap_or_else(|| ("(dropped)".into(), String::new()));
                differences.compare("comes out as", text, &line);
                self.labels = Some(labels);
            }
            "--" => {
                let got = self.pending.take().flatten().map_or_else(|| "(dropped)".to_owned(), |(line, _)| line);
                differences.compare("is dropped", "(dropped)", &got);
            }
            _ => {
                let got = self.labels.take().unwrap_or_else(|| "(no line before these labels)".into());
                differences.compare("has the labels", text, &got);
            }
        }
    }

    /// Every line that goes in must be accounted for.
    fn settle(&mut self, differences: &mut Differences) {
        if let Some(got) = self.pending.take() {
            let got = got.map_or_else(|| "(dropped)".to_owned(), |(line, _)| line);
            differences.compare("goes in", "(a `>>` or `--`)", &got);
        }
    }

    fn finish(mut self, differences: &mut Differences) {
        self.settle(differences);
    }
}

#[test]
fn every_case_of_the_specification_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the specification is beside its test")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md") && !path.ends_with("README.md"))
        .collect();
    paths.sort();
    let mut count = 0;
    let mut found = String::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a file of the specification");
        for case in cases(&path, &text) {
            assert!(!case.results.is_empty(), "{}: nothing is said about {}", case.place, case.query);
            let mut differences =
                Differences { place: case.place.clone(), query: case.query.clone(), found: String::new() };
            run(&case, &mut differences);
            found.push_str(&differences.found);
            count += 1;
        }
    }
    assert!(found.is_empty(), "{found}");
    assert!(count >= FEWEST_CASES, "only {count} cases were found");
}
