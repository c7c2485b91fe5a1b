//! The values templates compute with, and the names their types have in Go (users see them in error texts and `%T`).

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::go::time::Time;

/// A value together with how Go's reflection would hold it.
#[derive(Clone, Debug)]
pub(super) struct Held<'a> {
    pub(super) value: Value<'a>,
    /// Held in an `interface {}`, as the elements of decoded JSON are. `Nil` that is not held is Go's invalid value.
    pub(super) interface: bool,
}

impl<'a> Held<'a> {
    /// Go's zero `reflect.Value`.
    pub(super) const INVALID: Self = Self { value: Value::Nil, interface: false };
    /// A nil `interface {}`.
    pub(super) const NIL: Self = Self { value: Value::Nil, interface: true };

    pub(super) fn plain(value: Value<'a>) -> Self {
        Self { value, interface: false }
    }

    pub(super) fn in_interface(value: Value<'a>) -> Self {
        Self { value, interface: true }
    }

    /// What is inside, if it is held in an interface.
    pub(super) fn unwrapped(self) -> Self {
        Self { value: self.value, interface: false }
    }

    pub(super) fn is_invalid(&self) -> bool {
        matches!(self.value, Value::Nil) && !self.interface
    }

    /// The static type.
    pub(super) fn type_name(&self) -> &'static str {
        if self.interface { "interface {}" } else { self.value.type_name() }
    }
}

/// Go's integer types, as far as templates meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntKind {
    Int,
    Int64,
    /// A byte of a string.
    Uint8,
    Month,
    Weekday,
    /// Nanoseconds.
    Duration,
}

/// Bytes that are borrowed from the template or its data, or shared.
#[derive(Clone, Debug)]
pub(super) enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Shared(Rc<[u8]>),
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(b) => b,
            Self::Shared(b) => b,
        }
    }
}

/// A map with string keys, sorted as Go prints and ranges over it.
pub(super) type Map<'a> = BTreeMap<Box<[u8]>, Value<'a>>;

/// A dynamic value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(IntKind, i64),
    Float(f64),
    Text(Bytes<'a>),
    Time(Time),
    List(Rc<[Value<'a>]>),
    Map(Rc<Map<'a>>),
    /// The labels: a map of strings.
    Labels,
}

impl<'a> Value<'a> {
    pub(super) fn int(n: i64) -> Self {
        Self::Int(IntKind::Int, n)
    }

    pub(super) fn int64(n: i64) -> Self {
        Self::Int(IntKind::Int64, n)
    }

    pub(super) fn text(bytes: impl Into<Rc<[u8]>>) -> Self {
        Self::Text(Bytes::Shared(bytes.into()))
    }

    pub(super) fn borrowed(bytes: &'a [u8]) -> Self {
        Self::Text(Bytes::Borrowed(bytes))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(kind, _) => match kind {
                IntKind::Int => "int",
                IntKind::Int64 => "int64",
                IntKind::Uint8 => "uint8",
                IntKind::Month => "time.Month",
                IntKind::Weekday => "time.Weekday",
                IntKind::Duration => "time.Duration",
            },
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Time(_) => "time.Time",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Labels => "map[string]string",
        }
    }
}

/// The types of parameters of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Int,
    Float,
    Time,
    Duration,
    /// `interface {}`
    Any,
    /// `reflect.Value`: what the functions of Go's own template package take.
    Reflect,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Int => "int",
            Self::Float => "float64",
            Self::Time => "time.Time",
            Self::Duration => "time.Duration",
            Self::Any => "interface {}",
            Self::Reflect => "reflect.Value",
        }
    }

    /// Whether a value may be passed for a parameter of this type as it is.
    pub(super) fn takes(self, value: &Value<'_>) -> bool {
        match self {
            Self::Any | Self::Reflect => true,
            Self::Text => matches!(value, Value::Text(_)),
            Self::Int => matches!(value, Value::Int(IntKind::Int, _)),
            Self::Float => matches!(value, Value::Float(_)),
            Self::Time => matches!(value, Value::Time(_)),
            Self::Duration => matches!(value, Value::Int(IntKind::Duration, _)),
        }
    }
}
