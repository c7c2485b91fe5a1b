//! What searches want of blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_logql::matchers::Matchers;
use tailwater_logql::metric::SampleQuery;
use tailwater_logql::{LogQuery, Requirements};

use super::overlaps::Spans;
use super::volume::end_of_step;
use crate::block::PageInfo;
use crate::deletes::Deletion;
use crate::history::{Need, Wanted};
use crate::{ByStream, Stream};

/// Lines that pass a query.
pub(super) struct Lines {
    pub(super) query: Arc<LogQuery>,
    pub(super) times: (i64, i64),
}

impl Wanted for Lines {
    fn times(&self) -> (i64, i64) {
        self.times
    }

    fn selects(&self, stream: &Stream) -> bool {
        self.query.matchers().matches(&stream.labels)
    }

    fn matchers(&self) -> Option<&Matchers> {
        Some(self.query.matchers())
    }

    fn requirements(&self) -> Option<&Requirements> {
        Some(self.query.requirements())
    }

    fn need(&self, _: &Stream, _: &PageInfo, _: bool) -> Option<Need> {
        Some(Need::Lines)
    }
}

/// Which runs the streams of a query have.
pub(super) struct Runs {
    pub(super) query: Arc<SampleQuery>,
    pub(super) times: (i64, i64),
}

impl Wanted for Runs {
    fn times(&self) -> (i64, i64) {
        self.times
    }

    fn selects(&self, stream: &Stream) -> bool {
        self.query.matchers().matches(&stream.labels)
    }

    fn matchers(&self) -> Option<&Matchers> {
        Some(self.query.matchers())
    }

    fn requirements(&self) -> Option<&Requirements> {
        None
    }

    fn need(&self, _: &Stream, _: &PageInfo, _: bool) -> Option<Need> {
        Some(Need::Table)
    }
}

/// Lines that are worth something.
pub(super) struct Samples {
    pub(super) query: Arc<SampleQuery>,
    pub(super) times: (i64, i64),
    /// Where entries are compared.
    pub(super) spans: Arc<ByStream<Spans>>,
    /// Only lines that lie there.
    pub(super) only_spans: bool,
    pub(super) deletions: Arc<[Deletion]>,
    /// Set when times and lengths did not suffice where they were thought to.
    pub(super) in_vain: Arc<AtomicBool>,
}

impl Wanted for Samples {
    fn times(&self) -> (i64, i64) {
        self.times
    }

    fn selects(&self, stream: &Stream) -> bool {
        self.query.matchers().matches(&stream.labels)
    }

    fn matchers(&self) -> Option<&Matchers> {
        Some(self.query.matchers())
    }

    fn requirements(&self) -> Option<&Requirements> {
        Some(self.query.requirements())
    }

    fn need(&self, stream: &Stream, page: &PageInfo, _: bool) -> Option<Need> {
        let compared = self.spans.get(&stream.hash).is_some_and(|spans| spans.overlap(page.min, page.max));
        if self.only_spans && !compared {
            return None;
        }
        let may_be_deleted =
            |d: &Deletion| d.overlaps(page.min, page.max) && d.query.matchers().matches(&stream.labels);
        let unread = self.query.counts_unread()
            && !compared
            && !page.has_metadata
            && !self.in_vain.load(Ordering::Relaxed)
            && !self.deletions.iter().any(may_be_deleted);
        Some(if unread { Need::Columns } else { Need::Lines })
    }
}

/// What is told of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Whether they have entries.
    Presence,
    /// How many entries and bytes of lines.
    Size,
    /// How many bytes of lines and metadata, step by step; see [`end_of_step`].
    Volume(Option<i64>),
    /// Their lines.
    Lines,
}

/// What streams hold.
pub(super) struct Streams {
    /// Those that match any of these; all if there are none.
    pub(super) matchers: Vec<Arc<Matchers>>,
    pub(super) times: (i64, i64),
    pub(super) told: Told,
}

impl Wanted for Streams {
    fn times(&self) -> (i64, i64) {
        self.times
    }

    fn selects(&self, stream: &Stream) -> bool {
        self.matchers.is_empty() || self.matchers.iter().any(|m| m.matches(&stream.labels))
    }

    fn matchers(&self) -> Option<&Matchers> {
        if let [one] = &self.matchers[..] { Some(one) } else { None }
    }

    fn requirements(&self) -> Option<&Requirements> {
        None
    }

    fn need(&self, _: &Stream, page: &PageInfo, whole: bool) -> Option<Need> {
        let (start, end) = self.times;
        let within = whole && start <= page.min && page.max <= end;
        let table = match self.told {
            // The earliest and the latest are entries themselves.
            Told::Presence => whole && (start <= page.min || page.max <= end),
            Told::Size => within,
            Told::Volume(_) | Told::Lines if page.has_metadata => return Some(Need::Lines),
            Told::Volume(step) => within && end_of_step(page.min, end, step) == end_of_step(page.max, end, step),
            Told::Lines => return Some(Need::Lines),
        };
        Some(if table { Need::Table } else { Need::Columns })
    }
}
