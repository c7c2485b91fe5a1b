//! What streams there are in a time range, and what they hold: read from batches and pages, or from what footers say of pages where that is
//! all that is asked, so that the answer is exact and includes streams that have long been idle.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use tailwater_logql::matchers::Matchers;
use tailwater_model::{Labels, Timestamp};
use tailwater_wire::node::{LabelsRequest, NodeError, Partial, SeriesRequest, Stats};

use super::pieces::{Look, PageLook, Pieces, Plan};
use super::queue::Order;
use super::trouble::Troubles;
use super::wanted::{Streams, Told};
use super::{Cancel, Source};
use crate::Stream;
use crate::deletes::Deletion;
use crate::entries::{Entries, Run};

/// A run of a stream.
pub(super) enum Held<'a> {
    /// With its entries.
    Run(&'a Entries, &'a Run),
    /// A page of which no more was read than was needed.
    Page(&'a PageLook<'a>),
}

impl Held<'_> {
    pub(super) fn stream(&self) -> &Stream {
        match self {
            Self::Run(_, run) => &run.stream,
            Self::Page(page) => page.stream,
        }
    }

    /// How many entries lie in `[start, end]`, and the bytes of their lines.
    fn size_within(&self, start: i64, end: i64) -> (u64, u64) {
        match self {
            Self::Run(entries, run) => entries.size_within(run, start, end),
            Self::Page(page) => match &page.columns {
                None => (u64::from(page.info.lines), page.info.bytes),
                Some(columns) => {
                    let lines = columns.times.iter().zip(&columns.lengths);
                    let inside = lines.filter(|(time, _)| (start..=end).contains(*time));
                    inside.fold((0, 0), |(lines, bytes), (_, len)| (lines + 1, bytes + u64::from(*len)))
                }
            },
        }
    }

    /// Whether there is an entry in `[start, end]`.
    fn has_entry(&self, start: i64, end: i64) -> bool {
        let inside = |time: &i64| (start..=end).contains(time);
        match self {
            Self::Run(entries, run) => {
                run.within(start, end) || entries.entries(run).iter().any(|e| inside(&e.timestamp))
            }
            Self::Page(page) => page.columns.as_ref().is_none_or(|columns| columns.times.iter().any(inside)),
        }
    }
}

/// Calls `f` for every run that matches any of the matchers (or all, if there are none) and may have entries in `[start, end]`, with as much
/// of it as is needed for what is `told`. Answers warnings about what is missing.
pub(super) fn for_each_run(
    source: &dyn Source,
    matchers: &[Arc<Matchers>],
    (start, end): (Timestamp, Timestamp),
    (told, deletions, detect_level): (Told, Arc<[Deletion]>, bool),
    cancel: &Cancel,
    mut f: impl FnMut(Held<'_>),
) -> Result<Vec<String>, NodeError> {
    let (start, end) = (start.nanos(), end.nanos());
    let mut matching: HashMap<u64, bool> = HashMap::new();
    let units = source.collect((0, u64::MAX), (start, end))?;
    let plan = Plan {
        order: Order::Any,
        wanted: Arc::new(Streams { matchers: matchers.to_vec(), times: (start, end), told }),
        deletions,
        detect_level,
        troubles: Troubles::new(source.log()),
    };
    let pieces = Pieces::new(units, plan, cancel);
    pieces.work(&|_| false, &mut |look| {
        match look {
            Look::Entries(entries) => {
                for run in entries.runs.iter().filter(|run| run.overlaps(start, end)) {
                    let labels = &run.stream.labels;
                    let matches = || matchers.is_empty() || matchers.iter().any(|m| m.matches(labels));
                    if *matching.entry(run.stream.id).or_insert_with(matches) {
                        f(Held::Run(entries, run));
                    }
                }
            }
            Look::Page(page) => f(Held::Page(&page)),
        }
        ControlFlow::Continue(())
    });
    Ok(pieces.finish()?.1)
}

/// The matching streams: sorted, unique.
fn find(
    source: &dyn Source,
    matchers: &[Arc<Matchers>],
    range: (Timestamp, Timestamp),
    cancel: &Cancel,
) -> Result<Partial<BTreeSet<Labels>>, NodeError> {
    let mut found: HashMap<u64, Labels> = HashMap::new();
    let asked = (Told::Presence, Arc::default(), false);
    let warnings = for_each_run(source, matchers, range, asked, cancel, |held| {
        let stream = held.stream();
        if !found.contains_key(&stream.id) && held.has_entry(range.0.nanos(), range.1.nanos()) {
            found.insert(stream.id, stream.labels.clone());
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
    let asked = (Told::Size, Arc::default(), false);
    let warnings = for_each_run(source, &request.matchers, range, asked, cancel, |held| {
        let (entries, bytes) = held.size_within(range.0.nanos(), range.1.nanos());
        if entries > 0 {
            stats.entries += entries;
            stats.bytes += bytes;
            // Several runs of a batch are one chunk, a page is one.
            let seq = match &held {
                Held::Run(batch, run) => Some(batch.place(run.first).seq),
                Held::Page(_) => None,
            };
            stats.chunks += u64::from(seq.is_none() || seq != last);
            last = seq;
            streams.entry(held.stream().id).or_insert_with(|| held.stream().labels.clone());
        }
    })?;
    stats.streams = streams.into_values().collect::<BTreeSet<_>>().len() as u64;
    Ok(Partial { value: stats, warnings })
}
