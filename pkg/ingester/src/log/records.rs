//! The log as a stream of records, for copies: from memory where they are at hand, from disk where not.
//!
//! Invariants: every number after the position where the stream begins is told once and in order, as a record or as missing; only what
//! readers can see is told, so no copy has what the log may yet give up. Waiting costs nothing; what is appended wakes all streams.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use tailwater_store::Error;
use tailwater_store::wal::{Stored, Why};
use tailwater_wire::host::{CopiedRecord, Records};
use tailwater_wire::node::NodeError;

use super::ring::{Next, PIECE_BYTES, Ring, Seat, piece};
use super::{ArrivalLog, disk};

/// One stream.
struct Streaming {
    log: Arc<ArrivalLog>,
    ring: Arc<Ring>,
    _seat: Seat,
    /// What was read and not handed out yet.
    read: VecDeque<CopiedRecord>,
    /// Everything up to here was read.
    after: u64,
    ended: bool,
}

impl ArrivalLog {
    /// Records after a position, for as long as the stream is held. It ends with an error.
    pub(crate) fn records(self: &Arc<Self>, after: u64) -> Records {
        let Some(ring) = self.disk.as_ref().map(|disk| Arc::clone(&disk.ring)) else {
            let reason = "a log without a write-ahead log cannot be copied".to_owned();
            let error = NodeError::Unavailable { log: self.id, reason };
            return Box::pin(stream::iter([Err(error)]));
        };
        let seat = ring.join();
        let log = Arc::clone(self);
        let streaming = Streaming { log, ring, _seat: seat, read: VecDeque::new(), after, ended: false };
        Box::pin(stream::unfold(streaming, |mut streaming| async move {
            let next = streaming.next().await?;
            Some((next, streaming))
        }))
    }

    /// Records after one number and up to another, from disk. Blocks.
    fn records_on_disk(&self, after: u64, upto: u64) -> Result<(Vec<CopiedRecord>, u64), NodeError> {
        let unavailable = |error: Error| NodeError::Unavailable { log: self.id, reason: error.to_string() };
        let gone = || Error::Unavailable { what: "the write-ahead log".into(), reason: "there is none".into() };
        let disk = self.disk.as_ref().ok_or_else(gone).map_err(unavailable)?;
        let read = disk.wal.read(after, upto, PIECE_BYTES, |_| true).map_err(unavailable)?;
        let mut records = Vec::with_capacity(read.records.len() + 1);
        if let Some(missing) = read.missing {
            if missing.why == Why::Trimmed {
                return Err(NodeError::Trimmed { log: self.id, through: missing.last });
            }
            let lost = missing.why != Why::Failed;
            records.push(CopiedRecord::Missing { first: missing.first, last: missing.last, lost });
        }
        records.extend(read.records.into_iter().map(copied));
        if read.through <= after {
            return Err(unavailable(disk::corrupt(after + 1, "nothing can be read there")));
        }
        Ok((records, read.through))
    }
}

impl Streaming {
    /// The next piece. Nothing is lost if the future is dropped: what was read is read again.
    async fn next(&mut self) -> Option<Result<Vec<CopiedRecord>, NodeError>> {
        if self.ended {
            return None;
        }
        let ring = Arc::clone(&self.ring);
        loop {
            let count = piece(self.read.iter());
            if count > 0 {
                return Some(Ok(self.read.drain(..count).collect()));
            }
            let grown = ring.grown.notified();
            tokio::pin!(grown);
            // Whatever is added after the look wakes it.
            grown.as_mut().enable();
            match ring.after(self.after) {
                Next::Records(records) => {
                    self.after = records.last().map_or(self.after, CopiedRecord::last);
                    return Some(Ok(records));
                }
                Next::Nothing => grown.await,
                Next::OnDisk(upto) => match self.read_on_disk(upto).await {
                    Ok((records, through)) => {
                        self.read.extend(records);
                        self.after = through;
                    }
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
            }
        }
    }

    async fn read_on_disk(&self, upto: u64) -> Result<(Vec<CopiedRecord>, u64), NodeError> {
        let unavailable = |reason: String| NodeError::Unavailable { log: self.log.id, reason };
        let turns = self.log.disk.as_ref().map(|disk| Arc::clone(&disk.copy_turns));
        let turns = turns.ok_or_else(|| unavailable("there is no write-ahead log".to_owned()))?;
        let turn = turns.acquire_owned().await.map_err(|error| unavailable(error.to_string()))?;
        let (log, after) = (Arc::clone(&self.log), self.after);
        let reading = tokio::task::spawn_blocking(move || {
            let read = log.records_on_disk(after, upto);
            drop(turn);
            read
        });
        reading.await.unwrap_or_else(|error| Err(unavailable(error.to_string())))
    }
}

fn copied(stored: Stored) -> CopiedRecord {
    let Stored { seq, accepted_at, tenant, tenant_lines, min, max, lines, payload } = stored;
    CopiedRecord::Batch { seq, accepted_at, tenant, tenant_lines, min, max, lines, payload }
}
