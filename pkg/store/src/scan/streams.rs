//! What streams there are in a time range, and what they hold: read from the batches, so that the answer is exact and includes streams
//! that have long been idle.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use tailwater_logql::matchers::Matchers;
use tailwater_model::{Labels, Timestamp};
use tailwater_wire::node::{LabelsRequest, NodeError, Partial, SeriesRequest, Stats};

use super::trouble::Troubles;
use super::{Cancel, Source};
use crate::entries::{Entries, Run};

/// Calls `f` for every run that matches any of the matchers (or all, if there are none) and may have entries in `[start, end]`. Answers
/// warnings about what is missing.
pub(super) fn for_each_run(
    source: &dyn Source,
    matchers: &[Arc<Matchers>],
    (start, end): (Timestamp, Timestamp),
    cancel: &Cancel,
    mut f: impl FnMut(&Entries, &Run),
) -> Result<Vec<String>, NodeError> {
    let (start, end) = (start.nanos(), end.nanos());
    let mut matching: HashMap<u64, bool> = HashMap::new();
    let troubles = Troubles::new(source.log());
    for unit in source.collect((0, u64::MAX), (start, end))? {
        let visited = unit.visit(|entries| {
            for run in entries.runs.iter().filter(|run| run.overlaps(start, end)) {
                let labels = &run.stream.labels;
                let matches = || matchers.is_empty() || matchers.iter().any(|m| m.matches(labels));
                if *matching.entry(run.stream.id).or_insert_with(matches) {
                    f(entries, run);
                }
            }
            if cancel.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(error) = visited {
            troubles.note(&error);
        }
        if cancel.is_set() || troubles.failed() {
            break;
        }
    }
    troubles.settle()
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
) -> Result<Partial<BTreeSet<Labels>>, NodeError> {
    let mut found: HashMap<u64, Labels> = HashMap::new();
    let warnings = for_each_run(source, matchers, range, cancel, |batch, run| {
        if !found.contains_key(&run.stream.id) && has_entry(batch, run, range.0.nanos(), range.1.nanos()) {
            found.insert(run.stream.id, run.stream.labels.clone());
        }
    })?;
    Ok(Partial { value: found.into_values().collect(), warnings })
}

/// See [`tailwater_wire::node::Node::labels`].
///
/// # Errors
/// [`NodeError::Unavailable`] if something cannot be reached.
pub fn labels(
    source: &dyn Source,
    request: &LabelsRequest,
    cancel: &Cancel,
) -> Result<Partial<Vec<String>>, NodeError> {
    let matchers: Vec<_> = request.matchers.iter().cloned().collect();
    let streams = find(source, &matchers, (request.start, request.end), cancel)?;
    let mut all = BTreeSet::new();
    for stream in &streams.value {
        match &request.name {
            Some(name) => all.extend(stream.get(name)),
            None => all.extend(stream.iter().map(|(name, _)| name)),
        }
    }
    Ok(Partial { value: all.into_iter().map(str::to_owned).collect(), warnings: streams.warnings })
}

/// See [`tailwater_wire::node::Node::series`].
///
/// # Errors
/// [`NodeError::Unavailable`] if something cannot be reached.
pub fn series(
    source: &dyn Source,
    request: &SeriesRequest,
    cancel: &Cancel,
) -> Result<Partial<Vec<Labels>>, NodeError> {
    let streams = find(source, &request.matchers, (request.start, request.end), cancel)?;
    Ok(Partial { value: streams.value.into_iter().collect(), warnings: streams.warnings })
}

/// See [`tailwater_wire::node::Node::stats`].
///
/// # Errors
/// [`NodeError::Unavailable`] if something cannot be reached.
pub fn stats(source: &dyn Source, request: &SeriesRequest, cancel: &Cancel) -> Result<Partial<Stats>, NodeError> {
    let mut stats = Stats::default();
    let mut streams: HashMap<u64, Labels> = HashMap::new();
    let mut last = None;
    let range = (request.start, request.end);
    let warnings = for_each_run(source, &request.matchers, range, cancel, |batch, run| {
        let (start, end) = (range.0.nanos(), range.1.nanos());
        let (entries, bytes) = batch.size_within(run, start, end);
        if entries > 0 {
            stats.entries += entries;
            stats.bytes += bytes;
            let seq = Some(batch.place(run.first).seq);
            stats.chunks += u64::from(seq != last);
            last = seq;
            streams.entry(run.stream.id).or_insert_with(|| run.stream.labels.clone());
        }
    })?;
    stats.streams = streams.into_values().collect::<BTreeSet<_>>().len() as u64;
    Ok(Partial { value: stats, warnings })
}
