//! The compiled log pipeline: stages that run over one line after the other.
//!
//! Invariants:
//! * Stages act in the order written. A line filter is moved forward only over stages that leave the line as it is, so the
//!   answer is the same.
//! * A stage that fails sets `__error__` and lets the line pass; only filters stop lines.
//! * Compiled stages are shared and immutable; what a run needs lives in its [`Runner`] and is bounded.

mod labels;
mod line_filter;

use std::sync::Arc;

use tailwater_model::{LabelSet, Labels, Timestamp};

use self::labels::LineLabels;
use self::line_filter::LineTest;
use crate::ast;
use crate::{Error, LogQuery};

/// The stages of a query.
#[derive(Debug)]
pub(crate) struct Pipeline {
    names: Box<[Box<str>]>,
    /// What the line must pass as it came.
    head: Box<[LineTest]>,
    written: usize,
}

impl Pipeline {
    /// Compiles stages.
    pub(crate) fn new(stages: &[ast::Stage]) -> Result<Self, Error> {
        let mut head = Vec::new();
        for stage in stages {
            match stage {
                ast::Stage::Line(filter) => line_filter::compile(filter, &mut head)
                    .map_err(|msg| Error::Stage { stage: format!("{stage:?}"), msg })?,
                other => return Err(Error::Stage { stage: format!("{other:?}"), msg: "not supported".into() }),
            }
        }
        Ok(Self { names: Box::default(), head: head.into(), written: stages.len() })
    }

    /// Whether no stage was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// See [`LogQuery::may_match`].
    pub(crate) fn may_match(&self, region: &[u8]) -> bool {
        self.head.iter().all(|test| test.may_match(region))
    }
}

/// A line that passed.
#[derive(Clone, Debug)]
pub struct Matched<'a> {
    /// The line, as the stages have left it.
    pub line: &'a [u8],
    /// All its labels.
    pub labels: LabelSet,
}

/// Runs a query over lines. Owns everything that changes meanwhile; what it remembers is bounded.
#[derive(Debug)]
pub struct Runner {
    query: Arc<LogQuery>,
    detect_level: bool,
    labels: LineLabels,
}

impl Runner {
    pub(crate) fn new(query: Arc<LogQuery>, detect_level: bool) -> Self {
        let labels = LineLabels::new(&query.pipeline().names);
        Self { query, detect_level, labels }
    }

    /// The query that is run.
    #[must_use]
    pub fn query(&self) -> &Arc<LogQuery> {
        &self.query
    }

    /// The lines that follow are of this stream. Cheap if it is the stream of last time.
    pub fn enter(&mut self, stream: &Labels) {
        self.labels.enter(stream);
    }

    /// Runs a line of the entered stream through the pipeline.
    pub fn run<'a>(
        &'a mut self,
        _timestamp: Timestamp,
        line: &'a [u8],
        metadata: &[(&str, &str)],
    ) -> Option<Matched<'a>> {
        if !self.query.pipeline().head.iter().all(|test| test.passes(line)) {
            return None;
        }
        self.labels.begin(metadata, self.detect_level.then_some(line));
        Some(Matched { line, labels: self.labels.finish() })
    }
}
