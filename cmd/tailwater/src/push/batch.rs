//! Lines into batches: full when they have so many lines or bytes, or are so old.
//!
//! Invariant: timestamps rise from line to line, so that the order of lines is kept and equal lines are different entries.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tailwater_model::Timestamp;
use tailwater_wire::push::{Outgoing, encode};

/// When a batch is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// With so many lines.
    pub(crate) lines: usize,
    /// With so many bytes of lines.
    pub(crate) bytes: usize,
    /// So long after its first line.
    pub(crate) age: Duration,
}

/// Lines with their timestamps, not sent yet.
pub(crate) struct Batch {
    lines: Vec<(Timestamp, Bytes)>,
    bytes: usize,
    began: Option<Instant>,
    last: Timestamp,
}

impl Batch {
    /// An empty batch; timestamps will lie after `last`.
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new(), bytes: 0, began: None, last: Timestamp::MIN }
    }

    /// Adds a line of `now`, or of just after the line before it.
    pub(crate) fn add(&mut self, line: Bytes, now: Timestamp) {
        let at = now.max(Timestamp(self.last.nanos().saturating_add(1)));
        self.last = at;
        self.bytes += line.len();
        self.lines.push((at, line));
        self.began.get_or_insert_with(Instant::now);
    }

    /// Whether it has as much as it may.
    pub(crate) fn is_full(&self, bounds: Bounds) -> bool {
        self.lines.len() >= bounds.lines || self.bytes >= bounds.bytes
    }

    /// When it is to be sent even if it is not full.
    pub(crate) fn due(&self, bounds: Bounds) -> Option<Instant> {
        self.began.map(|began| began + bounds.age)
    }

    /// How many lines.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.len() as u64
    }

    /// How many bytes of lines.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The body of the push, of one stream. The batch is empty afterwards, but remembers its last timestamp.
    ///
    /// # Errors
    /// The reason if it is more than a push can hold.
    pub(crate) fn take_body(&mut self, labels: &str) -> Result<Bytes, String> {
        let lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        self.began = None;
        let entries = lines.iter().map(|(timestamp, line)| Outgoing { timestamp: *timestamp, line, metadata: &[] });
        encode([(labels, entries)]).map(Bytes::from).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lines_of_body;

    const BOUNDS: Bounds = Bounds { lines: 3, bytes: 100, age: Duration::from_secs(1) };

    #[test]
    fn timestamps_rise_also_across_batches_and_when_the_clock_goes_back() {
        let mut batch = Batch::new();
        for (line, now) in [("a", 10), ("a", 10), ("b", 5)] {
            batch.add(Bytes::from_static(line.as_bytes()), Timestamp(now));
        }
        assert!(batch.is_full(BOUNDS));
        let first = lines_of_body(&batch.take_body("{x=\"y\"}").unwrap());
        assert_eq!(
            first.iter().map(|l| (l.1, l.2.as_slice())).collect::<Vec<_>>(),
            [(10, &b"a"[..]), (11, b"a"), (12, b"b")]
        );
        assert!(batch.is_empty() && batch.due(BOUNDS).is_none());
        batch.add(Bytes::from_static(b"\xff"), Timestamp(1));
        assert_eq!(
            lines_of_body(&batch.take_body("{x=\"y\"}").unwrap()),
            [("{x=\"y\"}".to_owned(), 13, b"\xff".to_vec())]
        );
    }

    #[test]
    fn bytes_fill_a_batch_too() {
        let mut batch = Batch::new();
        batch.add(Bytes::from(vec![b'x'; 99]), Timestamp(1));
        assert!(!batch.is_full(BOUNDS) && batch.due(BOUNDS).is_some());
        batch.add(Bytes::from_static(b"x"), Timestamp(1));
        assert!(batch.is_full(BOUNDS));
    }
}
