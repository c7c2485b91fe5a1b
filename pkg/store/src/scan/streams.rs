//! What streams there are in a time range, and what they hold: read from the batches, so that the answer is exact and includes streams
//! that have long been idle.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tailwater_logql::matchers::Matchers;
use tailwater_model::{Labels, Timestamp};
use tailwater_wire::node::{LabelsRequest, SeriesRequest, Stats};

use super::{Cancel, Source};
use crate::entries::{Entries, Run};

/// Calls `f` for every run that matches any of the matchers (or all, if there are none) and has entries in `[start, end]`.
pub(super) fn for_each_run(
    source: &dyn Source,
    matchers: &[Arc<Matchers>],
    (start, end): (Timestamp, Timestamp),
    cancel: &Cancel,
    mut f: impl FnMut(&Entries, &Run),
) {
    let (start, end) = (start.nanos(), end.nanos());
    let mut matching: HashMap<u64, bool> = HashMap::new();
    let batches = source.collect((0, u64::MAX), (start, end));
    for batch in batches {
        if cancel.is_set() {
            return;
        }
        for run in batch.runs.iter().filter(|run| run.overlaps(start, end)) {
            let labels = &run.stream.labels;
            let matches = || matchers.is_empty() || matchers.iter().any(|m| m.matches(labels));
            if *matching.entry(run.stream.id).or_insert_with(matches) {
                f(&batch, run);
            }
        }
    }
}

/// Whether the run has an entry in `[start, end]`.
fn has_entry(batch: &Entries, run: &Run, start: i64, end: i64) -> bool {
    run.within(start, end) || batch.entries(run).iter().any(|e| (start..=end).contains(&e.timestamp))
}

/// The matching streams: sorted, unique.
fn find(
    source: &dyn Source,
    matchers: &[Arc<Matchers>],
    range: (Timestamp, Timestamp),
    cancel: &Cancel,
) -> BTreeSet<Labels> {
    let mut found: HashMap<u64, Labels> = HashMap::new();
    for_each_run(source, matchers, range, cancel, |batch, run| {
        if !found.contains_key(&run.stream.id) && has_entry(batch, run, range.0.nanos(), range.1.nanos()) {
            found.insert(run.stream.id, run.stream.labels.clone());
        }
    });
    found.into_values().collect()
}

/// See [`tailwater_wire::node::Node::labels`].
#[must_use]
pub fn labels(source: &dyn Source, request: &LabelsRequest, cancel: &Cancel) -> Vec<String> {
    let matchers: Vec<_> = request.matchers.iter().cloned().collect();
    let streams = find(source, &matchers, (request.start, request.end), cancel);
    let mut all = BTreeSet::new();
    for stream in &streams {
        match &request.name {
            Some(name) => all.extend(stream.get(name)),
            None => all.extend(stream.iter().map(|(name, _)| name)),
        }
    }
    all.into_iter().map(str::to_owned).collect()
}

/// See [`tailwater_wire::node::Node::series`].
#[must_use]
pub fn series(source: &dyn Source, request: &SeriesRequest, cancel: &Cancel) -> Vec<Labels> {
    find(source, &request.matchers, (request.start, request.end), cancel).into_iter().collect()
}

/// See [`tailwater_wire::node::Node::stats`].
#[must_use]
pub fn stats(source: &dyn Source, request: &SeriesRequest, cancel: &Cancel) -> Stats {
    let mut stats = Stats::default();
    let mut streams: HashMap<u64, Labels> = HashMap::new();
    let mut last: *const Entries = std::ptr::null();
    let range = (request.start, request.end);
    for_each_run(source, &request.matchers, range, cancel, |batch, run| {
        let (start, end) = (range.0.nanos(), range.1.nanos());
        let (entries, bytes) = batch.size_within(run, start, end);
        if entries > 0 {
            stats.entries += entries;
            stats.bytes += bytes;
            stats.chunks += u64::from(!std::ptr::eq(batch, last));
            last = batch;
            streams.entry(run.stream.id).or_insert_with(|| run.stream.labels.clone());
        }
    });
    stats.streams = streams.into_values().collect::<BTreeSet<_>>().len() as u64;
    stats
}
