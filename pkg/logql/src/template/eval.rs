//! The expressions of templates: pipelines, fields, calls and what becomes of their arguments.
//!
//! Invariant: before anything can fail, `at` is the node that Go's executor would blame then.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::builtin;
use super::exec::{Executor, MAX_VALUE, STEP};
use super::funcs::{Call, Function, Run};
use super::method::{self, Method};
use super::node::{At, Command, Kind, Number, Operand, Pipe};
use super::value::{Held, IntKind, Type, Value};
use crate::regex::{self, Captures};

/// Cost of compiling a regular expression.
const COMPILE: u64 = 1 << 16;
/// Memory for compiled regular expressions that a template keeps, in bytes; those beyond are compiled at each use.
const MAX_REGEX_BYTES: usize = 2 << 20;

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
    pub(super) fn pipeline(&mut self, dot: &Held<'a>, pipe: &'a Pipe) -> Result<Held<'a>, String> {
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
