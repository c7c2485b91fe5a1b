//! What lines are worth to a range aggregation: partial aggregates per series and pane, by as many workers as there are cores.
//!
//! Invariants:
//! * The answer is that of a plain look at every line. Entries equal in stream, timestamp, line and metadata count once, whichever of
//!   them is met first: they are worth the same.
//! * Only entries that may have an equal are compared: within a run those whose timestamps do not grow, across runs those within the *spans*
//!   in which runs of a stream overlap in time. In-order streams have none.
//! * Who goes on after a position is answered what later batches hold, and how much of it is late for what it knows already. Batches up to
//!   the position are asked for nothing but whether a later entry has an equal in them.
//! * A line that no filter, parser or label could tell from its neighbours is not looked at: runs of plain lines are counted.
//! * Memory: that of the answer, once per worker, and of the entries that may have an equal, together within the request's bound.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tailwater_logql::metric::{self, Column, Full, Pane, SampleRunner, SeriesNumber};
use tailwater_model::{Labels, LogId, Timestamp};
use tailwater_wire::node::{BlocksScanned, Late, NodeError, Sampled, SamplesRequest, Scanned, warn};
use tailwater_wire::push::EntrySpan;

use super::overlaps::{self, Spans};
use super::pieces::{Look, PageLook, Pieces, Plan};
use super::queue::Order;
use super::repeats::{Met, Repeats, may_repeat};
use super::trouble::Troubles;
use super::{Cancel, Source, Totals, Unit, wanted, workers};
use crate::ByStream;
use crate::deletes::Deletion;
use crate::entries::{Entries, Run};
use crate::history::Wanted;

/// Most memory that a worker takes from the request's bound at a time, in bytes.
const ROOM_AT_ONCE: usize = 1 << 20;

/// The part of the request's bound that a worker takes at most at a time: what workers have taken and do not use is little of it.
const PARTS_OF_ROOM: usize = 64;

/// What a series costs beyond its labels' text and its column, in bytes: allocations and places in tables.
const SERIES_COST: usize = 256;

/// What a label of a series costs beyond its text, in bytes.
const LABEL_COST: usize = 64;

/// What it costs to remember an entry that may have an equal, in bytes: a key, its place in a table, and the table's spare room.
const MET_COST: usize = 48;

/// Bytes of lines between looks at the cancel.
const BYTES_PER_LOOK: u32 = 256 << 10;

/// What looking at a line costs beyond its bytes.
const LINE_COST: u32 = 64;

/// Fewest lines for which the whole body is searched first.
const MIN_LINES_FOR_REGION: u64 = 8;

/// See [`tailwater_wire::node::Node::samples`]. `answer` has what is known beforehand: how far the read goes, and what was trimmed.
///
/// # Errors
/// [`NodeError::TooLarge`] if the request's memory does not suffice, [`NodeError::Unavailable`] if something cannot be reached.
pub fn samples(
    source: &dyn Source,
    request: &SamplesRequest,
    mut answer: Sampled,
    seed: u64,
    cancel: &Cancel,
) -> Result<Sampled, NodeError> {
    let Some((first, last)) = request.grid.bounds() else { return Ok(answer) };
    let settled = request.settled.map_or(i64::MIN, Timestamp::nanos);
    // What is late counts however old it is.
    let first = if settled < first { first.max(request.from.nanos()) } else { first };
    let deletions = source.deletions()?;
    let mut units = source.collect((request.after, answer.through), (first, last))?;
    let low = units.iter().map(Unit::min).min().unwrap_or(i64::MAX).max(first);
    let high = units.iter().map(Unit::max).max().unwrap_or(i64::MIN).min(last);
    // Who begins has seen nothing; to everybody else lines of earlier logs are known.
    let begins = request.after == 0 && request.settled.is_none();
    let known = if begins { Vec::new() } else { source.collect((0, request.after), (low, high))? };
    if !begins {
        units = units.into_iter().map(Unit::without_earlier).collect();
    }
    let log = source.log();
    let all = || known.iter().chain(&units).cloned();
    let (spans, first_look, warnings) = spans(all(), request, (low, high), log, cancel)?;
    answer.scanned.blocks += first_look;
    warn(&mut answer.warnings, warnings);
    let spans = Arc::new(spans);
    let in_vain = Arc::new(AtomicBool::new(false));
    let pieces = |units: Vec<Unit>, deletions: Arc<[Deletion]>, only_spans| {
        let wanted = wanted::Samples {
            query: Arc::clone(&request.query),
            times: if only_spans { (low, high) } else { (first, last) },
            spans: Arc::clone(&spans),
            only_spans,
            deletions: Arc::clone(&deletions),
            in_vain: Arc::clone(&in_vain),
        };
        Pieces::new(units, plan(Arc::new(wanted), deletions, request, log), cancel)
    };
    let lines = units.iter().map(Unit::lines).sum();
    let collection = Collection {
        request,
        bounds: (first, last),
        from: request.from.nanos(),
        settled,
        seed,
        pieces: pieces(units, deletions, false),
        spans: Arc::clone(&spans),
        in_vain: Arc::clone(&in_vain),
        met: Met::default(),
        room: AtomicUsize::new(request.max_bytes),
        full: AtomicBool::new(false),
        late: Mutex::default(),
        scanned: Totals::default(),
    };
    if !known.is_empty() && !spans.is_empty() {
        let known = pieces(known, Arc::default(), true);
        collection.meet(&known);
        let (first_look, warnings) = known.finish_first_look()?;
        answer.scanned.blocks += first_look;
        warn(&mut answer.warnings, warnings);
    }
    let found = workers(lines, || collection.work());
    let (scanned, warnings) = collection.pieces.finish()?;
    warn(&mut answer.warnings, warnings);
    answer.scanned += scanned;
    answer.scanned += collection.scanned.sum();
    answer.late = *collection.late.lock();
    let too_large = NodeError::TooLarge { limit: request.max_bytes };
    if collection.full.load(Ordering::Relaxed) {
        return Err(too_large);
    }
    answer.series = merge(found, request.max_bytes).map_err(|Full { .. }| too_large)?;
    Ok(answer)
}

fn plan(wanted: Arc<dyn Wanted>, deletions: Arc<[Deletion]>, request: &SamplesRequest, log: LogId) -> Plan {
    let troubles = Troubles::new(log);
    Plan { order: Order::Any, wanted, deletions, detect_level: request.detect_level, troubles }
}

/// Puts what workers have found together.
fn merge(found: Vec<Vec<(Labels, Column)>>, mut room: usize) -> Result<Vec<(Labels, Column)>, Full> {
    let mut found = found.into_iter();
    let Some(mut all) = found.next() else { return Ok(Vec::new()) };
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for part in found.filter(|part| !part.is_empty()) {
        if places.is_empty() {
            places = all.iter().enumerate().map(|(i, (labels, _))| (labels.clone(), i)).collect();
        }
        for (labels, column) in part {
            match places.get(&labels) {
                Some(place) => all[*place].1.merge(column, &mut room)?,
                None => {
                    places.insert(labels.clone(), all.len());
                    all.push((labels, column));
                }
            }
        }
    }
    Ok(all)
}

/// Which streams are selected, each asked once.
struct Matching<'a> {
    request: &'a SamplesRequest,
    known: ByStream<bool>,
}

impl<'a> Matching<'a> {
    fn new(request: &'a SamplesRequest) -> Self {
        Self { request, known: ByStream::default() }
    }

    fn selects(&mut self, run: &Run) -> bool {
        let matches = || self.request.query.matchers().matches(&run.stream.labels);
        *self.known.entry(run.stream.id).or_insert_with(matches)
    }
}

/// Where runs of a selected stream overlap: only there may an entry have an equal in another run.
fn spans(
    units: impl Iterator<Item = Unit>,
    request: &SamplesRequest,
    (first, last): (i64, i64),
    log: LogId,
    cancel: &Cancel,
) -> Result<(ByStream<Spans>, BlocksScanned, Vec<String>), NodeError> {
    let wanted = wanted::Runs { query: Arc::clone(&request.query), times: (first, last) };
    let pieces = Pieces::new(units, plan(Arc::new(wanted), Arc::default(), request, log), cancel);
    let mut matching = Matching::new(request);
    let mut met = overlaps::Runs::default();
    pieces.work(&|_| false, &mut |look| {
        match look {
            Look::Entries(batch) => {
                for run in batch.runs.iter().filter(|run| run.overlaps(first, last) && matching.selects(run)) {
                    met.add_of_log(run.stream.hash, run.min, run.max);
                }
            }
            Look::Page(page) => met.add_page(page.stream.hash, page.info.min, page.info.max),
        }
        ControlFlow::Continue(())
    });
    let (first_look, warnings) = pieces.finish_first_look()?;
    Ok((met.spans(), first_look, warnings))
}

/// What the workers share.
struct Collection<'a> {
    request: &'a SamplesRequest,
    bounds: (i64, i64),
    /// What is older is not collected.
    from: i64,
    /// What is not later is late.
    settled: i64,
    seed: u64,
    pieces: Pieces,
    spans: Arc<ByStream<Spans>>,
    /// Set when times and lengths did not suffice where they were thought to.
    in_vain: Arc<AtomicBool>,
    met: Met,
    /// Memory that nobody has taken yet, in bytes.
    room: AtomicUsize,
    /// Whether there was not enough.
    full: AtomicBool,
    late: Mutex<Late>,
    scanned: Totals,
}

/// What one worker has.
struct Worker<'a> {
    runner: SampleRunner,
    matching: Matching<'a>,
    columns: Vec<Column>,
    /// Series whose labels have been paid for.
    paid: u32,
    room: usize,
    pane: Pane,
    repeats: Repeats,
    late: Late,
    scanned: Scanned,
    unlooked: u32,
}

/// The read is over before its end.
struct Stop;

impl Collection<'_> {
    /// Remembers the entries of batches that were looked at earlier, as far as later ones may equal them.
    fn meet(&self, known: &Pieces) {
        let mut matching = Matching::new(self.request);
        known.work(&|_| false, &mut |look| {
            let met = match look {
                Look::Entries(batch) => self.meet_batch(batch, &mut matching),
                Look::Page(_) => Ok(()),
            };
            if met.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }

    fn meet_batch(&self, batch: &Entries, matching: &mut Matching<'_>) -> Result<(), Stop> {
        for run in batch.runs.iter().filter(|run| matching.selects(run)) {
            let Some(spans) = self.spans.get(&run.stream.hash) else { continue };
            for entry in batch.entries(run).iter().filter(|entry| spans.hold(entry.timestamp)) {
                if self.met.insert(batch, run, entry, self.seed) {
                    self.take_exactly(MET_COST)?;
                }
            }
        }
        Ok(())
    }

    fn work(&self) -> Vec<(Labels, Column)> {
        let mut worker = Worker {
            runner: self.request.query.runner(self.request.detect_level),
            matching: Matching::new(self.request),
            columns: Vec::new(),
            paid: 0,
            room: 0,
            // Holds nothing.
            pane: Pane { number: 0, first: i64::MAX, last: i64::MIN },
            repeats: Repeats::default(),
            late: Late::default(),
            scanned: Scanned::default(),
            unlooked: 0,
        };
        self.pieces.work(&|_| false, &mut |look| {
            let looked = match look {
                Look::Entries(batch) => self.look(batch, &mut worker),
                Look::Page(page) => self.page(&page, &mut worker),
            };
            if looked.is_ok() && !self.full.load(Ordering::Relaxed) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        self.scanned.add(worker.scanned);
        *self.late.lock() += worker.late;
        let Worker { columns, runner, .. } = worker;
        // Lines that were only late leave their series empty.
        let numbered = columns.into_iter().zip(0..).filter(|(column, _)| !column.is_empty());
        numbered.filter_map(|(column, number)| Some((runner.labels(number)?.clone(), column))).collect()
    }

    fn look(&self, batch: &Entries, worker: &mut Worker<'_>) -> Result<(), Stop> {
        let (first, last) = self.bounds;
        let may_match = batch.lines() < MIN_LINES_FOR_REGION || self.request.query.may_match(batch.body());
        for run in batch.runs.iter().filter(|run| run.overlaps(first, last)) {
            if !worker.matching.selects(run) {
                continue;
            }
            if !may_match {
                let (lines, bytes) = batch.size_within(run, first, last);
                worker.scanned.lines += lines;
                worker.scanned.bytes += bytes;
                continue;
            }
            worker.runner.enter(&run.stream.labels);
            let spans = self.spans.get(&run.stream.hash).filter(|spans| spans.overlap(run.min, run.max));
            let entries = batch.entries(run);
            worker.repeats.find(batch, entries, self.seed);
            match worker.runner.series_of_stream().filter(|_| spans.is_none() && worker.repeats.found.is_empty()) {
                Some(number) => self.count(batch, run, number, worker)?,
                None => self.run(batch, run, spans, worker)?,
            }
        }
        Ok(())
    }

    /// Lines that are all worth the same to the same series.
    fn count(&self, batch: &Entries, run: &Run, number: SeriesNumber, worker: &mut Worker<'_>) -> Result<(), Stop> {
        let (mut lines, mut sum) = (0, 0.0);
        for (i, entry) in batch.entries(run).iter().enumerate() {
            if !worker.pane.holds(entry.timestamp) {
                self.add_run(worker, number, lines, sum)?;
                (lines, sum) = (0, 0.0);
                if !worker.reach(self.request, entry.timestamp) {
                    continue;
                }
            }
            if entry.metadata_len > 0 {
                self.line(batch, run, i, entry, worker)?;
                continue;
            }
            if !self.wanted(entry.timestamp) {
                continue;
            }
            worker.scan(entry);
            worker.scanned.matched += 1;
            if self.take_late(worker, entry.timestamp) {
                continue;
            }
            lines += 1;
            sum += worker.runner.worth(entry.line_len);
        }
        self.add_run(worker, number, lines, sum)
    }

    /// A page of which times and lengths are known.
    fn page(&self, page: &PageLook<'_>, worker: &mut Worker<'_>) -> Result<(), Stop> {
        let Some(columns) = &page.columns else { return Ok(()) };
        worker.runner.enter(&page.stream.labels);
        let Some(number) = worker.runner.series_of_stream().filter(|_| !may_repeat(&columns.times, &columns.lengths))
        else {
            self.in_vain.store(true, Ordering::Relaxed);
            match page.entries() {
                Ok(Some(entries)) => self.look(&entries, worker)?,
                Ok(None) => {}
                Err(error) => self.pieces.note(&error),
            }
            return Ok(());
        };
        let (mut lines, mut sum) = (0, 0.0);
        for (timestamp, line_len) in columns.times.iter().zip(&columns.lengths) {
            if !worker.pane.holds(*timestamp) {
                self.add_run(worker, number, lines, sum)?;
                (lines, sum) = (0, 0.0);
                if !worker.reach(self.request, *timestamp) {
                    continue;
                }
            }
            if !self.wanted(*timestamp) {
                continue;
            }
            worker.scanned.lines += 1;
            worker.scanned.bytes += u64::from(*line_len);
            worker.scanned.matched += 1;
            if self.take_late(worker, *timestamp) {
                continue;
            }
            lines += 1;
            sum += worker.runner.worth(*line_len);
        }
        self.add_run(worker, number, lines, sum)
    }

    fn run(&self, batch: &Entries, run: &Run, spans: Option<&Spans>, worker: &mut Worker<'_>) -> Result<(), Stop> {
        let mut repeats = std::mem::take(&mut worker.repeats.found).into_iter().peekable();
        for (i, entry) in batch.entries(run).iter().enumerate() {
            if repeats.next_if(|repeat| *repeat as usize == i).is_some() {
                continue;
            }
            if spans.is_some_and(|spans| spans.hold(entry.timestamp)) {
                if !self.met.insert(batch, run, entry, self.seed) {
                    continue;
                }
                self.spend(worker, MET_COST)?;
            }
            self.line(batch, run, i, entry, worker)?;
        }
        Ok(())
    }

    fn line(
        &self,
        batch: &Entries,
        run: &Run,
        i: usize,
        entry: &EntrySpan,
        worker: &mut Worker<'_>,
    ) -> Result<(), Stop> {
        if !worker.pane.holds(entry.timestamp) && !worker.reach(self.request, entry.timestamp) {
            return Ok(());
        }
        if !self.wanted(entry.timestamp) {
            return Ok(());
        }
        worker.scan(entry);
        worker.unlooked += entry.line_len.saturating_add(LINE_COST);
        if worker.unlooked >= BYTES_PER_LOOK {
            worker.unlooked = 0;
            if self.pieces.ends() {
                return Err(Stop);
            }
        }
        let timestamp = Timestamp(entry.timestamp);
        let sample = if entry.metadata_len == 0 {
            worker.runner.run(timestamp, batch.line(entry), &[])
        } else {
            worker.runner.run(timestamp, batch.line(entry), &batch.metadata(entry))
        };
        let Some((number, value)) = sample else { return Ok(()) };
        worker.scanned.matched += 1;
        if self.take_late(worker, entry.timestamp) {
            // It may have brought its series.
            return self.pay(worker, number);
        }
        let place = batch.place(run.first + u32::try_from(i).unwrap_or(u32::MAX));
        let place = metric::Place {
            timestamp: entry.timestamp,
            stream_hash: run.stream.hash,
            seq: place.seq,
            index: place.index,
        };
        let pane = worker.pane.number;
        self.add(worker, number, |column, room| column.add(pane, value, place, room))
    }

    /// Whether an entry that lies in a window is collected, or counted as late.
    fn wanted(&self, timestamp: i64) -> bool {
        timestamp >= self.from || timestamp <= self.settled
    }

    /// Counts what is late. True: there is nothing else to do with it.
    fn take_late(&self, worker: &mut Worker<'_>, timestamp: i64) -> bool {
        if timestamp <= self.settled {
            worker.late += Late { lines: 1, oldest: Timestamp(timestamp) };
        }
        timestamp < self.from
    }

    fn add_run(&self, worker: &mut Worker<'_>, number: SeriesNumber, lines: u64, sum: f64) -> Result<(), Stop> {
        if lines == 0 {
            return Ok(());
        }
        let pane = worker.pane.number;
        self.add(worker, number, |column, room| column.add_many(pane, lines, sum, room))
    }

    /// Changes the column of a series, once there is room for it.
    fn add(
        &self,
        worker: &mut Worker<'_>,
        number: SeriesNumber,
        change: impl Fn(&mut Column, &mut usize) -> Result<(), Full>,
    ) -> Result<(), Stop> {
        self.pay(worker, number)?;
        let Some(column) = worker.columns.get_mut(number as usize) else { return Ok(()) };
        while let Err(Full { needed }) = change(column, &mut worker.room) {
            worker.room += self.take_room(needed)?;
        }
        Ok(())
    }

    /// Makes columns for the series up to this one, once there is room for them.
    fn pay(&self, worker: &mut Worker<'_>, number: SeriesNumber) -> Result<(), Stop> {
        while worker.columns.len() <= number as usize {
            worker.columns.push(self.request.query.column());
        }
        while worker.paid <= number {
            let text = |labels: &Labels| labels.iter().map(|(n, v)| n.len() + v.len() + LABEL_COST).sum::<usize>();
            let cost = SERIES_COST + worker.runner.labels(worker.paid).map_or(0, text);
            self.spend(worker, cost)?;
            worker.paid += 1;
        }
        Ok(())
    }

    fn spend(&self, worker: &mut Worker<'_>, cost: usize) -> Result<(), Stop> {
        while worker.room < cost {
            worker.room += self.take_room(cost)?;
        }
        worker.room -= cost;
        Ok(())
    }

    /// Takes room before there are workers.
    fn take_exactly(&self, cost: usize) -> Result<(), Stop> {
        let took = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(cost));
        took.map(|_room| ()).map_err(|_too_little| {
            self.full.store(true, Ordering::Relaxed);
            Stop
        })
    }

    fn take_room(&self, needed: usize) -> Result<usize, Stop> {
        let least = needed.max(1);
        let most = least.max(ROOM_AT_ONCE.min(self.request.max_bytes / PARTS_OF_ROOM));
        let took = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| (room >= least).then(|| room - most.min(room)));
        took.map(|room| most.min(room)).map_err(|_too_little| {
            self.full.store(true, Ordering::Relaxed);
            Stop
        })
    }
}

impl Worker<'_> {
    fn scan(&mut self, entry: &EntrySpan) {
        self.scanned.lines += 1;
        self.scanned.bytes += u64::from(entry.line_len);
    }

    /// Goes to the pane of a timestamp, if there is one.
    fn reach(&mut self, request: &SamplesRequest, timestamp: i64) -> bool {
        let pane = request.grid.pane(timestamp);
        if let Some(pane) = pane {
            self.pane = pane;
        }
        pane.is_some()
    }
}
