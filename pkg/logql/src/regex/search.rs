//! Where a pattern matches and what its groups hold; replacing and counting, as Go's `regexp` does them.

use std::ops::Range;

use regex_automata::util::captures::Captures as Slots;
use regex_automata::{Input, meta, nfa::thompson::WhichCaptures};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::error;
use super::parse::{self, Options};
use crate::go::unicode::{decode, is_digit, is_letter, runes};

/// Memory a compiled pattern may take, in bytes, before it is too large.
const NFA_BYTES: usize = 2 << 20;
/// Memory of the lazily built automaton, per thread that searches at the same time, in bytes.
const CACHE_BYTES: usize = 2 << 20;
/// Most bytes of a compiled pattern times its groups: a search keeps the places of all groups for every state it is in, so it takes
/// about so much memory, and copies as much for every byte of the text.
const GROUPS_BYTES: usize = 64 << 20;
/// Memory of the automaton that finds groups in one pass, in bytes.
const ONE_PASS_BYTES: usize = 1 << 20;

/// Compiles an expression; `None` if it is too large.
pub(super) fn build(hir: &Hir, captures: bool) -> Option<meta::Regex> {
    let which = if captures { WhichCaptures::All } else { WhichCaptures::Implicit };
    let config = meta::Config::new()
        .utf8_empty(true)
        .which_captures(which)
        .nfa_size_limit(Some(NFA_BYTES))
        .hybrid_cache_capacity(CACHE_BYTES)
        .onepass_size_limit(Some(ONE_PASS_BYTES));
    meta::Builder::new().configure(config).build_from_hir(hir).ok()
}

/// Whether the expression has to be tried on the text as Go reads it, if that is not UTF-8: it may match U+FFFD, or be empty
/// between bytes that are no runes.
pub(super) fn careful(hir: &Hir) -> bool {
    sees_replacement(hir) || hir.properties().minimum_len() == Some(0)
}

/// Whether some part of the expression matches U+FFFD. The expressions are at most `parse::MAX_HEIGHT` deep.
fn sees_replacement(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => memchr::memmem::find(&literal.0, "\u{fffd}".as_bytes()).is_some(),
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().any(|r| (r.start()..=r.end()).contains(&char::REPLACEMENT_CHARACTER))
        }
        HirKind::Class(Class::Bytes(_)) => true,
        HirKind::Repetition(repetition) => sees_replacement(&repetition.sub),
        HirKind::Capture(capture) => sees_replacement(&capture.sub),
        HirKind::Concat(subs) | HirKind::Alternation(subs) => subs.iter().any(sees_replacement),
    }
}

/// A text that is not UTF-8, as Go reads it.
pub(super) struct Lossy {
    /// Valid UTF-8, with U+FFFD for every byte that is not.
    pub(super) text: Vec<u8>,
    /// For every replaced byte, where its replacement starts in `text`; ascending.
    replaced: Vec<usize>,
}

impl Lossy {
    /// The position in the original of a rune boundary in `text`.
    fn original(&self, at: usize) -> usize {
        // Each replacement before it is two bytes longer than the byte it stands for.
        at - 2 * self.replaced.partition_point(|&start| start < at)
    }
}

/// The text as Go reads it, `None` if it is UTF-8 already.
pub(super) fn lossy(text: &[u8]) -> Option<Lossy> {
    let valid = match std::str::from_utf8(text) {
        Ok(_) => return None,
        Err(e) => e.valid_up_to(),
    };
    let mut seen = Lossy { text: Vec::with_capacity(text.len() + 16), replaced: Vec::new() };
    seen.text.extend_from_slice(&text[..valid]);
    for (at, c, len) in runes(&text[valid..]) {
        if c == char::REPLACEMENT_CHARACTER && len == 1 {
            seen.replaced.push(seen.text.len());
            seen.text.extend_from_slice("\u{fffd}".as_bytes());
        } else {
            seen.text.extend_from_slice(&text[valid + at..valid + at + len]);
        }
    }
    Some(seen)
}

/// A compiled pattern that tells where it matches.
#[derive(Debug)]
pub struct Captures {
    regex: meta::Regex,
    names: Box<[Option<Box<str>>]>,
    /// Whether a text has to be checked to be UTF-8 before it is searched.
    careful: bool,
}

/// Where the groups of the last match are. Made once, used for many searches.
#[derive(Clone, Debug)]
pub struct Groups {
    slots: Slots,
    spans: Vec<Option<(usize, usize)>>,
}

impl Groups {
    /// The bytes that group `index` matched (0 is the whole match), `None` if it took no part.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Range<usize>> {
        self.spans.get(index).copied().flatten().map(|(start, end)| start..end)
    }
}

impl Captures {
    pub(super) fn new(pattern: &[u8]) -> Result<Self, String> {
        let options = Options { captures: true, dot_newline: false };
        let parsed = parse::parse(pattern, options).map_err(|e| e.to_string())?;
        let regex = build(&parsed.hir, true)
            .filter(|regex| regex.memory_usage().saturating_mul(parsed.names.len() + 1) <= GROUPS_BYTES)
            .ok_or_else(|| error::too_large(pattern).to_string())?;
        let careful = careful(&parsed.hir);
        Ok(Self { regex, names: parsed.names.into(), careful })
    }

    /// The named groups in the order of the pattern, with their numbers. Names may repeat.
    pub fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        self.names.iter().enumerate().filter_map(|(at, name)| Some((at + 1, name.as_deref()?)))
    }

    /// About how much memory the compiled pattern takes, in bytes, without what searches need.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.regex.memory_usage()
    }

    /// The first name that repeats an earlier one.
    #[must_use]
    pub fn duplicate_name(&self) -> Option<&str> {
        self.names().find(|&(at, name)| self.names().any(|(other, n)| other < at && n == name)).map(|(_, name)| name)
    }

    /// Room for the groups of this pattern.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups { slots: self.regex.create_captures(), spans: Vec::with_capacity(self.names.len() + 1) }
    }

    /// Finds the leftmost match; on `false` the groups are unspecified.
    pub fn find(&self, text: &[u8], groups: &mut Groups) -> bool {
        let lossy = if self.careful { lossy(text) } else { None };
        self.find_from(text, lossy.as_ref(), 0, groups)
    }

    /// The leftmost match at or after `from`, a position in the text that is searched (the lossy one if there is one).
    fn find_from(&self, text: &[u8], lossy: Option<&Lossy>, from: usize, groups: &mut Groups) -> bool {
        let searched = lossy.map_or(text, |l| &l.text);
        self.regex.search_captures(&Input::new(searched).range(from..), &mut groups.slots);
        if !groups.slots.is_match() {
            return false;
        }
        let map = |at: usize| lossy.map_or(at, |l| l.original(at));
        groups.spans.clear();
        for index in 0..=self.names.len() {
            groups.spans.push(groups.slots.get_group(index).map(|s| (map(s.start), map(s.end))));
        }
        true
    }

    /// Calls `each` for every match, in order, as Go's `ReplaceAll` (`all_empty`) and `FindAll` step through a text: they differ
    /// in whether an empty match right after another match counts. Ends early when `each` answers `false`.
    fn for_each(&self, text: &[u8], mut each: impl FnMut(&Groups) -> bool) {
        let lossy = if self.careful { lossy(text) } else { None };
        let searched = lossy.as_ref().map_or(text, |l| &l.text[..]);
        let mut groups = self.groups();
        let (mut at, mut last_end) = (0, None);
        while at <= searched.len() && self.find_from(text, lossy.as_ref(), at, &mut groups) {
            let Some(found) = groups.slots.get_match() else { break };
            if (found.end() > found.start() || last_end != Some(found.start())) && !each(&groups) {
                return;
            }
            last_end = Some(found.end());
            at = if found.end() > at { found.end() } else { at + decode(&searched[at..]).map_or(1, |(_, len)| len) };
        }
    }

    /// `len(re.FindAllString(text, -1))`.
    #[must_use]
    pub fn count(&self, text: &[u8]) -> usize {
        let mut count = 0;
        self.for_each(text, |_| {
            count += 1;
            true
        });
        count
    }

    /// `re.ReplaceAllString(text, with)`: `$1` and `${name}` in `with` are expanded. Stops growing `out` once it is longer than
    /// `limit` bytes, and answers `false` then.
    pub fn replace_all(&self, text: &[u8], with: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        let bound = limit.saturating_add(out.len());
        self.replace_by(text, limit, out, |groups, out| self.expand(text, groups, with, bound, out))
    }

    /// `re.ReplaceAllLiteralString(text, with)`; `limit` as in [`Captures::replace_all`].
    pub fn replace_all_literal(&self, text: &[u8], with: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        self.replace_by(text, limit, out, |_, out| out.extend_from_slice(with))
    }

    fn replace_by(&self, text: &[u8], limit: usize, out: &mut Vec<u8>, with: impl Fn(&Groups, &mut Vec<u8>)) -> bool {
        let mut copied = 0;
        let limit = limit.saturating_add(out.len());
        self.for_each(text, |groups| {
            if let Some(found) = groups.get(0) {
                out.extend_from_slice(&text[copied..found.start]);
                with(groups, out);
                copied = found.end;
            }
            out.len() <= limit
        });
        if out.len() <= limit {
            out.extend_from_slice(&text[copied..]);
        }
        out.len() <= limit
    }

    /// `re.Expand`: appends `template` with `$1`, `${1}`, `$name` and `${name}` replaced by what the groups hold, and `$$` by
    /// one dollar. Unknown groups are empty; a dollar that starts nothing stands for itself. Stops once `out` is longer than `bound`.
    pub fn expand(&self, text: &[u8], groups: &Groups, template: &[u8], bound: usize, out: &mut Vec<u8>) {
        let mut rest = template;
        while let Some(dollar) = memchr::memchr(b'$', rest) {
            if out.len() > bound {
                return;
            }
            out.extend_from_slice(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let [b'$', after @ ..] = rest {
                out.push(b'$');
                rest = after;
                continue;
            }
            let Some((name, after)) = reference(rest) else {
                out.push(b'$');
                continue;
            };
            rest = after;
            let found = match group_number(name) {
                Some(number) => groups.get(number),
                None => self.names().filter(|(_, n)| n.as_bytes() == name).find_map(|(number, _)| groups.get(number)),
            };
            if let Some(found) = found {
                out.extend_from_slice(&text[found]);
            }
        }
        out.extend_from_slice(rest);
    }
}

/// `name` or `{name}`, and what follows.
fn reference(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (braced, text) = match text {
        [b'{', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let end =
        runes(text).find(|&(_, c, _)| !is_letter(c) && !is_digit(c) && c != '_').map_or(text.len(), |(at, _, _)| at);
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    match (braced, rest) {
        (false, _) => Some((name, rest)),
        (true, [b'}', rest @ ..]) => Some((name, rest)),
        (true, _) => None,
    }
}

/// A decimal without leading zeros; anything else is a name.
fn group_number(name: &[u8]) -> Option<usize> {
    if (name.len() > 1 && name[0] == b'0') || name.len() > 9 {
        return None;
    }
    name.iter().try_fold(0usize, |n, &b| b.is_ascii_digit().then(|| n * 10 + usize::from(b - b'0')))
}
