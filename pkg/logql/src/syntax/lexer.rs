//! Text → tokens.
//!
//! Invariants:
//! * the last token is [`Kind::End`], and it is the only one of its kind. A literal that cannot be read also ends the text:
//!   what follows it is never looked at;
//! * the decision between a number, a duration and a size is made once, from the longest run of characters that could
//!   continue the number: there is no second try with a shorter run;
//! * a token that needed characters beyond itself has line 0 (see [`super::scan`]).

use super::scan::{Scanned, Scanner};
use super::token::{self, Fault, Kind, Token, Value};
use crate::go::{bytes, duration, quote, unicode};

/// The most characters that may follow a number or a `-` and be looked at as part of it. They are looked at again for the next
/// token if they turn out to be something else, so that without a bound the work would grow with the square of the length.
const MAX_RUN: usize = 256;

/// All tokens of a query.
pub(crate) fn tokens(query: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { scanner: Scanner::new(query) };
    let mut tokens = Vec::new();
    loop {
        let (kind, text, value) = lexer.next();
        let fault: Option<Fault> = lexer.scanner.fault.take();
        let (line, col) = (lexer.scanner.token_line, lexer.scanner.token_column);
        tokens.push(Token { kind, text, value, line, col, fault });
        if kind == Kind::End {
            return tokens;
        }
    }
}

struct Lexer<'a> {
    scanner: Scanner<'a>,
}

type Read<'a> = (Kind, &'a str, Value);

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Read<'a> {
        loop {
            let scanned = self.scanner.scan();
            let text = self.scanner.token_text();
            return match scanned {
                Scanned::End => (Kind::End, "", Value::None),
                Scanned::Other('#') => {
                    self.skip_comment();
                    continue;
                }
                Scanned::Name => (self.word(text), text, Value::None),
                Scanned::Char => (Kind::Identifier, text, Value::None),
                Scanned::Number => self.number(text),
                Scanned::Quoted => match quote::unquote(text.as_bytes()) {
                    Some(value) => (Kind::String, text, Value::Text(value)),
                    None => self.broken("invalid syntax"),
                },
                // Unlike Go, LogQL keeps the carriage returns of a raw string.
                Scanned::Raw => match text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
                    Some(value) => (Kind::String, text, Value::Text(value.into())),
                    None => self.broken("invalid syntax"),
                },
                Scanned::Other('[') => self.range(),
                Scanned::Other('-') => self.minus(text),
                Scanned::Other(c) => self.operator(c, text),
            };
        }
    }

    /// A token that cannot be read ends the text.
    fn broken(&mut self, msg: impl Into<String>) -> Read<'a> {
        self.scanner.complain(msg);
        (Kind::End, "", Value::None)
    }

    fn skip_comment(&mut self) {
        let mut c = self.scanner.peek();
        while c.is_some_and(|c| c != '\n') {
            c = self.scanner.skip();
        }
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.scanner.skip();
        }
    }

    fn word(&self, text: &str) -> Kind {
        let lower: String = text.chars().map(unicode::to_lower).collect();
        match token::function(&lower) {
            Some(kind) if arguments_follow(self.scanner.rest()) => kind,
            Some(_) => Kind::Identifier,
            None => token::keyword(&lower).unwrap_or(Kind::Identifier),
        }
    }

    fn operator(&mut self, first: char, text: &'a str) -> Read<'a> {
        if let Some(kind) = self.scanner.peek().and_then(|second| token::long_operator(first, second)) {
            self.scanner.skip();
            return (kind, self.scanner.token_text(), Value::None);
        }
        (token::short_operator(first).unwrap_or(Kind::Identifier), text, Value::None)
    }

    fn number(&mut self, text: &'a str) -> Read<'a> {
        let rest = self.scanner.rest();
        let run = run(rest, in_duration);
        if !run.is_empty() {
            let whole = format!("{text}{run}");
            if let Some(nanos) = any_duration(&whole) {
                return self.longer(Kind::Duration, run, Value::Nanos(nanos));
            }
        }
        let run = self::run(rest, in_size);
        if !run.is_empty()
            && let Ok(size) = bytes::parse_humanize(&format!("{text}{run}"))
        {
            return self.longer(Kind::Bytes, run, Value::Size(size));
        }
        (Kind::Number, text, Value::None)
    }

    /// A token that goes on over `run`.
    fn longer(&mut self, kind: Kind, run: &str, value: Value) -> Read<'a> {
        self.skip(run.chars().count());
        (kind, self.scanner.token_text(), value)
    }

    fn minus(&mut self, text: &'a str) -> Read<'a> {
        let rest = self.scanner.rest();
        if rest.starts_with('-') {
            let flag = run(rest, |c| c == '-' || unicode::is_letter(c));
            if matches!(flag, "-strict" | "-keep-empty") {
                return self.longer(Kind::FunctionFlag, flag, Value::None);
            }
        }
        let run = run(rest, in_duration);
        if !run.is_empty()
            && let Some(nanos) = any_duration(&format!("-{run}"))
        {
            return self.longer(Kind::Duration, run, Value::Nanos(nanos));
        }
        self.operator('-', text)
    }

    fn range(&mut self) -> Read<'a> {
        let rest = self.scanner.rest();
        let Some(inside) = rest.find(']').map(|end| &rest[..end]) else {
            self.skip(rest.chars().count());
            return self.broken("missing closing ']' in duration");
        };
        self.skip(inside.chars().count() + 1);
        match duration::parse_prometheus(inside) {
            Ok(range) => {
                let nanos = i64::try_from(range.as_nanos()).unwrap_or(i64::MAX);
                (Kind::Range, self.scanner.token_text(), Value::Nanos(nanos))
            }
            Err(msg) => self.broken(msg),
        }
    }
}

/// The longest prefix of characters that `belongs` accepts; nothing if it is longer than [`MAX_RUN`].
fn run(text: &str, belongs: impl Fn(char) -> bool) -> &str {
    match text.char_indices().take(MAX_RUN + 1).find(|(_, c)| !belongs(*c)) {
        Some((end, _)) => &text[..end],
        None if text.len() <= MAX_RUN => text,
        None => "",
    }
}

fn in_duration(c: char) -> bool {
    matches!(c, '.' | 'n' | 'u' | 'µ' | 'm' | 's' | 'h' | 'd' | 'w' | 'y') || unicode::is_number(c)
}

fn in_size(c: char) -> bool {
    matches!(c, '.' | 'B' | 'i' | 'k' | 'K' | 'M' | 'G' | 'T' | 'P') || unicode::is_number(c)
}

fn any_duration(text: &str) -> Option<i64> {
    let prometheus = duration::parse_prometheus(text).ok().and_then(|d| i64::try_from(d.as_nanos()).ok());
    prometheus.or_else(|| duration::parse_go(text).ok())
}

/// Whether `(`, `by (` or `without (` comes next, which makes a function of a name.
fn arguments_follow(rest: &str) -> bool {
    let rest = rest.trim_start_matches(unicode::is_space);
    let after = |word: &str| {
        let head = rest.get(..word.len())?;
        head.eq_ignore_ascii_case(word).then(|| &rest[word.len()..])
    };
    rest.starts_with('(')
        || after("by")
            .or_else(|| after("without"))
            .is_some_and(|rest| rest.trim_start_matches(unicode::is_space).starts_with('('))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(query: &str) -> String {
        let names: Vec<_> = tokens(query).iter().map(|t| t.kind.name()).collect();
        names.join(" ")
    }

    fn fault(query: &str) -> Option<(u32, u32, String)> {
        tokens(query).into_iter().find_map(|t| t.fault).map(|f| (f.line, f.col, f.msg))
    }

    fn positions(query: &str) -> Vec<(u32, u32)> {
        tokens(query).iter().map(|t| (t.line, t.col)).collect()
    }

    #[test]
    fn numbers_durations_and_sizes() {
        for (text, expected) in [
            ("1.5 .5 1. 1e3 0x1p4 1_0", "NUMBER NUMBER NUMBER NUMBER NUMBER NUMBER"),
            ("1d12h 1w 1.5h 1h0.0m0s .5s 0s", "DURATION DURATION DURATION DURATION DURATION DURATION"),
            ("10B 10k 10KiB 1.5G 1P", "BYTES BYTES BYTES BYTES BYTES"),
            ("5min", "DURATION IDENTIFIER"),
            ("1h30", "NUMBER IDENTIFIER"),
            ("1.5d", "NUMBER IDENTIFIER"),
            ("1e3B", "NUMBER IDENTIFIER"),
            ("10kb", "BYTES IDENTIFIER"),
            ("1 -0", "NUMBER DURATION"),
            ("1 - 0", "NUMBER - NUMBER"),
            ("-5m -1h30m -1w -5kB", "DURATION DURATION - DURATION - BYTES"),
            ("1--1", "NUMBER - - NUMBER"),
        ] {
            assert_eq!(kinds(text), format!("{expected} $end"), "{text}");
        }
    }

    #[test]
    fn words_are_functions_only_before_their_arguments() {
        for (text, expected) in [
            ("sum(", "SUM ("),
            ("Sum \n BY \t (", "SUM by ("),
            ("sum without(", "SUM without ("),
            ("sum by sum", "IDENTIFIER by IDENTIFIER"),
            ("sum /* c */ (", "IDENTIFIER ("),
            ("rate rate_counter", "IDENTIFIER IDENTIFIER"),
            ("JSON unwrap ip ip(", "json unwrap IDENTIFIER ip ("),
            ("bytes( duration (", "BYTES_CONV ( DURATION_CONV ("),
            ("by without or", "by without or"),
            ("variants of distinct", "IDENTIFIER IDENTIFIER IDENTIFIER"),
        ] {
            assert_eq!(kinds(text), format!("{expected} $end"), "{text}");
        }
    }

    #[test]
    fn operators_flags_and_odd_characters() {
        assert_eq!(kinds("|= |~ |> != !~ !> =~ == >= <="), "|= |~ |> != !~ !> =~ == >= <= $end");
        assert_eq!(kinds("{ } ( ) , . = | + * / % ^ < > ]"), "{ } ( ) , . = | + * / % ^ < > ] $end");
        assert_eq!(kinds("& ! ~ 'x' é _a"), "IDENTIFIER IDENTIFIER IDENTIFIER IDENTIFIER IDENTIFIER IDENTIFIER $end");
        assert_eq!(kinds("--strict --keep-empty"), "FUNCTION_FLAG FUNCTION_FLAG $end");
        assert_eq!(
            kinds("--strict-x --Strict - -strict"),
            "- - IDENTIFIER - IDENTIFIER - - IDENTIFIER - - IDENTIFIER $end"
        );
    }

    #[test]
    fn strings_are_bytes() {
        let value = |text| tokens(text)[0].bytes().to_vec();
        assert_eq!(value(r#""a\n\x41\101\u00e9\xff""#), b"a\nAA\xc3\xa9\xff");
        assert_eq!(value("`a\\n\r\nb`"), b"a\\n\r\nb");
        assert_eq!(value("\"# // not a comment\""), b"# // not a comment");
    }

    #[test]
    fn comments_vanish() {
        assert_eq!(kinds("a # b\n c // d\n e /* f\n g */ h"), "IDENTIFIER IDENTIFIER IDENTIFIER IDENTIFIER $end");
        assert_eq!(fault("a /* b"), Some((1, 3, "comment not terminated".into())));
    }

    #[test]
    fn complaints() {
        for (text, col, msg) in [
            ("1e", 1, "exponent has no digits"),
            (" 10EB", 2, "exponent has no digits"),
            ("1__0", 1, "'_' must separate successive digits"),
            ("08", 1, "invalid digit '8' in octal literal"),
            ("0b2", 1, "invalid digit '2' in binary literal"),
            ("0x1.8", 1, "hexadecimal mantissa requires a 'p' exponent"),
            ("0x", 1, "hexadecimal literal has no digits"),
            ("1 0B", 3, "decimal literal has no digits"),
            ("'ab'", 1, "invalid char literal"),
            ("x \"a\nb\"", 3, "literal not terminated"),
            ("`a", 1, "literal not terminated"),
            (r#""\q""#, 1, "invalid char escape"),
            (r#""\400""#, 1, "invalid syntax"),
            ("ab\0", 1, "invalid character NUL"),
        ] {
            assert_eq!(fault(text), Some((1, col, msg.into())), "{text:?}");
        }
        assert_eq!(fault("x[5q]"), Some((0, 2, "unknown unit \"q\" in duration \"5q\"".into())));
        assert_eq!(fault("x[5m"), Some((0, 2, "missing closing ']' in duration".into())));
        assert_eq!(fault("00B 0.0B 0KB 08.5"), None);
    }

    #[test]
    fn positions_count_characters_and_lines() {
        assert_eq!(positions(""), [(0, 0)]);
        assert_eq!(positions(" "), [(1, 2)]);
        assert_eq!(positions("a\n  b\n"), [(1, 1), (2, 3), (3, 1)]);
        assert_eq!(positions("\u{feff}é ü"), [(1, 2), (1, 4), (1, 5)]);
        // Whatever took more than one character to decide has no line.
        assert_eq!(positions("5m 1k [1m] != --strict x"), [(0, 1), (0, 4), (0, 7), (0, 12), (0, 15), (1, 24), (1, 25)]);
    }
}
