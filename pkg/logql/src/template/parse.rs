//! The grammar of Go's template language.
//!
//! Invariants: error texts and the lines they name are Go's; nesting is bounded by [`MAX_NESTING`], so that neither parsing nor
//! executing nor dropping a template can exhaust the stack.

use std::sync::OnceLock;

use super::funcs::{self, Function};
use super::lex::{Item, Lexer, Token, constant, is_space};
use super::node::{Branch, Call, Command, Kind, Node, Number, Operand, Pipe, Pos};
use crate::go::quote::{Unescaped, quote, unquote, unquote_char};

/// How deep actions and parentheses may nest.
const MAX_NESTING: u32 = 100;

/// A named list of nodes.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) name: Box<[u8]>,
    pub(super) list: Vec<Node>,
}

/// What ended a list.
enum Ended {
    End,
    Else,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        })
    }
}

enum Step {
    Node(Node),
    Ended(Ended),
}

struct Parser<'t> {
    name: &'t str,
    lexer: Lexer<'t>,
    /// Tokens that were read and put back: as in the original, slot 0 is the latest from the lexer.
    tokens: [Item; 3],
    peeked: usize,
    variables: Vec<Box<str>>,
    action_line: usize,
    range_depth: u32,
    nesting: u32,
    trees: Vec<Tree>,
}

/// Parses a template and what it defines; the main tree is last. The error is Go's text without the `template: ` in front.
pub(super) fn parse(name: &str, text: &[u8]) -> Result<Vec<Tree>, String> {
    let none = Item { token: Token::Eof, pos: 0, text: Box::default(), line: 1 };
    let mut parser = Parser {
        name,
        lexer: Lexer::new(text),
        tokens: [none.clone(), none.clone(), none],
        peeked: 0,
        variables: vec!["$".into()],
        action_line: 0,
        range_depth: 0,
        nesting: 0,
        trees: Vec::new(),
    };
    let mut list = Vec::new();
    while parser.peek().token != Token::Eof {
        if parser.peek().token == Token::LeftDelim {
            let delim = parser.next();
            if parser.next_non_space().token == Token::Define {
                parser.definition()?;
                continue;
            }
            parser.backup2(delim);
        }
        match parser.text_or_action()? {
            Step::Node(node) => list.push(node),
            Step::Ended(ended) => return parser.fail(format!("unexpected {ended}")),
        }
    }
    parser.add(name.as_bytes().into(), list)?;
    // The main tree may have been defined inside, and is then not the last.
    if let Some(at) = parser.trees.iter().position(|t| *t.name == *name.as_bytes()) {
        let last = parser.trees.len() - 1;
        parser.trees.swap(at, last);
    }
    Ok(parser.trees)
}

fn is_empty(list: &[Node]) -> bool {
    list.iter().all(|node| matches!(node, Node::Text(text) if text.iter().all(|&b| is_space(b))))
}

impl Parser<'_> {
    fn next(&mut self) -> Item {
        if self.peeked > 0 {
            self.peeked -= 1;
        } else {
            self.tokens[0] = self.lexer.next_item();
        }
        self.tokens[self.peeked].clone()
    }

    fn backup(&mut self) {
        self.peeked += 1;
    }

    fn backup2(&mut self, second: Item) {
        self.tokens[1] = second;
        self.peeked = 2;
    }

    fn backup3(&mut self, third: Item, second: Item) {
        self.tokens[1] = second;
        self.tokens[2] = third;
        self.peeked = 3;
    }

    fn peek(&mut self) -> &Item {
        if self.peeked == 0 {
            self.peeked = 1;
            self.tokens[0] = self.lexer.next_item();
        }
        &self.tokens[self.peeked - 1]
    }

    fn next_non_space(&mut self) -> Item {
        loop {
            let item = self.next();
            if item.token != Token::Space {
                return item;
            }
        }
    }

    fn peek_non_space(&mut self) -> &Item {
        self.next_non_space();
        self.backup();
        &self.tokens[self.peeked - 1]
    }

    fn fail<T>(&self, message: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{}:{}: {message}", self.name, self.tokens[0].line))
    }

    fn unexpected<T>(&self, item: &Item, context: &str) -> Result<T, String> {
        if item.token != Token::Error {
            return self.fail(format!("unexpected {item} in {context}"));
        }
        let mut extra = String::new();
        if self.action_line != 0 && self.action_line != item.line {
            extra = format!(" in action started at {}:{}", self.name, self.action_line);
            if item.text.ends_with(b" action") {
                extra.replace_range(..10, "");
            }
        }
        self.fail(format!("{item}{extra}"))
    }

    fn expect(&mut self, token: Token, context: &str) -> Result<Item, String> {
        let item = self.next_non_space();
        if item.token == token { Ok(item) } else { self.unexpected(&item, context) }
    }

    fn add(&mut self, name: Box<[u8]>, list: Vec<Node>) -> Result<(), String> {
        match self.trees.iter_mut().find(|t| t.name == name) {
            None => self.trees.push(Tree { name, list }),
            Some(tree) if is_empty(&tree.list) => tree.list = list,
            Some(_) if is_empty(&list) => {}
            Some(_) => return self.fail(format!("template: multiple definition of template {}", quote(&name))),
        }
        Ok(())
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.nesting == MAX_NESTING {
            return self.fail("template nests too deeply");
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    fn definition(&mut self) -> Result<(), String> {
        const CONTEXT: &str = "define clause";
        let item = self.next_non_space();
        if !matches!(item.token, Token::Quoted | Token::RawText) {
            return self.unexpected(&item, CONTEXT);
        }
        let name = self.unquote(&item)?;
        self.expect(Token::RightDelim, CONTEXT)?;
        self.body(name, CONTEXT)
    }

    /// The list of a `define` or `block`, which sees none of the variables outside.
    fn body(&mut self, name: Box<[u8]>, context: &str) -> Result<(), String> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let state = (std::mem::take(&mut self.range_depth), std::mem::take(&mut self.action_line));
        let (list, ended) = self.item_list()?;
        if !matches!(ended, Ended::End) {
            return self.fail(format!("unexpected {ended} in {context}"));
        }
        self.add(name, list)?;
        self.variables = variables;
        (self.range_depth, self.action_line) = state;
        Ok(())
    }

    fn unquote(&self, item: &Item) -> Result<Box<[u8]>, String> {
        match unquote(&item.text) {
            Some(text) => Ok(text.into()),
            None => self.fail("invalid syntax"),
        }
    }

    fn item_list(&mut self) -> Result<(Vec<Node>, Ended), String> {
        let mut list = Vec::new();
        while self.peek_non_space().token != Token::Eof {
            match self.text_or_action()? {
                Step::Node(node) => list.push(node),
                Step::Ended(ended) => return Ok((list, ended)),
            }
        }
        self.fail("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Result<Step, String> {
        let item = self.next_non_space();
        match item.token {
            Token::Text => Ok(Step::Node(Node::Text(item.text))),
            Token::LeftDelim => {
                self.action_line = item.line;
                let step = self.nested(Self::action);
                self.action_line = 0;
                step
            }
            _ => self.unexpected(&item, "input"),
        }
    }

    fn action(&mut self) -> Result<Step, String> {
        let item = self.next_non_space();
        Ok(Step::Node(match item.token {
            Token::Block => self.block()?,
            Token::Break => {
                self.loop_control("{{break}}")?;
                Node::Break
            }
            Token::Continue => {
                self.loop_control("{{continue}}")?;
                Node::Continue
            }
            Token::Else => {
                if !matches!(self.peek_non_space().token, Token::If | Token::With) {
                    self.expect(Token::RightDelim, "else")?;
                }
                return Ok(Step::Ended(Ended::Else));
            }
            Token::End => {
                self.expect(Token::RightDelim, "end")?;
                return Ok(Step::Ended(Ended::End));
            }
            Token::If => Node::If(self.control("if")?),
            Token::Range => Node::Range(self.control("range")?),
            Token::With => Node::With(self.control("with")?),
            Token::Template => {
                let name = self.next_non_space();
                let pos = name.pos;
                let name = self.template_name(&name, "template clause")?;
                let pipe = if self.next_non_space().token == Token::RightDelim {
                    None
                } else {
                    self.backup();
                    Some(self.pipeline("template clause", Token::RightDelim)?)
                };
                Node::Template(Call { pos: pos as Pos, name, pipe })
            }
            _ => {
                self.backup();
                Node::Action(self.pipeline("command", Token::RightDelim)?)
            }
        }))
    }

    fn loop_control(&mut self, word: &str) -> Result<(), String> {
        let item = self.next_non_space();
        if item.token != Token::RightDelim {
            return self.unexpected(&item, word);
        }
        if self.range_depth == 0 {
            return self.fail(format!("{word} outside {{{{range}}}}"));
        }
        Ok(())
    }

    fn template_name(&self, item: &Item, context: &str) -> Result<Box<[u8]>, String> {
        match item.token {
            Token::Quoted | Token::RawText => self.unquote(item),
            _ => self.unexpected(item, context),
        }
    }

    fn block(&mut self) -> Result<Node, String> {
        const CONTEXT: &str = "block clause";
        let item = self.next_non_space();
        let name = self.template_name(&item, CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Token::RightDelim)?;
        self.body(name.clone(), CONTEXT)?;
        Ok(Node::Template(Call { pos: item.pos as Pos, name, pipe: Some(pipe) }))
    }

    fn control(&mut self, context: &str) -> Result<Box<Branch>, String> {
        let outer = self.variables.len();
        let pipe = self.pipeline(context, Token::RightDelim)?;
        let ranges = u32::from(context == "range");
        self.range_depth += ranges;
        let (list, ended) = self.item_list()?;
        self.range_depth -= ranges;
        let mut otherwise = None;
        if matches!(ended, Ended::Else) {
            let next = self.peek().token;
            otherwise = Some(match (context, next) {
                ("if", Token::If) => {
                    self.next();
                    vec![Node::If(self.nested(|p| p.control("if"))?)]
                }
                ("with", Token::With) => {
                    self.next();
                    vec![Node::With(self.nested(|p| p.control("with"))?)]
                }
                _ => {
                    let (list, ended) = self.item_list()?;
                    if !matches!(ended, Ended::End) {
                        return self.fail(format!("expected end; found {ended}"));
                    }
                    list
                }
            });
        }
        self.variables.truncate(outer);
        Ok(Box::new(Branch { pos: pipe.pos, pipe, list, otherwise }))
    }

    fn pipeline(&mut self, context: &str, end: Token) -> Result<Pipe, String> {
        let pos = self.peek_non_space().pos as Pos;
        let mut pipe = Pipe { pos, assigns: false, declared: Vec::new(), commands: Vec::new() };
        self.declarations(&mut pipe, context)?;
        loop {
            let item = self.next_non_space();
            match item.token {
                token if token == end => break,
                Token::Bool
                | Token::CharConstant
                | Token::Dot
                | Token::Field
                | Token::Identifier
                | Token::Number
                | Token::Nil
                | Token::RawText
                | Token::Quoted
                | Token::Variable
                | Token::LeftParen => {
                    self.backup();
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&item, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.fail(format!("missing value for {context}"));
        }
        for (i, command) in pipe.commands.iter().enumerate().skip(1) {
            if matches!(
                command.operands[0].kind,
                Kind::Bool(_) | Kind::Dot | Kind::Nil | Kind::Number(_) | Kind::Text(..)
            ) {
                return self.fail(format!("non executable command in pipeline stage {}", i + 1));
            }
        }
        Ok(pipe)
    }

    /// `$a, $b :=` at the start of a pipeline, if it is there.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Result<(), String> {
        while self.peek_non_space().token == Token::Variable {
            let variable = self.next_non_space();
            let after = self.peek().clone();
            let next = self.peek_non_space().clone();
            let comma = next.token == Token::Char && *next.text == *b",";
            if !comma && !matches!(next.token, Token::Assign | Token::Declare) {
                if after.token == Token::Space {
                    self.backup3(variable, after);
                } else {
                    self.backup2(variable);
                }
                return Ok(());
            }
            self.next_non_space();
            let name: Box<str> = String::from_utf8_lossy(&variable.text).into();
            pipe.declared.push(name.clone());
            self.variables.push(name);
            if !comma {
                pipe.assigns = next.token == Token::Assign;
                return Ok(());
            }
            if context != "range" || pipe.declared.len() >= 2 {
                return self.fail(format!("too many declarations in {context}"));
            }
            if !matches!(self.peek_non_space().token, Token::Variable | Token::RightDelim | Token::RightParen) {
                return self.fail("range can only initialize variables");
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command, String> {
        let pos = self.peek_non_space().pos as Pos;
        let mut operands = Vec::new();
        loop {
            self.peek_non_space();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            let item = self.next();
            match item.token {
                Token::Space => {}
                Token::RightDelim | Token::RightParen => {
                    self.backup();
                    break;
                }
                Token::Pipe => break,
                _ => return self.unexpected(&item, "operand"),
            }
        }
        if operands.is_empty() {
            return self.fail("empty command");
        }
        Ok(Command { pos, operands, regex: OnceLock::new() })
    }

    fn operand(&mut self) -> Result<Option<Operand>, String> {
        let Some(term) = self.term()? else { return Ok(None) };
        if self.peek().token != Token::Field {
            return Ok(Some(term));
        }
        let pos = self.peek().pos as Pos;
        let mut fields = Vec::new();
        while self.peek().token == Token::Field {
            fields.push(field_name(&self.next().text));
        }
        let kind = match term.kind {
            Kind::Field(mut names) => {
                names.append(&mut fields);
                Kind::Field(names)
            }
            Kind::Variable(mut names) => {
                names.append(&mut fields);
                Kind::Variable(names)
            }
            Kind::Bool(_) | Kind::Text(..) | Kind::Number(_) | Kind::Nil | Kind::Dot => {
                return self.fail(format!("unexpected . after term {}", quote(&term.to_string())));
            }
            _ => Kind::Chain(Box::new(term), fields),
        };
        Ok(Some(Operand { pos, kind }))
    }

    fn term(&mut self) -> Result<Option<Operand>, String> {
        let item = self.next_non_space();
        let kind = match item.token {
            Token::Identifier => Kind::Identifier(self.function(&item)?),
            Token::Dot => Kind::Dot,
            Token::Nil => Kind::Nil,
            Token::Variable => {
                let name: Box<str> = String::from_utf8_lossy(&item.text).into();
                if !self.variables.contains(&name) {
                    return self.fail(format!("undefined variable {}", quote(&item.text)));
                }
                Kind::Variable(vec![name])
            }
            Token::Field => Kind::Field(vec![field_name(&item.text)]),
            Token::Bool => Kind::Bool(*item.text == *b"true"),
            Token::Number => match constant(&item.text) {
                Ok(c) => Kind::Number(Number {
                    text: String::from_utf8_lossy(&item.text).into(),
                    int: c.int,
                    float: c.float,
                }),
                Err(message) => return self.fail(message),
            },
            Token::CharConstant => Kind::Number(self.character(&item)?),
            Token::LeftParen => {
                Kind::Pipe(Box::new(self.nested(|p| p.pipeline("parenthesized pipeline", Token::RightParen))?))
            }
            Token::Quoted | Token::RawText => {
                let text = self.unquote(&item)?;
                Kind::Text(item.text, text)
            }
            _ => {
                self.backup();
                return Ok(None);
            }
        };
        Ok(Some(Operand { pos: item.pos as Pos, kind }))
    }

    fn function(&self, item: &Item) -> Result<&'static Function, String> {
        match std::str::from_utf8(&item.text).ok().and_then(funcs::find) {
            Some(function) => Ok(function),
            None => self.fail(format!("function {} not defined", quote(&item.text))),
        }
    }

    fn character(&self, item: &Item) -> Result<Number, String> {
        let Some((unescaped, len)) = unquote_char(item.text.get(1..).unwrap_or_default(), b'\'') else {
            return self.fail("invalid syntax");
        };
        if item.text.get(1 + len..) != Some(b"'") {
            return self.fail(format!("malformed character constant: {}", String::from_utf8_lossy(&item.text)));
        }
        let code = match unescaped {
            Unescaped::Rune(c) => u32::from(c),
            Unescaped::Byte(b) => u32::from(b),
        };
        Ok(Number {
            text: String::from_utf8_lossy(&item.text).into(),
            int: Some(i64::from(code)),
            float: Some(f64::from(code)),
        })
    }
}

/// The name in `.name`.
fn field_name(text: &[u8]) -> Box<str> {
    String::from_utf8_lossy(text.get(1..).unwrap_or_default()).into()
}
