//! Executes a template over the labels of a line.
//!
//! Invariants: values, error texts and the node an error names are Go's. Work is bounded by [`FUEL`], every text by
//! [`MAX_VALUE`], the output by [`MAX_OUTPUT`], nesting by [`MAX_DEPTH`]; running over a bound is an error like any other.
//! Nothing is written on an error that the caller would have to take back but what stands behind the output's old length.

use tailwater_model::Timestamp;

use super::Template;
use super::builtin;
use super::format::Printer;
use super::node::{self, At, Branch, Node, Pipe};
use super::value::{Held, Value};
use crate::go::quote::quote;

/// Longest text a function may answer, in bytes.
pub(super) const MAX_VALUE: usize = 4 << 20;
/// Longest output of an execution, in bytes.
const MAX_OUTPUT: usize = 4 << 20;
/// How deep lists and pipelines may nest, through called templates too. Go allows 100000 calls; the stack of a thread of the
/// service does not.
const MAX_DEPTH: u32 = 250;
/// Work an execution may do: a step costs [`STEP`], text that is read or made one per byte.
const FUEL: u64 = 1 << 25;
/// Cost of a step.
pub(super) const STEP: u64 = 32;

/// The labels a template sees.
pub trait Lookup {
    /// The value of a label, `None` if there is none.
    fn get(&self, name: &str) -> Option<&[u8]>;
    /// Visits every label once, in any order.
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8]));
}

/// What a template is executed over.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    /// The labels.
    pub labels: &'a dyn Lookup,
    /// The line as it is when the stage begins.
    pub line: &'a [u8],
    /// The time of the line.
    pub timestamp: Timestamp,
    /// The current time.
    pub now: Timestamp,
}

impl<'a> Data<'a> {
    /// A label, or the empty text.
    pub(super) fn field(&self, name: &[u8]) -> Value<'a> {
        let text = std::str::from_utf8(name).ok().and_then(|name| self.labels.get(name));
        Value::borrowed(text.unwrap_or_default())
    }

    pub(super) fn labels_len(&self) -> usize {
        let mut len = 0;
        self.labels.each(&mut |_, _| len += 1);
        len
    }
}

/// How a list ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// An execution under way.
pub(super) struct Executor<'a, 'o> {
    pub(super) template: &'a Template,
    pub(super) data: &'a Data<'a>,
    pub(super) printer: Printer<'o>,
    /// The name of the template that runs, for errors.
    pub(super) name: &'a [u8],
    pub(super) at: Option<At<'a>>,
    pub(super) variables: Vec<(&'a str, Held<'a>)>,
    pub(super) depth: u32,
    pub(super) fuel: u64,
    pub(super) out: &'o mut Vec<u8>,
    /// Where the output of this execution starts.
    pub(super) start: usize,
}

/// Appends the output to `out`.
pub(super) fn execute<'a>(template: &'a Template, data: &'a Data<'a>, out: &mut Vec<u8>) -> Result<(), String> {
    let Some(main) = template.trees.last() else { return Ok(()) };
    let start = out.len();
    let each = |visit: &mut dyn FnMut(&[u8], &[u8])| data.labels.each(visit);
    let mut executor = Executor {
        template,
        data,
        printer: Printer::new(&each),
        name: &main.name,
        at: None,
        variables: Vec::new(),
        depth: 0,
        fuel: FUEL,
        out,
        start,
    };
    let dot = Held::plain(Value::Labels);
    executor.list(&dot, &main.list).map(|_| ())
}

impl<'a> Executor<'a, '_> {
    pub(super) fn fail<T>(&self, message: impl std::fmt::Display) -> Result<T, String> {
        let name = quote(self.name);
        let Some(at) = &self.at else {
            return Err(format!("template: {}: {message}", String::from_utf8_lossy(self.name)));
        };
        let before = self.template.source.get(..at.pos() as usize).unwrap_or_default();
        let row = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |line| line + 1);
        Err(format!("template: {}:{row}:{column}: executing {name} at <{at}>: {message}", self.template.name))
    }

    pub(super) fn spend(&mut self, cost: u64) -> Result<(), String> {
        match self.fuel.checked_sub(cost) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => self.fail("template does too much work"),
        }
    }

    pub(super) fn enter(&mut self) -> Result<(), String> {
        if self.depth == MAX_DEPTH {
            return self.fail(format!("exceeded maximum template depth ({MAX_DEPTH})"));
        }
        self.depth += 1;
        Ok(())
    }

    fn list(&mut self, dot: &Held<'a>, list: &'a [Node]) -> Result<Flow, String> {
        self.enter()?;
        let flow = self.nodes(dot, list)?;
        self.depth -= 1;
        Ok(flow)
    }

    fn nodes(&mut self, dot: &Held<'a>, list: &'a [Node]) -> Result<Flow, String> {
        for node in list {
            self.spend(STEP)?;
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Action(pipe) => {
                    self.at = Some(At::Action(pipe));
                    let value = self.pipeline(dot, pipe)?;
                    if pipe.declared.is_empty() {
                        self.at = Some(At::Action(pipe));
                        self.print(&value)?;
                    }
                }
                Node::If(branch) => {
                    let flow = self.branch(dot, branch, false)?;
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::With(branch) => {
                    let flow = self.branch(dot, branch, true)?;
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::Range(branch) => self.range(dot, branch)?,
                Node::Template(call) => self.call_template(dot, call)?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    fn write(&mut self, text: &[u8]) -> Result<(), String> {
        self.out.extend_from_slice(text);
        self.check_output()
    }

    fn check_output(&mut self) -> Result<(), String> {
        if self.out.len() - self.start > MAX_OUTPUT { self.fail("template output too large") } else { Ok(()) }
    }

    fn print(&mut self, value: &Held<'a>) -> Result<(), String> {
        match &value.value {
            Value::Nil => self.out.extend_from_slice(b"<no value>"),
            value => self.printer.value(value, self.out),
        }
        self.check_output()
    }

    fn branch(&mut self, dot: &Held<'a>, branch: &'a Branch, with: bool) -> Result<Flow, String> {
        let mark = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let flow = if builtin::truth(&value.value, self.data) {
            self.list(if with { &value } else { dot }, &branch.list)
        } else if let Some(otherwise) = &branch.otherwise {
            self.list(dot, otherwise)
        } else {
            Ok(Flow::On)
        };
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, dot: &Held<'a>, branch: &'a Branch) -> Result<(), String> {
        self.at = Some(At::Range(branch));
        let outer = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let mark = self.variables.len();
        let mut any = false;
        // Answers whether to go on.
        let mut once = |this: &mut Self, index: Held<'a>, element: Held<'a>| -> Result<bool, String> {
            any = true;
            this.spend(STEP)?;
            this.bind(&branch.pipe, index, &element);
            let flow = this.list(&element, &branch.list)?;
            this.variables.truncate(mark);
            Ok(flow != Flow::Break)
        };
        match &value.value {
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    if !once(self, Held::plain(Value::int(i as i64)), Held::in_interface(item.clone()))? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (name, item) in map.iter() {
                    let name = Held::plain(Value::text(&**name));
                    if !once(self, name, Held::in_interface(item.clone()))? {
                        break;
                    }
                }
            }
            Value::Labels => {
                let mut pairs = Vec::new();
                self.data.labels.each(&mut |name, text| pairs.push((name.to_vec(), text.to_vec())));
                pairs.sort_unstable();
                self.spend(pairs.iter().map(|(name, text)| (name.len() + text.len()) as u64).sum())?;
                for (name, text) in pairs {
                    if !once(self, Held::plain(Value::text(name)), Held::plain(Value::text(text)))? {
                        break;
                    }
                }
            }
            Value::Int(..) if branch.pipe.declared.len() > 1 => {
                let shown = self.shown(&value.value);
                return self.fail(format!("can't use {shown} to iterate over more than one variable"));
            }
            Value::Int(kind, n) => {
                for i in 0..*n {
                    if !once(self, Held::INVALID, Held::plain(Value::Int(*kind, i)))? {
                        break;
                    }
                }
            }
            Value::Nil => {}
            other => {
                let shown = self.shown(other);
                return self.fail(format!("range can't iterate over {shown}"));
            }
        }
        if let (false, Some(otherwise)) = (any, &branch.otherwise) {
            self.list(dot, otherwise)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    pub(super) fn shown(&self, value: &Value<'_>) -> String {
        let mut out = Vec::new();
        self.printer.value(value, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Sets the variables of a range for one iteration.
    fn bind(&mut self, pipe: &'a Pipe, index: Held<'a>, element: &Held<'a>) {
        match (&pipe.declared[..], pipe.assigns) {
            ([], _) => {}
            ([only], true) => self.assign(only, element.clone()),
            ([first, second, ..], true) => {
                self.assign(first, index);
                self.assign(second, element.clone());
            }
            (declared, false) => {
                let len = self.variables.len();
                if let Some(last) = self.variables.last_mut() {
                    last.1 = element.clone();
                }
                if declared.len() > 1
                    && let Some(first) = len.checked_sub(2).and_then(|at| self.variables.get_mut(at))
                {
                    first.1 = index;
                }
            }
        }
    }

    pub(super) fn assign(&mut self, name: &'a str, value: Held<'a>) {
        match self.variables.iter_mut().rev().find(|(n, _)| *n == name) {
            Some(variable) => variable.1 = value,
            // `$` itself, which is not kept until it is assigned.
            None => self.variables.insert(0, (name, value)),
        }
    }

    fn call_template(&mut self, dot: &Held<'a>, call: &'a node::Call) -> Result<(), String> {
        self.at = Some(At::Call(call));
        let Some(tree) = self.template.trees.iter().find(|t| t.name == call.name) else {
            return self.fail(format!("template {} not defined", quote(&call.name)));
        };
        let dot = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Held::INVALID,
        };
        // The called template sees no variable but its own `$`.
        let variables = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let name = std::mem::replace(&mut self.name, &tree.name);
        self.list(&dot, &tree.list)?;
        self.name = name;
        self.variables = variables;
        Ok(())
    }
}
