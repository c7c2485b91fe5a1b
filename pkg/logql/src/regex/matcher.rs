//! Whether a text matches: a plain comparison or search where the pattern allows it, an engine otherwise.

use memchr::memmem::Finder;
use regex_automata::meta;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::error;
use super::parse::{self, Options};
use super::required;
use super::search::{build, careful, lossy};
use crate::requirements::texts::Texts;

/// Alternatives up to this many become a set of texts to compare with.
const MAX_ALTERNATIVES: usize = 64;
/// Bytes of all alternatives together.
const MAX_ALTERNATIVE_BYTES: usize = 4096;

/// A compiled pattern that answers yes or no.
#[derive(Debug)]
pub struct Matcher {
    test: Test,
    required: Option<Box<[u8]>>,
    clauses: Box<[Texts]>,
}

/// What `.` may not match in the part of the text it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    Any,
    NoLineFeed,
}

impl Gap {
    fn allows(self, text: &[u8]) -> bool {
        self == Self::Any || memchr::memchr(b'\n', text).is_none()
    }

    /// The gap that stands for two in a row.
    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::NoLineFeed }
    }
}

#[derive(Debug)]
enum Test {
    /// Every text.
    Always,
    /// `.*` over the whole text.
    Gap(Gap),
    /// `.+` over the whole text.
    NonEmpty(Gap),
    /// The whole text is one of these; sorted.
    OneOf(Box<[Box<[u8]>]>),
    /// `literal` anywhere.
    Contains(Box<Finder<'static>>),
    /// `prefix.*suffix` over the whole text; either may be empty.
    Between(Box<[u8]>, Gap, Box<[u8]>),
    /// `.*literal.*` over the whole text.
    Around(Gap, Box<Finder<'static>>),
    /// Anything else.
    Regex(Box<Engine>),
}

#[derive(Debug)]
struct Engine {
    regex: meta::Regex,
    /// The pattern may match, or match empty, at bytes that are not UTF-8, where the engine sees nothing.
    careful: bool,
}

impl Engine {
    fn is_match(&self, text: &[u8]) -> bool {
        // A match of valid runes is a match whatever stands around it, so only the misses need a second look.
        self.regex.is_match(text) || (self.careful && lossy(text).is_some_and(|seen| self.regex.is_match(&seen.text)))
    }
}

impl Matcher {
    pub(super) fn unanchored(pattern: &[u8]) -> Result<Self, String> {
        let hir = read(pattern, false)?;
        let mut core = &hir;
        let trimmed;
        if let HirKind::Concat(subs) = hir.kind() {
            trimmed = without_optional_ends(subs);
            match trimmed {
                [] => return Ok(Self { test: Test::Always, required: None, clauses: Box::default() }),
                [only] => core = only,
                _ => {}
            }
        }
        let test = if optional(core) || any_optional_branch(core) {
            Test::Always
        } else if let HirKind::Literal(literal) = core.kind()
            && !has_replacement(&literal.0)
        {
            Test::Contains(Box::new(Finder::new(&literal.0).into_owned()))
        } else {
            engine(pattern, &hir)?
        };
        let clauses = required::facts(&hir).finish().into();
        Ok(Self { clauses, ..Self::with(test, &hir) })
    }

    pub(super) fn anchored(pattern: &[u8], dot_all: bool) -> Result<Self, String> {
        let hir = read(pattern, dot_all)?;
        let test = if let Some(texts) = alternatives(&hir) {
            Test::OneOf(texts)
        } else if let Some(test) = around_gaps(&hir) {
            test
        } else {
            let whole = Hir::concat(vec![Hir::look(Look::Start), hir.clone(), Hir::look(Look::End)]);
            engine(pattern, &whole)?
        };
        Ok(Self::with(test, &hir))
    }

    fn with(test: Test, hir: &Hir) -> Self {
        let mut best: &[u8] = b"";
        longest_required(hir, &mut best);
        let required = (!best.is_empty() && !matches!(test, Test::Always)).then(|| best.into());
        Self { test, required, clauses: Box::default() }
    }

    /// Whether the text matches.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        match &self.test {
            Test::Always => true,
            Test::Gap(gap) => gap.allows(text),
            Test::NonEmpty(gap) => !text.is_empty() && gap.allows(text),
            Test::OneOf(texts) => texts.binary_search_by(|t| (**t).cmp(text)).is_ok(),
            Test::Contains(finder) => finder.find(text).is_some(),
            Test::Between(prefix, gap, suffix) => text
                .strip_prefix(&**prefix)
                .and_then(|rest| rest.strip_suffix(&**suffix))
                .is_some_and(|middle| gap.allows(middle)),
            Test::Around(gap, finder) => gap.allows(text) && finder.find(text).is_some(),
            Test::Regex(engine) => engine.is_match(text),
        }
    }

    /// Whether every text matches.
    #[must_use]
    pub fn is_always(&self) -> bool {
        matches!(self.test, Test::Always | Test::Gap(Gap::Any))
    }

    /// Bytes that every matching text contains; the longest such run that is easy to see, `None` if there is none.
    #[must_use]
    pub fn required_literal(&self) -> Option<&[u8]> {
        self.required.as_deref()
    }

    /// Texts that every line with a match has, one of each; empty if nothing is known, or the pattern is anchored.
    pub(crate) fn required_texts(&self) -> &[Texts] {
        &self.clauses
    }

    /// The only texts that match, sorted, if the pattern is anchored and they are few.
    pub fn only_texts(&self) -> Option<impl Iterator<Item = &[u8]>> {
        match &self.test {
            Test::OneOf(texts) => Some(texts.iter().map(|t| &**t)),
            _ => None,
        }
    }
}

fn read(pattern: &[u8], dot_newline: bool) -> Result<Hir, String> {
    let options = Options { captures: false, dot_newline };
    parse::parse(pattern, options).map(|p| p.hir).map_err(|e| e.to_string())
}

fn engine(pattern: &[u8], hir: &Hir) -> Result<Test, String> {
    let regex = build(hir, false).ok_or_else(|| error::too_large(pattern).to_string())?;
    Ok(Test::Regex(Box::new(Engine { regex, careful: careful(hir) })))
}

/// Matches the empty text wherever it is tried.
fn optional(hir: &Hir) -> bool {
    hir.properties().minimum_len() == Some(0) && hir.properties().look_set().is_empty()
}

fn any_optional_branch(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Alternation(branches) if branches.iter().any(optional))
}

/// A search for `x*foo.*` finds something exactly where a search for `foo` does.
fn without_optional_ends(mut subs: &[Hir]) -> &[Hir] {
    while let [first, rest @ ..] = subs
        && optional(first)
    {
        subs = rest;
    }
    while let [rest @ .., last] = subs
        && optional(last)
    {
        subs = rest;
    }
    subs
}

fn has_replacement(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, "\u{fffd}".as_bytes()).is_some()
}

/// Walks what is surely part of every match. The expressions are at most `parse::MAX_HEIGHT` deep.
fn longest_required<'h>(hir: &'h Hir, best: &mut &'h [u8]) {
    match hir.kind() {
        HirKind::Literal(literal) if literal.0.len() > best.len() && !has_replacement(&literal.0) => *best = &literal.0,
        HirKind::Capture(capture) => longest_required(&capture.sub, best),
        HirKind::Repetition(repetition) if repetition.min > 0 => longest_required(&repetition.sub, best),
        HirKind::Concat(subs) => subs.iter().for_each(|sub| longest_required(sub, best)),
        _ => {}
    }
}

/// All texts the expression matches as a whole, if they are few.
fn alternatives(hir: &Hir) -> Option<Box<[Box<[u8]>]>> {
    let mut texts = expand(hir)?;
    if texts.iter().any(|t| has_replacement(t)) {
        return None;
    }
    texts.sort_unstable();
    texts.dedup();
    Some(texts.into_iter().map(Vec::into_boxed_slice).collect())
}

fn expand(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let texts = match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Literal(literal) => vec![literal.0.to_vec()],
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.iter().map(|r| r.len()).sum();
            if count > MAX_ALTERNATIVES {
                return None;
            }
            class.iter().flat_map(|r| r.start()..=r.end()).map(|c| c.to_string().into_bytes()).collect()
        }
        HirKind::Capture(capture) => expand(&capture.sub)?,
        HirKind::Repetition(repetition) if repetition.min == 0 && repetition.max == Some(1) => {
            let mut texts = expand(&repetition.sub)?;
            texts.push(Vec::new());
            texts
        }
        HirKind::Concat(subs) => {
            let mut texts = vec![Vec::new()];
            for sub in subs {
                let tails = expand(sub)?;
                if texts.len() * tails.len() > MAX_ALTERNATIVES {
                    return None;
                }
                texts =
                    texts.iter().flat_map(|head| tails.iter().map(move |tail| [&head[..], tail].concat())).collect();
            }
            texts
        }
        HirKind::Alternation(branches) => {
            let mut texts = Vec::new();
            for branch in branches {
                texts.extend(expand(branch)?);
                if texts.len() > MAX_ALTERNATIVES {
                    return None;
                }
            }
            texts
        }
        _ => return None,
    };
    let bytes: usize = texts.iter().map(Vec::len).sum();
    (texts.len() <= MAX_ALTERNATIVES && bytes <= MAX_ALTERNATIVE_BYTES).then_some(texts)
}

/// `.*`, `.+`, `a.*`, `.*a`, `.*a.*` and `a.*b` over a whole text.
fn around_gaps(hir: &Hir) -> Option<Test> {
    let single = std::slice::from_ref(hir);
    let parts: Vec<Part<'_>> = match hir.kind() {
        HirKind::Concat(subs) => &subs[..],
        _ => single,
    }
    .iter()
    .map(part)
    .collect::<Option<_>>()?;
    let finder = |literal: &[u8]| Box::new(Finder::new(literal).into_owned());
    Some(match parts[..] {
        [Part::Gap(0, gap)] => Test::Gap(gap),
        [Part::Gap(_, gap)] => Test::NonEmpty(gap),
        [Part::Literal(prefix), Part::Gap(0, gap)] => Test::Between(prefix.into(), gap, Box::default()),
        [Part::Gap(0, gap), Part::Literal(suffix)] => Test::Between(Box::default(), gap, suffix.into()),
        [Part::Literal(prefix), Part::Gap(0, gap), Part::Literal(suffix)] => {
            Test::Between(prefix.into(), gap, suffix.into())
        }
        // A line feed in the literal would have to be told from those around it.
        [Part::Gap(0, left), Part::Literal(literal), Part::Gap(0, right)]
            if left == right && (left == Gap::Any || !literal.contains(&b'\n')) =>
        {
            Test::Around(left.and(right), finder(literal))
        }
        _ => return None,
    })
}

enum Part<'h> {
    Literal(&'h [u8]),
    /// `.*` (0) or `.+` (1).
    Gap(u32, Gap),
}

fn part(hir: &Hir) -> Option<Part<'_>> {
    match hir.kind() {
        HirKind::Literal(literal) if !has_replacement(&literal.0) => Some(Part::Literal(&literal.0)),
        HirKind::Repetition(repetition) if repetition.max.is_none() && repetition.min <= 1 => {
            let HirKind::Class(Class::Unicode(class)) = repetition.sub.kind() else { return None };
            let gap = match class.ranges() {
                [all] if (all.start(), all.end()) == ('\0', char::MAX) => Gap::Any,
                [low, high]
                    if (low.start(), low.end()) == ('\0', '\x09')
                        && (high.start(), high.end()) == ('\x0b', char::MAX) =>
                {
                    Gap::NoLineFeed
                }
                _ => return None,
            };
            Some(Part::Gap(repetition.min, gap))
        }
        _ => None,
    }
}
