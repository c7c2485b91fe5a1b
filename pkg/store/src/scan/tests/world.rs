//! Entries in a log, laid out at random over blocks, the write-ahead log and memory; and the same as plain batches.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use proptest::prelude::*;
use tailwater_model::{Labels, LogId, Timestamp};
use tailwater_wire::node::NodeError;
use tailwater_wire::push;
use tokio::runtime::Runtime;

use crate::block::{Entry, Options, Writer};
use crate::catalog::{Catalog, Refresh};
use crate::deletes::Deletion;
use crate::entries::{Entries, Place, Run};
use crate::history::{BlockRef, History, Places};
use crate::objects::Objects;
use crate::scan::{Source, Stretch, Unit};
use crate::{Error, Stream};

pub(super) const STREAMS: [&[(&str, &str)]; 4] =
    [&[("app", "a")], &[("app", "a"), ("n", "1")], &[("app", "b")], &[("app", "b"), ("level", "info")]];

pub(super) const LINES: [&str; 8] = [
    "v=1",
    "v=2 x=yard level=error",
    "the needle in the haystack v=4",
    "The NEEDLE at the end",
    "",
    r#"{"x":"yard","v":8}"#,
    "GET /api/v1/users 500",
    "v=NaN status=500 needles",
];

pub(super) const METADATA: [&[(&str, &str)]; 4] =
    [&[], &[("trace", "1")], &[("trace", "2"), ("x", "m")], &[("level", "warn")]];

/// The runtime of all tests: fetches run on it.
pub(super) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

pub(super) const OWN: u128 = 7;

/// What timestamps are multiples of: ranges of queries are in milliseconds.
pub(super) const MS: i64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) stream: usize,
    pub(super) time: i64,
    pub(super) line: usize,
    pub(super) metadata: usize,
}

/// A batch of the own log, or (`seq` 0) of an earlier one.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) log: u128,
    pub(super) log_seq: u64,
    pub(super) accepted_at: i64,
    /// By stream.
    pub(super) lines: Vec<Line>,
}

impl Batch {
    /// As answers have it.
    pub(super) fn seq(&self) -> u64 {
        if self.log == OWN { self.log_seq } else { 0 }
    }

    pub(super) fn entries(&self) -> Entries {
        let outgoing = |line: &Line| push::Outgoing {
            timestamp: Timestamp(line.time),
            line: LINES[line.line].as_bytes(),
            metadata: METADATA[line.metadata],
        };
        let body = push::encode([("{}", self.lines.iter().map(outgoing).collect::<Vec<_>>())]).unwrap();
        let plain = tailwater_wire::compress::snappy(&body, &tailwater_wire::compress::Caps::default()).unwrap();
        let push = push::decode(Bytes::from(plain)).unwrap();
        let mut runs: Vec<Run> = Vec::new();
        let mut of = None;
        for (number, line) in self.lines.iter().enumerate() {
            if of != Some(line.stream) {
                of = Some(line.stream);
                let stream = Arc::new(Stream::new(labels(line.stream)));
                runs.push(Run { stream, first: number as u32, len: 0, min: i64::MAX, max: i64::MIN, bytes: 0 });
            }
            let run = runs.last_mut().unwrap();
            run.len += 1;
            (run.min, run.max) = (run.min.min(line.time), run.max.max(line.time));
            run.bytes += LINES[line.line].len() as u64;
        }
        let mut entries = Entries::of_batch(runs, push);
        entries.set_place(self.seq(), Timestamp(self.accepted_at));
        entries
    }
}

pub(super) fn labels(stream: usize) -> Labels {
    Labels::from_pairs(STREAMS[stream].iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
}

/// Batches in the order of acceptance: those of two earlier logs, then those of the own.
pub(super) fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let time = prop_oneof![4 => 0_i64..4, 1 => -14_i64..4];
    let line = (0..STREAMS.len(), time, 0..LINES.len(), prop_oneof![2 => Just(0), 1 => 0..METADATA.len()]);
    let batch = (prop::collection::vec(line, 1..12), 0..4_u8, 0..3_usize);
    (prop::collection::vec(batch, 1..14), 0..5_usize).prop_map(|(all, earlier)| {
        let mut batches: Vec<Batch> = Vec::new();
        for (number, (lines, again, back)) in all.into_iter().enumerate() {
            let (log, log_seq) = match number {
                n if n >= earlier => (OWN, (n - earlier + 1) as u64),
                n => (1 + n as u128 % 2, 10 + n as u64),
            };
            let base = number as i64 * 3;
            let mut lines: Vec<Line> = lines
                .into_iter()
                .map(|(stream, time, line, metadata)| Line { stream, time: (base + time) * MS, line, metadata })
                .collect();
            // Some are sent twice.
            if again == 0
                && let Some(before) = number.checked_sub(1 + back).and_then(|n| batches.get(n))
            {
                lines.extend_from_slice(&before.lines);
            }
            lines.sort_by_key(|line| line.stream);
            batches.push(Batch { log, log_seq, accepted_at: 1000 + number as i64, lines });
        }
        batches
    })
}

/// Where entries are.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Own batches up to this one are in blocks.
    pub(super) covered: u64,
    /// Where the cut before that ended.
    pub(super) cut: u64,
    /// So many batches more are in a block of which the boundary knows nothing.
    pub(super) torn: u64,
    /// Own batches up to this one, after the boundary, are in the write-ahead log.
    pub(super) on_disk: u64,
    /// Blocks hold times before this or not.
    pub(super) day: i64,
    /// Whether blocks of earlier logs were merged with the first cut.
    pub(super) merged: bool,
    pub(super) page_bytes: usize,
    pub(super) cache_bytes: usize,
}

pub(super) fn layouts() -> impl Strategy<Value = Layout> {
    let places = (0..14_u64, 0..14_u64, 0..3_u64, 0..14_u64);
    (places, 0..40_i64, any::<bool>(), 1..120_usize, prop_oneof![Just(0), Just(4 << 10), Just(1 << 20)]).prop_map(
        |((covered, cut, torn, on_disk), day, merged, page_bytes, cache_bytes)| Layout {
            covered,
            cut: cut.min(covered),
            torn,
            on_disk: on_disk.max(covered),
            day: day * MS,
            merged,
            page_bytes,
            cache_bytes,
        },
    )
}

/// The entries of a tenant, laid out.
pub(super) struct World {
    pub(super) objects: Objects,
    pub(super) history: History,
    pub(super) blocks: Vec<BlockRef>,
    pub(super) deletions: Arc<[Deletion]>,
    covered: u64,
    on_disk: u64,
    batches: Vec<(u64, Arc<Entries>)>,
}

/// A history whose catalog is of no use.
pub(super) fn history(objects: &Objects, cache_bytes: usize) -> History {
    let catalog = Arc::new(Catalog::new(objects.clone(), Refresh::Exclusive));
    History::new(catalog, None, cache_bytes, RUNTIME.handle().clone())
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

impl World {
    pub(super) fn new(batches: &[Batch], layout: &Layout) -> Self {
        let objects = Objects::open("memory:", &crate::objects::Options::default()).unwrap();
        let history = history(&objects, layout.cache_bytes);
        let mut world = Self {
            objects,
            history,
            blocks: Vec::new(),
            deletions: Arc::default(),
            covered: layout.covered,
            on_disk: layout.on_disk,
            batches: Vec::new(),
        };
        let own =
            |from: u64, to: u64| move |batch: &&Batch| batch.log == OWN && from < batch.log_seq && batch.log_seq <= to;
        let earlier = |batch: &&Batch| batch.log != OWN;
        let mut cuts: Vec<Vec<&Batch>> = vec![
            batches.iter().filter(own(0, layout.cut)).collect(),
            batches.iter().filter(own(layout.cut, layout.covered)).collect(),
            batches.iter().filter(own(layout.covered, layout.covered + layout.torn)).collect(),
        ];
        if layout.merged {
            cuts[0].extend(batches.iter().filter(earlier));
        } else {
            cuts.push(batches.iter().filter(earlier).collect());
        }
        for cut in cuts {
            for early in [true, false] {
                world.write(&cut, |line| (line.time < layout.day) == early, layout.page_bytes);
            }
        }
        let own = batches.iter().filter(|batch| batch.log == OWN && batch.log_seq > layout.covered);
        world.batches = own.map(|batch| (batch.log_seq, Arc::new(batch.entries()))).collect();
        world
    }

    /// Writes a block of some lines of these batches, unless there are none.
    pub(super) fn write(&mut self, batches: &[&Batch], takes: impl Fn(&Line) -> bool, page_bytes: usize) {
        let mut all = Vec::new();
        for batch in batches {
            for (line, index) in batch.lines.iter().zip(0..).filter(|(line, _)| takes(line)) {
                let place = Place { seq: batch.log_seq, index, accepted_at: Timestamp(batch.accepted_at) };
                all.push((labels(line.stream), batch.log, line.time, place, *line));
            }
        }
        all.sort_by(|a, b| (&a.0, a.1, a.2, a.3).cmp(&(&b.0, b.1, b.2, b.3)));
        let (Some(min), Some(max)) = (all.iter().map(|e| e.2).min(), all.iter().map(|e| e.2).max()) else { return };
        let mut writer = Writer::new(Options { page_bytes, ..Options::default() });
        let mut of = None;
        for (labels, log, timestamp, place, line) in &all {
            if of != Some((labels, log)) {
                of = Some((labels, log));
                writer.stream(labels, LogId::from_u128(*log));
            }
            let (text, metadata) = (LINES[line.line].as_bytes(), METADATA[line.metadata]);
            writer.entry(&Entry { timestamp: *timestamp, line: text, metadata, place: *place });
        }
        let path = format!("t/1970-01-01/{}.blk", NEXT.fetch_add(1, Ordering::Relaxed));
        let built = writer.finish().unwrap();
        RUNTIME.block_on(self.objects.put(&path, built.parts)).unwrap();
        self.blocks.push(BlockRef::new(path, (min, max), all.len() as u64));
    }
}

impl Source for World {
    fn log(&self) -> LogId {
        LogId::from_u128(OWN)
    }

    fn collect(&self, (after, upto): (u64, u64), (first, last): (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        let boundaries = Arc::default();
        let places = Places { own: self.log(), after, upto: upto.min(self.covered), earlier: after == 0, boundaries };
        let blocks = self.blocks.iter().filter(|block| block.min <= last && block.max >= first).cloned();
        let mut units = self.history.blocks(blocks, &places);
        let asked = self
            .batches
            .iter()
            .filter(|(seq, batch)| after < *seq && *seq <= upto && batch.min <= last && batch.max >= first);
        let (disk, memory): (Vec<_>, Vec<_>) = asked.cloned().partition(|(seq, _)| *seq <= self.on_disk);
        if !disk.is_empty() {
            units.push(Unit::Stretch(Arc::new(Segment(disk.into_iter().map(|(_, batch)| batch).collect()))));
        }
        units.extend(memory.into_iter().map(|(_, batch)| Unit::Batch(batch)));
        Ok(units)
    }

    fn deletions(&self) -> Result<Arc<[Deletion]>, NodeError> {
        Ok(Arc::clone(&self.deletions))
    }
}

struct Segment(Vec<Arc<Entries>>);

impl Stretch for Segment {
    fn min(&self) -> i64 {
        self.0.iter().map(|batch| batch.min).min().unwrap()
    }

    fn max(&self) -> i64 {
        self.0.iter().map(|batch| batch.max).max().unwrap()
    }

    fn lines(&self) -> u64 {
        self.0.iter().map(|batch| batch.lines()).sum()
    }

    fn visit(&self, f: &mut dyn FnMut(Arc<Entries>) -> ControlFlow<()>) -> Result<(), Error> {
        for batch in &self.0 {
            if f(Arc::clone(batch)).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The same entries as batches, without deletions.
pub(super) struct Plain(Vec<(u64, Arc<Entries>)>);

impl Plain {
    pub(super) fn new(batches: &[Batch]) -> Self {
        Self(batches.iter().map(|batch| (batch.seq(), Arc::new(batch.entries()))).collect())
    }
}

impl Source for Plain {
    fn log(&self) -> LogId {
        LogId::from_u128(OWN)
    }

    fn collect(&self, (after, upto): (u64, u64), (first, last): (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        let asked = self.0.iter().filter(|(seq, batch)| {
            let of_earlier = *seq == 0 && after == 0;
            (of_earlier || (after < *seq && *seq <= upto)) && batch.min <= last && batch.max >= first
        });
        Ok(asked.map(|(_, batch)| Unit::Batch(Arc::clone(batch))).collect())
    }
}
