//! The labels that the rest of a metric query can see: parsers set no others, and stop when they have them.
//!
//! Invariants: a name counts as missing until a stage sets it, once per line; what is not wanted is never set by a parser, but filters
//! and formats may look at and set whatever they name.

use memchr::memmem::Finder;

use super::super::names::{NameId, Names, PRESERVE_ERROR, is_plain};
use super::LineLabels;

/// The labels that the rest of a metric query can see: its parsers extract no others.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Their numbers.
    pub(crate) names: Box<[NameId]>,
    /// Whether a line that cannot be parsed counts all the same, its error being asked for.
    pub(crate) preserve_error: bool,
}

/// The names that parsers set.
#[derive(Debug)]
pub(super) struct Wanting {
    /// In the order of their numbers.
    names: Box<[WantedName]>,
    /// By number.
    is: Box<[bool]>,
    preserve_error: bool,
    /// How many of them no stage has set on the current line.
    missing: usize,
}

/// A name that parsers set.
#[derive(Debug)]
struct WantedName {
    id: NameId,
    text: Box<str>,
    /// Finds `name=`, if no other key than the name itself becomes the name.
    assignment: Option<Finder<'static>>,
}

impl WantedName {
    fn new(id: NameId, text: &str) -> Self {
        // Anything but letters and digits becomes `_`, and a leading digit gets one.
        let only = is_plain(text.as_bytes()) && !text.contains('_');
        let assignment = only.then(|| Finder::new(&format!("{text}=")).into_owned());
        Self { id, text: text.into(), assignment }
    }
}

impl Wanting {
    pub(super) fn new(wanted: &Wanted, names: &Names) -> Self {
        let mut ids = wanted.names.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut is = vec![false; ids.last().map_or(0, |last| *last as usize + 1)];
        ids.iter().for_each(|id| is[*id as usize] = true);
        let missing = ids.len();
        let names = ids.into_iter().map(|id| WantedName::new(id, names.text(id))).collect();
        Self { names, is: is.into(), preserve_error: wanted.preserve_error, missing }
    }
}

impl LineLabels {
    /// Sets both error labels for a line that a parser cannot read.
    pub(crate) fn set_parser_error(&mut self, error: &str, details: &str) {
        self.set_error(error, details);
        if self.wanted.as_ref().is_some_and(|wanted| wanted.preserve_error) {
            self.set(PRESERVE_ERROR, "true");
        }
    }

    /// Whether parsers set this label.
    pub(crate) fn wants(&self, id: NameId) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.is.get(id as usize).copied().unwrap_or(false))
    }

    /// How many names are wanted; none if all are.
    pub(crate) fn wanted_names(&self) -> Option<usize> {
        self.wanted.as_ref().map(|wanted| wanted.names.len())
    }

    /// The number of a wanted name, by its place, and what finds `name=`, if no other key becomes that name.
    pub(crate) fn wanted_name(&self, place: usize) -> Option<(NameId, Option<&Finder<'static>>)> {
        let name = self.wanted.as_ref()?.names.get(place)?;
        Some((name.id, name.assignment.as_ref()))
    }

    /// Whether there are labels that nobody wants.
    pub(crate) fn is_restricted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether a label is wanted whose name begins so.
    pub(crate) fn wants_below(&self, prefix: &str) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.names.iter().any(|name| name.text.starts_with(prefix)))
    }

    /// Whether everything that is wanted has been set, so that parsers have nothing left to do.
    pub(crate) fn is_satisfied(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.missing == 0)
    }

    /// Whether nothing that is wanted can still be set by a parser: what the stream has itself never is.
    pub(crate) fn is_settled(&self) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|wanted| wanted.names.iter().all(|name| self.is_extracted(name.id) || self.in_stream(name.id)))
    }

    /// The number of the name that a key becomes; none if nothing is left of it or nobody wants it.
    pub(crate) fn wanted_key(&mut self, key: &[u8]) -> Option<NameId> {
        let Some(wanted) = &self.wanted else { return self.names.intern_key(key) };
        if let Some(name) = wanted.names.iter().find(|name| name.text.as_bytes() == key) {
            return Some(name.id);
        }
        if is_plain(key) {
            return None;
        }
        self.names.intern_key(key).filter(|id| self.wants(*id))
    }

    /// The name under which a parser stores what it calls `id`; none if nobody wants it.
    pub(crate) fn wanted_target(&mut self, id: NameId) -> Option<NameId> {
        let target = self.target(id);
        self.wants(target).then_some(target)
    }

    /// A stage has set a label that none had set on this line.
    pub(super) fn found(&mut self, id: NameId) {
        if let Some(wanted) = &mut self.wanted
            && wanted.is.get(id as usize).copied().unwrap_or(false)
        {
            wanted.missing -= 1;
        }
    }

    /// Nothing is set yet.
    pub(super) fn begin_wanting(&mut self) {
        if let Some(wanted) = &mut self.wanted {
            wanted.missing = wanted.names.len();
        }
    }
}
