//! Runs the cases of the specification beside this file, and of the user's guide; `README.md` describes their form.

mod cases;
mod log;
mod metric;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tailwater_logql::{LogQuery, ast::Expr, parse, pretty};

use self::cases::Case;
use self::log::Feed;

/// Fewer cases than this mean that files were not found or not understood.
const FEWEST_CASES: usize = 900;

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
            "??" => metric::ask(case, text, &mut results, differences),
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

/// Every file of the specification, and the guide.
fn files() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(own.join("tests/spec"))
        .expect("the specification is beside its test")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md") && !path.ends_with("README.md"))
        .collect();
    paths.push(own.join("../../docs/logql.md"));
    paths.sort();
    paths
}

#[test]
fn every_case_of_the_specification_holds() {
    let mut count = 0;
    let mut found = String::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a file of the specification");
        for case in cases::read(&path, &text) {
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
