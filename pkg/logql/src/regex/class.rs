//! Character classes: sets of runes as Go's regexp syntax names them. Digits, words and spaces are ASCII; case folding is
//! Unicode's simple folding.
//!
//! A set may hold surrogates (`\x{D800}` is a rune to Go); they match nothing, because no text decodes to them.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};

/// The largest rune.
pub(super) const MAX_RUNE: u32 = 0x10_FFFF;
const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);

/// Folding a set looks at each rune of it; a pattern may make us look at this many (a few tens of milliseconds of work).
pub(super) const MAX_FOLDED_RUNES: u64 = 1 << 23;

/// A set of runes. Ranges are inclusive; order and overlap do not matter until [`Set::normalise`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(Vec<(u32, u32)>);

impl Set {
    pub(super) fn of(ranges: &[(u32, u32)]) -> Self {
        Self(ranges.to_vec())
    }

    pub(super) fn add(&mut self, low: u32, high: u32) {
        self.0.push((low, high));
    }

    pub(super) fn union(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// Number of ranges as written, a measure of memory.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Sorts and merges.
    pub(super) fn normalise(&mut self) {
        self.0.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.0.len());
        for &(low, high) in &self.0 {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        self.0 = merged;
    }

    /// Every rune that is not in the set. Normalises.
    pub(super) fn negate(&mut self) {
        self.normalise();
        let mut rest = Vec::with_capacity(self.0.len() + 1);
        let mut next = 0;
        for &(low, high) in &self.0 {
            if next < low {
                rest.push((next, low - 1));
            }
            next = high.saturating_add(1);
        }
        if next <= MAX_RUNE {
            rest.push((next, MAX_RUNE));
        }
        self.0 = rest;
    }

    /// Adds what differs from a member only in case. `budget` is how many runes may still be looked at; `None` when it is spent.
    pub(super) fn fold(&mut self, budget: &mut u64) -> Option<()> {
        self.normalise();
        let runes: u64 = self.0.iter().map(|&(low, high)| u64::from(high - low) + 1).sum();
        *budget = budget.checked_sub(runes)?;
        let mut class = self.class();
        // The tables are compiled in; without them nothing would fold, which is what an error here means.
        if class.try_case_fold_simple().is_ok() {
            self.0.extend(class.iter().map(|r| (u32::from(r.start()), u32::from(r.end()))));
            self.normalise();
        }
        Some(())
    }

    fn class(&self) -> ClassUnicode {
        let mut ranges: Vec<(u32, u32)> = Vec::with_capacity(self.0.len());
        for &(low, high) in &self.0 {
            let low = if (SURROGATES.0..=SURROGATES.1).contains(&low) { SURROGATES.1 + 1 } else { low };
            let high = if (SURROGATES.0..=SURROGATES.1).contains(&high) { SURROGATES.0 - 1 } else { high };
            if low > high {
                continue;
            }
            match ranges.last_mut() {
                // Scalar values on both sides of the gap are neighbours.
                Some(last) if last.1 == SURROGATES.0 - 1 && low == SURROGATES.1 + 1 => last.1 = high,
                _ => ranges.push((low, high)),
            }
        }
        ClassUnicode::new(
            ranges
                .into_iter()
                .filter_map(|(low, high)| Some(ClassUnicodeRange::new(char::from_u32(low)?, char::from_u32(high)?))),
        )
    }

    /// The set as an expression. Normalises.
    pub(super) fn into_hir(mut self) -> Hir {
        self.normalise();
        Hir::class(Class::Unicode(self.class()))
    }
}

const DIGIT: &[(u32, u32)] = &[(0x30, 0x39)];
const WORD: &[(u32, u32)] = &[(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];

/// `\d \s \w` and their negations: the set, and whether it is to be negated.
pub(super) fn perl(letter: u8) -> Option<(&'static [(u32, u32)], bool)> {
    const SPACE: &[(u32, u32)] = &[(0x9, 0xa), (0xc, 0xd), (0x20, 0x20)];
    let set = match letter.to_ascii_lowercase() {
        b'd' => DIGIT,
        b's' => SPACE,
        b'w' => WORD,
        _ => return None,
    };
    Some((set, letter.is_ascii_uppercase()))
}

/// `[:alpha:]` and the like by their name, without the brackets and colons.
pub(super) fn posix(name: &[u8]) -> Option<(&'static [(u32, u32)], bool)> {
    let (name, negated) = match name {
        [b'^', rest @ ..] => (rest, true),
        _ => (name, false),
    };
    let set: &[(u32, u32)] = match name {
        b"alnum" => &[(0x30, 0x39), (0x41, 0x5a), (0x61, 0x7a)],
        b"alpha" => &[(0x41, 0x5a), (0x61, 0x7a)],
        b"ascii" => &[(0, 0x7f)],
        b"blank" => &[(0x9, 0x9), (0x20, 0x20)],
        b"cntrl" => &[(0, 0x1f), (0x7f, 0x7f)],
        b"digit" => DIGIT,
        b"graph" => &[(0x21, 0x7e)],
        b"lower" => &[(0x61, 0x7a)],
        b"print" => &[(0x20, 0x7e)],
        b"punct" => &[(0x21, 0x2f), (0x3a, 0x40), (0x5b, 0x60), (0x7b, 0x7e)],
        b"space" => &[(0x9, 0xd), (0x20, 0x20)],
        b"upper" => &[(0x41, 0x5a)],
        b"word" => WORD,
        b"xdigit" => &[(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)],
        _ => return None,
    };
    Some((set, negated))
}

/// `\p{name}`: a general category or a script, compared without case, space, `_` and `-`.
pub(super) fn unicode(name: &str) -> Option<Set> {
    let name: String = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).map(|c| c.to_ascii_lowercase()).collect();
    if name.is_empty() || name.starts_with("is") || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    if name == "cs" || name == "surrogate" {
        return Some(Set::of(&[SURROGATES]));
    }
    // Longer names could only be rejected; do not hand them on.
    if name.len() > 64 {
        return None;
    }
    ["gc", "sc"].iter().find_map(|property| {
        let hir = regex_syntax::parse(&format!(r"\p{{{property}={name}}}")).ok()?;
        match hir.kind() {
            HirKind::Class(Class::Unicode(class)) => {
                Some(Set(class.iter().map(|r| (u32::from(r.start()), u32::from(r.end()))).collect()))
            }
            // A class of one character is a literal.
            HirKind::Literal(literal) => {
                let only = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
                Some(Set::of(&[(u32::from(only), u32::from(only))]))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negating_twice_gives_the_set_back() {
        let mut set = Set::of(&[(0x61, 0x7a), (0, 3), (2, 9), (0x10_FFF0, MAX_RUNE)]);
        set.normalise();
        let once = set.clone();
        set.negate();
        assert_eq!(set, Set::of(&[(10, 0x60), (0x7b, 0x10_FFEF)]));
        set.negate();
        assert_eq!(set, once);
        let mut all = Set::default();
        all.negate();
        assert_eq!(all, Set::of(&[(0, MAX_RUNE)]));
    }

    #[test]
    fn surrogates_are_cut_out_and_their_edges_joined() {
        let class =
            |ranges: &[(u32, u32)]| Set::of(ranges).class().iter().map(|r| (r.start(), r.end())).collect::<Vec<_>>();
        assert_eq!(class(&[(0xD800, 0xD900)]), []);
        assert_eq!(class(&[(0x61, 0xD7FF), (0xE000, 0xE001)]), [('a', '\u{E001}')]);
        assert_eq!(class(&[(0xD000, 0xD801)]), [('\u{D000}', '\u{D7FF}')]);
    }

    #[test]
    fn folding_is_unicode_and_paid_for() {
        let mut budget = 10;
        let mut k = Set::of(&[(0x6b, 0x6b)]);
        assert_eq!(k.fold(&mut budget), Some(()));
        assert_eq!(k, Set::of(&[(0x4b, 0x4b), (0x6b, 0x6b), (0x212a, 0x212a)]));
        assert_eq!(budget, 9);
        assert_eq!(Set::of(&[(0, 100)]).fold(&mut budget), None);
    }

    #[test]
    fn names_of_categories_and_scripts_are_loose_but_not_of_properties() {
        for name in
            ["Greek", "greek", "L", "Lu", "Letter", "uppercase_letter", "Old-Italic", "Any", "ASCII", "Cs", "Zl", "LC"]
        {
            assert!(unicode(name).is_some(), "{name}");
        }
        for name in ["", "Alphabetic", "White_Space", "IsGreek", "Foo", "L}", "gc=L", "Emoji"] {
            assert!(unicode(name).is_none(), "{name}");
        }
    }
}
