//! A query run over entries, line by line.

use std::sync::Arc;

use tailwater_logql::LogQuery;
use tailwater_logql::pipeline::{Matched, Runner};
use tailwater_model::{Labels, Timestamp};
use tailwater_wire::push::EntrySpan;

use crate::ByStream;
use crate::entries::{Entries, Run};

/// Most streams whose match is remembered.
const MAX_REMEMBERED: usize = 1 << 16;

/// Fewest lines for which the whole body is searched first.
const MIN_LINES_FOR_REGION: u64 = 8;

/// A query with what running it needs, made when first needed.
#[derive(Debug)]
pub struct Evaluator {
    query: Arc<LogQuery>,
    detect_level: bool,
    runner: Option<Runner>,
    matching: ByStream<bool>,
}

impl Evaluator {
    /// What runs this query. With `detect_level` entries that bring no `detected_level` get one.
    #[must_use]
    pub fn new(query: Arc<LogQuery>, detect_level: bool) -> Self {
        Self { query, detect_level, runner: None, matching: ByStream::default() }
    }

    /// Whether the run's stream is selected.
    pub fn selects(&mut self, run: &Run) -> bool {
        if let Some(known) = self.matching.get(&run.stream.id) {
            return *known;
        }
        if self.matching.len() >= MAX_REMEMBERED {
            self.matching.clear();
        }
        let matches = self.query.matchers().matches(&run.stream.labels);
        self.matching.insert(run.stream.id, matches);
        matches
    }

    /// Whether one of the lines may pass the pipeline.
    #[must_use]
    pub fn may_match(&self, entries: &Entries) -> bool {
        entries.lines() < MIN_LINES_FOR_REGION || self.query.may_match(entries.body())
    }

    /// Runs one line.
    pub fn run<'a>(&'a mut self, stream: &Labels, entries: &'a Entries, entry: &EntrySpan) -> Option<Matched<'a>> {
        let runner = self.runner.get_or_insert_with(|| self.query.runner(self.detect_level));
        runner.enter(stream);
        let metadata = entries.metadata(entry);
        runner.run(Timestamp(entry.timestamp), entries.line(entry), &metadata)
    }
}
