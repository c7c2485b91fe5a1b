//! `| regexp "(?P<ip>\\S+) …"`: the named groups of the first match.
//!
//! Invariants: a line that does not match is left alone, without an error; a group that took no part is empty.

use super::labels::LineLabels;
use super::names::NameId;
use crate::regex::{self, Captures, Groups};

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Regexp {
    captures: Captures,
    groups: Box<[(usize, NameId)]>,
}

impl Regexp {
    /// Compiles an expression; `intern` numbers the names of its groups.
    pub(crate) fn new(expression: &[u8], mut intern: impl FnMut(&str) -> NameId) -> Result<Self, String> {
        let captures = regex::captures(expression)?;
        let mut name = String::new();
        let groups = captures.names().filter_map(|(group, text)| {
            name.clear();
            super::names::sanitize(text.as_bytes(), true, &mut name).then(|| (group, intern(&name)))
        });
        let groups = groups.collect();
        Ok(Self { captures, groups })
    }

    /// Room for a search.
    pub(crate) fn room(&self) -> Groups {
        self.captures.groups()
    }

    /// Sets the labels.
    pub(crate) fn run(&self, line: &[u8], labels: &mut LineLabels, room: &mut Groups) {
        if !self.captures.find(line, room) {
            return;
        }
        for (group, name) in &self.groups {
            let Some(name) = labels.wanted_target(*name) else { continue };
            if !labels.is_extracted(name) {
                let value = room.get(*group).and_then(|span| line.get(span)).unwrap_or_default();
                labels.set_lossy(name, value);
            }
        }
    }
}
