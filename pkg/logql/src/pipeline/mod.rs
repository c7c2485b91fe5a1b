//! The compiled log pipeline: stages that run over one line after the other.
//!
//! Invariants:
//! * Stages act in the order written. A line filter is moved forward only over stages that leave the line as it is, so the
//!   answer is the same.
//! * A stage that fails sets `__error__` and lets the line pass; only filters stop lines.
//! * Compiled stages are shared and immutable; what a run needs lives in its [`Machine`] and is bounded.

mod compile;
mod decolorize;
mod drop_keep;
mod fold;
mod format;
mod ip;
mod json;
mod json_expr;
pub(crate) mod json_paths;
pub(crate) mod json_scan;
pub(crate) mod label_filter;
mod labels;
pub(crate) mod line_filter;
mod logfmt;
mod memo;
pub(crate) mod names;
mod pattern;
pub(crate) mod pattern_filter;
mod regexp;
mod unpack;

use std::sync::Arc;

use tailwater_model::{LabelSet, Labels, Timestamp};

pub(crate) use self::compile::Pipeline;
use self::compile::Stage;
use self::format::Moment;
pub(crate) use self::labels::{LineLabels, Wanted};
use self::names::NameId;
use crate::LogQuery;
use crate::regex::Groups;

/// A buffer is given back when a line has made it larger than this.
const MAX_KEPT: usize = 1 << 20;

/// What a stage did with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The line goes on as it is.
    Pass,
    /// The line goes on as what stands in the buffer.
    Rewritten,
    /// The line stops here.
    Stop,
}

/// What stages need while they look at a line. Nothing in it outlives the stage.
#[derive(Debug, Default)]
pub(crate) struct Work {
    key: Vec<u8>,
    text: Vec<u8>,
    value: Vec<u8>,
    path: String,
    open: Vec<json::Open>,
    pending: Vec<unpack::Pending>,
    progress: Vec<json_expr::Progress>,
    names: Vec<NameId>,
    snapshot: format::Snapshot,
}

impl Work {
    fn shrink(&mut self) {
        for buffer in [&mut self.key, &mut self.text, &mut self.value] {
            buffer.clear();
            shrink(buffer);
        }
        self.path.clear();
        if self.path.capacity() > MAX_KEPT {
            self.path.shrink_to(MAX_KEPT);
        }
    }
}

/// Gives back what a buffer has too much. Called for every line.
fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity() > MAX_KEPT {
        buffer.shrink_to(MAX_KEPT);
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

/// Runs the stages of one pipeline over lines. Owns everything that changes meanwhile; what it remembers is bounded.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The labels of the line that was run last.
    pub(crate) labels: LineLabels,
    detect_level: bool,
    work: Work,
    /// Room for each `regexp` stage, by its number.
    groups: Vec<Groups>,
    /// The line, once a stage has rewritten it.
    line: Vec<u8>,
    next: Vec<u8>,
}

impl Machine {
    /// With `detect_level` entries that bring no `detected_level` get one.
    pub(crate) fn new(pipeline: &Pipeline, detect_level: bool) -> Self {
        let groups = pipeline.stages.iter().filter_map(|stage| match stage {
            Stage::Regexp(regexp, _) => Some(regexp.room()),
            _ => None,
        });
        Self {
            groups: groups.collect(),
            labels: LineLabels::new(&pipeline.names, pipeline.wanted.as_ref()),
            detect_level,
            work: Work::default(),
            line: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Runs a line of the entered stream, which has passed the pipeline's head, through the stages. Answers whether they have
    /// rewritten it, see [`Machine::line`]; nothing if it does not pass.
    pub(crate) fn run(
        &mut self,
        pipeline: &Pipeline,
        timestamp: Timestamp,
        line: &[u8],
        metadata: &[(&str, &str)],
    ) -> Option<bool> {
        self.labels.begin(metadata, self.detect_level.then_some(line));
        self.work.shrink();
        shrink(&mut self.line);
        shrink(&mut self.next);
        let mut rewritten = false;
        for stage in &pipeline.stages {
            let current = if rewritten { &self.line } else { line };
            let (labels, work, next) = (&mut self.labels, &mut self.work, &mut self.next);
            let flow = match stage {
                Stage::Lines(tests) if !tests.iter().all(|test| test.passes(current)) => Flow::Stop,
                Stage::Lines(_) => Flow::Pass,
                Stage::Json => {
                    json::run(current, labels, work);
                    Flow::Pass
                }
                Stage::JsonExpressions(extractions) => {
                    json_expr::run(extractions, current, labels, work);
                    Flow::Pass
                }
                Stage::Logfmt(flags) => {
                    logfmt::run(*flags, current, labels, work);
                    Flow::Pass
                }
                Stage::LogfmtExpressions(flags, extractions) => {
                    logfmt::run_expressions(*flags, extractions, current, labels, work);
                    Flow::Pass
                }
                Stage::Regexp(regexp, number) => {
                    regexp.run(current, labels, &mut self.groups[*number]);
                    Flow::Pass
                }
                Stage::Pattern(pattern) => {
                    pattern.run(current, labels);
                    Flow::Pass
                }
                Stage::Unpack => unpack::run(current, labels, next, work),
                Stage::Decolorize if decolorize::run(current, next) => Flow::Rewritten,
                Stage::Decolorize => Flow::Pass,
                Stage::LineFormat(format) => format.run(moment(timestamp), current, labels, next),
                Stage::LabelFormat(items) => {
                    format::run(items, moment(timestamp), current, labels, work);
                    Flow::Pass
                }
                Stage::Label(filter) if !filter.passes(labels) => Flow::Stop,
                Stage::Label(_) => Flow::Pass,
                Stage::Drop(items) => {
                    drop_keep::drop(items, labels);
                    Flow::Pass
                }
                Stage::Keep(items) => {
                    drop_keep::keep(items, labels, &mut work.names);
                    Flow::Pass
                }
            };
            match flow {
                Flow::Pass => {}
                Flow::Rewritten => {
                    std::mem::swap(&mut self.line, &mut self.next);
                    rewritten = true;
                }
                Flow::Stop => return None,
            }
        }
        Some(rewritten)
    }

    /// The line that was run last, as the stages have left it.
    pub(crate) fn line<'a>(&'a self, rewritten: bool, line: &'a [u8]) -> &'a [u8] {
        if rewritten { &self.line } else { line }
    }
}

/// Runs a query over lines.
#[derive(Debug)]
pub struct Runner {
    query: Arc<LogQuery>,
    machine: Machine,
}

impl Runner {
    pub(crate) fn new(query: Arc<LogQuery>, detect_level: bool) -> Self {
        Self { machine: Machine::new(query.pipeline(), detect_level), query }
    }

    /// The query that is run.
    #[must_use]
    pub fn query(&self) -> &Arc<LogQuery> {
        &self.query
    }

    /// The lines that follow are of this stream. Cheap if it is the stream of last time.
    pub fn enter(&mut self, stream: &Labels) {
        self.machine.labels.enter(stream);
    }

    /// Runs a line of the entered stream through the pipeline; nothing if it does not pass.
    pub fn run<'a>(
        &'a mut self,
        timestamp: Timestamp,
        line: &'a [u8],
        metadata: &[(&str, &str)],
    ) -> Option<Matched<'a>> {
        let pipeline = self.query.pipeline();
        if !pipeline.passes_head(line) {
            return None;
        }
        let machine = &mut self.machine;
        if pipeline.stages.is_empty() {
            let detect_level_of = machine.detect_level.then_some(line);
            return Some(Matched { line, labels: machine.labels.of_line(metadata, detect_level_of) });
        }
        let rewritten = machine.run(pipeline, timestamp, line, metadata)?;
        let labels = machine.labels.finish();
        Some(Matched { line: machine.line(rewritten, line), labels })
    }
}

/// What templates are told of the time.
fn moment(timestamp: Timestamp) -> Moment {
    Moment { timestamp, now: Timestamp::now() }
}
