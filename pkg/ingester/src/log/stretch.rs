//! The log by position for whoever cuts blocks, and by time for searches.
//!
//! Invariants: what is answered holds every batch that was asked for exactly once, from memory or from the write-ahead log, however both are
//! trimmed meanwhile. For that, a search is told the boundary up to which it has to look into blocks; it is taken together with what is
//! beyond it: everything up to `covered` is in blocks, everything after it is in memory or in segments that the answer holds on to.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tailwater_model::{TenantId, Timestamp};
use tailwater_store::Error;
use tailwater_store::entries::Entries;
use tailwater_store::scan::{Stretch, Unit};
use tailwater_store::wal::{Item, Segment, Why};

use super::disk::{Disk, corrupt};
use super::memory::SCAN_BATCHES;
use super::{Account, ArrivalLog};
use crate::batch::Batch;

/// Bytes of payloads read at once.
const READ_BYTES: usize = 1 << 20;

/// About what a line takes in a segment, in bytes.
const LINE_BYTES: u64 = 40;

/// What is not in blocks yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uncovered {
    /// The first number after what is covered.
    pub(crate) first: u64,
    /// The head. There is nothing if it is before `first`.
    pub(crate) last: u64,
    /// Bytes of the lines in between, at least; off by some MiB at most.
    pub(crate) bytes: u64,
    /// When the oldest of them was accepted, or some seconds before.
    pub(crate) oldest: Option<Timestamp>,
}

/// Which boundary between blocks and the log a search wants; any between these two is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// What is in memory is read from there.
    Lowest,
    /// What is in blocks is read from there.
    Highest,
    /// Everything after this one is read from the log.
    At(u64),
}

/// What a search looks at beyond blocks.
#[derive(Debug)]
pub(crate) struct Look {
    /// Everything of this log up to here is in blocks. If it is beyond the boundary that was asked for, that is why: the log has let go of
    /// everything up to here, and the units are of no use.
    pub(crate) boundary: u64,
    /// Everything after it, in order.
    pub(crate) units: Vec<Unit>,
}

impl ArrivalLog {
    /// Everything up to here is in blocks that the catalog lists. 0 without a write-ahead log.
    pub(crate) fn covered(&self) -> u64 {
        self.disk.as_ref().map_or(0, |disk| disk.covered.get())
    }

    /// Everything up to `seq` is in blocks that the catalog lists: the write-ahead log may let go of it. Never moves back, nor beyond the
    /// head. Blocks.
    pub(crate) fn set_covered(&self, seq: u64) {
        let Some(disk) = &self.disk else { return };
        let seq = seq.min(self.head());
        disk.covered.set(seq);
        disk.tide.lock().forget(seq);
        disk.wal.trim(seq);
    }

    /// What is not in blocks yet.
    pub(crate) fn uncovered(&self) -> Uncovered {
        let state = self.state.read();
        let (covered, last) = (self.covered(), state.head);
        let first = covered + 1;
        let none = Uncovered { first, last, bytes: 0, oldest: None };
        if first > last {
            return none;
        }
        let mark = if first >= state.first {
            state.batches.get(state.index_of(first)).map(|batch| (batch.bytes_before, batch.accepted_at))
        } else {
            let mark = self.disk.as_ref().and_then(|disk| disk.tide.lock().at(first));
            mark.map(|mark| (mark.before, mark.accepted_at))
        };
        let Some((before, oldest)) = mark else { return none };
        Uncovered { bytes: state.line_bytes.saturating_sub(before), oldest: Some(oldest), ..none }
    }

    /// Returns when a batch, and all before it, survive a loss of power: what is in blocks must not be forgotten here. Blocks.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) fn sync(&self, seq: u64) -> Result<(), Error> {
        self.disk.as_ref().map_or(Ok(()), |disk| disk.wal.sync_up_to(seq))
    }

    /// Everything that was accepted before this instant is in blocks.
    pub(crate) fn in_blocks_until(&self) -> Timestamp {
        // Whatever is accepted from now on is accepted later than this.
        let watermark = {
            let _nothing_is_added = self.state.read();
            self.stamps.lock().watermark(self.clock.now())
        };
        self.uncovered().oldest.map_or(watermark, |oldest| oldest.min(watermark))
    }

    /// The batches of all tenants after one number and up to another, in order, until their lines have about `max_line_bytes`; and up to which
    /// number these are all. At least one, if there is any. Batches that cannot be read are left out, which is told in the log. Blocks.
    ///
    /// # Errors
    /// What the disk said. It may be tried again.
    pub(crate) fn stretch(&self, after: u64, upto: u64, max_line_bytes: u64) -> Result<(Vec<Arc<Batch>>, u64), Error> {
        let upto = upto.min(self.head());
        let (mut found, mut bytes, mut through) = (Vec::new(), 0, after);
        let mut accounts = HashMap::<TenantId, Arc<Account>>::new();
        while through < upto && (bytes < max_line_bytes || found.is_empty()) {
            let state = self.state.read();
            let before_memory = state.first - 1;
            if through >= before_memory {
                for batch in state.batches.range(state.index_of(through + 1)..).take(SCAN_BATCHES) {
                    if batch.seq > upto || (bytes >= max_line_bytes && !found.is_empty()) {
                        break;
                    }
                    bytes += weight(batch);
                    through = batch.seq;
                    found.push(Arc::clone(batch));
                }
                // Numbers that were skipped have nothing.
                if state.batches.get(state.index_of(through + 1)).is_none_or(|next| next.seq > upto) {
                    through = upto;
                }
                continue;
            }
            drop(state);
            let Some(disk) = &self.disk else {
                through = before_memory.min(upto);
                continue;
            };
            let read = disk.wal.read(through, upto.min(before_memory), READ_BYTES, |_| true)?;
            if self.is_copy
                && let Some(missing) = read.missing.filter(|missing| missing.why == Why::Corrupt)
            {
                // What only this copy has lost must not count as being in blocks.
                let lost = || corrupt(missing.first, "this copy of the log cannot read it, the log itself may have it");
                return if found.is_empty() { Err(lost()) } else { Ok((found, through)) };
            }
            for stored in &read.records {
                let tenant = &stored.tenant;
                let account = accounts.entry(tenant.clone()).or_insert_with(|| Arc::new(Account::new(tenant.clone())));
                match disk.batch(stored, account) {
                    Ok(batch) => {
                        bytes += weight(&batch);
                        found.push(Arc::new(batch));
                    }
                    // The original has them, perhaps.
                    Err(error) if self.is_copy && found.is_empty() => return Err(error),
                    Err(_) if self.is_copy => return Ok((found, stored.seq - 1)),
                    Err(error) => tracing::error!(%error, %tenant, lines = stored.lines, "lines are lost"),
                }
                through = stored.seq;
                if bytes >= max_line_bytes {
                    return Ok((found, through));
                }
            }
            if read.through <= through && read.records.is_empty() {
                return Err(corrupt(through + 1, "nothing can be read there"));
            }
            through = read.through.max(through);
        }
        Ok((found, through))
    }

    /// What a search of the tenant looks at: the batches after `after` and up to `upto` that may hold a timestamp in `[first, last]`, as far
    /// as they are not in blocks.
    pub(crate) fn look(
        self: &Arc<Self>,
        account: &Arc<Account>,
        (after, upto): (u64, u64),
        (first, last): (i64, i64),
        boundary: Boundary,
    ) -> Look {
        loop {
            let mut look = Look { boundary: 0, units: Vec::new() };
            let state = self.state.read();
            let mut next = state.first;
            if let Some(disk) = &self.disk {
                // In this order: what is in none of the segments by now was covered before, and what is covered may go meanwhile.
                let segments = disk.wal.segments();
                look.boundary = match boundary {
                    Boundary::Lowest => disk.covered.get().min(state.first - 1),
                    Boundary::Highest => disk.covered.get(),
                    Boundary::At(after) => {
                        let oldest = segments.first().map_or(state.first, |oldest| oldest.first().min(state.first));
                        after.max(oldest - 1)
                    }
                };
                next = next.max(look.boundary + 1);
                let positions = (after.max(look.boundary), upto.min(state.first - 1));
                drop(state);
                self.segments(&mut look.units, &segments, account, positions, (first, last));
            } else {
                drop(state);
            }
            next = next.max(after.saturating_add(1));
            if self.look_into_memory(&mut look.units, account, next, upto, (first, last)) {
                return look;
            }
        }
    }

    /// Adds what of the segments lies between the positions and may lie between the times.
    fn segments(
        self: &Arc<Self>,
        units: &mut Vec<Unit>,
        segments: &[Arc<Segment>],
        account: &Arc<Account>,
        (after, upto): (u64, u64),
        (first, last): (i64, i64),
    ) {
        if after >= upto {
            return;
        }
        for segment in segments {
            let holds = segment.first() <= upto && segment.last() > after;
            if holds && segment.min() <= last && segment.max() >= first {
                let times = (first.max(segment.min()), last.min(segment.max()));
                units.push(Unit::Stretch(Arc::new(InSegment {
                    log: Arc::clone(self),
                    segment: Arc::clone(segment),
                    account: Arc::clone(account),
                    positions: (after, upto),
                    times,
                })));
            }
        }
    }

    /// Adds the tenant's batches in memory from `next` on. False if some left meanwhile and are nowhere to be found any more.
    fn look_into_memory(
        self: &Arc<Self>,
        units: &mut Vec<Unit>,
        account: &Arc<Account>,
        mut next: u64,
        upto: u64,
        (first, last): (i64, i64),
    ) -> bool {
        let mut skipped = false;
        loop {
            let state = self.state.read();
            if next < state.first {
                if let Some(disk) = &self.disk {
                    // They left memory since; they are in the write-ahead log, unless they are in blocks by now and left it, too.
                    let segments = disk.wal.segments();
                    let positions = (next - 1, upto.min(state.first - 1));
                    next = state.first;
                    drop(state);
                    if segments.first().is_none_or(|oldest| oldest.first() > positions.0 + 1) {
                        return false;
                    }
                    self.segments(units, &segments, account, positions, (first, last));
                    continue;
                }
                next = state.first;
            }
            if !skipped {
                // Nothing before it reaches so far.
                next = next.max(state.first_reaching(first));
                skipped = true;
            }
            let begin = state.index_of(next);
            let mut looked = false;
            for batch in state.batches.range(begin..).take(SCAN_BATCHES).take_while(|batch| batch.seq <= upto) {
                looked = true;
                next = batch.seq + 1;
                if Arc::ptr_eq(&batch.account, account) && batch.max >= first && batch.min <= last {
                    units.push(Unit::Batch(Arc::clone(&batch.entries)));
                }
            }
            if !looked {
                return true;
            }
        }
    }
}

/// What a batch counts for in a stretch: the bytes of its lines, or half of its memory if that is more, so that empty lines or much
/// structured metadata do not make a stretch endless.
fn weight(batch: &Batch) -> u64 {
    batch.line_bytes.max(batch.memory() as u64 / 2)
}

/// What a segment holds of a tenant within positions and times.
struct InSegment {
    log: Arc<ArrivalLog>,
    segment: Arc<Segment>,
    account: Arc<Account>,
    positions: (u64, u64),
    times: (i64, i64),
}

impl InSegment {
    fn disk(&self) -> Result<&Disk, Error> {
        let gone = || Error::Unavailable { what: "the write-ahead log".into(), reason: "there is none".into() };
        self.log.disk.as_ref().ok_or_else(gone)
    }
}

impl Stretch for InSegment {
    fn min(&self) -> i64 {
        self.times.0
    }

    fn max(&self) -> i64 {
        self.times.1
    }

    fn lines(&self) -> u64 {
        self.segment.bytes() / LINE_BYTES
    }

    fn visit(&self, f: &mut dyn FnMut(Arc<Entries>) -> ControlFlow<()>) -> Result<(), Error> {
        let disk = self.disk()?;
        let mut lost = None;
        self.segment.scan(self.positions, self.times, &self.account.tenant, |item| match item {
            Item::Record(stored) => match disk.batch(&stored, &self.account) {
                Ok(batch) => f(batch.entries),
                Err(error) => {
                    lost = Some(error);
                    ControlFlow::Continue(())
                }
            },
            Item::Missing(missing) => {
                if missing.why == Why::Corrupt {
                    lost = Some(corrupt(missing.first, "it cannot be read"));
                }
                ControlFlow::Continue(())
            }
        })?;
        lost.map_or(Ok(()), Err)
    }
}
