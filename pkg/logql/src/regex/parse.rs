//! The syntax of Go's `regexp` (RE2 with Perl's flags), read into an expression of `regex-syntax`.
//!
//! Invariants: what Go refuses is refused, with Go's text; what Go takes is taken, unless it is deeper than [`MAX_HEIGHT`] or
//! needs more work than the budgets below, which answers as Go answers what is too large for it. The expression built has
//! Go's meaning on valid UTF-8. Parsing neither recurses nor copies subexpressions, so time and memory are linear in the
//! pattern (times the budgets).

use regex_syntax::hir::{Capture, Hir, Look, Repetition};

use super::class::{self, MAX_FOLDED_RUNES, MAX_RUNE, Set};
use super::error::{
    INVALID_CLASS_RANGE, INVALID_ESCAPE, INVALID_NAMED_CAPTURE, INVALID_PERL, INVALID_REPEAT_OP, INVALID_REPEAT_SIZE,
    MISSING_ARGUMENT, MISSING_PAREN, NESTS_TOO_DEEPLY, SyntaxError, TOO_LARGE, UNEXPECTED_PAREN, before, check_utf8,
    err, next_rune,
};
use super::escape::{class_rune, counts, escape};

/// How deep an expression may be. Go allows 1000; the engines below recurse, and one MiB of stack has to be enough.
pub(super) const MAX_HEIGHT: u32 = 500;
/// The largest count in `{n,m}`, and the largest product of nested ones.
pub(super) const MAX_REPEAT: u32 = 1000;
/// The most instructions an expression may expand to (Go's bound for its own).
const MAX_SIZE: u64 = 3_355_443;
/// The most ranges all classes of a pattern may have together (2 MiB of them).
const MAX_CLASS_RANGES: usize = 1 << 18;

/// A pattern, read.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The expression. Capture groups have numbers but no names, because Go lets names repeat.
    pub(super) hir: Hir,
    /// The names of the groups: entry 0 is group 1; unnamed groups have `None`.
    pub(super) names: Vec<Option<Box<str>>>,
}

#[derive(Clone, Copy)]
struct Flags {
    fold: bool,
    multi_line: bool,
    dot_newline: bool,
    swap_greed: bool,
}

/// A finished subexpression and what limits look at.
struct Piece {
    hir: Hir,
    height: u32,
    size: u64,
    /// The largest product of nested `{n,m}` counts.
    repeat: u32,
}

impl Piece {
    fn leaf(hir: Hir) -> Self {
        Self { hir, height: 1, size: 1, repeat: 1 }
    }
}

enum Item {
    Piece(Piece),
    /// `(`: the number of the group if it captures, and the flags to restore.
    Paren(Option<u32>, Flags),
    Bar,
}

struct Parser<'p> {
    pattern: &'p [u8],
    captures: bool,
    flags: Flags,
    stack: Vec<Item>,
    names: Vec<Option<Box<str>>>,
    ranges: usize,
    fold_budget: u64,
}

/// How to read a pattern.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Keep groups in the expression; without them it is easier to optimise. Their names are read either way.
    pub(super) captures: bool,
    /// Start with `(?s)`.
    pub(super) dot_newline: bool,
}

/// Reads `pattern`.
pub(super) fn parse(pattern: &[u8], options: Options) -> Result<Parsed, SyntaxError> {
    let dot_newline = options.dot_newline;
    let mut parser = Parser {
        pattern,
        captures: options.captures,
        flags: Flags { fold: false, multi_line: false, dot_newline, swap_greed: false },
        stack: Vec::new(),
        names: Vec::new(),
        ranges: 0,
        fold_budget: MAX_FOLDED_RUNES,
    };
    parser.run()?;
    let piece = parser.close()?;
    if !parser.stack.is_empty() {
        return err(MISSING_PAREN, pattern);
    }
    Ok(Parsed { hir: piece.hir, names: parser.names })
}

impl<'p> Parser<'p> {
    fn run(&mut self) -> Result<(), SyntaxError> {
        let mut rest = self.pattern;
        // Where the repetition that ends right here began; two in a row are an error.
        let mut last_repeat: Option<&'p [u8]> = None;
        while let Some(&first) = rest.first() {
            let mut repeat = None;
            rest = match first {
                b'(' if rest.get(1) == Some(&b'?') => self.perl_group(rest)?,
                b'(' => {
                    self.open(Some(None));
                    &rest[1..]
                }
                b'|' => {
                    self.concat()?;
                    self.stack.push(Item::Bar);
                    &rest[1..]
                }
                b')' => {
                    let inner = self.close()?;
                    let Some(Item::Paren(group, flags)) = self.stack.pop() else {
                        return err(UNEXPECTED_PAREN, self.pattern);
                    };
                    self.flags = flags;
                    self.push(self.grouped(inner, group))?;
                    &rest[1..]
                }
                b'^' => {
                    self.look(if self.flags.multi_line { Look::StartLF } else { Look::Start })?;
                    &rest[1..]
                }
                b'$' => {
                    self.look(if self.flags.multi_line { Look::EndLF } else { Look::End })?;
                    &rest[1..]
                }
                b'.' => {
                    let set = if self.flags.dot_newline {
                        Set::of(&[(0, MAX_RUNE)])
                    } else {
                        Set::of(&[(0, 9), (11, MAX_RUNE)])
                    };
                    self.class(set)?;
                    &rest[1..]
                }
                b'[' => self.bracket(rest)?,
                b'*' | b'+' | b'?' => {
                    let (min, max) = match first {
                        b'*' => (0, None),
                        b'+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    repeat = Some(rest);
                    self.repeat(min, max, false, rest, &rest[1..], last_repeat)?
                }
                b'{' => match counts(rest) {
                    None => {
                        self.literal(u32::from('{'))?;
                        &rest[1..]
                    }
                    Some((range, after)) => {
                        let Some((min, max)) = range else { return err(INVALID_REPEAT_SIZE, before(rest, after)) };
                        repeat = Some(rest);
                        self.repeat(min, max, true, rest, after, last_repeat)?
                    }
                },
                b'\\' => self.backslash(rest)?,
                _ => {
                    let (c, after) = next_rune(rest)?;
                    self.literal(u32::from(c))?;
                    after
                }
            };
            last_repeat = repeat;
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece) -> Result<(), SyntaxError> {
        if piece.height > MAX_HEIGHT {
            return err(NESTS_TOO_DEEPLY, self.pattern);
        }
        if piece.size > MAX_SIZE {
            return err(TOO_LARGE, self.pattern);
        }
        self.stack.push(Item::Piece(piece));
        Ok(())
    }

    fn look(&mut self, look: Look) -> Result<(), SyntaxError> {
        self.push(Piece::leaf(Hir::look(look)))
    }

    fn class(&mut self, set: Set) -> Result<(), SyntaxError> {
        self.ranges += set.len();
        if self.ranges > MAX_CLASS_RANGES {
            return err(TOO_LARGE, self.pattern);
        }
        self.push(Piece::leaf(set.into_hir()))
    }

    fn literal(&mut self, rune: u32) -> Result<(), SyntaxError> {
        match char::from_u32(rune) {
            Some(c) if !self.flags.fold => {
                let mut buffer = [0; 4];
                self.push(Piece::leaf(Hir::literal(c.encode_utf8(&mut buffer).as_bytes())))
            }
            _ => {
                let set = self.folded(Set::of(&[(rune, rune)]))?;
                self.class(set)
            }
        }
    }

    /// The set, with case folded away if the flag says so.
    fn folded(&mut self, mut set: Set) -> Result<Set, SyntaxError> {
        if self.flags.fold && set.fold(&mut self.fold_budget).is_none() {
            return err(TOO_LARGE, self.pattern);
        }
        Ok(set)
    }

    /// A named set of Go's syntax: folded first, then negated.
    fn group(&mut self, set: Set, negated: bool) -> Result<Set, SyntaxError> {
        let mut set = self.folded(set)?;
        if negated {
            set.negate();
        }
        Ok(set)
    }

    /// `(`; `Some(name)` if it captures.
    fn open(&mut self, capture: Option<Option<Box<str>>>) {
        let group = capture.map(|name| {
            self.names.push(name);
            u32::try_from(self.names.len()).unwrap_or(u32::MAX)
        });
        self.stack.push(Item::Paren(group, self.flags));
    }

    fn grouped(&self, inner: Piece, group: Option<u32>) -> Piece {
        let Some(index) = group else { return inner };
        let hir = if self.captures {
            Hir::capture(Capture { index, name: None, sub: Box::new(inner.hir) })
        } else {
            inner.hir
        };
        Piece { hir, height: inner.height + 1, size: inner.size + 2, repeat: inner.repeat }
    }

    /// Joins the pieces on top of the stack, down to a bar or a parenthesis, into one.
    fn concat(&mut self) -> Result<(), SyntaxError> {
        let start = self.stack.iter().rposition(|i| !matches!(i, Item::Piece(_))).map_or(0, |at| at + 1);
        let pieces = self.stack.drain(start..).filter_map(|i| match i {
            Item::Piece(p) => Some(p),
            _ => None,
        });
        let joined = join(pieces.collect(), Hir::concat);
        self.push(joined)
    }

    /// Ends an alternation: joins its branches, down to a parenthesis, into one piece that is returned, not pushed.
    fn close(&mut self) -> Result<Piece, SyntaxError> {
        self.concat()?;
        let start = self.stack.iter().rposition(|i| matches!(i, Item::Paren(..))).map_or(0, |at| at + 1);
        let branches: Vec<Piece> = self
            .stack
            .drain(start..)
            .filter_map(|i| match i {
                Item::Piece(p) => Some(p),
                _ => None,
            })
            .collect();
        let extra = branches.len().saturating_sub(1) as u64;
        let mut joined = join(branches, Hir::alternation);
        joined.size += extra;
        if joined.height > MAX_HEIGHT {
            return err(NESTS_TOO_DEEPLY, self.pattern);
        }
        Ok(joined)
    }

    /// Repeats the piece on top. `from` starts at the operator, `after` follows it; answers what follows a lazy `?`.
    fn repeat(
        &mut self,
        min: u32,
        max: Option<u32>,
        counted: bool,
        from: &'p [u8],
        after: &'p [u8],
        last: Option<&'p [u8]>,
    ) -> Result<&'p [u8], SyntaxError> {
        let (greedy, after) = match after {
            [b'?', rest @ ..] => (self.flags.swap_greed, rest),
            _ => (!self.flags.swap_greed, after),
        };
        if let Some(last) = last {
            return err(INVALID_REPEAT_OP, before(last, after));
        }
        let Some(Item::Piece(_)) = self.stack.last() else { return err(MISSING_ARGUMENT, before(from, after)) };
        let Some(Item::Piece(sub)) = self.stack.pop() else { return err(MISSING_ARGUMENT, before(from, after)) };
        let mut product = sub.repeat;
        if counted {
            let factor = max.unwrap_or(min);
            product = if max == Some(0) { 1 } else { sub.repeat.saturating_mul(factor.max(1)) };
            if (min >= 2 || max.is_some_and(|m| m >= 2)) && product > MAX_REPEAT {
                return err(INVALID_REPEAT_SIZE, before(from, after));
            }
        }
        let size = match max {
            None if min == 0 => sub.size.saturating_add(2),
            None => sub.size.saturating_mul(u64::from(min)).saturating_add(1),
            Some(max) => sub.size.saturating_mul(u64::from(max)).saturating_add(u64::from(max.saturating_sub(min))),
        };
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(sub.hir) });
        self.push(Piece { hir, height: sub.height + 1, size: size.max(1), repeat: product })?;
        Ok(after)
    }

    /// `(?P<name>`, `(?<name>`, `(?flags)` and `(?flags:`; `text` starts at the parenthesis.
    fn perl_group(&mut self, text: &'p [u8]) -> Result<&'p [u8], SyntaxError> {
        let name_at = match text {
            [b'(', b'?', b'P', b'<', _, ..] => Some(4),
            [b'(', b'?', b'<', _, ..] => Some(3),
            _ => None,
        };
        if let Some(name_at) = name_at {
            let Some(end) = text.iter().position(|&b| b == b'>') else {
                check_utf8(text)?;
                return err(INVALID_NAMED_CAPTURE, text);
            };
            let name = text.get(name_at..end).unwrap_or_default();
            check_utf8(name)?;
            if name.is_empty() || !name.iter().all(|&b| b == b'_' || b.is_ascii_alphanumeric()) {
                return err(INVALID_NAMED_CAPTURE, &text[..=end]);
            }
            self.open(Some(Some(String::from_utf8_lossy(name).into())));
            return Ok(&text[end + 1..]);
        }
        let mut flags = self.flags;
        let (mut negative, mut seen) = (false, false);
        let mut rest = &text[2..];
        while !rest.is_empty() {
            let (c, after) = next_rune(rest)?;
            rest = after;
            let on = !negative;
            match c {
                'i' => (flags.fold, seen) = (on, true),
                'm' => (flags.multi_line, seen) = (on, true),
                's' => (flags.dot_newline, seen) = (on, true),
                'U' => (flags.swap_greed, seen) = (on, true),
                '-' if !negative => (negative, seen) = (true, false),
                ':' | ')' if !negative || seen => {
                    if c == ':' {
                        self.open(None);
                    }
                    self.flags = flags;
                    return Ok(rest);
                }
                _ => break,
            }
        }
        err(INVALID_PERL, before(text, rest))
    }

    /// An escape outside of brackets.
    fn backslash(&mut self, text: &'p [u8]) -> Result<&'p [u8], SyntaxError> {
        if let [_, letter, rest @ ..] = text {
            let look = match letter {
                b'A' => Some(Look::Start),
                b'z' => Some(Look::End),
                b'b' => Some(Look::WordAscii),
                b'B' => Some(Look::WordAsciiNegate),
                _ => None,
            };
            if let Some(look) = look {
                self.look(look)?;
                return Ok(rest);
            }
            match letter {
                b'C' => return err(INVALID_ESCAPE, &text[..2]),
                b'Q' => {
                    let (mut quoted, rest) = match memchr::memmem::find(rest, b"\\E") {
                        Some(at) => (&rest[..at], &rest[at + 2..]),
                        None => (rest, &rest[rest.len()..]),
                    };
                    while !quoted.is_empty() {
                        let (c, after) = next_rune(quoted)?;
                        self.literal(u32::from(c))?;
                        quoted = after;
                    }
                    return Ok(rest);
                }
                _ => {}
            }
        }
        if let Some((set, rest)) = self.class_escape(text)? {
            self.class(set)?;
            return Ok(rest);
        }
        let (rune, rest) = escape(text)?;
        self.literal(rune)?;
        Ok(rest)
    }

    /// `\pN`, `\p{Name}`, `\d` and the like, inside or outside of brackets; `None` if it is another escape.
    fn class_escape<'t>(&mut self, text: &'t [u8]) -> Result<Option<(Set, &'t [u8])>, SyntaxError> {
        let [b'\\', letter, rest @ ..] = text else { return Ok(None) };
        if !matches!(letter, b'p' | b'P') {
            let Some((set, negated)) = class::perl(*letter) else { return Ok(None) };
            return Ok(Some((self.group(Set::of(set), negated)?, rest)));
        }
        let (c, after) = next_rune(rest)?;
        let (sequence, name, after) = if c == '{' {
            let Some(end) = text.iter().position(|&b| b == b'}') else {
                check_utf8(text)?;
                return err(INVALID_CLASS_RANGE, text);
            };
            let name = text.get(3..end).unwrap_or_default();
            check_utf8(name)?;
            (&text[..=end], name, &text[end + 1..])
        } else {
            let sequence = before(text, after);
            (sequence, &sequence[2..], after)
        };
        let (name, caret) = match name {
            [b'^', name @ ..] => (name, true),
            _ => (name, false),
        };
        let Some(set) = std::str::from_utf8(name).ok().and_then(class::unicode) else {
            return err(INVALID_CLASS_RANGE, sequence);
        };
        Ok(Some((self.group(set, (*letter == b'P') != caret)?, after)))
    }

    /// `[…]`; `text` starts at the bracket.
    fn bracket(&mut self, text: &'p [u8]) -> Result<&'p [u8], SyntaxError> {
        let (negated, mut rest) = match text {
            [_, b'^', rest @ ..] => (true, rest),
            _ => (false, &text[1..]),
        };
        let mut set = Set::default();
        let mut first = true;
        while first || rest.first() != Some(&b']') {
            first = false;
            if set.len() > MAX_CLASS_RANGES {
                return err(TOO_LARGE, self.pattern);
            }
            if let [b'[', b':', inner @ ..] = rest
                && let Some(end) = memchr::memmem::find(inner, b":]")
            {
                let Some((ranges, negated)) = class::posix(&inner[..end]) else {
                    return err(INVALID_CLASS_RANGE, &rest[..end + 4]);
                };
                set.union(&self.group(Set::of(ranges), negated)?);
                rest = &inner[end + 2..];
                continue;
            }
            if let Some((named, after)) = self.class_escape(rest)? {
                set.union(&named);
                rest = after;
                continue;
            }
            let range = rest;
            let (low, after) = class_rune(rest, text)?;
            rest = after;
            let mut high = low;
            if let [b'-', next, ..] = rest
                && *next != b']'
            {
                (high, rest) = class_rune(&rest[1..], text)?;
                if high < low {
                    return err(INVALID_CLASS_RANGE, before(range, rest));
                }
            }
            if self.flags.fold {
                set.union(&self.folded(Set::of(&[(low, high)]))?);
            } else {
                set.add(low, high);
            }
        }
        if negated {
            set.negate();
        }
        self.class(set)?;
        Ok(&rest[1..])
    }
}

fn join(mut pieces: Vec<Piece>, with: fn(Vec<Hir>) -> Hir) -> Piece {
    if pieces.len() == 1
        && let Some(only) = pieces.pop()
    {
        return only;
    }
    let mut joined = Piece { hir: Hir::empty(), height: 0, size: 0, repeat: 1 };
    let mut subs = Vec::with_capacity(pieces.len());
    for piece in pieces {
        joined.height = joined.height.max(piece.height);
        joined.size = joined.size.saturating_add(piece.size);
        joined.repeat = joined.repeat.max(piece.repeat);
        subs.push(piece.hir);
    }
    joined.height += 1;
    joined.size = joined.size.max(1);
    joined.hir = with(subs);
    joined
}
