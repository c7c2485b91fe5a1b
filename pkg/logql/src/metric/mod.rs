//! Metric queries: from log lines to series of numbers. Pure, as the whole crate.
//!
//! The way of a line: [`SampleQuery`] says which lines a range aggregation reads and what each is worth (its [`SampleRunner`] runs
//! them), partial aggregates collect what lines are worth per series and stretch of time, windows over them give each series
//! a value per step ([`Series`]), and [`evaluate`] makes of the series of all range aggregations the answer of the expression.
//!
//! Invariants:
//! * A series has a value at a step exactly if its window holds a sample. NaN is a value like any other; *no value* is told apart
//!   from it everywhere.
//! * Memory grows with series and steps, not with lines; only what has no smaller exact form keeps more: quantiles their distinct
//!   values, counters their samples.

mod column;
mod grid;
mod hints;
mod portable;
mod quantile;
mod sample;
mod series;
#[cfg(test)]
mod tests;
mod vector;
mod window;

pub use column::{Column, Full, Place};
pub use grid::{Grid, Pane};
pub use sample::{SampleQuery, SampleRunner, SeriesNumber};
pub use series::{MAX_STEPS, Series, Steps};
pub use vector::{
    Evaluated, EvaluationError, EvaluationErrorKind, EvaluationLimits, Leaf, answered, check, evaluate, leaves,
};
pub use window::{PipelineError, series, series_at};
