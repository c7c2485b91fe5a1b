//! `| pattern "<ip> - <_>"`: what stands between fixed texts.
//!
//! Invariants: a text before the first capture must begin the line; a capture reaches to the first place where the text behind
//! it stands; if that stands nowhere the capture takes the rest and the captures after it stay unset. Never an error.

use memchr::memmem::Finder;

use super::labels::LineLabels;
use super::names::NameId;
use crate::syntax::pattern_expr::{PatternExpr, PatternPart};

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    start: Box<[u8]>,
    captures: Box<[Capture]>,
}

#[derive(Debug)]
struct Capture {
    label: Option<NameId>,
    /// The text behind it; none at the end.
    until: Option<Box<Finder<'static>>>,
}

impl Pattern {
    /// Compiles a pattern; `intern` numbers the names of its captures.
    pub(crate) fn new(pattern: &[u8], mut intern: impl FnMut(&str) -> NameId) -> Result<Self, String> {
        let expr = PatternExpr::parser(pattern)?;
        let mut start = Box::default();
        let mut captures: Vec<Capture> = Vec::new();
        for part in &expr.parts {
            match part {
                PatternPart::Capture(name) => {
                    captures.push(Capture { label: name.as_deref().map(&mut intern), until: None });
                }
                PatternPart::Literal(text) => match captures.last_mut() {
                    Some(capture) => capture.until = Some(Box::new(Finder::new(text).into_owned())),
                    None => start = text.as_slice().into(),
                },
            }
        }
        Ok(Self { start, captures: captures.into() })
    }

    /// Sets the labels.
    pub(crate) fn run(&self, line: &[u8], labels: &mut LineLabels) {
        let Some(mut rest) = line.strip_prefix(&*self.start) else { return };
        if line.is_empty() || labels.is_satisfied() {
            return;
        }
        for capture in &self.captures {
            let end = capture.until.as_ref().and_then(|until| Some((until.find(rest)?, until.needle().len())));
            let (len, text) = end.unwrap_or((rest.len(), 0));
            if let Some(label) = capture.label
                && let Some(name) = labels.wanted_target(label)
                && !labels.is_extracted(name)
            {
                labels.set_lossy(name, &rest[..len]);
            }
            if end.is_none() {
                return;
            }
            rest = &rest[len + text..];
        }
    }
}
