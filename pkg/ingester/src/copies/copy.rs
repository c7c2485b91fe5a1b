//! One copy: its folder, what is written to it, and who writes.
//!
//! Invariants: a folder is opened, closed and deleted by one at a time. Records are taken in by one at a time. A copy that was deleted takes
//! nothing, whoever still holds it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tailwater_model::{LogId, Timestamp};
use tailwater_store::Error;
use tailwater_store::wal::{self, Origin, Stored, Why};
use tailwater_wire::host::{CopiedRecord, Copying};
use tailwater_wire::node::{Answer, NodeError};

use super::flush::Flushing;
use super::{CopyInfo, GONE, Shared};
use crate::Ingester;
use crate::log::remembered_in_blocks;
use crate::recover::{Restoring, take_missing, take_record};

/// Records with payloads up to this size are written by the thread that brings them, as pushes are.
const INLINE_BYTES: usize = 64 << 10;

/// How long the end of a process waits for a copy that is being opened.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a record on disk beyond its payload, about.
const RECORD_BYTES: usize = 100;

/// A place for a copy.
pub(super) struct Slot {
    pub(super) log: LogId,
    dir: PathBuf,
    turn: Mutex<Turn>,
    copy: ArcSwapOption<Copy>,
}

#[derive(Debug, Default)]
struct Turn {
    /// The slot is nobody's any more.
    gone: bool,
}

/// A copy that is open.
pub(super) struct Copy {
    pub(super) ingester: Arc<Ingester>,
    writing: Mutex<Restoring>,
    writers: AtomicUsize,
    /// When somebody wrote to it last, in nanoseconds.
    used: AtomicI64,
    /// What is in blocks, as was told; the copy may not be there yet.
    told: AtomicU64,
    pub(super) deleted: AtomicBool,
    pub(super) flushing: Mutex<Option<Flushing>>,
}

/// Somebody who writes to a copy.
pub(super) struct Writing {
    shared: Arc<Shared>,
    copy: Arc<Copy>,
}

impl Slot {
    pub(super) fn new(log: LogId, dir: PathBuf) -> Self {
        Self { log, dir, turn: Mutex::default(), copy: ArcSwapOption::empty() }
    }

    pub(super) fn get(&self) -> Option<Arc<Copy>> {
        self.copy.load_full()
    }

    /// The copy, opened and brought back if it is not. `in_blocks`: where a new one begins; without it none is made. Nothing: the slot is gone,
    /// or there is nothing in it. Blocks.
    pub(super) fn open(&self, shared: &Arc<Shared>, in_blocks: Option<u64>) -> Result<Option<Arc<Copy>>, Error> {
        let mut turn = self.turn.lock();
        if turn.gone {
            return Ok(None);
        }
        if let Some(copy) = self.get() {
            return Ok(Some(copy));
        }
        if in_blocks.is_none() && !has_segments(&self.dir) {
            turn.gone = true;
            delete(&self.dir);
            return Ok(None);
        }
        let config = wal::Config { dir: self.dir.clone(), max_bytes: 0, ..shared.config.wal.clone() };
        // Without records what is remembered to be in blocks is all that is known.
        let after = in_blocks.unwrap_or_else(|| remembered_in_blocks(&self.dir, self.log));
        let origin = Origin { log: self.log, after };
        let memory = shared.share_of(0);
        let (limits, clock) = (Arc::clone(&shared.limits), Arc::clone(&shared.clock));
        let ingester = Ingester::open_copy(Arc::clone(&shared.disk), memory, config, origin, limits, clock)?;
        let copy = Arc::new(Copy {
            ingester,
            writing: Mutex::default(),
            writers: AtomicUsize::new(0),
            used: AtomicI64::new(shared.clock.now().nanos()),
            told: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            flushing: Mutex::default(),
        });
        self.copy.store(Some(Arc::clone(&copy)));
        if let Some(history) = shared.history.get() {
            copy.ingester.attach(history.clone());
        }
        if let Err(error) = copy.ingester.recover() {
            self.copy.store(None);
            return Err(error);
        }
        drop(turn);
        shared.share();
        Ok(Some(copy))
    }

    /// Deletes the copy if it is wholly in blocks and nobody has written to it for so long. Whether it did. Blocks.
    pub(super) fn forget(&self, idle: Duration) -> bool {
        let Some(mut turn) = self.turn.try_lock() else { return false };
        let Some(copy) = self.get().filter(|_| !turn.gone) else { return false };
        // Nobody begins to write or to take in meanwhile: both need one of the two.
        let Some(_writing) = copy.writing.try_lock() else { return false };
        let log = &copy.ingester.log;
        let is_needed = copy.writers.load(Ordering::Acquire) > 0
            || copy.flushing.lock().as_ref().is_some_and(Flushing::is_running)
            || !copy.is_ready()
            || log.head() > log.covered()
            || copy.idle() < idle;
        if is_needed {
            return false;
        }
        copy.deleted.store(true, Ordering::Release);
        turn.gone = true;
        self.copy.store(None);
        copy.ingester.close();
        delete(&self.dir);
        true
    }

    /// As if the process had ended.
    #[cfg(test)]
    pub(super) fn end_abruptly(&self) {
        let mut turn = self.turn.lock();
        turn.gone = true;
        let Some(copy) = self.copy.swap(None) else { return };
        let log = Arc::downgrade(&copy.ingester.log);
        drop(copy);
        // Whoever still holds it is part of that process.
        for _ in 0..1000 {
            if log.strong_count() == 0 {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Ends the copy in good order. Blocks.
    pub(super) fn close(&self) {
        // Somebody who is just opening it does not hold up the end.
        let Some(mut turn) = self.turn.try_lock_for(CLOSE_PATIENCE) else { return };
        turn.gone = true;
        let Some(copy) = self.copy.swap(None) else { return };
        copy.abandon();
        copy.deleted.store(true, Ordering::Release);
        let _nobody_writes = copy.writing.lock();
        copy.ingester.close();
        if let Err(error) = copy.ingester.end() {
            tracing::warn!(%error, log = %self.log, "a copy of a log could not be closed in good order");
        }
    }
}

impl Copy {
    pub(super) fn is_ready(&self) -> bool {
        self.ingester.recovering().is_none()
    }

    fn touch(&self) {
        self.used.store(self.ingester.clock.now().nanos(), Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.ingester.clock.now().since(Timestamp(self.used.load(Ordering::Relaxed)))
    }

    pub(super) fn is_written(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    pub(super) fn info(&self) -> CopyInfo {
        let log = &self.ingester.log;
        CopyInfo {
            log: log.id(),
            head: log.head(),
            in_blocks: log.covered(),
            bytes: log.bytes_on_disk(),
            is_ready: self.is_ready(),
            is_written: self.is_written(),
            idle: self.idle(),
            failure: self.flushing.lock().as_ref().and_then(Flushing::failure),
        }
    }

    /// Everything up to this batch is in blocks. Blocks a little.
    pub(super) fn in_blocks(&self, through: u64) {
        self.told.fetch_max(through, Ordering::AcqRel);
        let log = &self.ingester.log;
        if self.is_ready() && !self.deleted.load(Ordering::Acquire) && through.min(log.head()) > log.covered() {
            log.set_covered(through);
        }
    }

    /// Goes on after what is in blocks, if the copy is not that far.
    pub(super) fn catch_up(&self, in_blocks: u64) -> Result<(), Error> {
        let _writing = self.writing.lock();
        if self.deleted.load(Ordering::Acquire) {
            return Err(Error::Unavailable { what: "the copy".into(), reason: "it was deleted".into() });
        }
        if self.ingester.log.head() < in_blocks {
            take_missing(&self.ingester, in_blocks, Why::Trimmed)?;
        }
        self.in_blocks(in_blocks);
        Ok(())
    }

    /// Takes records in. Answers the last batch that is as durable as is configured. Blocks.
    fn take(&self, restoring: &mut Restoring, records: Vec<CopiedRecord>) -> Result<u64, Error> {
        let refused = |reason: String| Error::Unavailable { what: "the copy".into(), reason };
        if self.deleted.load(Ordering::Acquire) {
            return Err(refused("it was deleted".to_owned()));
        }
        let log = &self.ingester.log;
        for record in records {
            let next = log.head() + 1;
            let (first, last) = match &record {
                CopiedRecord::Batch { seq, .. } => (*seq, *seq),
                CopiedRecord::Missing { first, last, .. } => (*first, *last),
            };
            if last < next {
                continue;
            }
            if first > next {
                return Err(refused(format!("batch {first} comes where {next} is next")));
            }
            match record {
                CopiedRecord::Batch { seq, accepted_at, tenant, tenant_lines, min, max, lines, payload } => {
                    let stored = Stored { seq, accepted_at, tenant, tenant_lines, min, max, lines, payload };
                    take_record(&self.ingester, restoring, &stored)?;
                }
                CopiedRecord::Missing { lost, .. } => {
                    take_missing(&self.ingester, last, if lost { Why::Crash } else { Why::Failed })?;
                }
            }
        }
        self.touch();
        let head = log.head();
        log.make_durable(head)?;
        let told = self.told.load(Ordering::Acquire);
        if told <= head && told > log.covered() {
            log.set_covered(told);
        }
        self.ingester.sweep_sometimes();
        Ok(log.durable())
    }
}

impl Writing {
    /// Somebody begins to write. Whoever puts the copy's lines into blocks gives way.
    pub(super) fn begin(shared: Arc<Shared>, copy: Arc<Copy>) -> Self {
        copy.writers.fetch_add(1, Ordering::AcqRel);
        copy.touch();
        copy.abandon();
        Self { shared, copy }
    }

    pub(super) fn catch_up(&self, in_blocks: u64) -> Result<(), Error> {
        self.copy.catch_up(in_blocks)
    }
}

impl Copying for Writing {
    fn head(&self) -> u64 {
        self.copy.ingester.log.durable()
    }

    fn append(&self, records: Vec<CopiedRecord>) -> Answer<u64> {
        let (copy, shared) = (Arc::clone(&self.copy), Arc::clone(&self.shared));
        let log = copy.ingester.log.id();
        let unavailable = move |reason: String| NodeError::Unavailable { log, reason };
        Box::pin(async move {
            let payloads = records.iter().map(|record| match record {
                CopiedRecord::Batch { payload, .. } => payload.len() + RECORD_BYTES,
                CopiedRecord::Missing { .. } => RECORD_BYTES,
            });
            let bytes: usize = payloads.sum();
            let has_room =
                shared.config.max_bytes == 0 || shared.used.load(Ordering::Relaxed) < shared.config.max_bytes;
            if bytes <= INLINE_BYTES
                && has_room
                && !copy.ingester.log.is_synced()
                && let Some(mut restoring) = copy.writing.try_lock()
            {
                let taken = shared.make_room(bytes as u64).and_then(|()| copy.take(&mut restoring, records));
                return taken.map_err(|error| unavailable(error.to_string()));
            }
            let work = move || {
                shared.make_room(bytes as u64)?;
                copy.take(&mut copy.writing.lock(), records)
            };
            let taken = tokio::task::spawn_blocking(work).await.map_err(|error| unavailable(error.to_string()))?;
            taken.map_err(|error| unavailable(error.to_string()))
        })
    }

    fn in_blocks(&self, through: u64) {
        if self.copy.told.load(Ordering::Acquire) >= through {
            return;
        }
        self.copy.touch();
        let copy = Arc::clone(&self.copy);
        match tokio::runtime::Handle::try_current() {
            // Files are deleted.
            Ok(runtime) => drop(runtime.spawn_blocking(move || copy.in_blocks(through))),
            Err(_) => copy.in_blocks(through),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.copy.touch();
        self.copy.writers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").field("log", &self.copy.ingester.log.id()).finish_non_exhaustive()
    }
}

/// Whether a folder has anything of a log.
fn has_segments(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "wal"))
    })
}

/// Deletes a folder as a whole: a crash in between leaves nothing that would be taken for a copy.
pub(super) fn delete(dir: &Path) {
    let gone = if dir.to_str().is_some_and(|name| name.ends_with(GONE)) {
        dir.to_owned()
    } else {
        let mut name = dir.as_os_str().to_owned();
        name.push(GONE);
        let gone = PathBuf::from(name);
        match std::fs::rename(dir, &gone) {
            Ok(()) => gone,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            // Something of an earlier one is in the way.
            Err(_) => match std::fs::remove_dir_all(&gone).and_then(|()| std::fs::rename(dir, &gone)) {
                Ok(()) => gone,
                Err(error) => {
                    tracing::warn!(%error, dir = %dir.display(), "a copy of a log cannot be deleted");
                    return;
                }
            },
        }
    };
    if let Err(error) = std::fs::remove_dir_all(&gone) {
        tracing::warn!(%error, dir = %gone.display(), "a copy of a log cannot be deleted; it is tried again at the next start");
    }
}
