//! Executes a template over the labels of a line.
//!
//! Invariants: values, error texts and the node an error names are Go's. Work is bounded by [`FUEL`], every text by
//! [`MAX_VALUE`], the output by [`MAX_OUTPUT`], nesting by [`MAX_DEPTH`]; running over a bound is an error like any other.
//! Nothing is written on an error that the caller would have to take back but what stands behind the output's old length.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tailwater_model::Timestamp;

use super::Template;
use super::builtin;
use super::format::Printer;
use super::funcs::{Call, Function, Run};
use super::method::{self, Method};
use super::node::{self, At, Branch, Command, Kind, Node, Number, Operand, Pipe};
use super::value::{Held, IntKind, Type, Value};
use crate::go::quote::quote;
use crate::regex::{self, Captures};

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
const STEP: u64 = 32;
/// Memory for compiled regular expressions that a template keeps, in bytes; those beyond are compiled at each use.
const MAX_REGEX_BYTES: usize = 2 << 20;
/// Cost of compiling a regular expression.
const COMPILE: u64 = 1 << 16;

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

struct Executor<'a, 'o> {
    template: &'a Template,
    data: &'a Data<'a>,
    printer: Printer<'o>,
    /// The name of the template that runs, for errors.
    name: &'a [u8],
    at: Option<At<'a>>,
    variables: Vec<(&'a str, Held<'a>)>,
    depth: u32,
    fuel: u64,
    out: &'o mut Vec<u8>,
    /// Where the output of this execution starts.
    start: usize,
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

type Args<'a> = SmallVec<[Held<'a>; 4]>;

/// A compiled regular expression, kept with its command or not.
enum Kept<'a> {
    Here(&'a Result<Captures, String>),
    Fresh(Result<Captures, String>),
}

/// What a call evaluates.
enum Callee<'a> {
    Function(&'a Function, &'a Command, bool),
    Method(&'static Method, Held<'a>),
}

impl<'a> Executor<'a, '_> {
    fn fail<T>(&self, message: impl std::fmt::Display) -> Result<T, String> {
        let name = quote(self.name);
        let Some(at) = &self.at else {
            return Err(format!("template: {}: {message}", String::from_utf8_lossy(self.name)));
        };
        let before = self.template.source.get(..at.pos() as usize).unwrap_or_default();
        let row = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |line| line + 1);
        Err(format!("template: {}:{row}:{column}: executing {name} at <{at}>: {message}", self.template.name))
    }

    fn spend(&mut self, cost: u64) -> Result<(), String> {
        match self.fuel.checked_sub(cost) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => self.fail("template does too much work"),
        }
    }

    fn enter(&mut self) -> Result<(), String> {
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

    fn shown(&self, value: &Value<'_>) -> String {
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

    fn assign(&mut self, name: &'a str, value: Held<'a>) {
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

    fn pipeline(&mut self, dot: &Held<'a>, pipe: &'a Pipe) -> Result<Held<'a>, String> {
        self.at = Some(At::Pipe(pipe));
        self.enter()?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?.unwrapped());
        }
        self.depth -= 1;
        let value = value.unwrap_or(Held::INVALID);
        for name in &pipe.declared {
            if pipe.assigns {
                self.assign(name, value.clone());
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Held<'a>, command: &'a Command, last: Option<Held<'a>>) -> Result<Held<'a>, String> {
        self.spend(STEP)?;
        let Some((first, args)) = command.operands.split_first() else { return Ok(Held::INVALID) };
        match &first.kind {
            Kind::Field(names) => {
                self.at = Some(At::Operand(first));
                return self.fields(dot, dot.clone(), first, names, args, last);
            }
            Kind::Chain(..) => return self.chain(dot, first, args, last),
            Kind::Identifier(function) => {
                self.at = Some(At::Operand(first));
                let callee = Callee::Function(function, command, true);
                return self.call(dot, callee, At::Command(command), function.name, args, last);
            }
            Kind::Pipe(pipe) => {
                self.no_function(first, args, last.as_ref())?;
                return self.pipeline(dot, pipe);
            }
            Kind::Variable(names) => return self.variable(dot, first, names, args, last),
            _ => {}
        }
        self.at = Some(At::Operand(first));
        self.no_function(first, args, last.as_ref())?;
        match &first.kind {
            Kind::Bool(b) => Ok(Held::plain(Value::Bool(*b))),
            Kind::Number(number) => self.ideal(number),
            Kind::Text(_, text) => Ok(Held::plain(Value::borrowed(text))),
            Kind::Nil => self.fail("nil is not a command"),
            _ => Ok(dot.clone()),
        }
    }

    fn no_function(&self, first: &Operand, args: &[Operand], last: Option<&Held<'a>>) -> Result<(), String> {
        if args.is_empty() && last.is_none() {
            return Ok(());
        }
        self.fail(format!("can't give argument to non-function {first}"))
    }

    /// A constant whose type nothing prescribes.
    fn ideal(&self, number: &Number) -> Result<Held<'a>, String> {
        let text = &number.text;
        let hex =
            text.len() > 2 && text.starts_with('0') && text[1..].starts_with(['x', 'X']) && !text.contains(['p', 'P']);
        let character = text.starts_with('\'');
        match (number.float, number.int) {
            (Some(float), _) if !hex && !character && text.contains(['.', 'e', 'E', 'p', 'P']) => {
                Ok(Held::plain(Value::Float(float)))
            }
            (_, Some(int)) => Ok(Held::plain(Value::int(int))),
            _ => self.fail(format!("{text} overflows int")),
        }
    }

    fn variable(
        &mut self,
        dot: &Held<'a>,
        operand: &'a Operand,
        names: &'a [Box<str>],
        args: &'a [Operand],
        last: Option<Held<'a>>,
    ) -> Result<Held<'a>, String> {
        self.at = Some(At::Operand(operand));
        let Some((name, fields)) = names.split_first() else { return Ok(Held::INVALID) };
        let value = match self.variables.iter().rev().find(|(n, _)| *n == &**name) {
            Some((_, value)) => value.clone(),
            // The parser knows all names; what is not here is the `$` of the main template.
            None => Held::plain(Value::Labels),
        };
        if fields.is_empty() {
            self.no_function(operand, args, last.as_ref())?;
            return Ok(value);
        }
        self.fields(dot, value, operand, fields, args, last)
    }

    fn chain(
        &mut self,
        dot: &Held<'a>,
        operand: &'a Operand,
        args: &'a [Operand],
        last: Option<Held<'a>>,
    ) -> Result<Held<'a>, String> {
        self.at = Some(At::Operand(operand));
        let Kind::Chain(of, names) = &operand.kind else { return Ok(Held::INVALID) };
        let value = self.argument_value(dot, of)?.unwrap_or(Held::INVALID);
        self.fields(dot, value, operand, names, args, last)
    }

    fn fields(
        &mut self,
        dot: &Held<'a>,
        receiver: Held<'a>,
        operand: &'a Operand,
        names: &'a [Box<str>],
        args: &'a [Operand],
        last: Option<Held<'a>>,
    ) -> Result<Held<'a>, String> {
        let mut receiver = receiver;
        let Some((final_name, names)) = names.split_last() else { return Ok(receiver) };
        for name in names {
            receiver = self.field(dot, receiver, operand, name, &[], None)?;
        }
        self.field(dot, receiver, operand, final_name, args, last)
    }

    fn field(
        &mut self,
        dot: &Held<'a>,
        receiver: Held<'a>,
        operand: &'a Operand,
        name: &'a str,
        args: &'a [Operand],
        last: Option<Held<'a>>,
    ) -> Result<Held<'a>, String> {
        if receiver.is_invalid() {
            return Ok(Held::INVALID);
        }
        if matches!(receiver.value, Value::Nil) {
            return self.fail(format!("nil pointer evaluating {}.{name}", receiver.type_name()));
        }
        if let Some(method) = method::find(&receiver.value, name) {
            let callee = Callee::Method(method, receiver);
            return self.call(dot, callee, At::Operand(operand), name, args, last);
        }
        let found = match &receiver.value {
            Value::Labels => Held::plain(self.data.field(name.as_bytes())),
            Value::Map(map) => map.get(name.as_bytes()).map_or(Held::NIL, |v| Held::in_interface(v.clone())),
            _ => return self.fail(format!("can't evaluate field {name} in type {}", receiver.type_name())),
        };
        if !args.is_empty() || last.is_some() {
            return self.fail(format!("{name} is not a method but has arguments"));
        }
        Ok(found)
    }

    fn call(
        &mut self,
        dot: &Held<'a>,
        callee: Callee<'a>,
        node: At<'a>,
        name: &'a str,
        operands: &'a [Operand],
        last: Option<Held<'a>>,
    ) -> Result<Held<'a>, String> {
        let (params, variadic) = match &callee {
            Callee::Function(function, ..) => (function.params, function.variadic),
            Callee::Method(method, _) => (method.params, None),
        };
        let count = operands.len() + usize::from(last.is_some());
        if variadic.is_some() && count < params.len() {
            let (want, got) = (params.len(), operands.len());
            return self.fail(format!("wrong number of args for {name}: want at least {want} got {got}"));
        }
        if variadic.is_none() && count != params.len() {
            return self.fail(format!("wrong number of args for {name}: want {} got {count}", params.len()));
        }
        let param = |i: usize| params.get(i).copied().or(variadic).unwrap_or(Type::Any);
        if let Callee::Function(Function { run: Run::ShortCircuit(on), .. }, ..) = callee {
            let mut value = Held::INVALID;
            for operand in operands {
                value = self.argument(dot, Type::Reflect, operand)?;
                if builtin::truth(&value.value, self.data) == *on {
                    return Ok(value);
                }
            }
            return match last {
                Some(last) => self.check(last, Type::Reflect),
                None => Ok(value),
            };
        }
        let mut args: Args<'a> = SmallVec::new();
        for (i, operand) in operands.iter().enumerate() {
            let arg = self.argument(dot, param(i), operand)?;
            args.push(arg);
        }
        if let Some(last) = last {
            let last = self.check(last, param(operands.len()))?;
            args.push(last);
        }
        match callee {
            Callee::Function(function, command, whole) => {
                let (command, whole) = (whole.then_some(command), operands);
                self.call_function(function, command, node, whole, &args)
            }
            Callee::Method(method, receiver) => {
                self.spend(STEP)?;
                Ok(method.call(&receiver, &args))
            }
        }
    }

    fn call_function(
        &mut self,
        function: &'a Function,
        command: Option<&'a Command>,
        node: At<'a>,
        operands: &'a [Operand],
        args: &[Held<'a>],
    ) -> Result<Held<'a>, String> {
        let Run::Plain(run) = &function.run else { return Ok(Held::INVALID) };
        let size = |value: &Value<'_>| if let Value::Text(text) = value { text.len() as u64 } else { 0 };
        self.spend(args.iter().map(|a| size(&a.value)).sum::<u64>())?;
        let compiled;
        let regex = match (function.takes_regex(), args.first()) {
            (true, Some(Held { value: Value::Text(pattern), .. })) => match self.kept_regex(command, pattern)? {
                Kept::Here(regex) => Some(regex),
                Kept::Fresh(regex) => {
                    compiled = regex;
                    Some(&compiled)
                }
            },
            _ => None,
        };
        let callee = match (function.name, operands.first(), args.first()) {
            ("call", Some(operand), _) => operand.to_string(),
            ("call", None, Some(arg)) => self.shown(&arg.value),
            _ => String::new(),
        };
        let call = Call { args, data: self.data, printer: &self.printer, regex, callee: &callee };
        match run(&call) {
            Ok(answer) => {
                let len = size(&answer.value);
                if len > MAX_VALUE as u64 {
                    self.at = Some(node);
                    return self.fail(format!("error calling {}: text too long", function.name));
                }
                self.spend(len)?;
                Ok(answer)
            }
            Err(message) => {
                self.at = Some(node);
                self.fail(format!("error calling {}: {message}", function.name))
            }
        }
    }

    /// The compiled pattern: the one the command keeps if it is written out there, otherwise a new one.
    fn kept_regex(&mut self, command: Option<&'a Command>, pattern: &[u8]) -> Result<Kept<'a>, String> {
        let written_out = |c: &&Command| matches!(c.operands.get(1), Some(Operand { kind: Kind::Text(..), .. }));
        let command = command.filter(written_out);
        if let Some(regex) = command.and_then(|c| c.regex.get()) {
            return Ok(Kept::Here(regex));
        }
        self.spend(COMPILE)?;
        let regex = regex::captures(pattern);
        let bytes = regex.as_ref().map_or_else(String::len, Captures::memory);
        let before = self.template.regex_bytes.fetch_add(bytes, Ordering::Relaxed);
        match command {
            Some(command) if before.saturating_add(bytes) <= MAX_REGEX_BYTES => {
                Ok(Kept::Here(command.regex.get_or_init(|| regex)))
            }
            _ => {
                self.template.regex_bytes.fetch_sub(bytes, Ordering::Relaxed);
                Ok(Kept::Fresh(regex))
            }
        }
    }

    /// The value of an operand that is not a constant; `None` for constants.
    fn argument_value(&mut self, dot: &Held<'a>, operand: &'a Operand) -> Result<Option<Held<'a>>, String> {
        self.at = Some(At::Operand(operand));
        Ok(Some(match &operand.kind {
            Kind::Dot => dot.clone(),
            Kind::Field(names) => self.fields(dot, dot.clone(), operand, names, &[], None)?,
            Kind::Variable(names) => self.variable(dot, operand, names, &[], None)?,
            Kind::Pipe(pipe) => self.pipeline(dot, pipe)?,
            Kind::Chain(..) => self.chain(dot, operand, &[], None)?,
            Kind::Identifier(function) => {
                let callee = Callee::Function(function, &EMPTY, false);
                self.call(dot, callee, At::Operand(operand), function.name, &[], None)?
            }
            Kind::Nil | Kind::Bool(_) | Kind::Number(_) | Kind::Text(..) => return Ok(None),
        }))
    }

    /// An operand as an argument of type `wanted`.
    fn argument(&mut self, dot: &Held<'a>, wanted: Type, operand: &'a Operand) -> Result<Held<'a>, String> {
        self.spend(STEP)?;
        if let Some(value) = self.argument_value(dot, operand)? {
            return self.check(value, wanted);
        }
        let constant = match (&operand.kind, wanted) {
            (Kind::Nil, Type::Any) => Held::NIL,
            (Kind::Nil, Type::Reflect) => Held::INVALID,
            (Kind::Nil, _) => return self.fail(format!("cannot assign nil to {}", wanted.name())),
            (Kind::Bool(b), Type::Any | Type::Reflect) => Held::plain(Value::Bool(*b)),
            (Kind::Number(number), Type::Any | Type::Reflect) => self.ideal(number)?,
            (Kind::Text(_, text), Type::Any | Type::Reflect | Type::Text) => Held::plain(Value::borrowed(text)),
            (Kind::Number(Number { float: Some(float), .. }), Type::Float) => Held::plain(Value::Float(*float)),
            (Kind::Number(Number { int: Some(int), .. }), Type::Int) => Held::plain(Value::int(*int)),
            (Kind::Number(Number { int: Some(int), .. }), Type::Duration) => {
                Held::plain(Value::Int(IntKind::Duration, *int))
            }
            (_, Type::Text) => return self.fail(format!("expected string; found {operand}")),
            (_, Type::Float) => return self.fail(format!("expected float; found {operand}")),
            (_, Type::Int | Type::Duration) => return self.fail(format!("expected integer; found {operand}")),
            _ => return self.fail(format!("can't handle {operand} for arg of type {}", wanted.name())),
        };
        Ok(constant)
    }

    /// A value as an argument of type `wanted`.
    fn check(&self, value: Held<'a>, wanted: Type) -> Result<Held<'a>, String> {
        if value.is_invalid() {
            return match wanted {
                Type::Any => Ok(Held::NIL),
                Type::Reflect => Ok(value),
                _ => self.fail(format!("invalid value; expected {}", wanted.name())),
            };
        }
        match wanted {
            Type::Reflect => Ok(value),
            _ if wanted.takes(&value.value) => Ok(value.unwrapped()),
            _ => {
                let got = if matches!(value.value, Value::Nil) { "interface {}" } else { value.value.type_name() };
                self.fail(format!("wrong type for value; expected {}; got {got}", wanted.name()))
            }
        }
    }
}

/// Stands for the command of a function that is called without one.
static EMPTY: Command = Command { pos: 0, operands: Vec::new(), regex: OnceLock::new() };
