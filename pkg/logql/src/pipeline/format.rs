//! `| line_format "…"` and `| label_format a=b, c="…"`.
//!
//! Invariants:
//! * A template that fails leaves what it was to set as it is and sets `__error__`.
//! * The items of a `label_format` run in the order written. Its templates all see the labels as they are when the first of
//!   them runs: what renames before it did, and nothing of what comes after.
//! * Renaming a label to itself changes nothing.

use tailwater_model::Timestamp;

use super::labels::LineLabels;
use super::names::{self, NameId};
use super::{Flow, Work};
use crate::ast;
use crate::template::{Data, Lookup, Template};

/// What `__error__` says of a template that failed.
const ERROR: &str = "TemplateFormatErr";

/// Makes lines.
#[derive(Debug)]
pub(crate) enum LineFormat {
    /// A template that is one label and nothing else.
    Label(NameId),
    Template(Box<Template>),
}

impl LineFormat {
    /// Compiles a template; `intern` numbers the names it looks at.
    pub(crate) fn new(text: &[u8], intern: impl FnOnce(&str) -> NameId) -> Result<Self, String> {
        let template = Template::parse("line", text).map_err(|e| format!("invalid line template: {e}"))?;
        Ok(match template.single_field() {
            Some(name) => Self::Label(intern(name)),
            None => Self::Template(Box::new(template)),
        })
    }

    /// Makes the new line in `next`.
    pub(crate) fn run(&self, at: Moment, line: &[u8], labels: &mut LineLabels, next: &mut Vec<u8>) -> Flow {
        next.clear();
        match self {
            Self::Label(name) => {
                next.extend_from_slice(labels.get(*name).unwrap_or_default().as_bytes());
                Flow::Rewritten
            }
            Self::Template(template) => match execute(template, &Live(labels), at, line, next) {
                Ok(()) => Flow::Rewritten,
                Err(details) => {
                    labels.set_error(ERROR, &details);
                    Flow::Pass
                }
            },
        }
    }
}

/// Sets a label.
#[derive(Debug)]
pub(crate) struct Item {
    label: NameId,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Label(NameId),
    Template(Box<Template>),
}

/// Compiles the items of a `label_format`; `intern` numbers the names they look at.
pub(crate) fn compile(
    items: &[ast::LabelFormat],
    mut intern: impl FnMut(&str) -> NameId,
) -> Result<Box<[Item]>, String> {
    for (index, item) in items.iter().enumerate() {
        if item.label == names::WELL_KNOWN[names::ERROR as usize] {
            return Err(format!("{} cannot be formatted", item.label));
        }
        if items[..index].iter().any(|before| before.label == item.label) {
            return Err(format!("multiple label name '{}' not allowed in a single format operation", item.label));
        }
    }
    let compile = |item: &ast::LabelFormat| {
        let source = match &item.value {
            ast::LabelFormatValue::Rename(from) => Source::Label(intern(from)),
            ast::LabelFormatValue::Template(text) => {
                let template = Template::parse("label", text.as_bytes());
                let refused = |e| format!("invalid template for label '{}': {e}", item.label);
                Source::Template(Box::new(template.map_err(refused)?))
            }
        };
        Ok(Item { label: intern(&item.label), source })
    };
    items.iter().map(compile).collect()
}

/// Sets the labels.
pub(crate) fn run(items: &[Item], at: Moment, line: &[u8], labels: &mut LineLabels, work: &mut Work) {
    let is_template = |item: &&Item| matches!(item.source, Source::Template(_));
    // A single template may look at the labels themselves.
    let snapshot = items.iter().filter(is_template).count() > 1;
    let mut taken = false;
    for item in items {
        match &item.source {
            Source::Label(from) if *from == item.label => {}
            Source::Label(from) => {
                if labels.get(*from).is_some() {
                    labels.copy(*from, item.label);
                    labels.delete(*from);
                }
            }
            Source::Template(template) => {
                work.text.clear();
                let result = if snapshot {
                    if !taken {
                        work.snapshot.take(labels);
                        taken = true;
                    }
                    execute(template, &work.snapshot, at, line, &mut work.text)
                } else {
                    execute(template, &Live(labels), at, line, &mut work.text)
                };
                match result {
                    Ok(()) => labels.set_lossy(item.label, &work.text),
                    Err(details) => labels.set_error(ERROR, &details),
                }
            }
        }
    }
}

/// When a line is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The time of the line.
    pub(crate) timestamp: Timestamp,
    /// The current time.
    pub(crate) now: Timestamp,
}

fn execute(template: &Template, labels: &dyn Lookup, at: Moment, line: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    template.execute(&Data { labels, line, timestamp: at.timestamp, now: at.now }, out)
}

/// The labels as they are.
struct Live<'a>(&'a LineLabels);

impl Lookup for Live<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get_by_name(name).map(str::as_bytes)
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.for_each(|name, value| visit(name.as_bytes(), value.as_bytes()));
    }
}

/// The labels as they were.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    text: String,
    /// Where each name and its value end.
    ends: Vec<(usize, usize)>,
}

impl Snapshot {
    fn take(&mut self, labels: &LineLabels) {
        self.text.clear();
        self.ends.clear();
        let (text, ends) = (&mut self.text, &mut self.ends);
        labels.for_each(|name, value| {
            text.push_str(name);
            let middle = text.len();
            text.push_str(value);
            ends.push((middle, text.len()));
        });
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |(middle, end)| {
            let pair = (&self.text[start..*middle], &self.text[*middle..*end]);
            start = *end;
            pair
        })
    }
}

impl Lookup for Snapshot {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.pairs().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes())
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.pairs().for_each(|(name, value)| visit(name.as_bytes(), value.as_bytes()));
    }
}
