//! A log query of any length out of many requests of bounded size (Loki API §7.3).
//!
//! Invariants:
//! * the next request begins where the last one ended: forward at the last timestamp, backward with the last timestamp + 1 ns
//!   as its (exclusive) end; so entries of equal time on both sides of the cut come again, and those are left out;
//! * each request asks for as many more entries as can come again, so every request makes progress;
//! * an entry is left out at most as often as it has been given out.

use tailwater_model::Timestamp;

use crate::client::answer::Entry;

/// Which end of the range comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

impl Direction {
    /// The value of the parameter.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "FORWARD",
            Self::Backward => "BACKWARD",
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Inclusive.
    pub(crate) start: Timestamp,
    /// Exclusive.
    pub(crate) end: Timestamp,
    /// At most so many entries.
    pub(crate) limit: u64,
}

/// The rest of a query.
pub(crate) struct Batches {
    direction: Direction,
    start: Timestamp,
    end: Timestamp,
    /// Entries still wanted; none = all there are.
    remaining: Option<u64>,
    batch: u64,
    /// What has been given out at the timestamp of the cut.
    boundary: Vec<Entry>,
    last_limit: u64,
    done: bool,
}

impl Batches {
    /// `[start, end)`, at most `limit` entries (0 = all) by at most `batch` a request.
    pub(crate) fn new(start: Timestamp, end: Timestamp, limit: u64, batch: u64, direction: Direction) -> Self {
        Self {
            direction,
            start,
            end,
            remaining: (limit > 0).then_some(limit),
            batch: batch.max(1),
            boundary: Vec::new(),
            last_limit: 0,
            done: start >= end,
        }
    }

    /// The next request, if there is more to ask for.
    pub(crate) fn next_request(&mut self) -> Option<Request> {
        if self.done || self.remaining == Some(0) {
            return None;
        }
        let wanted = self.remaining.map_or(self.batch, |r| r.min(self.batch));
        self.last_limit = wanted + self.boundary.len() as u64;
        Some(Request { start: self.start, end: self.end, limit: self.last_limit })
    }

    /// The answer to the last request in the order of printing, without what has been given out before.
    pub(crate) fn take(&mut self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let received = entries.len() as u64;
        match self.direction {
            Direction::Forward => entries.sort_by_key(|e| e.timestamp),
            Direction::Backward => entries.sort_by_key(|e| std::cmp::Reverse(e.timestamp)),
        }
        let mut repeats = std::mem::take(&mut self.boundary);
        let cut = repeats.first().map(|e| e.timestamp);
        let again = repeats.clone();
        entries.retain(|entry| {
            if Some(entry.timestamp) != cut {
                return true;
            }
            match repeats.iter().position(|r| r == entry) {
                Some(found) => {
                    repeats.swap_remove(found);
                    false
                }
                None => true,
            }
        });
        if let Some(remaining) = &mut self.remaining {
            entries.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= entries.len() as u64;
        }
        let Some(last) = entries.last().map(|e| e.timestamp) else {
            self.done = true;
            return entries;
        };
        self.done = received < self.last_limit;
        self.boundary = entries.iter().rev().take_while(|e| e.timestamp == last).cloned().collect();
        if cut == Some(last) {
            self.boundary.extend(again);
        }
        match self.direction {
            Direction::Forward => self.start = last,
            Direction::Backward => self.end = Timestamp(last.nanos().saturating_add(1)),
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_model::LabelSet;

    fn entry(at: i64, line: &str) -> Entry {
        Entry { timestamp: Timestamp(at), line: line.to_owned(), labels: LabelSet::from_pairs(Vec::new()) }
    }

    /// A server that answers from `all`.
    fn answer(all: &[Entry], request: Request, direction: Direction) -> Vec<Entry> {
        let mut hits: Vec<_> =
            all.iter().filter(|e| (request.start..request.end).contains(&e.timestamp)).cloned().collect();
        hits.sort_by_key(|e| e.timestamp);
        if direction == Direction::Backward {
            hits.reverse();
        }
        hits.truncate(request.limit as usize);
        hits
    }

    fn run(all: &[Entry], limit: u64, batch: u64, direction: Direction) -> Vec<Entry> {
        let mut batches = Batches::new(Timestamp(0), Timestamp(1000), limit, batch, direction);
        let mut got = Vec::new();
        let mut requests = 0;
        while let Some(request) = batches.next_request() {
            requests += 1;
            assert!(requests < 1000, "no progress");
            got.extend(batches.take(answer(all, request, direction)));
        }
        got
    }

    #[test]
    fn every_entry_comes_once_whatever_the_batch_size_and_however_many_share_a_time() {
        let mut all = Vec::new();
        for (i, at) in [1, 2, 2, 2, 2, 2, 3, 5, 5, 9, 999].into_iter().enumerate() {
            all.push(entry(at, &format!("line {}", i / 2)));
        }
        for direction in [Direction::Forward, Direction::Backward] {
            for batch in 1..=12 {
                let got = run(&all, 0, batch, direction);
                assert_eq!(got.len(), all.len(), "{direction:?} {batch}");
                let mut sorted = got.clone();
                sorted.sort_by(|a, b| (a.timestamp, &a.line).cmp(&(b.timestamp, &b.line)));
                let mut expected = all.clone();
                expected.sort_by(|a, b| (a.timestamp, &a.line).cmp(&(b.timestamp, &b.line)));
                assert_eq!(sorted, expected, "{direction:?} {batch}");
                let ordered = got.windows(2).all(|w| match direction {
                    Direction::Forward => w[0].timestamp <= w[1].timestamp,
                    Direction::Backward => w[0].timestamp >= w[1].timestamp,
                });
                assert!(ordered, "{direction:?} {batch}");
            }
        }
    }

    #[test]
    fn the_limit_counts_entries_and_not_requests() {
        let all: Vec<_> = (0..50).map(|i| entry(i, "x")).collect();
        let got = run(&all, 7, 3, Direction::Backward);
        assert_eq!(got.iter().map(|e| e.timestamp.0).collect::<Vec<_>>(), [49, 48, 47, 46, 45, 44, 43]);
    }

    #[test]
    fn an_empty_range_asks_nothing() {
        assert_eq!(Batches::new(Timestamp(5), Timestamp(5), 1, 1, Direction::Forward).next_request(), None);
    }
}
