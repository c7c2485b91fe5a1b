//! Reads cases from Markdown; `README.md` beside it describes their form.

use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;

use tailwater_logql::{go, parse_selector};
use tailwater_model::{Labels, Timestamp};

/// A query and what comes of it.
pub(crate) struct Case {
    /// The file and the line.
    pub(crate) place: String,
    pub(crate) query: String,
    /// What comes of it: markers and texts.
    pub(crate) results: Vec<(String, String)>,
    /// The lines that metric queries are about, by time.
    pub(crate) lines: Rc<[Line]>,
}

/// A line of a stream.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    pub(crate) stream: Labels,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) text: String,
}

const MARKERS: [&str; 13] = ["=>", "~>", "!!", "#!", "::", "@@", "<<", ">>", "--", "??", "..", "==", "   "];

/// What a fenced block is.
#[derive(PartialEq)]
enum Block {
    Cases,
    Lines,
    Other,
}

/// The cases of a file, in the order written.
pub(crate) fn read(path: &Path, text: &str) -> Vec<Case> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let mut cases: Vec<Case> = Vec::new();
    let mut lines = Lines::default();
    let mut inside = None;
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        if let Some(fence) = line.strip_prefix("```") {
            inside = match (&inside, fence) {
                (Some(_), _) => None,
                (None, "logql") => Some(Block::Cases),
                (None, "lines") => Some(Block::Lines),
                (None, _) => Some(Block::Other),
            };
            match inside {
                Some(Block::Lines) => lines = Lines::default(),
                Some(Block::Cases) => lines.sort(),
                _ => {}
            }
            open = false;
            continue;
        }
        match inside {
            Some(Block::Lines) => {
                lines.add(line).unwrap_or_else(|| panic!("{place}: not a line of a stream: {line}"));
                continue;
            }
            Some(Block::Cases) => {}
            _ => continue,
        }
        let marker = MARKERS.iter().find(|marker| line.starts_with(**marker));
        match (line.trim().is_empty(), marker) {
            (true, _) => open = false,
            (false, Some(marker)) if open => {
                let text = line[marker.len()..].trim_end();
                let text = if *marker == "   " { text.trim() } else { text.strip_prefix(' ').unwrap_or(text) };
                let case = cases.last_mut().expect("a result follows its query");
                case.results.push((marker.trim().to_owned(), unescape(text)));
            }
            (false, _) if open && cases.last().is_some_and(|case| case.results.is_empty()) => {
                let case = cases.last_mut().expect("the query has begun");
                let _ = write!(case.query, "\n{line}");
            }
            (false, _) => {
                assert!(!open, "{place}: a query after results, without a blank line");
                open = true;
                let lines = Rc::clone(&lines.sorted);
                cases.push(Case { place, query: line.to_owned(), results: Vec::new(), lines });
            }
        }
    }
    cases
}

fn unescape(text: &str) -> String {
    text.replace('␤', "\n").replace('␛', "\u{1b}")
}

/// What a block of lines has said so far.
#[derive(Default)]
struct Lines {
    stream: Option<Labels>,
    metadata: Vec<(String, String)>,
    all: Vec<Line>,
    sorted: Rc<[Line]>,
}

impl Lines {
    /// One line of the block; `None` if it is none of those there are.
    fn add(&mut self, line: &str) -> Option<()> {
        if let Some(text) = line.strip_prefix("::") {
            let pairs = labels(text).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            self.stream = Some(Labels::from_pairs(pairs));
            self.metadata.clear();
        } else if let Some(text) = line.strip_prefix("@@") {
            self.metadata = labels(text);
        } else if !line.trim().is_empty() {
            let (at, text) = line.split_once(' ').unwrap_or((line, ""));
            self.all.push(Line {
                at: Timestamp(go::duration::parse_go(at).ok()?),
                stream: self.stream.clone()?,
                metadata: self.metadata.clone(),
                text: unescape(text),
            });
        }
        Some(())
    }

    fn sort(&mut self) {
        self.all.sort_by_key(|line| line.at);
        self.sorted = self.all.clone().into();
    }
}

/// The labels of `{a="b"}`, with those that are empty.
pub(crate) fn labels(text: &str) -> Vec<(String, String)> {
    let inside = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect("labels in braces");
    if inside.is_empty() {
        return Vec::new();
    }
    // A selector must refuse something; this one refuses what has no `_`.
    let matchers = parse_selector(&format!("{{{inside}, _=\"_\"}}")).unwrap_or_else(|e| panic!("{text}: {e}"));
    let pairs = matchers.into_iter().map(|m| (m.name.clone(), m.value.to_str_lossy().into_owned()));
    pairs.filter(|(name, _)| name != "_").collect()
}
