//! What has left memory, read from the write-ahead log.
//!
//! Invariants: reading blocks, so none of it happens on a thread of the runtime. A fetch is bounded work and bounded memory. What the
//! write-ahead log no longer has, or cannot read, is told as a gap with the tenant's lines in it; numbers that no reader ever saw are not.

use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tailwater_store::wal::{Stored, SyncPolicy, Wal, Why};
use tailwater_store::{Error, Stream};
use tailwater_wire::node::Gap;
use tokio::sync::Semaphore;

use super::append::{Appender, Bell};
use super::covered::Covered;
use super::payload;
use super::ring::Ring;
use super::texts::Texts;
use super::tide::Tide;
use super::{Account, ArrivalLog, Fetched};
use crate::batch::Batch;

/// Bytes of payloads that a fetch asks for. (Small in tests, so that there are several fetches.)
const FETCH_BYTES: usize = if cfg!(test) { 200 } else { 256 << 10 };

/// Memory after which a fetch hands over what it has, in bytes.
const FETCH_MEMORY: usize = 8 << 20;

/// Followers that read at a time: more would only move the disk's head about.
const FOLLOWERS: usize = 4;

/// Streams of records for copies that read at a time. They do not wait for followers.
const COPY_STREAMS: usize = 2;

/// The durable part of the log.
pub(super) struct Disk {
    pub(super) wal: Wal,
    pub(super) sync: SyncPolicy,
    pub(super) appender: Mutex<Appender>,
    pub(super) bell: Arc<Bell>,
    pub(super) covered: Covered,
    pub(super) tide: Mutex<Tide>,
    texts: Mutex<Texts<Arc<Stream>>>,
    /// For followers that go on from disk.
    turns: Arc<Semaphore>,
    /// What was appended last, for copies.
    pub(super) ring: Arc<Ring>,
    /// For streams of records that go on from disk.
    pub(super) copy_turns: Arc<Semaphore>,
}

impl Disk {
    pub(super) fn new(wal: Wal, sync: SyncPolicy, covered: Covered) -> Self {
        Self {
            wal,
            sync,
            appender: Mutex::default(),
            bell: Arc::default(),
            covered,
            tide: Mutex::default(),
            texts: Mutex::default(),
            turns: Arc::new(Semaphore::new(FOLLOWERS)),
            ring: Arc::default(),
            copy_turns: Arc::new(Semaphore::new(COPY_STREAMS)),
        }
    }

    /// The oldest number that it may have.
    pub(super) fn first(&self) -> u64 {
        self.wal.first()
    }

    /// Whether it may have something before that number.
    pub(super) fn holds_before(&self, seq: u64) -> bool {
        self.wal.first() < seq
    }

    /// The batch that was appended as this record.
    pub(super) fn batch(&self, stored: &Stored, account: &Arc<Account>) -> Result<Batch, Error> {
        // The lock is not held while other things of the payload are looked at.
        batch_of(stored, account, |text, service_name| self.texts.lock().stream(text, service_name))
    }
}

/// The batch that was appended as a record. `stream`: the stream of a text and of what is known of its `service_name`.
pub(super) fn batch_of(
    stored: &Stored,
    account: &Arc<Account>,
    stream: impl FnMut(&[u8], Option<&str>) -> Result<Arc<Stream>, tailwater_wire::Error>,
) -> Result<Batch, Error> {
    let decoded = payload::decode(&stored.payload, stream).and_then(|(runs, push)| {
        let whole = push.entries.len() as u64 == u64::from(stored.lines);
        if whole { Ok((runs, push)) } else { Err("its lines are not all there".to_owned()) }
    });
    let (runs, push) = decoded.map_err(|reason| corrupt(stored.seq, &reason))?;
    let mut batch = Batch::new(Arc::clone(account), runs, push);
    batch.set_place(stored.seq, stored.accepted_at, stored.tenant_lines);
    Ok(batch)
}

/// What is wrong with a record whose bytes are what was written, but not what anybody can read.
pub(super) fn corrupt(seq: u64, reason: &str) -> Error {
    Error::Corrupt { what: format!("batch {seq} of the write-ahead log"), reason: reason.into() }
}

/// The tenant's lines before a record.
pub(super) fn lines_before(stored: &Stored) -> u64 {
    stored.tenant_lines.saturating_sub(u64::from(stored.lines))
}

impl ArrivalLog {
    /// Goes on where [`ArrivalLog::fetch`] has answered [`Fetched::OnDisk`]; never beyond memory. Blocks.
    ///
    /// # Errors
    /// What the disk said. It may be tried again.
    pub(crate) fn fetch_from_disk(
        &self,
        account: &Arc<Account>,
        after: u64,
        upto: u64,
        seen: Option<u64>,
    ) -> Result<Fetched, Error> {
        let upto = upto.min(self.before_memory());
        let mut found = SmallVec::new();
        let Some(disk) = self.disk.as_ref().filter(|_| after < upto) else {
            return Ok(Fetched::Batches { batches: found, through: after });
        };
        let read = disk.wal.read(after, upto, FETCH_BYTES, |tenant| *tenant == account.tenant)?;
        if let Some(missing) = read.missing
            && missing.why != Why::Failed
        {
            let (first, through) = (read.records.first(), missing.last.min(upto));
            let gap = self.gap_between(account, (after, through), seen, first.map(lines_before), missing.why)?;
            if !matches!(gap, Fetched::Trimmed { gap: Gap { lines: 0, .. }, exact: true, .. }) {
                return Ok(gap);
            }
        }
        let (mut memory, mut through) = (0, after);
        for stored in &read.records {
            match disk.batch(stored, account) {
                Ok(batch) => {
                    memory += batch.memory();
                    found.push(Arc::new(batch));
                }
                Err(error) if found.is_empty() => {
                    tracing::error!(%error, tenant = %account.tenant, lines = stored.lines, "lines are lost");
                    let gap = Gap { after: stored.seq - 1, through: stored.seq, lines: u64::from(stored.lines) };
                    return Ok(Fetched::Trimmed { gap, tenant_lines: Some(stored.tenant_lines), exact: true });
                }
                Err(_) => {
                    // Told when it is the next.
                    return Ok(Fetched::Batches { batches: found, through: stored.seq - 1 });
                }
            }
            through = stored.seq;
            if memory >= FETCH_MEMORY {
                return Ok(Fetched::Batches { batches: found, through });
            }
        }
        let through = read.through.max(through).min(upto);
        if through == after {
            return Err(corrupt(after + 1, "nothing can be read there"));
        }
        Ok(Fetched::Batches { batches: found, through })
    }

    /// A turn of reading for a follower, on a thread that may block.
    pub(crate) async fn fetch_in_turn(
        self: Arc<Self>,
        account: Arc<Account>,
        (after, upto): (u64, u64),
        seen: Option<u64>,
    ) -> Result<Fetched, Error> {
        let unavailable = |reason: String| Error::Unavailable { what: "reading the write-ahead log".into(), reason };
        let Some(turns) = self.disk.as_ref().map(|disk| Arc::clone(&disk.turns)) else {
            return Err(unavailable("there is none".to_owned()));
        };
        let turn = turns.acquire_owned().await.map_err(|error| unavailable(error.to_string()))?;
        let reading = tokio::task::spawn_blocking(move || {
            let fetched = self.fetch_from_disk(&account, after, upto, seen);
            drop(turn);
            fetched
        });
        reading.await.unwrap_or_else(|error| Err(unavailable(error.to_string())))
    }

    /// What the write-ahead log has let go of between two positions.
    pub(super) fn gap_on_disk(&self, account: &Arc<Account>, after: u64, upto: u64) -> Fetched {
        let none = Fetched::Batches { batches: SmallVec::new(), through: after };
        let first = self.disk.as_ref().map_or(0, Disk::first);
        if after + 1 >= first {
            return none;
        }
        let through = upto.min(first - 1);
        match self.gap_between(account, (after, through), None, None, Why::Trimmed) {
            Ok(gap) => gap,
            Err(error) => {
                tracing::warn!(%error, "how many lines were trimmed cannot be learnt");
                Fetched::Trimmed { gap: Gap { after, through, lines: 0 }, tenant_lines: None, exact: false }
            }
        }
    }

    /// The lines of the tenant within numbers that are missing. `seen` and `next`, if known: its lines before and after them.
    fn gap_between(
        &self,
        account: &Arc<Account>,
        (after, through): (u64, u64),
        seen: Option<u64>,
        next: Option<u64>,
        why: Why,
    ) -> Result<Fetched, Error> {
        let begin = match seen {
            None => self.state.read().lines_at(account, after),
            seen => seen,
        };
        let end = match next {
            None => self.lines_up_to(account, through, why)?,
            next => next,
        };
        // Where one of them is not known, the least that is certain is nothing. Of lines before it that count, later gaps tell.
        let lines = begin.zip(end).map_or(0, |(begin, end)| end.saturating_sub(begin));
        // A crash may have taken lines that count for nothing since.
        let exact = begin.is_some() && end.is_some() && why != Why::Crash;
        Ok(Fetched::Trimmed { gap: Gap { after, through, lines }, tenant_lines: end.or(begin), exact })
    }

    /// Lines of the tenant up to a number before memory, if that is known: from a mark, unless the lines were never in memory, or from its
    /// next batch, unless others are missing before that.
    fn lines_up_to(&self, account: &Arc<Account>, seq: u64, why: Why) -> Result<Option<u64>, Error> {
        let Some(disk) = &self.disk else { return Ok(None) };
        let mut after = seq;
        loop {
            let before_memory = {
                let state = self.state.read();
                if why == Why::Trimmed
                    && let Some(lines) = state.lines_at(account, seq)
                {
                    return Ok(Some(lines));
                }
                if after + 1 >= state.first {
                    return Ok(Some(state.lines_before(account)));
                }
                state.first - 1
            };
            let read = disk.wal.read(after, before_memory, 1, |tenant| *tenant == account.tenant)?;
            if read.missing.is_some_and(|missing| missing.why != Why::Failed) || read.through <= after {
                return Ok(None);
            }
            if let Some(stored) = read.records.first() {
                return Ok(Some(lines_before(stored)));
            }
            after = read.through;
        }
    }
}
