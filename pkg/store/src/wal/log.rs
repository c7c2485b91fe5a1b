//! The log as an open thing: its state, and appending to it.
//!
//! Invariants: [`Writer`] is held by whoever changes the end of the log; numbers are appended without a hole, each once; nothing is
//! appended behind bytes that are not an acknowledged record. The list of segments is replaced as a whole, so readers keep what they have.
//! Locks are taken in this order: writer, trimming, syncs, list, extent of a segment.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};
use smallvec::SmallVec;
use tailwater_model::LogId;

use super::disk::{Disk, Guard, append_all};
use super::format::{MAX_PAYLOAD, SEGMENT_HEADER, SegmentHeader, encode_head, seed};
use super::meta::Meta;
use super::metrics::{Metrics, Quiet};
use super::segment::Segment;
use super::sync::{Syncs, Ticker};
use super::{Config, Record, SyncPolicy, Why};
use crate::Error;

/// Parts of a record that are written without an allocation.
const PARTS: usize = 16;

/// An open log; see [the module](super). Dropping it without [`Wal::close`] is like the death of the process.
pub struct Wal {
    pub(super) shared: Arc<Shared>,
    pub(super) ticker: Mutex<Option<Ticker>>,
}

/// The segments at one instant, oldest first, at least one.
pub(super) type Segments = Arc<Vec<Arc<Segment>>>;

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: LogId,
    pub(super) metrics: Metrics,
    pub(super) writer: Mutex<Writer>,
    /// Held while segments are deleted.
    pub(super) trimming: Mutex<()>,
    pub(super) list: RwLock<Segments>,
    pub(super) syncs: Mutex<Syncs>,
    /// A round of syncing is over.
    pub(super) round_over: Condvar,
    /// Everything up to here survives a loss of power, as far as it is in the log.
    pub(super) synced: AtomicU64,
    /// Everything up to here is in blocks.
    pub(super) covered: AtomicU64,
    /// The last number when the log was opened: what is up to there was accepted by whoever wrote it.
    pub(super) found_last: u64,
    /// Whether another log gives out the numbers.
    pub(super) is_copy: bool,
    pub(super) sync_trouble: Quiet,
    pub(super) _guard: Box<dyn Guard>,
}

/// The end of the log.
pub(super) struct Writer {
    pub(super) active: Arc<Segment>,
    /// The number of the next record.
    pub(super) next: u64,
    /// The header of the record being written; kept for its memory.
    head: Vec<u8>,
    /// Bytes of an append that failed may lie behind the end of the active segment.
    pub(super) torn: bool,
    /// The next record begins a new segment.
    pub(super) roll: bool,
    /// What must be on disk before the first append.
    pub(super) start: Option<Start>,
    /// What must be on disk before the next append, after a sync that failed.
    pub(super) void: Option<Void>,
    pub(super) closed: bool,
}

/// What must be on disk before the first append: that numbers were skipped, then under which start of the machine the log is open.
pub(super) struct Start {
    pub(super) skip: Option<SegmentHeader>,
    pub(super) meta: Meta,
}

/// Numbers that must be said to be skipped, and files to clear of their records once that is said.
pub(super) struct Void {
    pub(super) from: u64,
    pub(super) segments: Vec<Arc<Segment>>,
}

impl Writer {
    pub(super) fn new(active: Arc<Segment>, next: u64, roll: bool, start: Option<Start>) -> Self {
        Self { active, next, head: Vec::new(), torn: false, roll, start, void: None, closed: false }
    }
}

impl Wal {
    /// Appends a record, whose payload is the parts one after the other. When this has returned, the record survives the death of the
    /// process; a loss of power it survives once it is synced.
    ///
    /// # Errors
    /// [`Error::Full`] when the disk, a quota or `max_bytes` leaves no room; other errors of the disk; a number that is not the next one
    /// and a payload of more than [`MAX_PAYLOAD`] bytes. The record is not in the log then, its number is not taken, and the next append
    /// tries again.
    pub fn append(&self, record: &Record<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        let mut writer = self.shared.writer.lock();
        let result = self.shared.append(&mut writer, record, payload);
        if result.is_err() {
            self.shared.metrics.append_failures.inc();
        }
        result
    }

    /// The log's id.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.shared.log
    }

    /// The number that the next record must have.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.shared.writer.lock().next
    }

    /// The segments there are now, oldest first, at least one. Who holds one can read it, also when it is deleted meanwhile.
    #[must_use]
    pub fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        self.shared.segments()
    }

    /// The oldest number that may still be in the log.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.shared.segments().first().map_or(1, |segment| segment.first())
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Ends the log in good order: syncs everything, then says so on disk. Nothing can be appended any more.
    ///
    /// # Errors
    /// When not all could be written. The log then counts as one that was not closed; this may be tried again.
    pub fn close(&self) -> Result<(), Error> {
        self.shared.writer.lock().closed = true;
        drop(self.ticker.lock().take());
        self.shared.sync_now()?;
        let mut writer = self.shared.writer.lock();
        self.shared.start(&mut writer)?;
        self.shared.make_void(&mut writer)?;
        self.shared.heal(&mut writer)?;
        let meta = Meta { log: self.shared.log, boot: self.shared.disk.boot_id(), clean: true, next: writer.next };
        let saved = meta.save(&*self.shared.disk, &self.shared.config.dir);
        saved.map_err(|error| Error::io("mark the write-ahead log as closed", error))
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        drop(self.ticker.lock().take());
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("config", &self.shared.config)
            .field("log", &self.shared.log)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn append(&self, writer: &mut Writer, record: &Record<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        self.ready(writer)?;
        let refused = |text: String| Err(Error::io("append", io::Error::new(io::ErrorKind::InvalidInput, text)));
        if record.seq != writer.next || record.seq == u64::MAX {
            return refused(format!("record {} comes where {} is next", record.seq, writer.next));
        }
        let len: usize = payload.iter().map(|part| part.len()).sum();
        if len > MAX_PAYLOAD {
            return refused(format!("a payload of {len} bytes, the most is {MAX_PAYLOAD}"));
        }
        let mut head = std::mem::take(&mut writer.head);
        encode_head(&mut head, seed(self.log), record, payload);
        let mut parts: SmallVec<[IoSlice<'_>; PARTS]> = SmallVec::new();
        let size = (head.len() + len) as u64;
        let mut once = || {
            parts.clear();
            parts.push(IoSlice::new(&head));
            parts.extend(payload.iter().map(|part| IoSlice::new(part)));
            self.write(writer, record, &mut parts, size)
        };
        let mut result = once();
        if matches!(result, Err(Error::Full { .. })) && self.make_room() {
            result = once();
        }
        drop(parts);
        writer.head = head;
        result
    }

    fn write(
        &self,
        writer: &mut Writer,
        record: &Record<'_>,
        parts: &mut [IoSlice<'_>],
        size: u64,
    ) -> Result<(), Error> {
        self.heal(writer)?;
        let end = writer.active.bytes();
        let roll = writer.roll || (end > SEGMENT_HEADER && end.saturating_add(size) > self.config.segment_bytes);
        if self.config.max_bytes > 0 {
            let more = size + if roll { SEGMENT_HEADER } else { 0 };
            if self.bytes().saturating_add(more) > self.config.max_bytes {
                return Err(Error::Full { what: self.what() });
            }
        }
        if roll {
            self.roll(writer)?;
        }
        let active = Arc::clone(&writer.active);
        let offset = active.bytes();
        if let Err(error) = append_all(&*active.file, parts) {
            writer.torn = true;
            // Should this fail too, the next append tries it again and is refused until it succeeds.
            let _ = self.heal(writer);
            return Err(Error::io(format!("append to {}", active.path.display()), error));
        }
        active.extent.write().add(offset, offset + size, record.seq, (record.min, record.max));
        writer.next = record.seq + 1;
        self.metrics.records.inc();
        self.metrics.appended_bytes.inc_by(size);
        Ok(())
    }

    /// Does what must be done before anything is appended.
    pub(super) fn ready(&self, writer: &mut Writer) -> Result<(), Error> {
        if writer.closed {
            return Err(Error::unavailable(self.what(), "it is closed"));
        }
        self.start(writer)?;
        self.make_void(writer)?;
        self.heal(writer)
    }

    /// Cuts off what an append that failed has left.
    pub(super) fn heal(&self, writer: &mut Writer) -> Result<(), Error> {
        if writer.torn {
            let cut = writer.active.file.cut(writer.active.bytes());
            cut.map_err(|error| Error::io(format!("cut back {}", writer.active.path.display()), error))?;
            writer.torn = false;
        }
        Ok(())
    }

    /// Begins a new segment.
    fn roll(&self, writer: &mut Writer) -> Result<(), Error> {
        let active = Arc::clone(&writer.active);
        let empty = active.first() == writer.next;
        if empty && !active.extent.read().suspect {
            // The new one would be the same.
            writer.roll = false;
            return Ok(());
        }
        // One that is empty, but could not be synced, is written once more.
        let header = SegmentHeader { log: self.log, first: writer.next, from: writer.next, why: Why::Trimmed };
        let header = if empty { active.header } else { header };
        let made = Segment::create(&*self.disk, &self.config.dir, header, &self.metrics);
        let segment = made.map_err(|error| Error::io("begin a segment of the write-ahead log", error))?;
        self.change(|list| {
            list.retain(|one| !(empty && Arc::ptr_eq(one, &active)));
            list.push(Arc::clone(&segment));
        });
        writer.active = segment;
        writer.roll = false;
        Ok(())
    }

    /// Puts on disk what must be there before the first append.
    pub(super) fn start(&self, writer: &mut Writer) -> Result<(), Error> {
        let Some(start) = &mut writer.start else { return Ok(()) };
        if let Some(header) = start.skip {
            let segment = self.create_synced(header)?;
            self.change(|list| list.push(Arc::clone(&segment)));
            writer.active = segment;
            writer.roll = false;
            start.skip = None;
        }
        let saved = start.meta.save(&*self.disk, &self.config.dir);
        saved.map_err(|error| Error::io("write the write-ahead log's meta", error))?;
        writer.start = None;
        Ok(())
    }

    /// A new segment that survives a loss of power.
    pub(super) fn create_synced(&self, header: SegmentHeader) -> Result<Arc<Segment>, Error> {
        let make = || {
            let segment = Segment::create(&*self.disk, &self.config.dir, header, &self.metrics)?;
            segment.file.sync()?;
            self.disk.sync_dir(&self.config.dir)?;
            let mut extent = segment.extent.write();
            extent.synced = extent.end;
            extent.named = true;
            drop(extent);
            Ok(segment)
        };
        make().map_err(|error| Error::io("begin a segment of the write-ahead log", error))
    }

    pub(super) fn segments(&self) -> Segments {
        Arc::clone(&self.list.read())
    }

    /// Changes the list of segments. It must not become empty.
    pub(super) fn change(&self, how: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut list = self.list.write();
        let mut new = Vec::clone(&list);
        how(&mut new);
        *list = Arc::new(new);
        drop(list);
        self.gauge();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.list.read().iter().map(|segment| segment.bytes()).sum()
    }

    pub(super) fn gauge(&self) {
        let segments = self.segments();
        self.metrics.segments.set(segments.len() as i64);
        self.metrics.bytes.set(i64::try_from(self.bytes()).unwrap_or(i64::MAX));
    }

    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Whether a loss of power may take the names of new segments.
    pub(super) fn syncs_names(&self) -> bool {
        self.config.sync != SyncPolicy::Os
    }

    pub(super) fn what(&self) -> String {
        format!("the write-ahead log {}", self.config.dir.display())
    }
}
