//! Opening a log: finding out what is on disk, clearing what is none of it, and finding the next number.
//!
//! Invariants: a number that somebody may have seen is never given out again; nothing that can still be read is deleted or cut; what was
//! found to be missing is told. On disk the order is: cut, say that numbers are skipped, write `meta`, sync what was found; a crash in
//! between leads to the same again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex, RwLock};
use tailwater_model::LogId;

use super::disk::{Disk, DiskFile, Guard, read_full};
use super::format::{BadHeader, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::log::{Shared, Start, Writer};
use super::meta::Meta;
use super::metrics::{Metrics, Quiet};
use super::segment::{Segment, file_name, number_in};
use super::sync::{Syncs, Ticker};
use super::{Config, Found, Opened, Origin, SKIP, SyncPolicy, Wal, Why};
use crate::Error;

/// Bytes read at once of segments of which only the headers of records are looked at, and of the newest.
const WALK_WINDOW: usize = 8 << 10;
const CHECK_WINDOW: usize = 1 << 20;

/// A file that may be a segment.
struct File {
    file: Arc<dyn DiskFile>,
    /// The number in its name.
    number: u64,
    len: u64,
    header: Result<SegmentHeader, BadHeader>,
}

/// What is to be cleared once the log is known from other files: before that, the next attempt to open it must find the same.
enum Leftover {
    /// Nothing that counts is in it.
    Delete(PathBuf),
    /// Nothing in it can be understood.
    SetAside(PathBuf),
    /// What lies behind this offset is void.
    Cut(Arc<dyn DiskFile>, u64),
}

/// What is known so far.
struct Opener {
    config: Config,
    disk: Arc<dyn Disk>,
    metrics: Metrics,
    found: Found,
    /// The next number is at least this.
    floor: u64,
    /// Records that somebody has seen may be gone without a trace.
    doubt: bool,
    /// The last segment cannot be appended to.
    sealed: bool,
    /// How many records there may be at its end that the disk cannot read now.
    unread: u64,
    leftovers: Vec<Leftover>,
    /// What it is a copy of, if it is one.
    origin: Option<Origin>,
}

/// A log that was looked through, and is locked.
pub(super) struct Survey {
    opener: Opener,
    pub(super) guard: Box<dyn Guard>,
    pub(super) log: LogId,
    /// Whether it was found which log it is; otherwise it is a new one.
    pub(super) is_known: bool,
    boot: Option<String>,
    clean: bool,
    segments: Vec<Arc<Segment>>,
}

impl Wal {
    /// Opens the log of a folder, or makes one. Reads headers of all records, and all of the newest segment.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if another process has it open; [`Error::Corrupt`] if a newer version has written it; what the disk said. A
    /// corrupt log is opened, see [`Opened::found`]. A full disk is no error unless the log is new: appends then say so.
    pub fn open(config: Config, disk: Arc<dyn Disk>, metrics: Metrics) -> Result<Opened, Error> {
        Self::open_as(config, disk, metrics, None)
    }

    /// Opens the log, or the copy of a log.
    pub(super) fn open_as(
        config: Config,
        disk: Arc<dyn Disk>,
        metrics: Metrics,
        origin: Option<Origin>,
    ) -> Result<Opened, Error> {
        Survey::take(config, disk, metrics, origin)?.open()
    }
}

impl Survey {
    /// Looks at what is there. Of what may hold records of the log nothing is changed.
    pub(super) fn take(
        config: Config,
        disk: Arc<dyn Disk>,
        metrics: Metrics,
        origin: Option<Origin>,
    ) -> Result<Self, Error> {
        let folder = config.dir.clone();
        let dir = folder.as_path();
        let io = |what: &str, error| Error::io(format!("{what} {}", dir.display()), error);
        disk.create_dir(dir).map_err(|error| io("make the folder", error))?;
        let guard = disk.lock(&dir.join("lock")).map_err(|error| io("lock the write-ahead log", error))?;
        let what = || format!("the write-ahead log {}", dir.display());
        let guard = guard.ok_or_else(|| Error::unavailable(what(), "another process has it open"))?;
        let files = files(&*disk, dir).map_err(|error| io("read the write-ahead log", error))?;
        let meta = Meta::load(&*disk, dir).map_err(|error| io("read the write-ahead log's meta in", error))?;
        if let Some(File { number, .. }) = files.iter().find(|file| matches!(file.header, Err(BadHeader::Newer(_)))) {
            return Err(Error::corrupt(dir.join(file_name(*number)).display().to_string(), "a newer version wrote it"));
        }

        let boot = disk.boot_id();
        let clean = meta.as_ref().is_some_and(|meta| meta.clean);
        let known = meta.as_ref().map(|meta| meta.log);
        let newest = files.iter().rev().find_map(|file| Some(file.header.ok()?.log));
        let mut opener = Opener {
            config,
            disk,
            metrics,
            found: Found { clean: clean || (meta.is_none() && files.is_empty()), ..Found::default() },
            floor: meta.as_ref().map_or(1, |meta| meta.next.max(1)),
            doubt: !(clean || files.is_empty() || boot.is_some() && meta.is_some_and(|meta| meta.boot == boot)),
            sealed: false,
            unread: 0,
            leftovers: Vec::new(),
            origin,
        };
        let mut log = origin.map(|origin| origin.log).or(known).or(newest).unwrap_or_else(LogId::generate);
        if let Some(other) = known.filter(|known| *known != log) {
            return Err(Error::Config { reason: format!("{} is a copy of {log}, but it holds {other}", what()) });
        }
        let none = files.is_empty();
        let segments = opener.segments(log, files).map_err(|error| io("read the write-ahead log", error))?;
        if none && known.is_some() && !clean && origin.is_none() {
            // Where its numbers ended cannot be known, so they cannot go on.
            tracing::error!(%log, dir = %dir.display(), "the write-ahead log's segments are gone; a new log begins");
            log = LogId::generate();
            opener.floor = 1;
        }
        let is_known = known.or(newest).is_some();
        Ok(Self { opener, guard, log, is_known, boot, clean, segments })
    }

    /// Whether records that somebody has seen may be gone, so that numbers would be skipped.
    pub(super) fn is_doubtful(&self) -> bool {
        let ends_early = self.segments.last().is_some_and(|last| last.last() + 1 < self.opener.floor);
        self.opener.doubt || ends_early
    }

    /// Opens what was found.
    pub(super) fn open(self) -> Result<Opened, Error> {
        let Self { mut opener, guard, log, boot, clean, mut segments, .. } = self;
        let (next, skip) = opener.next(log, &segments)?;
        if clean {
            for segment in &segments {
                let mut extent = segment.extent.write();
                (extent.synced, extent.synced_last, extent.named) = (extent.end, extent.last, true);
            }
        }

        let mut found = opener.found;
        found.segments = segments.len() as u64;
        found.records = segments.iter().map(|segment| segment.extent.read().records).sum();
        found.bytes = segments.iter().map(|segment| segment.bytes()).sum();
        let (sealed, leftovers) = (opener.sealed, std::mem::take(&mut opener.leftovers));
        let mut start = Start { skip, meta: Meta { log, boot, clean: false, next } };
        let active = match segments.last() {
            Some(last) => Arc::clone(last),
            None => {
                // There is no log yet that could be read while the disk is full.
                let first =
                    start.skip.take().unwrap_or(SegmentHeader { log, first: next, from: next, why: Why::Trimmed });
                let what = || format!("begin the write-ahead log {}", opener.config.dir.display());
                let segment = opener.create(first).map_err(|error| Error::io(what(), error))?;
                segments.push(Arc::clone(&segment));
                segment
            }
        };
        let Opener { config, disk, metrics, origin, .. } = opener;
        let shared = Arc::new(Shared {
            writer: Mutex::new(Writer::new(active, next, sealed, Some(start))),
            trimming: Mutex::default(),
            list: RwLock::new(Arc::new(segments)),
            syncs: Mutex::new(Syncs::default()),
            round_over: Condvar::new(),
            synced: AtomicU64::new(if clean { next - 1 } else { 0 }),
            covered: AtomicU64::new(0),
            found_last: next - 1,
            is_copy: origin.is_some(),
            sync_trouble: Quiet::default(),
            _guard: guard,
            log,
            disk,
            metrics,
            config,
        });
        let started = shared.start(&mut shared.writer.lock());
        match started {
            Ok(()) => shared.clear(leftovers),
            Err(error @ Error::Full { .. }) => {
                tracing::error!(%error, "the disk is full; the write-ahead log can be read, but nothing appended");
            }
            Err(error) => return Err(error),
        }
        if !clean && shared.syncs_names() {
            // The process that wrote it may not have come to that. Told and tried again if it fails.
            let _ = shared.sync_now();
        }
        shared.gauge();
        let ticker = match shared.config.sync {
            SyncPolicy::Interval(every) => {
                let ticker = Ticker::start(Arc::clone(&shared), every);
                Some(ticker.map_err(|error| Error::io("start the thread that syncs", error))?)
            }
            SyncPolicy::Os | SyncPolicy::Always => None,
        };
        Ok(Opened { wal: Wal { shared, ticker: Mutex::new(ticker) }, log, next, found })
    }
}

impl Shared {
    /// What of this fails is harmless, and is tried again when the log is opened the next time.
    fn clear(&self, leftovers: Vec<Leftover>) {
        let segments = self.segments();
        // A new segment may have taken the place of a file of no use.
        let is_taken = |path: &Path| segments.iter().any(|segment| segment.path == path);
        for leftover in leftovers {
            let result = match leftover {
                Leftover::Delete(path) if is_taken(&path) => Ok(()),
                Leftover::Delete(path) => self.disk.remove(&path),
                Leftover::SetAside(path) => set_aside(&*self.disk, &path),
                Leftover::Cut(file, offset) => file.cut(offset),
            };
            if let Err(error) = result {
                tracing::warn!(%error, dir = %self.config.dir.display(), "cannot clear what is not of the write-ahead log");
            }
        }
    }
}

fn set_aside(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    tracing::error!(segment = %path.display(), "a segment of the write-ahead log is set aside: it is another log's, or nothing in it is valid");
    disk.rename(path, &path.with_extension("bad"))
}

/// The files that may be segments, in the order of their numbers; leftovers of attempts are deleted.
fn files(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for name in disk.list(dir)? {
        if name.ends_with(".tmp") {
            disk.remove(&dir.join(&name))?;
        }
        let Some(number) = number_in(&name) else { continue };
        let file = disk.open(&dir.join(&name))?;
        let len = file.size()?;
        let mut bytes = [0; SEGMENT_HEADER as usize];
        // A header that the disk cannot read is none.
        let read = read_full(&*file, &mut bytes, 0).unwrap_or(0);
        let header = SegmentHeader::decode(&bytes[..read]);
        files.push(File { file, number, len, header });
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

impl Opener {
    /// The segments of the log, oldest first.
    fn segments(&mut self, log: LogId, files: Vec<File>) -> io::Result<Vec<Arc<Segment>>> {
        let mut segments = Vec::new();
        // A segment's numbers end where those of a later one begin.
        let mut upto = u64::MAX;
        let files = files.into_iter().rev();
        let mut newest = true;
        for file in files {
            let path = self.config.dir.join(file_name(file.number));
            let header = match file.header {
                Ok(header) if header.log != log || header.first != file.number => {
                    // At once: the log may need its name.
                    self.found.corrupt_segments += 1;
                    set_aside(&*self.disk, &path)?;
                    continue;
                }
                Ok(header) => header,
                // Its records may be well.
                Err(_) => SegmentHeader { log, first: file.number, from: file.number, why: Why::Trimmed },
            };
            self.floor = self.floor.max(header.first);
            if header.from > upto {
                // Another has taken its place.
                self.leftovers.push(Leftover::Delete(path));
                continue;
            }
            let segment = Segment::new(file.file, path, header, self.metrics.clone());
            let window = if newest { CHECK_WINDOW } else { WALK_WINDOW };
            let survey = segment.survey(file.len, upto, window, newest)?;
            if file.header.is_err() && segment.extent.read().records == 0 {
                if file.len <= SEGMENT_HEADER {
                    // As a crash leaves it.
                    self.leftovers.push(Leftover::Delete(segment.path));
                } else {
                    self.found.corrupt_segments += 1;
                    self.leftovers.push(Leftover::SetAside(segment.path));
                    // So the next number cannot be the one in its name either.
                    self.doubt = true;
                }
                continue;
            }
            if file.header.is_err() {
                segment.tell(0, 0, "a segment's header is corrupt");
            }
            if file.header.is_err() || survey.holes > 0 || survey.unreadable > 0 {
                self.found.corrupt_segments += 1;
            }
            self.found.lost_records += survey.lost;
            if newest {
                self.sealed = file.header.is_err() || segment.bytes() >= self.config.segment_bytes;
                if survey.unreadable > 0 {
                    // Not to be cut: it may be read another time.
                    self.sealed = true;
                    self.doubt = true;
                    self.unread = file.len.saturating_sub(segment.bytes()) / RECORD_HEADER as u64;
                } else if let Some(garbage) = survey.garbage {
                    self.found.cut_bytes += file.len - garbage.offset;
                    self.doubt |= !garbage.torn;
                    // A copy goes on just there.
                    if self.doubt && self.origin.is_none() {
                        self.leftovers.push(Leftover::Cut(Arc::clone(&segment.file), garbage.offset));
                    } else {
                        segment.file.cut(garbage.offset)?;
                    }
                    let (offset, bytes) = (garbage.offset, file.len - garbage.offset);
                    tracing::warn!(
                        segment = segment.name(),
                        offset,
                        bytes,
                        reason = garbage.reason,
                        "the end of the write-ahead log was cut off"
                    );
                }
            }
            upto = header.from - 1;
            newest = false;
            segments.push(segment);
        }
        segments.reverse();
        self.gaps(&mut segments);
        for segment in &mut segments {
            segment.found = segment.last();
        }
        Ok(segments.into_iter().map(Arc::new).collect())
    }

    /// Says of the numbers between two segments that neither has what became of them.
    fn gaps(&mut self, segments: &mut [Segment]) {
        let mut next = None;
        for segment in segments {
            let begins = segment.header.from;
            if let Some(next) = next.filter(|next| *next < begins) {
                let lost = begins - next;
                self.found.lost_records += lost;
                segment.tell(0, lost, "the segment before it ends too early, or is gone");
                if begins == segment.header.first {
                    segment.header.why = Why::Corrupt;
                }
                segment.header.from = next;
            }
            next = Some(segment.last() + 1);
        }
    }

    /// The number of the next record, and the header of the segment that must say that numbers were skipped.
    fn next(&mut self, log: LogId, segments: &[Arc<Segment>]) -> Result<(u64, Option<SegmentHeader>), Error> {
        if let Some(origin) = self.origin {
            let last = segments.last().map_or(origin.after, |segment| segment.last());
            let taken = || Error::corrupt(self.config.dir.display().to_string(), "all sequence numbers are taken");
            let next = last.checked_add(1).filter(|next| *next < u64::MAX).ok_or_else(taken)?;
            return Ok((next, None));
        }
        let follows = segments.last().map_or(1, |segment| segment.last() + 1);
        let mut next = follows.max(self.floor);
        if self.doubt {
            next = next.saturating_add(SKIP);
        }
        if next == u64::MAX {
            return Err(Error::corrupt(self.config.dir.display().to_string(), "all sequence numbers are taken"));
        }
        if segments.is_empty() || next == follows {
            // A log that begins anew at a later number has nothing before it.
            return Ok((next, None));
        }
        self.found.skipped = next - follows;
        tracing::warn!(from = follows, next, "sequence numbers of the write-ahead log are skipped after a crash");
        let from = (follows + self.unread).min(next);
        Ok((next, Some(SegmentHeader { log, first: next, from, why: Why::Crash })))
    }

    /// A segment that survives a loss of power.
    fn create(&self, header: SegmentHeader) -> io::Result<Arc<Segment>> {
        let segment = Segment::create(&*self.disk, &self.config.dir, header, &self.metrics)?;
        segment.file.sync()?;
        self.disk.sync_dir(&self.config.dir)?;
        let mut extent = segment.extent.write();
        (extent.synced, extent.named) = (extent.end, true);
        drop(extent);
        Ok(segment)
    }
}
