//! Blocks for tests, and what is in them.

mod deletes;
mod many;
mod rewrite;
mod rounds;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tailwater_model::{Clock, Labels, Limits, LogId, TenantId, Timestamp};

use super::{Housekeeping, Settings};
use crate::catalog::{Advance, BlockMeta, Catalog, Change, Committed, Day, Refresh};
use crate::deletes::Deletes;

use crate::block::{Built, Entry, Footer, Located, Options, Writer, decode_page};
use crate::entries::Place;
use crate::objects::Objects;

/// A line as a test thinks of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) app: String,
    pub(super) log: u128,
    pub(super) timestamp: i64,
    pub(super) seq: u64,
    pub(super) index: u32,
    pub(super) text: String,
    pub(super) metadata: Vec<(String, String)>,
}

pub(super) fn labels(app: &str) -> Labels {
    Labels::from_pairs(vec![("app".into(), app.into())])
}

/// A block of lines, in pages of a few lines.
pub(super) fn build(lines: &[Line]) -> Built {
    let mut lines = lines.to_vec();
    lines.sort();
    let mut writer = Writer::new(Options { page_bytes: 64, ..Options::default() });
    let mut current = None;
    for line in &lines {
        if current != Some((&line.app, line.log)) {
            writer.stream(&labels(&line.app), LogId::from_u128(line.log));
            current = Some((&line.app, line.log));
        }
        let metadata: Vec<_> = line.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let accepted_at = Timestamp(i64::try_from(line.seq).unwrap());
        let place = Place { seq: line.seq, index: line.index, accepted_at };
        writer.entry(&Entry { timestamp: line.timestamp, line: line.text.as_bytes(), metadata: &metadata, place });
    }
    writer.finish().unwrap()
}

pub(super) fn joined(built: &Built) -> Bytes {
    built.parts.concat().into()
}

/// The lines of a block, in its order.
pub(super) fn read(object: &[u8]) -> Vec<Line> {
    let Located::Footer(footer) = Footer::locate(object, object.len() as u64).unwrap() else { panic!("not all of it") };
    let mut lines = Vec::new();
    for info in &footer.pages {
        let stream = &footer.streams[info.stream as usize].stream;
        let range = usize::try_from(info.range().start).unwrap()..usize::try_from(info.range().end).unwrap();
        let entries = decode_page(&object[range], info, stream.clone()).unwrap();
        for (number, span) in (0..).zip(entries.entries(&entries.runs[0])) {
            let place = entries.place(number);
            assert_eq!(place.accepted_at.nanos(), i64::try_from(place.seq).unwrap());
            let metadata = entries.metadata(span);
            lines.push(Line {
                app: stream.labels.get("app").unwrap_or_default().to_owned(),
                log: footer.logs[usize::from(info.log)].log.as_u128(),
                timestamp: span.timestamp,
                seq: place.seq,
                index: place.index,
                text: String::from_utf8_lossy(entries.line(span)).into_owned(),
                metadata: metadata.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            });
        }
    }
    lines
}

pub(super) fn memory() -> Objects {
    Objects::open("memory:", &crate::objects::Options::default()).unwrap()
}

/// A clock that a test turns.
#[derive(Debug)]
pub(super) struct Turned(AtomicI64);

impl Clock for Turned {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// A storage with all that housekeeping needs.
pub(super) struct House {
    pub(super) objects: Objects,
    pub(super) catalog: Arc<Catalog>,
    pub(super) deletes: Arc<Deletes>,
    pub(super) clock: Arc<Turned>,
    pub(super) keeping: Housekeeping,
    pub(super) settled: Arc<AtomicI64>,
    pub(super) leads: Arc<AtomicBool>,
    settings: Settings,
    limits: Limits,
}

pub(super) const CANCEL: Duration = Duration::from_secs(3600);

pub(super) const HOUR: i64 = 3_600_000_000_000;

pub(super) const DAY: i64 = 24 * HOUR;

pub(super) fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

impl House {
    pub(super) fn new(settings: Settings, limits: Limits) -> Self {
        Self::over(memory(), settings, limits, Timestamp::now().nanos())
    }

    fn over(objects: Objects, settings: Settings, limits: Limits, now: i64) -> Self {
        let clock = Arc::new(Turned(AtomicI64::new(now)));
        Self::of(objects, Refresh::Exclusive, settings, limits, clock)
    }

    /// One of several processes over the same storage.
    pub(super) fn of(
        objects: Objects,
        refresh: Refresh,
        settings: Settings,
        limits: Limits,
        clock: Arc<Turned>,
    ) -> Self {
        let catalog = Arc::new(Catalog::new(objects.clone(), refresh));
        let deletes = Arc::new(Deletes::new(objects.clone(), clock.clone(), CANCEL));
        let settled = Arc::new(AtomicI64::new(i64::MAX));
        let asked = settled.clone();
        let leads = Arc::new(AtomicBool::new(true));
        let led = leads.clone();
        let keeping = Housekeeping::led(
            catalog.clone(),
            deletes.clone(),
            Arc::new(Arc::new(limits.clone())),
            Arc::new(move || Timestamp(asked.load(Ordering::Relaxed))),
            Arc::new(move || led.load(Ordering::Relaxed)),
            settings.clone(),
            clock.clone(),
        );
        Self { objects, catalog, deletes, clock, keeping, settled, leads, settings, limits }
    }

    /// Another process over the same storage.
    pub(super) fn again(&self) -> Self {
        Self::over(self.objects.clone(), self.settings.clone(), self.limits.clone(), self.clock.now().nanos())
    }

    pub(super) fn wait(&self, by: Duration) {
        self.clock.0.fetch_add(i64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }

    /// Puts a block into the catalog, as the pager does.
    pub(super) async fn add(&self, of: &str, lines: &[Line]) -> BlockMeta {
        let (tenant, built) = (tenant(of), build(lines));
        let day = Day::of(built.summary.min);
        let block = BlockMeta::new(day, &built.summary, 0, self.clock.now());
        self.objects.put(&block.path(&tenant), built.parts).await.unwrap();
        let log = built.summary.logs[0].log;
        let expected = self.catalog.covered(&tenant, day, log).await.unwrap();
        let covered = Some(Advance { log, expected, to: expected + 1 });
        let change = Change { add: vec![block.clone()], covered, ..Change::default() };
        assert_eq!(self.catalog.commit(&tenant, day, &change).await.unwrap(), Committed::Done);
        block
    }

    /// All lines that the catalog lists, sorted.
    pub(super) async fn lines(&self, of: &str) -> Vec<Line> {
        let tenant = tenant(of);
        // Not what this catalog remembers, but what is stored.
        let catalog = Catalog::new(self.objects.clone(), Refresh::Exclusive);
        let mut lines = Vec::new();
        for block in catalog.blocks(&tenant, i64::MIN, i64::MAX).await.unwrap().blocks {
            let (object, _) = self.objects.get(&block.path(&tenant)).await.unwrap().unwrap();
            let of_block = read(&object);
            assert_eq!(of_block.len() as u64, block.lines);
            lines.extend(of_block);
        }
        lines.sort();
        lines
    }

    /// How many objects of blocks there are.
    pub(super) async fn objects(&self) -> usize {
        use futures_util::StreamExt;
        let listed: Vec<_> = self.objects.list("").map(|listed| listed.unwrap().path).collect().await;
        listed.iter().filter(|path| path.ends_with(".blk")).count()
    }

    pub(super) async fn round(&self) {
        assert!(!self.keeping.round().await.unwrap());
    }
}

/// Lines of a stream at some times; `seq` makes them differ from others.
pub(super) fn some_lines(app: &str, seq: u64, times: &[i64]) -> Vec<Line> {
    let line = |(index, timestamp): (u32, &i64)| Line {
        app: app.into(),
        log: 1,
        timestamp: *timestamp,
        seq,
        index,
        text: format!("line {seq} {index}"),
        metadata: Vec::new(),
    };
    (0..).zip(times).map(line).collect()
}
