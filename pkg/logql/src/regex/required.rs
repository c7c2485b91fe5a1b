//! What stands in every text that an expression matches.
//!
//! Invariants: what is said holds for texts that are not UTF-8, too: nothing is said of U+FFFD, which stands for bytes that are no
//! character. The walk is as deep as the expression, which is at most `parse::MAX_HEIGHT`.

use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind};

use crate::requirements::texts::{Facts, Texts};

/// Most characters of a class that are alternatives, once both cases of a letter count as one.
const MAX_CHARS: usize = 4;
/// Most characters of a class that are looked at.
const MAX_CLASS: usize = 12;

/// What is known of the texts that the expression matches.
pub(super) fn facts(hir: &Hir) -> Facts {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Facts::empty(),
        HirKind::Literal(literal) => text(&literal.0),
        HirKind::Class(Class::Unicode(class)) => chars(class).map_or_else(Facts::unknown, Facts::exact),
        HirKind::Class(Class::Bytes(_)) => Facts::unknown(),
        HirKind::Capture(capture) => facts(&capture.sub),
        HirKind::Repetition(repetition) => facts(&repetition.sub).repeated(repetition.min, repetition.max),
        HirKind::Concat(subs) => subs.iter().fold(Facts::empty(), |facts_so_far, sub| facts_so_far.then(facts(sub))),
        HirKind::Alternation(branches) => Facts::any(branches.iter().map(facts)),
    }
}

/// Of a literal: what stands between its U+FFFD.
fn text(literal: &[u8]) -> Facts {
    let replacement = "\u{fffd}".as_bytes();
    let mut facts = Facts::empty();
    let mut from = 0;
    for at in memchr::memmem::find_iter(literal, replacement) {
        facts = facts.then(Facts::literal(&literal[from..at])).then(Facts::unknown());
        from = at + replacement.len();
    }
    facts.then(Facts::literal(&literal[from..]))
}

fn chars(class: &ClassUnicode) -> Option<Texts> {
    let count: usize = class.iter().map(|range| range.len()).sum();
    if count > MAX_CLASS {
        return None;
    }
    let chars: Vec<char> = class.iter().flat_map(|range| range.start()..=range.end()).collect();
    if chars.contains(&char::REPLACEMENT_CHARACTER) {
        return None;
    }
    Texts::chars(&chars, MAX_CHARS)
}
