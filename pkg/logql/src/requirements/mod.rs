//! What a query requires of the lines that can pass it, so that lines which are stored may be passed over unread.
//!
//! Invariants:
//! * Every line that passes fulfils all requirements; a line that fulfils them need not pass. So no requirement comes from what is
//!   negated, from a line filter behind a stage that can change the line, or from a label filter on a label that need not be as it was
//!   sent.
//! * A query has at most [`MAX_LITERALS`] lists of literals and [`MAX_FIELDS`] fields; a list has at most [`texts::MAX_TEXTS`] literals
//!   and [`texts::MAX_BYTES`] bytes.

#[cfg(test)]
mod tests;
pub(crate) mod texts;

use self::texts::Texts;
use crate::ast::{LabelFilter, MatchOp, Stage};
use crate::pipeline::line_filter::LineTest;
use crate::pipeline::names::{EXTRACTED_SUFFIX, WELL_KNOWN};

/// Most lists of literals of a query.
const MAX_LITERALS: usize = 32;
/// Most fields of a query.
const MAX_FIELDS: usize = 32;

/// What every line that passes has. Nothing is known of the lines if it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// For each of these: the line as it was sent holds at least one of its literals.
    pub literals: Vec<AnyOf>,
    /// For each of these: the stream's labels or the structured metadata of the entry, as sent, have exactly this name and value.
    pub fields: Vec<(String, String)>,
}

/// Literals of which a line holds at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyOf {
    literals: Vec<Box<[u8]>>,
    any_case: bool,
}

impl AnyOf {
    /// The literals; at least one, none of them empty. They are any bytes, also line feeds.
    #[must_use]
    pub fn literals(&self) -> &[Box<[u8]>] {
        &self.literals
    }

    /// Whether the line holds a literal only once its ASCII letters are in lower case. The literals then have no ASCII letters in upper
    /// case. Other bytes are never folded: where the case of other characters does not matter there is a literal for each.
    #[must_use]
    pub fn any_case(&self) -> bool {
        self.any_case
    }
}

impl Requirements {
    /// Of a pipeline that has these stages, and these tests before it changes the line.
    pub(crate) fn new(head: &[LineTest], stages: &[Stage]) -> Self {
        let mut literals = texts::without_implied(head.iter().flat_map(LineTest::required).collect());
        texts::keep_best(&mut literals, MAX_LITERALS);
        Self { literals: literals.into_iter().filter_map(any_of).collect(), fields: fields(stages) }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.fields.is_empty()
    }
}

fn any_of(texts: Texts) -> Option<AnyOf> {
    let (texts, any_case) = texts.into_parts();
    let literals: Vec<Box<[u8]>> = texts.into_iter().map(Vec::into_boxed_slice).collect();
    (!literals.is_empty() && literals.iter().all(|l| !l.is_empty())).then_some(AnyOf { literals, any_case })
}

/// The labels that must have a value, and have it as sent.
fn fields(stages: &[Stage]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let Stage::Label(filter) = stage else { continue };
        let mut open = vec![filter];
        while let Some(next) = open.pop() {
            match next {
                LabelFilter::And(left, right) => open.extend([&**right, &**left]),
                LabelFilter::Text(m) if m.op == MatchOp::Eq && !m.value.as_bytes().is_empty() => {
                    let Ok(value) = std::str::from_utf8(m.value.as_bytes()) else { continue };
                    let field = (m.name.clone(), value.to_owned());
                    if fields.len() < MAX_FIELDS
                        && !fields.contains(&field)
                        && is_as_sent(&m.name)
                        && !stages[..index].iter().any(|stage| may_set(stage, &m.name))
                    {
                        fields.push(field);
                    }
                }
                _ => {}
            }
        }
    }
    fields
}

/// Whether a label of this name, before any stage has set it, is one that was sent under it. It is not if the pipeline makes it, or if
/// it may be the metadata `x` of an entry whose stream has an `x` as well.
fn is_as_sent(name: &str) -> bool {
    !WELL_KNOWN.contains(&name) && !name.ends_with(EXTRACTED_SUFFIX)
}

/// Whether a stage may give a label of this name a value. What removes labels does not count: what is missing has no value.
fn may_set(stage: &Stage, name: &str) -> bool {
    match stage {
        Stage::Line(_)
        | Stage::Label(_)
        | Stage::LineFormat(_)
        | Stage::Decolorize
        | Stage::Drop(_)
        | Stage::Keep(_) => false,
        Stage::Json(extractions) | Stage::Logfmt { extractions, .. } => {
            // Of a label that is taken they set `name_extracted`, of which nothing is required.
            extractions.is_empty() || extractions.iter().any(|e| e.label == name)
        }
        Stage::LabelFormat(items) => items.iter().any(|item| item.label == name),
        Stage::Regexp(_) | Stage::Pattern(_) | Stage::Unpack => true,
    }
}
