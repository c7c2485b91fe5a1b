//! Where the tokens of a line are, and what of the line is its shape.
//!
//! Invariants; that a mined pattern fits every line it was mined from rests on them:
//! * A token is not empty, and between two tokens there is at least one separator.
//! * What follows a token, up to the next one, is found first where the token ends: hard separators are in no token; a soft one
//!   begins a stretch of separators only if a hard one follows it, and one inside a token is never followed by a hard one.
//! * Lines of equal shape have equal separators and equal keys in equal places, and as many tokens.
//! * Only so much of a line is looked at; what comes after is open, not empty, and begins behind a separator or with the line.

use crate::syntax::pattern_expr::capture_at;

/// Bytes of a line that are looked at.
const MAX_BYTES: usize = 4096;

/// Tokens of a line that are looked at.
pub(super) const MAX_TOKENS: usize = 128;

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 64;

/// Tokens among which a line says its level, if it begins with a header.
const MAX_HEADER: usize = 16;

/// What names a level at the end of a header.
const LEVELS: [&[u8]; 21] = [
    b"trace",
    b"debug",
    b"info",
    b"notice",
    b"warn",
    b"warning",
    b"error",
    b"err",
    b"severe",
    b"fatal",
    b"critical",
    b"crit",
    b"alert",
    b"emerg",
    b"panic",
    b"v",
    b"d",
    b"i",
    b"w",
    b"e",
    b"f",
];

/// Stands in a shape where the line has a token. Neither separators nor keys have such a byte.
pub(super) const MARK: u8 = 0;

/// What tells days and months is as variable as a number.
const DATES: [&[u8]; 19] = [
    b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun", b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul",
    b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// What a token looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Has letters and no digits.
    Word,
    /// Anything else, and what names a day or a month.
    Number,
    /// Cannot stand in a pattern: it is not UTF-8, or reads as a capture.
    Opaque,
}

impl Kind {
    pub(super) fn of(token: &[u8]) -> Self {
        let reads_as_capture = || memchr::memchr_iter(b'<', token).any(|at| capture_at(&token[at..]).is_some());
        if std::str::from_utf8(token).is_err() || reads_as_capture() {
            Self::Opaque
        } else if token.iter().any(|b| b.is_ascii_alphabetic() || !b.is_ascii())
            && !token.iter().any(u8::is_ascii_digit)
            && !DATES.contains(&token)
        {
            Self::Word
        } else {
            Self::Number
        }
    }
}

/// A token of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'l> {
    pub(super) text: &'l [u8],
    pub(super) kind: Kind,
}

/// A line taken apart. Kept for the next line, so that its buffers are.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The separators and keys of the line, and [`MARK`] for each token.
    pub(super) shape: Vec<u8>,
    /// Begin, end and kind of each token.
    spans: Vec<(usize, usize, Kind)>,
    /// Whether the line goes on behind the shape.
    pub(super) open: bool,
    /// How many tokens stand in the header, which many lines share: what ends with a level, or with `]:`.
    pub(super) header: usize,
}

impl Tokens {
    /// Takes a line apart.
    pub(super) fn split(&mut self, line: &[u8]) {
        self.take_apart(line);
        let of_header = self.spans.iter().take(MAX_HEADER);
        if let Some(at) = of_header.clone().position(|(from, to, _)| is_level(line, *from, *to)) {
            self.header = at + 1;
        } else {
            let ends = of_header.clone().position(|(_, to, _)| line[*to..].starts_with(b"]:"));
            self.header = ends.map_or(0, |at| at + 1);
        }
    }

    fn take_apart(&mut self, line: &[u8]) {
        self.shape.clear();
        self.spans.clear();
        self.open = false;
        // How long the shape was before the last token, and whether that was a key.
        let mut last: Option<(usize, bool)> = None;
        let mut at = 0;
        loop {
            let from = at;
            while is_separator(line, at, at > from) {
                at += 1;
            }
            if at > MAX_BYTES {
                // Behind endless separators nothing can be open: the last token is open already.
                if let Some((_, false)) = last {
                    self.spans.pop();
                }
                self.shape.truncate(last.map_or(0, |(len, _)| len));
                self.open = true;
                return;
            }
            self.shape.extend_from_slice(&line[from..at]);
            if at == line.len() {
                return;
            }
            let token = at;
            while at < line.len() && !is_separator(line, at, false) {
                at += 1;
            }
            if at > MAX_BYTES || self.spans.len() == MAX_TOKENS {
                self.open = true;
                return;
            }
            let key = is_key(line, token, at);
            last = Some((self.shape.len(), key));
            if key {
                self.shape.extend_from_slice(&line[token..at]);
            } else {
                self.shape.push(MARK);
                self.spans.push((token, at, Kind::of(&line[token..at])));
            }
        }
    }

    /// The tokens of the line that was taken apart.
    pub(super) fn of<'l>(&self, line: &'l [u8]) -> impl Iterator<Item = Token<'l>> + Clone + use<'l, '_> {
        self.spans.iter().map(|(from, to, kind)| Token { text: &line[*from..*to], kind: *kind })
    }
}

fn is_hard(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'=' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'|')
}

/// Whether there is a separator; `after` says that one stands right before it.
fn is_separator(line: &[u8], at: usize, after: bool) -> bool {
    match line.get(at) {
        Some(b':' | b',' | b';') => after || line.get(at + 1).is_some_and(|next| is_hard(*next)),
        Some(byte) => is_hard(*byte),
        None => false,
    }
}

/// Whether a token is the level of its line: in capital letters, or enclosed by itself.
fn is_level(line: &[u8], from: usize, to: usize) -> bool {
    let token = &line[from..to];
    let named = LEVELS.iter().any(|level| token.eq_ignore_ascii_case(level));
    let enclosed = || {
        let before = from.checked_sub(1).map(|at| line[at]);
        matches!(
            (before, line.get(to)),
            (Some(b'"'), Some(b'"'))
                | (Some(b'['), Some(b']'))
                | (Some(b'('), Some(b')'))
                | (Some(b'='), Some(b' ') | None)
        )
    };
    named && (token.iter().all(u8::is_ascii_uppercase) || (token.len() > 1 && enclosed()))
}

/// Whether a token names the value after it: `key=`, `"key":`. What has digits may be a value itself.
fn is_key(line: &[u8], from: usize, to: usize) -> bool {
    let named = match line.get(to) {
        Some(b'=') => true,
        Some(b'"') => line.get(to + 1) == Some(&b':') && from.checked_sub(1).is_some_and(|at| line[at] == b'"'),
        _ => false,
    };
    let plain = |b: &u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'.' | b'-' | b'/' | b'@');
    named && to - from <= MAX_KEY_BYTES && line[from..to].iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> (String, Vec<&str>) {
        let mut tokens = Tokens::default();
        tokens.split(line.as_bytes());
        let mut shape = String::from_utf8(tokens.shape.clone()).unwrap().replace('\0', "*");
        if tokens.open {
            shape.push('…');
        }
        (shape, tokens.of(line.as_bytes()).map(|token| std::str::from_utf8(token.text).unwrap()).collect())
    }

    #[test]
    fn separators_and_keys_are_the_shape() {
        assert_eq!(split("a  b"), ("*  *".to_owned(), vec!["a", "b"]));
        assert_eq!(
            split("12:00:05 main.go:12: x, y"),
            ("* *: *, *".to_owned(), vec!["12:00:05", "main.go:12", "x", "y"])
        );
        assert_eq!(
            split(r#"level=info n1=2 msg="a b""#),
            (r#"level=* *=* msg="* *""#.to_owned(), vec!["info", "n1", "2", "a", "b"])
        );
        assert_eq!(
            split(r#"{"a":"x","n":12,"l":[1,2],"o":{"k":null}}"#),
            (r#"{"a":"*","n":*,"l":[*],"o":{"k":*}}"#.to_owned(), vec!["x", "12", "1,2", "null"])
        );
        assert_eq!(split("a:"), ("*".to_owned(), vec!["a:"]));
        assert_eq!(split(": a"), (": *".to_owned(), vec!["a"]));
        assert_eq!(split(""), (String::new(), vec![]));
        assert_eq!(split(" ("), (" (".to_owned(), vec![]));
    }

    #[test]
    fn long_lines_are_open() {
        assert_eq!(split(&"x ".repeat(MAX_TOKENS)), ("* ".repeat(MAX_TOKENS), vec!["x"; MAX_TOKENS]));
        assert_eq!(split(&"x ".repeat(MAX_TOKENS + 1)).0, "* ".repeat(MAX_TOKENS) + "…");
        assert_eq!(split(&"x".repeat(MAX_BYTES + 1)).0, "…");
        let spaces = " ".repeat(MAX_BYTES);
        assert_eq!(split(&spaces).0, spaces);
        assert_eq!(split(&format!("a b{spaces}c")), ("* …".to_owned(), vec!["a"]));
        assert_eq!(split(&format!("a k={spaces}c")), ("* …".to_owned(), vec!["a"]));
        assert_eq!(split(&format!(" {spaces}c")).0, "…");
    }

    #[test]
    fn a_header_ends_with_the_level_or_with_the_program() {
        let header = |line: &str| {
            let mut tokens = Tokens::default();
            tokens.split(line.as_bytes());
            tokens
                .of(line.as_bytes())
                .take(tokens.header)
                .map(|t| String::from_utf8_lossy(t.text).into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(header("2026-11-01 12:00:00 INFO a b"), "2026-11-01 12:00:00 INFO");
        assert_eq!(header("[Mon] [error] a b"), "Mon error");
        assert_eq!(header("level=warn msg=x"), "warn");
        assert_eq!(header(r#"{"level":"info","msg":"x"}"#), "info");
        assert_eq!(header("10:00 1 2 I View: x"), "10:00 1 2 I");
        assert_eq!(header("Dec 10 06:55:46 host sshd[1]: error: x"), "Dec 10 06:55:46 host sshd 1");
        assert_eq!(header("an error is no level, nor is i"), "");
        assert_eq!(header(r#"msg="error while reading" x=1"#), "");
    }

    #[test]
    fn kinds() {
        for (token, kind) in [
            (&b"word"[..], Kind::Word),
            ("é".as_bytes(), Kind::Word),
            (b"-", Kind::Number),
            (b"v1", Kind::Number),
            (b"Tue", Kind::Number),
            (b"tuesday", Kind::Word),
            (b"a<_>", Kind::Opaque),
            (b"<<name>", Kind::Opaque),
            (b"<1>", Kind::Number),
            (b"a<b", Kind::Word),
            (b"\xff", Kind::Opaque),
        ] {
            assert_eq!(Kind::of(token), kind, "{}", String::from_utf8_lossy(token));
        }
    }
}
