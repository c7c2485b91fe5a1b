//! Tokens of Go's template language.
//!
//! Invariants: the text need not be UTF-8; every call makes progress or answers the end; after an error comes only the end.

use crate::go::number::NumError;
use crate::go::quote::quote;
use crate::go::unicode::{decode, is_digit, is_letter, is_print};

/// The kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The text of the item says what is wrong.
    Error,
    Eof,
    /// Outside of actions.
    Text,
    LeftDelim,
    RightDelim,
    Space,
    Bool,
    /// A printable character with no meaning of its own, such as a comma.
    Char,
    CharConstant,
    Number,
    Quoted,
    RawText,
    Assign,
    Declare,
    Pipe,
    LeftParen,
    RightParen,
    Identifier,
    /// `.name`
    Field,
    /// `$name`
    Variable,
    Dot,
    Nil,
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

impl Token {
    fn is_keyword(self) -> bool {
        use Token::{Block, Break, Continue, Define, Dot, Else, End, If, Nil, Range, Template, With};
        matches!(self, Block | Break | Continue | Define | Dot | Else | End | If | Nil | Range | Template | With)
    }
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) token: Token,
    pub(super) pos: usize,
    pub(super) text: Box<[u8]>,
    /// Counted from 1.
    pub(super) line: usize,
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.token {
            Token::Eof => f.write_str("EOF"),
            Token::Error => f.write_str(&String::from_utf8_lossy(&self.text)),
            token if token.is_keyword() => write!(f, "<{}>", String::from_utf8_lossy(&self.text)),
            _ if self.text.len() > 10 => {
                // Ten runes, not bytes.
                let end = crate::go::unicode::runes(&self.text).nth(10).map_or(self.text.len(), |(at, _, _)| at);
                write!(f, "{}...", quote(&self.text[..end]))
            }
            _ => f.write_str(&quote(&self.text)),
        }
    }
}

const LEFT: &[u8] = b"{{";
const RIGHT: &[u8] = b"}}";
const TRIM_LEN: usize = 2;

pub(super) fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || is_letter(c) || is_digit(c)
}

/// `U+0023 '#'`
fn describe(c: Option<char>) -> String {
    match c {
        None => "U+FFFFFFFFFFFFFFFF".to_owned(),
        Some(c) if is_print(c) => format!("U+{:04X} '{c}'", u32::from(c)),
        Some(c) => format!("U+{:04X}", u32::from(c)),
    }
}

pub(super) struct Lexer<'t> {
    text: &'t [u8],
    start: usize,
    pos: usize,
    /// Lines before `counted`, and how far they were counted.
    lines: usize,
    counted: usize,
    inside: bool,
    parens: u32,
    failed: bool,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t [u8]) -> Self {
        Self { text, start: 0, pos: 0, lines: 1, counted: 0, inside: false, parens: 0, failed: false }
    }

    /// The line at `start`, which only moves forward.
    fn line(&mut self) -> usize {
        self.lines += self.text[self.counted..self.start].iter().filter(|&&b| b == b'\n').count();
        self.counted = self.start;
        self.lines
    }

    fn item(&mut self, token: Token) -> Item {
        let line = self.line();
        let item = Item { token, pos: self.start, text: self.text[self.start..self.pos].into(), line };
        self.start = self.pos;
        item
    }

    fn error(&mut self, message: impl Into<String>) -> Item {
        let line = self.line();
        self.failed = true;
        let message: String = message.into();
        Item { token: Token::Error, pos: self.start, text: message.into_bytes().into(), line }
    }

    fn rest(&self) -> &'t [u8] {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        decode(self.rest()).map(|(c, _)| c)
    }

    fn next(&mut self) -> Option<char> {
        let (c, len) = decode(self.rest())?;
        self.pos += len;
        Some(c)
    }

    pub(super) fn next_item(&mut self) -> Item {
        if self.failed {
            self.start = self.text.len();
            self.pos = self.start;
            return self.item(Token::Eof);
        }
        if self.inside { self.action() } else { self.outside() }
    }

    fn outside(&mut self) -> Item {
        loop {
            let Some(at) = memchr::memmem::find(self.rest(), LEFT) else {
                self.pos = self.text.len();
                return if self.pos > self.start { self.item(Token::Text) } else { self.item(Token::Eof) };
            };
            let delim = self.pos + at;
            if at > 0 {
                let text = &self.text[self.start..delim];
                let trimmed = match &self.text[delim + LEFT.len()..] {
                    [b'-', space, ..] if is_space(*space) => text.len() - text.trim_right_spaces().len(),
                    _ => 0,
                };
                self.pos = delim - trimmed;
                let item = self.item(Token::Text);
                (self.pos, self.start) = (delim, delim);
                if !item.text.is_empty() {
                    return item;
                }
            }
            let marker = match &self.text[delim + LEFT.len()..] {
                [b'-', space, ..] if is_space(*space) => TRIM_LEN,
                _ => 0,
            };
            self.pos = delim + LEFT.len();
            if self.text[self.pos + marker..].starts_with(b"/*") {
                self.pos += marker;
                self.start = self.pos;
                if let Err(message) = self.comment() {
                    return self.error(message);
                }
                continue;
            }
            let item = self.item(Token::LeftDelim);
            self.inside = true;
            self.parens = 0;
            self.pos += marker;
            self.start = self.pos;
            return item;
        }
    }

    /// Skips a comment that starts here, with its closing delimiter.
    fn comment(&mut self) -> Result<(), &'static str> {
        let body = self.pos + 2;
        let end = memchr::memmem::find(&self.text[body..], b"*/").ok_or("unclosed comment")?;
        self.pos = body + end + 2;
        match self.right_delim() {
            None => return Err("comment ends before closing delimiter"),
            Some(trims) => self.skip_right_delim(trims),
        }
        Ok(())
    }

    /// Whether a closing delimiter is next, and whether it trims.
    fn right_delim(&self) -> Option<bool> {
        match self.rest() {
            [space, b'-', after @ ..] if is_space(*space) && after.starts_with(RIGHT) => Some(true),
            after if after.starts_with(RIGHT) => Some(false),
            _ => None,
        }
    }

    fn skip_right_delim(&mut self, trims: bool) {
        self.pos += RIGHT.len() + if trims { TRIM_LEN } else { 0 };
        if trims {
            self.pos += self.rest().iter().take_while(|&&b| is_space(b)).count();
        }
        self.start = self.pos;
    }

    fn action(&mut self) -> Item {
        if let Some(trims) = self.right_delim() {
            if self.parens > 0 {
                return self.error("unclosed left paren");
            }
            if trims {
                self.pos += TRIM_LEN;
                self.start = self.pos;
            }
            self.pos += RIGHT.len();
            let item = self.item(Token::RightDelim);
            if trims {
                self.pos += self.rest().iter().take_while(|&&b| is_space(b)).count();
                self.start = self.pos;
            }
            self.inside = false;
            return item;
        }
        let Some(c) = self.next() else { return self.error("unclosed action") };
        match c {
            ' ' | '\t' | '\r' | '\n' => self.space(),
            '=' => self.item(Token::Assign),
            ':' => {
                if self.next() == Some('=') {
                    self.item(Token::Declare)
                } else {
                    self.error("expected :=")
                }
            }
            '|' => self.item(Token::Pipe),
            '"' => self.quoted('"', "unterminated quoted string", Token::Quoted),
            '\'' => self.quoted('\'', "unterminated character constant", Token::CharConstant),
            '`' => match memchr::memchr(b'`', self.rest()) {
                Some(end) => {
                    self.pos += end + 1;
                    self.item(Token::RawText)
                }
                None => self.error("unterminated raw quoted string"),
            },
            '$' => self.name(Token::Variable),
            '.' if self.rest().first().is_some_and(|b| !b.is_ascii_digit()) => self.name(Token::Field),
            '.' | '+' | '-' | '0'..='9' => {
                self.pos -= 1;
                self.number()
            }
            '(' => {
                self.parens += 1;
                self.item(Token::LeftParen)
            }
            ')' => {
                let Some(open) = self.parens.checked_sub(1) else { return self.error("unexpected right paren") };
                self.parens = open;
                self.item(Token::RightParen)
            }
            _ if is_alphanumeric(c) => self.identifier(),
            ' '..='~' => self.item(Token::Char),
            _ => self.error(format!("unrecognized character in action: {}", describe(Some(c)))),
        }
    }

    fn space(&mut self) -> Item {
        self.pos += self.rest().iter().take_while(|&&b| is_space(b)).count();
        // The last space may belong to a delimiter that trims.
        if self.text[self.pos - 1..].get(1) == Some(&b'-') && self.text[self.pos - 1 + TRIM_LEN..].starts_with(RIGHT) {
            self.pos -= 1;
            if self.pos == self.start {
                return self.action();
            }
        }
        self.item(Token::Space)
    }

    fn quoted(&mut self, quote: char, unterminated: &str, token: Token) -> Item {
        loop {
            match self.next() {
                Some('\\') => {
                    if matches!(self.next(), None | Some('\n')) {
                        return self.error(unterminated);
                    }
                }
                None | Some('\n') => return self.error(unterminated),
                Some(c) if c == quote => return self.item(token),
                Some(_) => {}
            }
        }
    }

    fn at_terminator(&self) -> bool {
        matches!(self.peek(), None | Some(' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '('))
            || self.rest().starts_with(RIGHT)
    }

    fn skip_name(&mut self) {
        while self.peek().is_some_and(is_alphanumeric) {
            self.next();
        }
    }

    fn name(&mut self, token: Token) -> Item {
        if self.at_terminator() {
            return self.item(if token == Token::Variable { token } else { Token::Dot });
        }
        self.skip_name();
        if !self.at_terminator() {
            let bad = describe(self.peek());
            return self.error(format!("bad character {bad}"));
        }
        self.item(token)
    }

    fn identifier(&mut self) -> Item {
        self.skip_name();
        if !self.at_terminator() {
            let bad = describe(self.peek());
            return self.error(format!("bad character {bad}"));
        }
        let token = match &self.text[self.start..self.pos] {
            b"block" => Token::Block,
            b"break" => Token::Break,
            b"continue" => Token::Continue,
            b"define" => Token::Define,
            b"else" => Token::Else,
            b"end" => Token::End,
            b"if" => Token::If,
            b"range" => Token::Range,
            b"nil" => Token::Nil,
            b"template" => Token::Template,
            b"with" => Token::With,
            b"true" | b"false" => Token::Bool,
            _ => Token::Identifier,
        };
        self.item(token)
    }

    fn accept(&mut self, set: &[u8]) -> bool {
        let accepted = self.rest().first().is_some_and(|b| set.contains(b));
        self.pos += usize::from(accepted);
        accepted
    }

    fn accept_run(&mut self, set: &[u8]) {
        while self.accept(set) {}
    }

    fn number(&mut self) -> Item {
        let mut good = self.scan_number();
        if good && matches!(self.rest().first(), Some(b'+' | b'-')) {
            // Only a complex number could go on so, and those are of no use here.
            self.scan_number();
            good = false;
        }
        if good {
            return self.item(Token::Number);
        }
        let text = quote(&self.text[self.start..self.pos]);
        self.error(format!("bad number syntax: {text}"))
    }

    fn scan_number(&mut self) -> bool {
        self.accept(b"+-");
        let (mut digits, mut exponent): (&[u8], &[u8]) = (b"0123456789_", b"eE");
        if self.accept(b"0") {
            if self.accept(b"xX") {
                (digits, exponent) = (b"0123456789abcdefABCDEF_", b"pP");
            } else if self.accept(b"oO") {
                (digits, exponent) = (b"01234567_", b"");
            } else if self.accept(b"bB") {
                (digits, exponent) = (b"01_", b"");
            }
        }
        self.accept_run(digits);
        if self.accept(b".") {
            self.accept_run(digits);
        }
        if self.accept(exponent) {
            self.accept(b"+-");
            self.accept_run(b"0123456789_");
        }
        self.accept(b"i");
        if self.peek().is_some_and(is_alphanumeric) {
            self.next();
            return false;
        }
        true
    }
}

trait Spaces {
    fn trim_right_spaces(&self) -> &Self;
}

impl Spaces for [u8] {
    fn trim_right_spaces(&self) -> &Self {
        let end = self.iter().rposition(|&b| !is_space(b)).map_or(0, |at| at + 1);
        &self[..end]
    }
}

/// What a numeric constant can be: int, uint, float.
#[derive(Debug, Default)]
pub(super) struct Constant {
    pub(super) int: Option<i64>,
    pub(super) uint: Option<u64>,
    pub(super) float: Option<f64>,
}

/// Reads a numeric constant; the error is Go's text.
pub(super) fn constant(text: &[u8]) -> Result<Constant, String> {
    use crate::go::number::{int_of_base, parse_float, uint_of_base};
    let mut constant = Constant::default();
    if !text.starts_with(b"+") && !text.starts_with(b"-") {
        constant.uint = uint_of_base(text, 0).ok();
    }
    let int: Result<i64, NumError> = int_of_base(text, 0);
    constant.int = int.ok();
    if constant.int == Some(0) {
        constant.uint = Some(0);
    }
    if let Some(int) = constant.int {
        constant.float = Some(int as f64);
    } else if let Some(uint) = constant.uint {
        constant.float = Some(uint as f64);
    } else if let Ok(float) = parse_float(text) {
        if !text.iter().any(|b| b".eEpP".contains(b)) {
            return Err(format!("integer overflow: {}", quote(text)));
        }
        constant.float = Some(float);
        if float as i64 as f64 == float && float.abs() < 9.3e18 {
            constant.int = Some(float as i64);
        }
        if float as u64 as f64 == float {
            constant.uint = Some(float as u64);
        }
    } else {
        return Err(format!("illegal number syntax: {}", quote(text)));
    }
    Ok(constant)
}
