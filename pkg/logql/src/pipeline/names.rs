//! Names as numbers, and how a key of a line becomes a name.
//!
//! Invariants: equal names have equal numbers; the well-known names have the numbers of their constants; numbers are dense and
//! stay as long as the [`Names`] do. Who holds one asks [`Names::is_full`] between lines and then begins anew.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::level;

/// Most names that are remembered besides those of the query.
const MAX_NAMES: usize = 16_384;
/// Most bytes of names and keys that are remembered.
const MAX_NAME_BYTES: usize = 1 << 20;
/// What a parsed name gets when the stream or the metadata have it.
pub(crate) const EXTRACTED_SUFFIX: &str = "_extracted";

/// The number of a name.
pub(crate) type NameId = u32;
/// No name.
const NO_NAME: NameId = NameId::MAX;

/// `__error__`
pub(crate) const ERROR: NameId = 0;
/// `__error_details__`
pub(crate) const ERROR_DETAILS: NameId = 1;
/// `__preserve_error__`
pub(crate) const PRESERVE_ERROR: NameId = 2;
/// `detected_level`
pub(crate) const DETECTED_LEVEL: NameId = 3;
/// The names behind the constants above, in that order.
pub(crate) const WELL_KNOWN: [&str; 4] = ["__error__", "__error_details__", "__preserve_error__", level::NAME];

/// Names by number.
#[derive(Debug)]
pub(crate) struct Names {
    text: Vec<Box<str>>,
    /// The number of `name_extracted`, once it was needed.
    suffixed: Vec<NameId>,
    by_text: HashTable<NameId>,
    /// Keys as they stand in lines, and the sanitized names they become.
    by_key: HashMap<Box<[u8]>, NameId>,
    hasher: DefaultHashBuilder,
    bytes: usize,
}

impl Names {
    /// The well-known names.
    pub(crate) fn new() -> Self {
        let mut names = Self {
            text: Vec::new(),
            suffixed: Vec::new(),
            by_text: HashTable::new(),
            by_key: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
            bytes: 0,
        };
        for name in WELL_KNOWN {
            names.intern(name);
        }
        names
    }

    /// The names that were given numbers besides the well-known ones, in that order.
    pub(crate) fn into_added(self) -> Box<[Box<str>]> {
        self.text.into_iter().skip(WELL_KNOWN.len()).collect()
    }

    /// The number of a name.
    pub(crate) fn intern(&mut self, name: &str) -> NameId {
        let hash = self.hasher.hash_one(name);
        if let Some(id) = self.by_text.find(hash, |id| *self.text[*id as usize] == *name) {
            return *id;
        }
        let id = NameId::try_from(self.text.len()).unwrap_or(NO_NAME - 1);
        self.bytes += name.len();
        self.text.push(name.into());
        self.suffixed.push(NO_NAME);
        let (text, hasher) = (&self.text, &self.hasher);
        self.by_text.insert_unique(hash, id, |id| hasher.hash_one(&*text[*id as usize]));
        id
    }

    /// The number of the name that a key becomes, none if nothing is left of it.
    pub(crate) fn intern_key(&mut self, key: &[u8]) -> Option<NameId> {
        if let Some(id) = self.by_key.get(key) {
            return (*id != NO_NAME).then_some(*id);
        }
        let mut name = String::with_capacity(key.len() + 1);
        let id = if sanitize(key, true, &mut name) { self.intern(&name) } else { NO_NAME };
        self.bytes += key.len();
        self.by_key.insert(key.into(), id);
        (id != NO_NAME).then_some(id)
    }

    /// The number of a name that may never have been seen.
    pub(crate) fn find(&self, name: &str) -> Option<NameId> {
        self.by_text.find(self.hasher.hash_one(name), |id| *self.text[*id as usize] == *name).copied()
    }

    /// The text of a name.
    pub(crate) fn text(&self, id: NameId) -> &str {
        &self.text[id as usize]
    }

    /// The number of `name_extracted`.
    pub(crate) fn suffix(&mut self, id: NameId) -> NameId {
        let known = self.suffixed[id as usize];
        if known != NO_NAME {
            return known;
        }
        let name = format!("{}{EXTRACTED_SUFFIX}", self.text(id));
        let suffixed = self.intern(&name);
        self.suffixed[id as usize] = suffixed;
        suffixed
    }

    /// Bytes of names and keys that are remembered.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are so many that it is time to forget them.
    pub(crate) fn is_full(&self) -> bool {
        self.text.len() > MAX_NAMES || self.by_key.len() > MAX_NAMES || self.bytes > MAX_NAME_BYTES
    }
}

/// Whether [`sanitize`] leaves a key as it is.
pub(crate) fn is_plain(key: &[u8]) -> bool {
    is_word(key) && key.first().is_some_and(|b| !b.is_ascii_digit())
}

fn is_word(key: &[u8]) -> bool {
    key.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Appends what Loki makes of a key: no white space around it, anything but `[A-Za-z0-9_]` as `_`, and if it is the `start` of a
/// name, `_` before a leading digit. False if nothing is left.
pub(crate) fn sanitize(key: &[u8], start: bool, out: &mut String) -> bool {
    if let Ok(plain) = std::str::from_utf8(key)
        && is_word(key)
        && plain.starts_with(|c: char| !start || !c.is_ascii_digit())
    {
        out.push_str(plain);
        return true;
    }
    let key = crate::go::unicode::trim_space(key);
    let Some(first) = key.first() else { return false };
    if start && first.is_ascii_digit() {
        out.push('_');
    }
    for chunk in key.utf8_chunks() {
        out.extend(chunk.valid().chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }));
        out.extend(chunk.invalid().iter().map(|_| '_'));
    }
    true
}

/// Appends bytes as text: `with` stands for every byte that is not UTF-8, and if asked for every U+FFFD.
pub(crate) fn push_replacing(bytes: &[u8], with: &str, replacements_too: bool, out: &mut String) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && (!replacements_too || text.is_ascii() || !text.contains('\u{fffd}'))
    {
        out.push_str(text);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if replacements_too && c == '\u{fffd}' {
                out.push_str(with);
            } else {
                out.push(c);
            }
        }
        for _ in chunk.invalid() {
            out.push_str(with);
        }
    }
}
