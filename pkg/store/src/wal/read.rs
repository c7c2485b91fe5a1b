//! Reading the log: by position, all of it after a position, and by time.
//!
//! Invariants: no lock of the writer is held while a file is read; records come in order, each once; what is passed over is told as
//! [`Missing`]. Memory: one window, and the payloads handed out.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_model::TenantId;

use super::cursor::{Cursor, Step};
use super::format::Head;
use super::log::Shared;
use super::segment::{BAD_PAYLOAD, Segment};
use super::{Item, Missing, Progress, Stored, Wal, Why};
use crate::Error;

/// Bytes read at once by who skips payloads.
const SKIPPING_WINDOW: usize = 8 << 10;

/// Bytes read at once by who wants everything.
const STREAMING_WINDOW: usize = 1 << 20;

/// Bytes read at once by who looks for some records among all.
const SCANNING_WINDOW: usize = 64 << 10;

/// Records that one [`Wal::read`] looks at, wanted or not.
const LOOK_RECORDS: usize = 8192;

/// Bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 16 << 20;

/// An answer to [`Wal::read`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The numbers right after the position that are missing.
    pub missing: Option<Missing>,
    /// The records after them that were wanted, in order.
    pub records: Vec<Stored>,
    /// No others are wanted or missing up to this one.
    pub through: u64,
}

/// A walk through segments.
struct Walk<'a> {
    segments: &'a [Arc<Segment>],
    /// The segment that is being read.
    at: usize,
    cursor: Option<Cursor<'a>>,
    /// Where the record that was handed out last begins.
    offset: u64,
    /// Everything up to this number was handed out.
    last: u64,
    upto: u64,
    window: usize,
    forgiving: bool,
}

enum Next {
    Record(Head),
    Missing(Missing),
}

impl Wal {
    /// Records after one number and up to another, in order: those of the tenants that are wanted; the payloads of others are not read. At
    /// least one, unless none is wanted or many were looked at; then until their payloads have `max_bytes`. Stops before numbers that are
    /// missing, unless it begins with them. If `through` is less than `upto`, there may be more after it.
    ///
    /// # Errors
    /// What the disk said.
    pub fn read(
        &self,
        after: u64,
        upto: u64,
        max_bytes: usize,
        mut want: impl FnMut(&TenantId) -> bool,
    ) -> Result<Read, Error> {
        let segments = self.shared.segments();
        let mut walk = Walk::new(&segments, (after, upto), SKIPPING_WINDOW, false);
        let mut read = Read { missing: None, records: Vec::new(), through: after };
        let mut bytes = 0;
        for _ in 0..LOOK_RECORDS {
            let Some(next) = self.shared.next(&mut walk)? else { break };
            let missing = match next {
                Next::Missing(missing) => missing,
                Next::Record(head) => {
                    if !want(&head.tenant) {
                        read.through = head.seq;
                        continue;
                    }
                    match walk.payload(head)? {
                        Item::Missing(missing) => missing,
                        Item::Record(stored) => {
                            bytes += stored.payload.len();
                            read.through = stored.seq;
                            read.records.push(stored);
                            if bytes >= max_bytes {
                                break;
                            }
                            continue;
                        }
                    }
                }
            };
            if read.through > after {
                break;
            }
            read.through = missing.last;
            read.missing = Some(missing);
        }
        Ok(read)
    }

    /// Hands out everything after a number, in order, until told to stop: records, and the numbers that are missing. Sectors that the disk
    /// cannot read count as corrupt.
    ///
    /// # Errors
    /// What the disk said.
    pub fn recover(
        &self,
        after: u64,
        mut f: impl FnMut(Item) -> ControlFlow<()>,
        mut progress: impl FnMut(Progress),
    ) -> Result<(), Error> {
        let upto = self.next().saturating_sub(1);
        let segments = self.shared.segments();
        let mut walk = Walk::new(&segments, (after, upto), STREAMING_WINDOW, true);
        let sizes: Vec<u64> = segments.iter().map(|segment| segment.bytes()).collect();
        let skipped: u64 = sizes.iter().take(walk.at).sum();
        let total = sizes.iter().sum::<u64>() - skipped;
        let mut told = 0;
        while let Some(next) = self.shared.next(&mut walk)? {
            let done = (sizes.iter().take(walk.at).sum::<u64>() + walk.offset).saturating_sub(skipped);
            if done >= told + PROGRESS_BYTES {
                told = done;
                progress(Progress { done, total });
            }
            let item = match next {
                Next::Record(head) => walk.payload(head)?,
                Next::Missing(missing) => Item::Missing(missing),
            };
            if f(item).is_break() {
                return Ok(());
            }
        }
        progress(Progress { done: total, total });
        Ok(())
    }
}

impl Shared {
    /// What comes next in the log. Numbers that are skipped, but not on disk yet, are missing too.
    fn next(&self, walk: &mut Walk<'_>) -> Result<Option<Next>, Error> {
        if let Some(next) = walk.next()? {
            return Ok(Some(next));
        }
        if walk.last >= walk.upto || walk.at < walk.segments.len() {
            return Ok(None);
        }
        let writer = self.writer.lock();
        let (last, why) = (writer.next - 1, if writer.start.is_some() { Why::Crash } else { Why::Failed });
        Ok((last > walk.last).then(|| walk.missing(last, why)))
    }
}

impl Segment {
    /// Hands out the tenant's records after one number and up to another that may have a line with a timestamp in `[min, max]`, in order,
    /// until told to stop; and the numbers in the segment that are missing.
    ///
    /// # Errors
    /// What the disk said.
    pub fn scan(
        self: &Arc<Self>,
        (after, upto): (u64, u64),
        (min, max): (i64, i64),
        tenant: &TenantId,
        mut f: impl FnMut(Item) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let after = after.max(self.header.from - 1);
        let mut walk = Walk::new(std::slice::from_ref(self), (after, upto), SCANNING_WINDOW, false);
        while let Some(next) = walk.next()? {
            let item = match next {
                Next::Record(head) if head.min > max || head.max < min || head.tenant != *tenant => continue,
                Next::Record(head) => walk.payload(head)?,
                Next::Missing(missing) => Item::Missing(missing),
            };
            if f(item).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl<'a> Walk<'a> {
    fn new(segments: &'a [Arc<Segment>], (after, upto): (u64, u64), window: usize, forgiving: bool) -> Self {
        let at = segments.partition_point(|segment| segment.header.from <= after.saturating_add(1)).saturating_sub(1);
        Self { segments, at, cursor: None, offset: 0, last: after, upto, window, forgiving }
    }

    /// The next record, or the numbers that are missing before it.
    fn next(&mut self) -> Result<Option<Next>, Error> {
        while self.last < self.upto {
            let Some(segment) = self.segments.get(self.at) else { break };
            let Some(cursor) = &mut self.cursor else {
                let header = &segment.header;
                if header.from > self.last + 1 {
                    let why = if self.at == 0 { Why::Trimmed } else { Why::Corrupt };
                    return Ok(Some(self.missing(header.from - 1, why)));
                }
                if header.first > self.last + 1 {
                    return Ok(Some(self.missing(header.first - 1, header.why)));
                }
                self.cursor = Some(segment.cursor(self.last, self.window, self.forgiving));
                continue;
            };
            let before = cursor.last;
            let step = cursor.step().map_err(|error| Error::io(format!("read {}", segment.path.display()), error))?;
            match step {
                Step::Record(offset, head) if head.seq > self.last => {
                    if head.seq > self.upto {
                        break;
                    }
                    self.last = head.seq;
                    self.offset = offset;
                    return Ok(Some(Next::Record(head)));
                }
                Step::Record(..) => {}
                Step::Hole { last, offset, reason } => {
                    segment.tell(offset, last - before, reason);
                    if last > self.last {
                        return Ok(Some(self.missing(last, Why::Corrupt)));
                    }
                }
                Step::Garbage(garbage) if cursor.upto() > before => {
                    segment.tell(garbage.offset, cursor.upto() - before, garbage.reason);
                }
                Step::Garbage(_) => {}
                Step::End => {
                    let last = cursor.upto();
                    self.cursor = None;
                    self.at += 1;
                    self.offset = 0;
                    if last > self.last {
                        return Ok(Some(self.missing(last, Why::Corrupt)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The numbers from the last one handed out up to this one, as far as they were asked for.
    fn missing(&mut self, last: u64, why: Why) -> Next {
        let first = self.last + 1;
        self.last = last.min(self.upto);
        Next::Missing(Missing { first, last: self.last, why })
    }

    /// The record that [`Self::next`] has handed out, with its payload.
    fn payload(&mut self, head: Head) -> Result<Item, Error> {
        let missing = Item::Missing(Missing { first: head.seq, last: head.seq, why: Why::Corrupt });
        let (Some(segment), Some(cursor)) = (self.segments.get(self.at), &mut self.cursor) else { return Ok(missing) };
        let payload = cursor.payload(self.offset, &head);
        let payload = payload.map_err(|error| Error::io(format!("read {}", segment.path.display()), error))?;
        let Some(payload) = payload else {
            segment.tell(self.offset, 1, BAD_PAYLOAD);
            return Ok(missing);
        };
        let Head { seq, accepted_at, tenant, tenant_lines, min, max, lines, .. } = head;
        let payload = Bytes::from(payload);
        Ok(Item::Record(Stored { seq, accepted_at, tenant, tenant_lines, min, max, lines, payload }))
    }
}
