//! Templates of `line_format` and `label_format`: Go's `text/template` with Loki's functions.
//!
//! Invariants: what a template prints, and the text, row, column and node of its errors, are Go's; texts are bytes and need not
//! be UTF-8; a template is parsed once and executed often, by many threads; executing is bounded in work, output and depth,
//! and takes the current time and the labels from outside. The local zone is UTC.

mod builtin;
mod encode;
mod eval;
mod exec;
mod format;
mod format_number;
mod funcs;
mod json;
mod lex;
mod math;
mod method;
mod node;
mod parse;
mod text;
mod value;

pub use exec::{Data, Lookup};

use std::sync::atomic::AtomicUsize;

use node::{Kind, Node, Operand, Pipe};
use parse::Tree;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    name: Box<str>,
    source: Box<[u8]>,
    /// What it defines, and last itself.
    trees: Vec<Tree>,
    single_field: Option<Box<str>>,
    /// Memory of the compiled regular expressions that are kept.
    regex_bytes: AtomicUsize,
}

impl Template {
    /// Parses a template; `name` stands in error texts (`line` or `label`). The error is Go's text: `template: line:1: …`.
    pub fn parse(name: &str, text: &(impl AsRef<[u8]> + ?Sized)) -> Result<Self, String> {
        let source: Box<[u8]> = text.as_ref().into();
        let trees = parse::parse(name, &source).map_err(|message| format!("template: {message}"))?;
        let single_field = trees.last().and_then(|tree| single_field(&tree.list));
        Ok(Self { name: name.into(), source, trees, single_field, regex_bytes: AtomicUsize::new(0) })
    }

    /// The label's name, if the template is that label and nothing else: `{{.x}}`, also as `{{ $v := .x }}`.
    #[must_use]
    pub fn single_field(&self) -> Option<&str> {
        self.single_field.as_deref()
    }

    /// The names of fields it refers to (`.a.b` refers to both, `$.a` to none), in order, with repetitions.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(tree) = self.trees.last() {
            fields_of_list(&tree.list, &mut names);
        }
        names
    }

    /// Executes the template and appends what it prints to `out`; on an error `out` is as it was before. The error is Go's text,
    /// with the row, column and node it is about.
    pub fn execute(&self, data: &Data<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        let result = exec::execute(self, data, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }
}

fn single_field(list: &[Node]) -> Option<Box<str>> {
    let [Node::Action(Pipe { commands, .. })] = list else { return None };
    let [command] = &commands[..] else { return None };
    match &command.operands[..] {
        [Operand { kind: Kind::Field(names), .. }] if names.len() == 1 => names.first().cloned(),
        _ => None,
    }
}

fn fields_of_list(list: &[Node], names: &mut Vec<String>) {
    for node in list {
        match node {
            Node::Action(pipe) => fields_of_pipe(pipe, names),
            Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
                fields_of_pipe(&branch.pipe, names);
                fields_of_list(&branch.list, names);
                fields_of_list(branch.otherwise.as_deref().unwrap_or_default(), names);
            }
            Node::Template(call) => {
                if let Some(pipe) = &call.pipe {
                    fields_of_pipe(pipe, names);
                }
            }
            Node::Text(_) | Node::Break | Node::Continue => {}
        }
    }
}

fn fields_of_pipe(pipe: &Pipe, names: &mut Vec<String>) {
    for operand in pipe.commands.iter().flat_map(|c| &c.operands) {
        match &operand.kind {
            Kind::Field(fields) => names.extend(fields.iter().map(|f| f.to_string())),
            Kind::Pipe(pipe) => fields_of_pipe(pipe, names),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
