//! A parsed template and its canonical text, which error messages quote.

use std::fmt;
use std::sync::OnceLock;

use super::funcs::Function;
use crate::go::quote::quote;
use crate::regex::Captures;

/// A byte offset into the template's text.
pub(super) type Pos = u32;

#[derive(Debug)]
pub(super) enum Node {
    Text(Box<[u8]>),
    Action(Pipe),
    If(Box<Branch>),
    Range(Box<Branch>),
    With(Box<Branch>),
    Template(Call),
    Break,
    Continue,
}

/// `{{if}}`, `{{range}}` or `{{with}}`.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pos: Pos,
    pub(super) pipe: Pipe,
    pub(super) list: Vec<Node>,
    pub(super) otherwise: Option<Vec<Node>>,
}

/// `{{template "name" pipe}}`
#[derive(Debug)]
pub(super) struct Call {
    pub(super) pos: Pos,
    pub(super) name: Box<[u8]>,
    pub(super) pipe: Option<Pipe>,
}

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) pos: Pos,
    /// `=` instead of `:=`.
    pub(super) assigns: bool,
    /// Variables that are declared or assigned, with their `$`.
    pub(super) declared: Vec<Box<str>>,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) pos: Pos,
    /// At least one.
    pub(super) operands: Vec<Operand>,
    /// The first argument of a function that takes a regular expression, compiled when it is first needed. Unused otherwise.
    pub(super) regex: OnceLock<Result<Captures, String>>,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) pos: Pos,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    /// The literal as written and its value.
    Text(Box<[u8]>, Box<[u8]>),
    /// `.a.b`
    Field(Vec<Box<str>>),
    /// `$x.a.b`; the first is the variable's name with its `$`.
    Variable(Vec<Box<str>>),
    Identifier(&'static Function),
    Pipe(Box<Pipe>),
    /// `(pipe).a.b` or `function.a.b`
    Chain(Box<Operand>, Vec<Box<str>>),
}

/// A constant; which of the types it can be depends on its text.
#[derive(Debug, Default)]
pub(super) struct Number {
    pub(super) text: Box<str>,
    pub(super) int: Option<i64>,
    pub(super) float: Option<f64>,
}

/// What an error is about.
#[derive(Clone, Copy)]
pub(super) enum At<'t> {
    Operand(&'t Operand),
    Command(&'t Command),
    Pipe(&'t Pipe),
    Action(&'t Pipe),
    Range(&'t Branch),
    Call(&'t Call),
}

impl At<'_> {
    pub(super) fn pos(&self) -> Pos {
        match self {
            Self::Operand(n) => n.pos,
            Self::Command(n) => n.pos,
            Self::Pipe(n) | Self::Action(n) => n.pos,
            Self::Range(n) => n.pos,
            Self::Call(n) => n.pos,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operand(n) => n.fmt(f),
            Self::Command(n) => n.fmt(f),
            Self::Pipe(n) => n.fmt(f),
            Self::Action(n) => write!(f, "{{{{{n}}}}}"),
            Self::Range(n) => write_branch(f, "range", n),
            Self::Call(n) => n.fmt(f),
        }
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.declared.iter().enumerate() {
            write!(f, "{}{name}", if i > 0 { ", " } else { "" })?;
        }
        if !self.declared.is_empty() {
            f.write_str(if self.assigns { " = " } else { " := " })?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if i > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, operand) in self.operands.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            match &operand.kind {
                Kind::Pipe(pipe) => write!(f, "({pipe})")?,
                _ => operand.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Dot => f.write_str("."),
            Kind::Nil => f.write_str("nil"),
            Kind::Bool(b) => b.fmt(f),
            Kind::Number(n) => f.write_str(&n.text),
            Kind::Text(quoted, _) => f.write_str(&String::from_utf8_lossy(quoted)),
            Kind::Field(names) => names.iter().try_for_each(|n| write!(f, ".{n}")),
            Kind::Variable(names) => f.write_str(&names.join(".")),
            Kind::Identifier(function) => f.write_str(function.name),
            Kind::Pipe(pipe) => pipe.fmt(f),
            Kind::Chain(of, names) => {
                match &of.kind {
                    Kind::Pipe(pipe) => write!(f, "({pipe})")?,
                    _ => of.fmt(f)?,
                }
                names.iter().try_for_each(|n| write!(f, ".{n}"))
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}

fn write_branch(f: &mut fmt::Formatter<'_>, word: &str, branch: &Branch) -> fmt::Result {
    write!(f, "{{{{{word} {}}}}}", branch.pipe)?;
    write_list(f, &branch.list)?;
    if let Some(otherwise) = &branch.otherwise {
        f.write_str("{{else}}")?;
        write_list(f, otherwise)?;
    }
    f.write_str("{{end}}")
}

fn write_list(f: &mut fmt::Formatter<'_>, list: &[Node]) -> fmt::Result {
    list.iter().try_for_each(|node| match node {
        Node::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
        Node::Action(pipe) => write!(f, "{{{{{pipe}}}}}"),
        Node::If(branch) => write_branch(f, "if", branch),
        Node::Range(branch) => write_branch(f, "range", branch),
        Node::With(branch) => write_branch(f, "with", branch),
        Node::Template(call) => write!(f, "{call}"),
        Node::Break => f.write_str("{{break}}"),
        Node::Continue => f.write_str("{{continue}}"),
    })
}
