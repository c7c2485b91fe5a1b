//! The newest records as they go to copies, in memory, so that what was just appended need not be read from disk again.
//!
//! Invariants: kept only while there are streams of records. What is here is every record from [`State::first`] on up to [`State::head`], in
//! order, numbers without one included; at most [`RING_BYTES`] of payloads. A stream that is behind it goes on from disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tailwater_wire::host::CopiedRecord;
use tokio::sync::Notify;

/// Most bytes of payloads. (Small in tests, so that streams fall behind.)
const RING_BYTES: usize = if cfg!(test) { 2 << 10 } else { 16 << 20 };

/// Most records: what a record without a payload costs is bounded, too.
const RING_RECORDS: usize = 1 << 16;

/// Bytes of payloads in a piece of a stream, unless it is one record. (Small in tests, so that there are several.)
pub(super) const PIECE_BYTES: usize = if cfg!(test) { 400 } else { 256 << 10 };

/// Most records in a piece.
const PIECE_RECORDS: usize = 4096;

/// See the module's words.
#[derive(Debug, Default)]
pub(super) struct Ring {
    state: Mutex<State>,
    streams: AtomicUsize,
    /// There is a record after [`State::head`] as it was before.
    pub(super) grown: Notify,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<CopiedRecord>,
    bytes: usize,
    /// Everything before it must be read from disk.
    first: u64,
    /// The last number that readers may have heard of.
    head: u64,
}

/// A stream's place: the ring is kept as long as there are any.
#[derive(Debug)]
pub(super) struct Seat(Arc<Ring>);

/// What comes after a position.
#[derive(Debug)]
pub(super) enum Next {
    /// A piece.
    Records(Vec<CopiedRecord>),
    /// Nothing by now.
    Nothing,
    /// What is on disk, up to this number.
    OnDisk(u64),
}

/// Bytes of a record's payload.
pub(super) fn payload_bytes(record: &CopiedRecord) -> usize {
    match record {
        CopiedRecord::Batch { payload, .. } => payload.len(),
        CopiedRecord::Missing { .. } => 0,
    }
}

/// Takes a piece off the front.
pub(super) fn piece<'a>(records: impl Iterator<Item = &'a CopiedRecord>) -> usize {
    let mut bytes = 0;
    let fits = records.take(PIECE_RECORDS).enumerate().take_while(|(number, record)| {
        bytes += payload_bytes(record);
        *number == 0 || bytes <= PIECE_BYTES
    });
    fits.count()
}

impl Ring {
    /// Whether anybody wants records.
    pub(super) fn is_wanted(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }

    /// Readers can see a batch. None: its payload is not at hand. Called under the log's write lock.
    pub(super) fn add(&self, seq: u64, record: Option<CopiedRecord>) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.head, seq);
        match record.filter(|record| self.is_wanted() && payload_bytes(record) <= RING_BYTES) {
            Some(record) => {
                if before + 1 < seq {
                    let (first, last) = (before + 1, seq - 1);
                    // Numbers are skipped while the log is open only for batches that nobody was told of.
                    state.records.push_back(CopiedRecord::Missing { first, last, lost: false });
                }
                state.bytes += payload_bytes(&record);
                state.records.push_back(record);
                while state.bytes > RING_BYTES || state.records.len() > RING_RECORDS {
                    let Some(oldest) = state.records.pop_front() else { break };
                    state.bytes -= payload_bytes(&oldest);
                    state.first = oldest.last() + 1;
                }
            }
            None => state.clear(),
        }
        drop(state);
        self.grown.notify_waiters();
    }

    /// Numbers up to this one count as used. Called under the log's write lock.
    pub(super) fn pass(&self, head: u64) {
        let mut state = self.state.lock();
        state.head = state.head.max(head);
        state.clear();
        drop(state);
        self.grown.notify_waiters();
    }

    /// A stream begins.
    pub(super) fn join(self: &Arc<Self>) -> Seat {
        // Under the lock, as the last one who leaves clears what is there.
        let _state = self.state.lock();
        self.streams.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(self))
    }

    /// What comes after a position.
    pub(super) fn after(&self, seq: u64) -> Next {
        let state = self.state.lock();
        if seq >= state.head {
            return Next::Nothing;
        }
        if seq + 1 < state.first {
            return Next::OnDisk(state.first - 1);
        }
        let begin = state.records.partition_point(|record| record.last() <= seq);
        let count = piece(state.records.range(begin..));
        Next::Records(state.records.range(begin..begin + count).cloned().collect())
    }
}

impl State {
    fn clear(&mut self) {
        self.records = VecDeque::new();
        self.bytes = 0;
        self.first = self.head + 1;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if self.0.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tailwater_model::{TenantId, Timestamp};

    use super::*;

    fn record(seq: u64, bytes: usize) -> CopiedRecord {
        CopiedRecord::Batch {
            seq,
            accepted_at: Timestamp(0),
            tenant: TenantId::parse("t").unwrap(),
            tenant_lines: seq,
            min: 0,
            max: 0,
            lines: 1,
            payload: Bytes::from(vec![0; bytes]),
        }
    }

    #[test]
    fn it_holds_the_newest_while_somebody_wants_them() {
        let ring = Arc::new(Ring::default());
        ring.pass(10);
        ring.add(11, Some(record(11, 10)));
        let seat = ring.join();
        assert!(matches!(ring.after(11), Next::Nothing));
        assert!(matches!(ring.after(10), Next::OnDisk(11)));
        for seq in 12..=40 {
            ring.add(seq, Some(record(seq, 100)));
        }
        ring.add(43, Some(record(43, 100)));
        let Next::OnDisk(upto) = ring.after(11) else { panic!() };
        assert!(upto > 20 && upto < 30);
        let (mut after, mut seen) = (upto, Vec::new());
        while let Next::Records(records) = ring.after(after) {
            assert!(records.iter().map(payload_bytes).sum::<usize>() <= PIECE_BYTES);
            after = records.last().unwrap().last();
            seen.extend(records);
        }
        assert_eq!(after, 43);
        assert!(seen.contains(&CopiedRecord::Missing { first: 41, last: 42, lost: false }));
        // One whose payload is not at hand, or too large: what is before it is on disk.
        ring.add(44, None);
        assert!(matches!(ring.after(43), Next::OnDisk(44)));
        ring.add(45, Some(record(45, RING_BYTES + 1)));
        assert!(matches!(ring.after(43), Next::OnDisk(45)));
        ring.add(46, Some(record(46, PIECE_BYTES + 1)));
        assert!(matches!(ring.after(45), Next::Records(records) if records.len() == 1));
        drop(seat);
        assert!(matches!(ring.after(45), Next::OnDisk(46)));
    }
}
