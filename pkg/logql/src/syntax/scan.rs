//! The lexical ground floor: Go's tokens (names, numbers, strings, comments), read character by character.
//!
//! Invariants, which error positions depend on:
//! * the scanner is one character ahead of the token it returned: `ahead` is the first character after it, already counted
//!   in `line` and `column`. A complaint about that character carries the position of the token before it;
//! * `token_line`/`token_column` are set when a token starts. [`Scanner::skip`], which the lexer uses to take characters
//!   beyond a token, sets the line to 0 and leaves the column;
//! * at the end of the text the column moves on by one, once. An empty text ends at (0, 0).
//!
//! Only the first complaint is kept.

use super::token::Fault;
use crate::go::unicode;

/// The next character, if the text goes on.
type Ahead = Option<char>;

/// What was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// The end of the text.
    End,
    /// A name.
    Name,
    /// A number of any form.
    Number,
    /// `"…"`
    Quoted,
    /// `` `…` ``
    Raw,
    /// `'…'`
    Char,
    /// Any other character.
    Other(char),
}

pub(crate) struct Scanner<'a> {
    text: &'a str,
    /// Byte offset of the first character that was not read.
    at: usize,
    /// Bytes of the character read last; 0 at the end.
    last_len: usize,
    ahead: Ahead,
    started: bool,
    line: u32,
    column: u32,
    last_line_len: u32,
    token_start: usize,
    pub(crate) token_line: u32,
    pub(crate) token_column: u32,
    pub(crate) fault: Option<Fault>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            last_len: 0,
            ahead: None,
            started: false,
            line: 1,
            column: 0,
            last_line_len: 0,
            token_start: 0,
            token_line: 0,
            token_column: 0,
            fault: None,
        }
    }

    /// Records a complaint, unless there is one, at the token's position.
    pub(crate) fn complain(&mut self, msg: impl Into<String>) {
        if self.fault.is_none() {
            self.fault = Some(Fault { line: self.token_line, col: self.token_column, msg: msg.into() });
        }
    }

    /// Reads a character.
    fn read(&mut self) -> Ahead {
        let Some(c) = self.text[self.at..].chars().next() else {
            if self.last_len > 0 {
                self.column += 1;
            }
            self.last_len = 0;
            return None;
        };
        self.last_len = c.len_utf8();
        self.at += self.last_len;
        self.column += 1;
        match c {
            '\0' => self.complain("invalid character NUL"),
            '\n' => {
                self.line += 1;
                self.last_line_len = self.column;
                self.column = 0;
            }
            _ => {}
        }
        Some(c)
    }

    /// The first character after the token.
    pub(crate) fn peek(&mut self) -> Ahead {
        if !self.started {
            self.started = true;
            self.ahead = self.read();
            if self.ahead == Some('\u{feff}') {
                self.ahead = self.read();
            }
        }
        self.ahead
    }

    /// Takes the first character after the token. The token loses its line.
    pub(crate) fn skip(&mut self) -> Ahead {
        self.token_line = 0;
        let c = self.peek();
        if c.is_some() {
            self.ahead = self.read();
        }
        c
    }

    /// Where the first character after the token starts.
    fn token_end(&self) -> usize {
        self.at - self.last_len
    }

    /// The text of the token and of what was [skipped](Self::skip) since.
    pub(crate) fn token_text(&self) -> &'a str {
        &self.text[self.token_start..self.token_end()]
    }

    /// The text after the token.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.token_end()..]
    }

    /// Scans a token.
    pub(crate) fn scan(&mut self) -> Scanned {
        let before = self.peek();
        let mut c = before;
        self.token_line = 0;
        let scanned = loop {
            while matches!(c, Some(' ' | '\t' | '\n' | '\r')) {
                c = self.read();
            }
            self.token_start = self.token_end();
            (self.token_line, self.token_column) =
                if self.column > 0 { (self.line, self.column) } else { (self.line - 1, self.last_line_len) };
            let Some(first) = c else { break Scanned::End };
            if is_name_start(first) {
                c = self.read();
                while c.is_some_and(|c| is_name_start(c) || unicode::is_digit(c)) {
                    c = self.read();
                }
                break Scanned::Name;
            }
            if first.is_ascii_digit() {
                c = self.number(first, false, before == c);
                break Scanned::Number;
            }
            match first {
                '"' => {
                    self.quoted('"');
                    c = self.read();
                    break Scanned::Quoted;
                }
                '\'' => {
                    if self.quoted('\'') != 1 {
                        self.complain("invalid char literal");
                    }
                    c = self.read();
                    break Scanned::Char;
                }
                '`' => {
                    self.raw();
                    c = self.read();
                    break Scanned::Raw;
                }
                '.' => {
                    c = self.read();
                    match c {
                        Some(digit @ '0'..='9') => {
                            c = self.number(digit, true, true);
                            break Scanned::Number;
                        }
                        _ => break Scanned::Other('.'),
                    }
                }
                '/' => {
                    c = self.read();
                    match c {
                        Some('/') => c = self.line_comment(),
                        Some('*') => c = self.block_comment(),
                        _ => break Scanned::Other('/'),
                    }
                }
                other => {
                    c = self.read();
                    break Scanned::Other(other);
                }
            }
        };
        self.ahead = c;
        scanned
    }

    fn line_comment(&mut self) -> Ahead {
        loop {
            match self.read() {
                Some('\n') => return Some('\n'),
                None => return None,
                Some(_) => {}
            }
        }
    }

    fn block_comment(&mut self) -> Ahead {
        let mut c = self.read();
        loop {
            let Some(last) = c else {
                self.complain("comment not terminated");
                return None;
            };
            c = self.read();
            if last == '*' && c == Some('/') {
                return self.read();
            }
        }
    }

    /// Reads up to the closing quote; says how many characters stand between the quotes.
    fn quoted(&mut self, quote: char) -> usize {
        let mut count = 0;
        let mut c = self.read();
        while c != Some(quote) {
            match c {
                None | Some('\n') => {
                    self.complain("literal not terminated");
                    return count;
                }
                Some('\\') => c = self.escape(quote),
                Some(_) => c = self.read(),
            }
            count += 1;
        }
        count
    }

    fn escape(&mut self, quote: char) -> Ahead {
        let c = self.read();
        match c {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => self.read(),
            Some(c) if c == quote => self.read(),
            Some('0'..='7') => self.escaped_digits(c, 8, 3),
            Some('x') => self.escaped_number(2),
            Some('u') => self.escaped_number(4),
            Some('U') => self.escaped_number(8),
            _ => {
                self.complain("invalid char escape");
                c
            }
        }
    }

    fn escaped_number(&mut self, digits: u32) -> Ahead {
        let c = self.read();
        self.escaped_digits(c, 16, digits)
    }

    fn escaped_digits(&mut self, mut c: Ahead, base: u32, mut digits: u32) -> Ahead {
        while digits > 0 && c.is_some_and(|c| c.is_digit(base)) {
            c = self.read();
            digits -= 1;
        }
        if digits > 0 {
            self.complain("invalid char escape");
        }
        c
    }

    fn raw(&mut self) {
        loop {
            match self.read() {
                Some('`') => return,
                None => return self.complain("literal not terminated"),
                Some(_) => {}
            }
        }
    }

    /// Reads a number whose first character is `c`. `seen_dot`: a point stands before `c`. `alone`: nothing but the token was
    /// read since the last one; after white space `0b` is not read as the start of a binary number (a size such as `0B` may
    /// begin so), and then nothing is left that could be a number.
    fn number(&mut self, first: char, mut seen_dot: bool, alone: bool) -> Ahead {
        let mut c = Some(first);
        let mut base = Base::Decimal;
        let mut seen = Digits::default();
        let mut float = seen_dot;
        if !seen_dot {
            if first == '0' {
                c = self.read();
                match c.map(|c| c.to_ascii_lowercase()) {
                    Some('x') => (base, c) = (Base::Hex, self.read()),
                    Some('o') => (base, c) = (Base::Octal, self.read()),
                    Some('b') if alone => (base, c) = (Base::Binary, self.read()),
                    Some('b') => {}
                    _ => (base, seen.digits) = (Base::LegacyOctal, true),
                }
            }
            c = self.digits(c, base, &mut seen);
            if c == Some('.') {
                c = self.read();
                seen_dot = true;
            }
        }
        if seen_dot {
            float = true;
            if matches!(base, Base::Octal | Base::Binary) {
                self.complain(format!("invalid radix point in {}", base.literal()));
            }
            c = self.digits(c, base, &mut seen);
        }
        if !seen.digits {
            self.complain(format!("{} has no digits", base.literal()));
        }
        match c {
            // The unit of a size: `1P`, `1.5PiB`.
            Some('P') if base != Base::Hex => {}
            Some(e @ ('e' | 'E' | 'p' | 'P')) => {
                float = true;
                let decimal = matches!(base, Base::Decimal | Base::LegacyOctal);
                if e.eq_ignore_ascii_case(&'e') && !decimal {
                    self.complain(format!("'{e}' exponent requires decimal mantissa"));
                } else if e.eq_ignore_ascii_case(&'p') && base != Base::Hex {
                    self.complain(format!("'{e}' exponent requires hexadecimal mantissa"));
                }
                c = self.read();
                if matches!(c, Some('+' | '-')) {
                    c = self.read();
                }
                let mut exponent = Digits::default();
                c = self.digits(c, Base::Decimal, &mut exponent);
                seen.separators |= exponent.separators;
                if !exponent.digits {
                    self.complain("exponent has no digits");
                }
            }
            _ if float && base == Base::Hex => self.complain("hexadecimal mantissa requires a 'p' exponent"),
            _ => {}
        }
        if let (false, Some(digit)) = (float, seen.invalid) {
            self.complain(format!("invalid digit '{digit}' in {}", base.literal()));
        }
        if seen.separators && misplaced_separator(self.token_text().as_bytes()) {
            self.complain("'_' must separate successive digits");
        }
        c
    }

    fn digits(&mut self, mut c: Ahead, base: Base, seen: &mut Digits) -> Ahead {
        let radix = base.radix();
        while let Some(digit) = c {
            match digit {
                '_' => seen.separators = true,
                // A digit that is too big for the base is read all the same: `08.5` is a float.
                '0'..='9' => {
                    seen.digits = true;
                    if !digit.is_digit(radix) && seen.invalid.is_none() {
                        seen.invalid = Some(digit);
                    }
                }
                _ if digit.is_digit(radix) => seen.digits = true,
                _ => break,
            }
            c = self.read();
        }
        c
    }
}

/// What was met while reading digits.
#[derive(Default)]
struct Digits {
    digits: bool,
    separators: bool,
    invalid: Option<char>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Decimal,
    LegacyOctal,
    Binary,
    Octal,
    Hex,
}

impl Base {
    fn radix(self) -> u32 {
        match self {
            Self::Decimal => 10,
            Self::LegacyOctal | Self::Octal => 8,
            Self::Binary => 2,
            Self::Hex => 16,
        }
    }

    fn literal(self) -> &'static str {
        match self {
            Self::Decimal => "decimal literal",
            Self::LegacyOctal | Self::Octal => "octal literal",
            Self::Binary => "binary literal",
            Self::Hex => "hexadecimal literal",
        }
    }
}

/// Whether some `_` does not stand between digits (a base prefix counts as a digit).
fn misplaced_separator(number: &[u8]) -> bool {
    let prefix = match number {
        [b'0', p @ (b'x' | b'X' | b'o' | b'O' | b'b' | b'B'), ..] => Some(p.to_ascii_lowercase()),
        _ => None,
    };
    let is_digit = |b: u8| b.is_ascii_digit() || (prefix == Some(b'x') && b.is_ascii_hexdigit());
    let body = if prefix.is_some() { &number[2..] } else { number };
    (0..body.len()).any(|i| {
        let before = if i == 0 { prefix.is_some() } else { is_digit(body[i - 1]) };
        let after = body.get(i + 1).is_some_and(|&b| is_digit(b));
        body[i] == b'_' && !(before && after)
    })
}

fn is_name_start(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic() || (!c.is_ascii() && unicode::is_letter(c))
}
