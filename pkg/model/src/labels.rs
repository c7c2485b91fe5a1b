//! Label sets: those that name a stream, and those of one answered entry.
//!
//! Invariants: names are sorted (byte order) and unique; a stream's label has a non-empty name and a non-empty value; names
//! and values are valid UTF-8 (the push edge sees to both).

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh64::Xxh64;

/// The labels that name a stream, or a series of a metric query. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Sorts the pairs and drops those without a value. The caller has ruled out repeated names; of repeats the last wins.
    #[must_use]
    pub fn from_pairs(mut pairs: Vec<(Box<str>, Box<str>)>) -> Self {
        pairs.retain(|(_, v)| !v.is_empty());
        Self::keeping_empty(pairs)
    }

    /// As [`Labels::from_pairs`], but labels with an empty value stay: those of the series of metric queries.
    #[must_use]
    pub fn keeping_empty(mut pairs: Vec<(Box<str>, Box<str>)>) -> Self {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.reverse();
        pairs.dedup_by(|next, kept| next.0 == kept.0);
        pairs.reverse();
        Self(pairs.into())
    }

    /// The value of `name`, if the set has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok().map(|i| self.0[i].1.as_ref())
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone + '_ {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))
    }

    /// Whether both are the very same allocation. `false` says nothing.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// An address to key caches by; valid while the labels are held.
    #[must_use]
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// xxhash64 over `name 0xff value 0xff …`: the order in which Loki answers entries of equal time (contract, LogQL §14).
    #[must_use]
    pub fn loki_hash(&self) -> u64 {
        let mut h = Xxh64::new(0);
        for (n, v) in self.iter() {
            h.update(n.as_bytes());
            h.update(&[0xff]);
            h.update(v.as_bytes());
            h.update(&[0xff]);
        }
        h.digest()
    }
}

/// `{a="b", c="d"}`, quoted as Go quotes.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_selector(f, self.iter())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a label of an answered entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// It names the stream.
    Stream,
    /// It came with the entry as structured metadata.
    Metadata,
    /// A stage of the query made it.
    Parsed,
}

/// One label of an answered entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelPair {
    /// Its name.
    pub name: Box<str>,
    /// Its value, possibly empty.
    pub value: Box<str>,
    /// Where it came from.
    pub category: Category,
}

/// All labels of an answered entry after the pipeline, sorted by name, names unique.
///
/// Shared by every entry with the same labels, so equality is first tried by address.
#[derive(Clone, Debug, Default, Eq)]
pub struct LabelSet(Arc<[LabelPair]>);

impl LabelSet {
    /// Sorts the pairs by name. The caller has ruled out repeated names.
    #[must_use]
    pub fn from_pairs(mut pairs: Vec<LabelPair>) -> Self {
        pairs.sort_by(|a, b| a.name.cmp(&b.name));
        Self(pairs.into())
    }

    /// The pairs, sorted by name.
    #[must_use]
    pub fn pairs(&self) -> &[LabelPair] {
        &self.0
    }

    /// The pairs of one category, sorted by name.
    pub fn of(&self, category: Category) -> impl Iterator<Item = &LabelPair> + Clone {
        self.0.iter().filter(move |p| p.category == category)
    }

    /// The value of `name`, if the set has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|p| p.name.as_ref().cmp(name)).ok().map(|i| self.0[i].value.as_ref())
    }

    /// Whether both are the very same allocation. `false` says nothing.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// An address to key caches by; valid while the set is held.
    #[must_use]
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }

    /// Approximate heap use in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.0.iter().map(|p| p.name.len() + p.value.len() + size_of::<LabelPair>()).sum()
    }
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        self.ptr_eq(other) || self.0 == other.0
    }
}

impl std::hash::Hash for LabelSet {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl From<&Labels> for LabelSet {
    fn from(labels: &Labels) -> Self {
        let pair = |(n, v): (&str, &str)| LabelPair { name: n.into(), value: v.into(), category: Category::Stream };
        Self(labels.iter().map(pair).collect())
    }
}

/// `{a="b", c="d"}` over all categories, quoted as Go quotes. Also the order in which result streams are answered.
impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_selector(f, self.0.iter().map(|p| (p.name.as_ref(), p.value.as_ref())))
    }
}

/// `{a="b", c="d"}` of pairs as they come, quoted as Go quotes: the text of a label set that is none, since a name repeats.
#[must_use]
pub fn selector_text<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_selector(&mut out, pairs);
    out
}

fn write_selector<'a>(f: &mut impl fmt::Write, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> fmt::Result {
    f.write_char('{')?;
    for (i, (name, value)) in pairs.enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        f.write_str(name)?;
        f.write_char('=')?;
        write_quoted(f, value)?;
    }
    f.write_char('}')
}

/// Go's `strconv.Quote` for valid UTF-8.
fn write_quoted(f: &mut impl fmt::Write, s: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in s.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\x07' => f.write_str("\\a")?,
            '\x08' => f.write_str("\\b")?,
            '\x0c' => f.write_str("\\f")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\x0b' => f.write_str("\\v")?,
            c if (c as u32) < 0x20 || c == '\x7f' => write!(f, "\\x{:02x}", c as u32)?,
            c if is_printable(c) => f.write_char(c)?,
            c if (c as u32) < 0x10000 => write!(f, "\\u{:04x}", c as u32)?,
            c => write!(f, "\\U{:08x}", c as u32)?,
        }
    }
    f.write_char('"')
}

/// Go's `strconv.IsPrint`, near enough: what Rust does not escape in `{:?}` and is no space but U+0020.
fn is_printable(c: char) -> bool {
    c == ' ' || (!c.is_whitespace() && c.escape_debug().len() == 1) || matches!(c, '\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
    }

    #[test]
    fn sets_are_sorted_without_empties_and_the_last_repeat_wins() {
        let l = labels(&[("b", "1"), ("a", "x"), ("e", ""), ("b", "2")]);
        assert_eq!(l.to_string(), r#"{a="x", b="2"}"#);
        assert_eq!((l.get("b"), l.get("e"), l.len()), (Some("2"), None, 2));
    }

    #[test]
    fn text_is_quoted_as_go_quotes() {
        let l = labels(&[("a", "q\"b\\s\n\u{7f}\u{200b}ä")]);
        assert_eq!(l.to_string(), r#"{a="q\"b\\s\n\x7f\u200bä"}"#);
    }

    #[test]
    fn text_of_pairs_keeps_repeats() {
        assert_eq!(selector_text([("a", "1"), ("a", "\"")].into_iter()), r#"{a="1", a="\""}"#);
    }

    #[test]
    fn the_hash_is_lokis() {
        // xxh64("a\xffb\xff")
        assert_eq!(labels(&[("a", "b")]).loki_hash(), xxhash_rust::xxh64::xxh64(b"a\xffb\xff", 0));
    }
}
