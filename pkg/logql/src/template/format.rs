//! Go's package `fmt` for the values of templates: `%v` and the verbs of `printf`.

use std::fmt::Write as _;

use super::format_number::{float, integer};
use super::value::{IntKind, Value};
use crate::go::duration;
use crate::go::quote::{quote, quote_ascii};
use crate::go::time::{MONTHS, WEEKDAYS};
use crate::go::unicode::{self, push, runes};

/// The largest width, precision or argument index, as in Go.
const MAX_WIDTH: i64 = 1_000_000;

/// Looks up labels for printing them as a map.
pub(super) type EachLabel<'l> = dyn Fn(&mut dyn FnMut(&[u8], &[u8])) + 'l;

/// Writes values in Go's notations.
pub(super) struct Printer<'l> {
    labels: &'l EachLabel<'l>,
}

/// The flags of one `%…`.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) width: Option<usize>,
    pub(super) precision: Option<usize>,
    pub(super) minus: bool,
    pub(super) plus: bool,
    pub(super) sharp: bool,
    pub(super) space: bool,
    pub(super) zero: bool,
    /// `%#v`
    pub(super) go_syntax: bool,
}

impl<'l> Printer<'l> {
    /// `labels` visits all labels, in any order.
    pub(super) fn new(labels: &'l EachLabel<'l>) -> Self {
        Self { labels }
    }

    /// `%v`
    pub(super) fn value(&self, value: &Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::Text(text) => out.extend_from_slice(text),
            _ => self.verb(value, 'v', Flags::default(), out),
        }
    }

    /// `fmt.Sprint`: spaces only between operands that are both no strings.
    pub(super) fn print<'v, 'a: 'v>(&self, values: impl Iterator<Item = &'v Value<'a>>, out: &mut Vec<u8>) {
        let mut last_was_text = true;
        for (i, value) in values.enumerate() {
            let is_text = matches!(value, Value::Text(_));
            if i > 0 && !is_text && !last_was_text {
                out.push(b' ');
            }
            self.value(value, out);
            last_was_text = is_text;
        }
    }

    /// `fmt.Sprintf`. Stops when `out` is longer than `limit`.
    pub(super) fn printf(&self, format: &[u8], args: &[&Value<'_>], limit: usize, out: &mut Vec<u8>) {
        let mut rest = format;
        let mut next = 0;
        let mut reordered = false;
        while !rest.is_empty() && out.len() <= limit {
            let percent = memchr::memchr(b'%', rest).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..percent]);
            rest = &rest[percent..];
            if rest.is_empty() {
                break;
            }
            rest = &rest[1..];
            let mut directive =
                Directive { rest, next, args, flags: Flags::default(), good_index: true, reordered: false };
            directive.parse(out);
            reordered |= directive.reordered;
            let Some((verb, len)) = unicode::decode(directive.rest) else {
                out.extend_from_slice(b"%!(NOVERB)");
                return self.extra(args, directive.next, reordered, out);
            };
            rest = &directive.rest[len..];
            next = directive.next;
            let mut flags = directive.flags;
            if verb == '%' {
                out.push(b'%');
            } else if !directive.good_index {
                bad(verb, "BADINDEX", out);
            } else if let Some(value) = args.get(next) {
                next += 1;
                if verb == 'v' {
                    // Both flags mean something else to structures, which there are none of.
                    flags.go_syntax = std::mem::take(&mut flags.sharp);
                    flags.plus = false;
                }
                self.verb(value, verb, flags, out);
            } else {
                bad(verb, "MISSING", out);
            }
        }
        self.extra(args, next, reordered, out);
    }

    fn extra(&self, args: &[&Value<'_>], next: usize, reordered: bool, out: &mut Vec<u8>) {
        let left = args.get(next..).unwrap_or_default();
        if reordered || left.is_empty() {
            return;
        }
        out.extend_from_slice(b"%!(EXTRA ");
        for (i, value) in left.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            self.typed(value, out);
        }
        out.push(b')');
    }

    /// `type=value`
    fn typed(&self, value: &Value<'_>, out: &mut Vec<u8>) {
        if !matches!(value, Value::Nil) {
            out.extend_from_slice(value.type_name().as_bytes());
            out.push(b'=');
        }
        self.value(value, out);
    }

    fn bad_verb(&self, value: &Value<'_>, verb: char, out: &mut Vec<u8>) {
        out.extend_from_slice(b"%!");
        push(out, verb);
        out.push(b'(');
        self.typed(value, out);
        out.push(b')');
    }

    fn verb(&self, value: &Value<'_>, verb: char, flags: Flags, out: &mut Vec<u8>) {
        if verb == 'T' {
            return text(value.type_name().as_bytes(), 's', flags, out);
        }
        if verb == 'p' {
            return self.bad_verb(value, verb, out);
        }
        if let (Some(shown), 'v' | 's' | 'x' | 'X' | 'q') = (stringer(value), verb)
            && !flags.go_syntax
        {
            return text(shown.as_bytes(), verb, flags, out);
        }
        match value {
            Value::Nil if verb == 'v' => text(b"<nil>", 's', flags, out),
            Value::Bool(b) if matches!(verb, 'v' | 't') => pad(if *b { b"true" } else { b"false" }, flags, out),
            Value::Int(kind, n) => {
                if !integer(*n, *kind != IntKind::Uint8, verb, flags, out) {
                    self.bad_verb(value, verb, out);
                }
            }
            Value::Float(f) => {
                if !float(*f, verb, flags, out) {
                    self.bad_verb(value, verb, out);
                }
            }
            Value::Text(bytes) if matches!(verb, 'v' | 's' | 'x' | 'X' | 'q') => {
                let verb = if flags.go_syntax { 'q' } else { verb };
                text(bytes, verb, flags, out);
            }
            Value::List(items) => {
                let (open, separator, close): (&[u8], &[u8], &[u8]) =
                    if flags.go_syntax { (b"[]interface {}{", b", ", b"}") } else { (b"[", b" ", b"]") };
                out.extend_from_slice(open);
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.extend_from_slice(separator);
                    }
                    self.element(item, verb, flags, out);
                }
                out.extend_from_slice(close);
            }
            Value::Map(map) => {
                self.map(value, verb, flags, map.iter().map(|(k, v)| (&**k, v)), out);
            }
            Value::Labels => {
                let mut pairs = std::collections::BTreeMap::new();
                (self.labels)(&mut |name, text| {
                    pairs.insert(name.to_vec(), text.to_vec());
                });
                let values: Vec<_> = pairs.iter().map(|(k, v)| (&k[..], Value::borrowed(v))).collect();
                self.map(value, verb, flags, values.iter().map(|(k, v)| (*k, v)), out);
            }
            _ => self.bad_verb(value, verb, out),
        }
    }

    fn map<'v, 'a: 'v>(
        &self,
        value: &Value<'_>,
        verb: char,
        flags: Flags,
        pairs: impl Iterator<Item = (&'v [u8], &'v Value<'a>)>,
        out: &mut Vec<u8>,
    ) {
        if flags.go_syntax {
            out.extend_from_slice(value.type_name().as_bytes());
            out.push(b'{');
        } else {
            out.extend_from_slice(b"map[");
        }
        for (i, (name, element)) in pairs.enumerate() {
            if i > 0 {
                out.extend_from_slice(if flags.go_syntax { b", " } else { b" " });
            }
            self.verb(&Value::borrowed(name), verb, flags, out);
            out.push(b':');
            self.element(element, verb, flags, out);
        }
        out.push(if flags.go_syntax { b'}' } else { b']' });
    }

    fn element(&self, element: &Value<'_>, verb: char, flags: Flags, out: &mut Vec<u8>) {
        match element {
            Value::Nil if flags.go_syntax => out.extend_from_slice(b"interface {}(nil)"),
            // A nil inside is shown as such, whatever the verb.
            Value::Nil => out.extend_from_slice(b"<nil>"),
            _ => self.verb(element, verb, flags, out),
        }
    }
}

/// What the `String` method of the types that have one answers.
fn stringer(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Time(time) => Some(time.text()),
        Value::Int(IntKind::Duration, n) => Some(duration::format_go(*n)),
        Value::Int(IntKind::Month, n) => Some(
            usize::try_from(*n - 1)
                .ok()
                .and_then(|n| MONTHS.get(n))
                .map_or_else(|| format!("%!Month({n})"), |name| (*name).to_owned()),
        ),
        Value::Int(IntKind::Weekday, n) => Some(
            usize::try_from(*n)
                .ok()
                .and_then(|n| WEEKDAYS.get(n))
                .map_or_else(|| format!("%!Weekday({n})"), |name| (*name).to_owned()),
        ),
        _ => None,
    }
}

fn bad(verb: char, what: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"%!");
    push(out, verb);
    out.push(b'(');
    out.extend_from_slice(what.as_bytes());
    out.push(b')');
}

/// One `%…` while it is read.
struct Directive<'f, 'v, 'a> {
    rest: &'f [u8],
    next: usize,
    args: &'f [&'v Value<'a>],
    flags: Flags,
    good_index: bool,
    reordered: bool,
}

impl Directive<'_, '_, '_> {
    /// Reads flags, width, precision and argument indexes; the verb is left.
    fn parse(&mut self, out: &mut Vec<u8>) {
        while let Some(&flag) = self.rest.first() {
            match flag {
                b'#' => self.flags.sharp = true,
                b'0' => self.flags.zero = true,
                b'+' => self.flags.plus = true,
                b'-' => self.flags.minus = true,
                b' ' => self.flags.space = true,
                _ => break,
            }
            self.rest = &self.rest[1..];
        }
        let mut after_index = self.index();
        if self.rest.first() == Some(&b'*') {
            self.rest = &self.rest[1..];
            match self.int_arg() {
                None => out.extend_from_slice(b"%!(BADWIDTH)"),
                Some(width) => {
                    self.flags.minus |= width < 0;
                    self.flags.width = Some(width.unsigned_abs() as usize);
                }
            }
            after_index = false;
        } else if let Some(width) = self.number() {
            self.flags.width = Some(width);
            if after_index {
                self.good_index = false;
            }
        }
        if self.rest.first() == Some(&b'.') {
            self.rest = &self.rest[1..];
            if after_index {
                self.good_index = false;
            }
            after_index = self.index();
            if self.rest.first() == Some(&b'*') {
                self.rest = &self.rest[1..];
                match self.int_arg() {
                    None => out.extend_from_slice(b"%!(BADPREC)"),
                    Some(precision) => self.flags.precision = usize::try_from(precision).ok(),
                }
                after_index = false;
            } else {
                self.flags.precision = Some(self.number().unwrap_or(0));
            }
        }
        if !after_index {
            self.index();
        }
    }

    /// `[n]`; answers whether it was there.
    fn index(&mut self) -> bool {
        let Some(inner) = self.rest.strip_prefix(b"[") else { return false };
        self.reordered = true;
        let Some(end) = memchr::memchr(b']', inner) else {
            self.good_index = false;
            self.rest = inner;
            return false;
        };
        self.rest = &inner[end + 1..];
        match crate::go::number::atoi(&inner[..end]).ok().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=self.args.len()).contains(&n) => {
                self.next = n - 1;
                true
            }
            _ => {
                self.good_index = false;
                false
            }
        }
    }

    fn number(&mut self) -> Option<usize> {
        let len = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 {
            return None;
        }
        let (digits, rest) = self.rest.split_at(len);
        let value = digits.iter().fold(0i64, |n, b| (n * 10 + i64::from(b - b'0')).min(MAX_WIDTH + 1));
        self.rest = rest;
        // Go gives up on the rest of the directive; nobody relies on what that prints.
        (value <= MAX_WIDTH).then_some(value as usize)
    }

    fn int_arg(&mut self) -> Option<i64> {
        let value = self.args.get(self.next)?;
        self.next += 1;
        match value {
            Value::Int(_, n) if n.abs() <= MAX_WIDTH => Some(*n),
            _ => None,
        }
    }
}

/// Pads to the width, counted in runes.
pub(super) fn pad(bytes: &[u8], flags: Flags, out: &mut Vec<u8>) {
    let len = if flags.width.is_some() { runes(bytes).count() } else { 0 };
    let missing = flags.width.unwrap_or(0).saturating_sub(len);
    if flags.minus {
        out.extend_from_slice(bytes);
        out.resize(out.len() + missing, b' ');
    } else {
        out.resize(out.len() + missing, if flags.zero { b'0' } else { b' ' });
        out.extend_from_slice(bytes);
    }
}

fn text(bytes: &[u8], verb: char, flags: Flags, out: &mut Vec<u8>) {
    match verb {
        'x' | 'X' => {
            let bytes = &bytes[..flags.precision.unwrap_or(bytes.len()).min(bytes.len())];
            let mut shown = String::with_capacity(bytes.len() * 2);
            for (i, b) in bytes.iter().enumerate() {
                if flags.space && i > 0 {
                    shown.push(' ');
                }
                if flags.sharp && (i == 0 || flags.space) {
                    shown.push_str(if verb == 'x' { "0x" } else { "0X" });
                }
                let _ = if verb == 'x' { write!(shown, "{b:02x}") } else { write!(shown, "{b:02X}") };
            }
            pad(shown.as_bytes(), flags, out);
        }
        _ => {
            let end = flags.precision.and_then(|n| runes(bytes).nth(n)).map_or(bytes.len(), |(at, _, _)| at);
            let bytes = &bytes[..end];
            if verb != 'q' {
                return pad(bytes, flags, out);
            }
            let raw = flags.sharp && std::str::from_utf8(bytes).is_ok_and(can_backquote);
            let quoted = if raw {
                format!("`{}`", String::from_utf8_lossy(bytes))
            } else if flags.plus {
                quote_ascii(bytes)
            } else {
                quote(bytes)
            };
            pad(quoted.as_bytes(), flags, out);
        }
    }
}

fn can_backquote(text: &str) -> bool {
    text.chars().all(|c| (c >= ' ' || c == '\t') && c != '`' && c != '\u{7f}' && c != '\u{feff}')
}
