//! Making what was appended survive a loss of power, and what is done when that fails.
//!
//! Invariants: one round at a time; `synced` never passes a record whose sync did not succeed, and a segment whose sync failed once is
//! never synced by a later success: its records are either void ([`SyncPolicy::Always`], nobody was told that they are accepted) or copied
//! into a new file (otherwise, and if they were found when the log was opened). See [the module](super).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::disk::{append_all, read_full};
use super::format::{SEGMENT_HEADER, SegmentHeader};
use super::log::{Shared, Void, Writer};
use super::segment::{Segment, file_name};
use super::{SyncPolicy, Wal, Why};
use crate::Error;

/// Stretches of failed records that are told apart. Of more, the oldest two and what lies between count as one.
const MAX_FAILED: usize = 256;

/// Shortest time between two rounds of [`SyncPolicy::Interval`].
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Who syncs, and what failed.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    running: bool,
    /// The first and the last number of each stretch of records that were void, in order.
    failed: VecDeque<(u64, u64)>,
}

impl Syncs {
    pub(super) fn has_failed(&self, seq: u64) -> bool {
        self.failed.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }

    fn fail(&mut self, first: u64, last: u64) {
        match self.failed.back_mut() {
            Some(before) if before.1 + 1 >= first => before.1 = before.1.max(last),
            _ => self.failed.push_back((first, last)),
        }
        if self.failed.len() > MAX_FAILED
            && let (Some(oldest), Some(next)) = (self.failed.pop_front(), self.failed.front_mut())
        {
            next.0 = oldest.0;
        }
    }
}

impl Wal {
    /// The last record that survives a loss of power, with all before it.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.shared.synced()
    }

    /// Returns when a record, which was appended, survives a loss of power. Many may wait at once: one `fdatasync` serves all that were
    /// appended before it began.
    ///
    /// # Errors
    /// What the disk said. With [`SyncPolicy::Always`] the record is then not in the log and never will be, and its number is not used
    /// again; otherwise it stays, and it is tried again.
    pub fn sync_up_to(&self, seq: u64) -> Result<(), Error> {
        let shared = &*self.shared;
        let mut tried = false;
        let mut syncs = shared.syncs.lock();
        loop {
            if syncs.has_failed(seq) {
                return Err(Error::unavailable(shared.what(), "what was appended could not be synced"));
            }
            if shared.synced() >= seq {
                return Ok(());
            }
            if syncs.running {
                shared.round_over.wait(&mut syncs);
                continue;
            }
            if tried {
                let text = format!("record {seq} was not appended");
                return Err(Error::io("sync", io::Error::new(io::ErrorKind::InvalidInput, text)));
            }
            syncs.running = true;
            drop(syncs);
            let result = shared.round();
            syncs = shared.syncs.lock();
            syncs.running = false;
            shared.round_over.notify_all();
            result?;
            tried = true;
        }
    }

    /// Syncs all that was appended.
    ///
    /// # Errors
    /// As [`Self::sync_up_to`].
    pub fn sync(&self) -> Result<(), Error> {
        self.shared.sync_now()
    }
}

impl Shared {
    /// Runs a round once nobody else does.
    pub(super) fn sync_now(&self) -> Result<(), Error> {
        let mut syncs = self.syncs.lock();
        while syncs.running {
            self.round_over.wait(&mut syncs);
        }
        syncs.running = true;
        drop(syncs);
        let result = self.round();
        self.syncs.lock().running = false;
        self.round_over.notify_all();
        result
    }

    /// Syncs what was appended before. Only by who has set `running`.
    fn round(&self) -> Result<(), Error> {
        let (dirty, last) = {
            let mut writer = self.writer.lock();
            self.make_void(&mut writer)?;
            let segments = self.segments();
            let dirty = segments.iter().filter(|segment| segment.is_dirty());
            let dirty: Vec<_> = dirty.map(|segment| (Arc::clone(segment), segment.bytes(), segment.last())).collect();
            (dirty, writer.next - 1)
        };
        if !dirty.is_empty() {
            self.metrics.syncs.inc();
            self.gauge();
        }
        for (segment, end, last) in dirty {
            if let Err(error) = self.sync_segment(&segment, end, last) {
                self.metrics.sync_failures.inc();
                if let Some(kept_back) = self.sync_trouble.speak() {
                    tracing::error!(%error, segment = segment.name(), kept_back, "the write-ahead log cannot be synced");
                }
                let mut writer = self.writer.lock();
                if self.config.sync == SyncPolicy::Always && !segment.owes() && !self.is_copy {
                    self.fail_unsynced(&mut writer);
                    // Should this fail, the next append tries it again and is refused until it succeeds.
                    let _ = self.make_void(&mut writer);
                    return Err(error);
                }
                self.rescue(&mut writer, &segment)?;
            }
            self.synced.fetch_max(last, Ordering::AcqRel);
        }
        self.synced.fetch_max(last, Ordering::AcqRel);
        Ok(())
    }

    fn sync_segment(&self, segment: &Segment, end: u64, last: u64) -> Result<(), Error> {
        let (suspect, named) = {
            let extent = segment.extent.read();
            (extent.suspect, extent.named)
        };
        let sync = || {
            if suspect {
                return Err(io::Error::other("an earlier sync has failed, so nothing is known of a later one"));
            }
            segment.file.sync()?;
            if named { Ok(()) } else { self.disk.sync_dir(&self.config.dir) }
        };
        let result = sync();
        let mut extent = segment.extent.write();
        if result.is_ok() {
            extent.named = true;
            extent.synced = extent.synced.max(end);
            extent.synced_last = extent.synced_last.max(last);
        } else {
            extent.suspect = true;
        }
        result.map_err(|error| Error::io(format!("sync {}", segment.path.display()), error))
    }

    /// Takes back all that was not synced: at once for readers and for those who wait, then on disk by [`Self::make_void`].
    fn fail_unsynced(&self, writer: &mut Writer) {
        let from = self.synced().max(self.found_last) + 1;
        let segments: Vec<_> =
            self.segments().iter().filter(|segment| segment.is_dirty() && !segment.owes()).cloned().collect();
        for segment in &segments {
            segment.extent.write().drop_unsynced();
        }
        self.syncs.lock().fail(from, writer.next - 1);
        writer.void = Some(Void { from, segments });
    }

    /// Says on disk that records are void, then clears the files of them.
    pub(super) fn make_void(&self, writer: &mut Writer) -> Result<(), Error> {
        let Some(void) = &writer.void else { return Ok(()) };
        let header = SegmentHeader { log: self.log, first: writer.next, from: void.from, why: Why::Failed };
        let new = self.create_synced(header)?;
        let segments = writer.void.take().map(|void| void.segments).unwrap_or_default();
        // Of a segment of which nothing was synced, not even its header, nothing remains.
        let (gone, cut): (Vec<_>, Vec<_>) = segments.iter().partition(|segment| segment.extent.read().synced == 0);
        self.change(|list| {
            list.retain(|segment| !gone.iter().any(|gone| Arc::ptr_eq(gone, segment)));
            list.push(Arc::clone(&new));
        });
        // What these cannot clear is void nevertheless; it takes room until the log is opened again.
        for segment in gone.iter().filter(|segment| segment.path != new.path) {
            if let Err(error) = self.disk.remove(&segment.path) {
                tracing::warn!(%error, segment = segment.name(), "cannot delete a segment of records that are void");
            }
        }
        for segment in cut {
            let mut extent = segment.extent.write();
            extent.suspect = false;
            if let Err(error) = segment.file.cut(extent.end) {
                tracing::warn!(%error, segment = segment.name(), "cannot cut records off that are void");
            }
        }
        writer.active = new;
        writer.roll = false;
        writer.torn = false;
        Ok(())
    }

    /// Copies what was accepted, but could not be synced, into a new file.
    fn rescue(&self, writer: &mut Writer, segment: &Arc<Segment>) -> Result<(), Error> {
        let is_active = Arc::ptr_eq(&writer.active, segment);
        // Should this fail, at least nothing is added to what is doubtful.
        writer.roll |= is_active;
        let old = segment.extent.read().clone();
        let whole = old.synced <= SEGMENT_HEADER;
        let (header, begin) = if whole {
            (segment.header, SEGMENT_HEADER)
        } else {
            let first = old.synced_last + 1;
            (SegmentHeader { log: self.log, first, from: first, why: Why::Trimmed }, old.synced)
        };
        let dir = &self.config.dir;
        let (path, temporary) = (dir.join(file_name(header.first)), dir.join("rescue.tmp"));
        let copy = || {
            match self.disk.remove(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = self.disk.create(&temporary)?;
            append_all(&*file, &mut [IoSlice::new(&header.encode())])?;
            let mut buffer = vec![0; COPY_BYTES];
            let mut at = begin;
            while at < old.end {
                let want = usize::try_from(old.end - at).unwrap_or(usize::MAX).min(COPY_BYTES);
                let read = read_full(&*segment.file, &mut buffer[..want], at)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                append_all(&*file, &mut [IoSlice::new(&buffer[..read])])?;
                at += read as u64;
            }
            file.sync()?;
            self.disk.rename(&temporary, &path)?;
            self.disk.sync_dir(dir)?;
            let mut new = Segment::new(file, path.clone(), header, self.metrics.clone());
            new.found = segment.found;
            let len = SEGMENT_HEADER + (old.end - begin);
            // What the kernel had given up already is found here, and told.
            new.survey(len, old.last, COPY_BYTES, true)?;
            let mut extent = new.extent.write();
            (extent.end, extent.last) = (len, old.last);
            (extent.synced, extent.synced_last, extent.named) = (len, old.last, true);
            drop(extent);
            Ok(Arc::new(new))
        };
        let new = copy().map_err(|error| Error::io(format!("copy {}", segment.path.display()), error))?;
        // Readers may hold the old one, so it stays as it is: what is in both is read from the new one by those who come later.
        let kept = (!whole).then(|| {
            let mut kept =
                Segment::new(Arc::clone(&segment.file), segment.path.clone(), segment.header, self.metrics.clone());
            kept.found = segment.found.min(old.synced_last);
            let mut extent = old;
            extent.drop_unsynced();
            extent.suspect = false;
            *kept.extent.write() = extent;
            Arc::new(kept)
        });
        self.change(|list| {
            if let Some(at) = list.iter().position(|one| Arc::ptr_eq(one, segment)) {
                list.splice(at..=at, kept.into_iter().chain([Arc::clone(&new)]));
            }
        });
        if is_active {
            (writer.active, writer.roll, writer.torn) = (new, false, false);
        }
        Ok(())
    }
}

/// The thread that syncs every so often. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(shared: Arc<Shared>, every: Duration) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let every = every.max(SHORTEST_INTERVAL);
        let run = move || {
            let (stopped, changed) = &*stopped;
            loop {
                let mut stopped = stopped.lock();
                if !*stopped {
                    changed.wait_for(&mut stopped, every);
                }
                if *stopped {
                    return;
                }
                drop(stopped);
                // Told and counted by the round.
                let _ = shared.sync_now();
            }
        };
        let thread = Some(std::thread::Builder::new().name("wal-sync".to_owned()).spawn(run)?);
        Ok(Self { stop, thread })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
