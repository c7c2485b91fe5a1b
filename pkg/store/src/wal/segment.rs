//! One segment: its file, where it ends, and a sparse index.
//!
//! Invariants: `end` is the end of the last record whose append was acknowledged, so what is read up to there was written whole; it moves
//! only forward, but for a failed sync, after which what was not synced is none of the segment's any more. One mark at least every
//! [`MARK_BYTES`]: a search by number reads at most that much, and one record, in vain.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::cursor::{Cursor, Garbage, Step, Window};
use super::disk::{Disk, DiskFile, append_all};
use super::format::{SEGMENT_HEADER, SegmentHeader, seed};
use super::metrics::Metrics;

/// Bytes between two marks of the index.
const MARK_BYTES: u64 = 64 << 10;

/// Corrupt stretches of a segment that are told once and not each time they are come upon. More are told again.
const MAX_TOLD: usize = 1024;

/// Why a record is lost whose header is well.
pub(super) const BAD_PAYLOAD: &str = "a record's payload is not what was written";

/// See the module's words.
pub struct Segment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) extent: RwLock<Extent>,
    pub(super) metrics: Metrics,
    /// The last record that was accepted by whoever had the log open before; 0 if the segment was not there then.
    pub(super) found: u64,
    told: Mutex<Vec<u64>>,
}

/// What is in a segment at one instant.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// Bytes.
    pub(super) end: u64,
    /// The last record's number, the one before the first if there is none.
    pub(super) last: u64,
    pub(super) records: u64,
    /// The earliest timestamp.
    pub(super) min: i64,
    /// The latest timestamp.
    pub(super) max: i64,
    marks: Vec<Mark>,
    /// Bytes that a loss of power does not take.
    pub(super) synced: u64,
    /// The last record that it does not take.
    pub(super) synced_last: u64,
    /// Whether its name survives a loss of power.
    pub(super) named: bool,
    /// Whether a sync failed: what was not synced by then may never be, whatever later ones say.
    pub(super) suspect: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: u64,
    offset: u64,
}

/// What the search through a segment found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What lies behind the last record.
    pub(super) garbage: Option<Garbage>,
    /// Sectors that the disk could not read.
    pub(super) unreadable: u64,
    /// Corrupt stretches.
    pub(super) holes: u64,
    /// Records in them.
    pub(super) lost: u64,
}

impl Extent {
    pub(super) fn empty(first: u64) -> Self {
        Self {
            end: SEGMENT_HEADER,
            last: first - 1,
            records: 0,
            min: i64::MAX,
            max: i64::MIN,
            marks: Vec::new(),
            synced: 0,
            synced_last: first - 1,
            named: false,
            suspect: false,
        }
    }

    /// Takes in the record after the last one.
    pub(super) fn add(&mut self, offset: u64, end: u64, seq: u64, (min, max): (i64, i64)) {
        if self.marks.last().is_none_or(|mark| offset - mark.offset >= MARK_BYTES) {
            self.marks.push(Mark { seq, offset });
        }
        self.end = end;
        self.last = seq;
        self.records += 1;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
    }

    /// Lets go of all that was not synced. The bounds of time stay; they may be wider than need be.
    pub(super) fn drop_unsynced(&mut self) {
        self.end = self.synced.max(SEGMENT_HEADER);
        self.last = self.synced_last;
        let (end, last) = (self.end, self.last);
        self.marks.retain(|mark| mark.offset < end && mark.seq <= last);
    }
}

impl Segment {
    /// Makes the file of a new segment. Neither it nor its name is durable yet.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        header: SegmentHeader,
        metrics: &Metrics,
    ) -> io::Result<Arc<Self>> {
        let path = dir.join(file_name(header.first));
        let file = disk.create(&path).or_else(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // Left by an attempt that failed: the log has no segment of that number. Not deleted, so that the number stays known.
            let file = disk.open(&path)?;
            file.cut(0)?;
            Ok(file)
        })?;
        if let Err(error) = append_all(&*file, &mut [IoSlice::new(&header.encode())]) {
            let _ = file.cut(0);
            return Err(error);
        }
        Ok(Arc::new(Self::new(file, path, header, metrics.clone())))
    }

    pub(super) fn new(file: Arc<dyn DiskFile>, path: PathBuf, header: SegmentHeader, metrics: Metrics) -> Self {
        let extent = RwLock::new(Extent::empty(header.first));
        Self { file, path, header, extent, metrics, found: 0, told: Mutex::default() }
    }

    /// Goes through all records and learns where they are. `upto`: the last number that may be in it. `payloads`: whether those are read
    /// and checked too.
    pub(super) fn survey(&self, len: u64, upto: u64, window: usize, payloads: bool) -> io::Result<Survey> {
        let mut survey = Survey::default();
        let mut extent = Extent::empty(self.header.first);
        let window = Window::new(&*self.file, window, true);
        let begin = (SEGMENT_HEADER, self.header.first - 1);
        let mut cursor = Cursor::new(window, seed(self.header.log), begin, (len, upto));
        loop {
            let (offset, records, reason) = match cursor.step()? {
                Step::Record(offset, head) => {
                    let whole = !payloads || cursor.verify(offset, &head)?;
                    extent.add(offset, cursor.offset, head.seq, (head.min, head.max));
                    if whole {
                        continue;
                    }
                    (offset, 1, BAD_PAYLOAD)
                }
                Step::Hole { last, offset, reason } => (offset, last - cursor.last, reason),
                Step::Garbage(garbage) => {
                    survey.garbage = Some(garbage);
                    continue;
                }
                Step::End => break,
            };
            survey.holes += 1;
            survey.lost += records;
            self.tell(offset, records, reason);
        }
        survey.unreadable = cursor.window.unreadable;
        *self.extent.write() = extent;
        Ok(survey)
    }

    /// A cursor at the first record after a number, or before it, over what is there now.
    pub(super) fn cursor(&self, after: u64, window: usize, forgiving: bool) -> Cursor<'_> {
        let extent = self.extent.read();
        let mark = extent.marks.partition_point(|mark| mark.seq <= after.saturating_add(1));
        let mark = mark.checked_sub(1).and_then(|i| extent.marks.get(i));
        let begin = mark.map_or((SEGMENT_HEADER, self.header.first - 1), |mark| (mark.offset, mark.seq - 1));
        let window = Window::new(&*self.file, window, forgiving);
        Cursor::new(window, seed(self.header.log), begin, (extent.end, extent.last))
    }

    /// Tells of a corrupt stretch, once.
    pub(super) fn tell(&self, offset: u64, records: u64, reason: &str) {
        let mut told = self.told.lock();
        if told.contains(&offset) {
            return;
        }
        if told.len() < MAX_TOLD {
            told.push(offset);
        }
        drop(told);
        self.metrics.lost(&self.name(), offset, records, reason);
    }

    /// Its file's name.
    pub(super) fn name(&self) -> String {
        file_name(self.header.first)
    }

    /// Whether something of it would not survive a loss of power.
    pub(super) fn is_dirty(&self) -> bool {
        let extent = self.extent.read();
        extent.synced < extent.end || !extent.named
    }

    /// Whether something of it would not survive a loss of power that was accepted before the log was opened.
    pub(super) fn owes(&self) -> bool {
        let extent = self.extent.read();
        self.found > 0 && (extent.synced == 0 || extent.synced_last < self.found)
    }

    /// The first number that may be in it.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.header.first
    }

    /// The number of the last record; one less than [`Self::first`] if there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.extent.read().last
    }

    /// Nothing in it is earlier than this timestamp, in nanoseconds.
    #[must_use]
    pub fn min(&self) -> i64 {
        self.extent.read().min
    }

    /// Nothing in it is later than this timestamp, in nanoseconds.
    #[must_use]
    pub fn max(&self) -> i64 {
        self.extent.read().max
    }

    /// Bytes of its file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.extent.read().end
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("path", &self.path)
            .field("extent", &*self.extent.read())
            .finish_non_exhaustive()
    }
}

/// The name of the file of a segment.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:020}.wal")
}

/// The number in the name of a segment's file; `None` if it is none.
pub(super) fn number_in(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?.filter(|n| *n > 0)
}
