//! What a tail has received of what was sent: losses, repeats and order, per stream.
//!
//! Numbers of a stream begin at 0 and rise by one. Invariant: what has not been received is exactly the holes and everything from
//! `next` on.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::line::Mark;

/// Longest latency that is told apart, in microseconds: an hour.
const MAX_MICROS: u64 = 3_600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 2;

/// Ranges of numbers, first included, last not.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// What one tail has received.
pub(crate) struct TailAccount {
    streams: Vec<StreamAccount>,
    /// Time from when each line was to be sent until its frame was read, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Lines, repeats included.
    pub(crate) lines: u64,
    /// Frames with lines.
    pub(crate) frames: u64,
    /// Bytes of frames.
    pub(crate) bytes: u64,
    /// Lines that the server said it dropped.
    pub(crate) told_dropped: u64,
    /// Beginnings of lines without a proper rest, and lines of streams that do not exist.
    pub(crate) broken: u64,
    /// The longest time without a line while lines were pushed, from the first line on.
    pub(crate) silence: Duration,
}

/// What one tail has received of one stream.
#[derive(Clone, Default)]
struct StreamAccount {
    next: u64,
    holes: BTreeMap<u64, u64>,
    duplicates: u64,
    reordered: u64,
}

/// What was sent of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// How many numbers were used.
    pub(crate) lines: u64,
    /// Those that the server did not acknowledge, in order.
    pub(crate) refused: Ranges,
}

/// The verdict on one tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Acknowledged and never received.
    pub(crate) lost: u64,
    /// Received again.
    pub(crate) duplicates: u64,
    /// Received after a later line of the same stream.
    pub(crate) reordered: u64,
    /// Received although not acknowledged.
    pub(crate) unacknowledged: u64,
}

/// An empty histogram of latencies.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_MICROS, DIGITS).expect("the bounds are constants that make a histogram")
}

impl TailAccount {
    /// An account of a tail over `streams` streams.
    pub(crate) fn new(streams: u32) -> Self {
        Self {
            streams: vec![StreamAccount::default(); streams as usize],
            latency: latencies(),
            lines: 0,
            frames: 0,
            bytes: 0,
            told_dropped: 0,
            broken: 0,
            silence: Duration::ZERO,
        }
    }

    /// A line was received at `now`, in Unix nanoseconds.
    pub(crate) fn see(&mut self, mark: Mark, now: i64) {
        let Some(stream) = self.streams.get_mut(mark.stream as usize) else {
            self.broken += 1;
            return;
        };
        stream.see(mark.number);
        self.lines += 1;
        let micros = u64::try_from(now.saturating_sub(mark.time)).unwrap_or(0) / 1000;
        self.latency.saturating_record(micros.max(1));
    }

    /// Compares with what was sent.
    pub(crate) fn verdict(&self, sent: &[Sent]) -> Verdict {
        let mut verdict = Verdict::default();
        for (stream, sent) in self.streams.iter().zip(sent) {
            let missing = stream.missing(sent.lines);
            let missing_lines: u64 = missing.iter().map(|(from, to)| to - from).sum();
            let refused: u64 = sent.refused.iter().map(|(from, to)| to - from).sum();
            let refused_and_missing = overlap(&missing, &sent.refused);
            verdict.lost += missing_lines - refused_and_missing;
            verdict.unacknowledged += refused - refused_and_missing;
            verdict.duplicates += stream.duplicates;
            verdict.reordered += stream.reordered;
        }
        verdict
    }
}

impl StreamAccount {
    fn see(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
        } else if number > self.next {
            self.holes.insert(self.next, number);
            self.next = number + 1;
        } else if let Some((from, to)) = self.hole_with(number) {
            self.reordered += 1;
            self.holes.remove(&from);
            if from < number {
                self.holes.insert(from, number);
            }
            if number + 1 < to {
                self.holes.insert(number + 1, to);
            }
        } else {
            self.duplicates += 1;
        }
    }

    fn hole_with(&self, number: u64) -> Option<(u64, u64)> {
        let (from, to) = self.holes.range(..=number).next_back()?;
        (number < *to).then_some((*from, *to))
    }

    fn missing(&self, sent: u64) -> Ranges {
        let mut missing: Ranges = self.holes.iter().map(|(from, to)| (*from, *to)).collect();
        if self.next < sent {
            missing.push((self.next, sent));
        }
        missing
    }
}

/// How many numbers lie in both. Both are in order and do not overlap themselves.
fn overlap(a: &[(u64, u64)], b: &[(u64, u64)]) -> u64 {
    let (mut i, mut j, mut sum) = (0, 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        sum += x.1.min(y.1).saturating_sub(x.0.max(y.0));
        if x.1 <= y.1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(numbers: &[u64], lines: u64, refused: &[(u64, u64)]) -> Verdict {
        let mut account = TailAccount::new(1);
        for number in numbers {
            account.see(Mark { stream: 0, number: *number, time: 0 }, 1000);
        }
        account.verdict(&[Sent { lines, refused: refused.to_vec() }])
    }

    #[test]
    fn a_perfect_tail_has_nothing_to_report() {
        assert_eq!(verdict(&[0, 1, 2, 3], 4, &[]), Verdict::default());
    }

    #[test]
    fn losses_repeats_and_order_are_told_apart() {
        assert_eq!(verdict(&[0, 3], 6, &[]), Verdict { lost: 4, ..Verdict::default() });
        assert_eq!(verdict(&[0, 3, 1, 2], 4, &[]), Verdict { reordered: 2, ..Verdict::default() });
        assert_eq!(verdict(&[0, 1, 1, 0, 2], 3, &[]), Verdict { duplicates: 2, ..Verdict::default() });
        assert_eq!(verdict(&[5, 2, 2], 6, &[]), Verdict { lost: 4, duplicates: 1, reordered: 1, unacknowledged: 0 });
        assert_eq!(verdict(&[], 3, &[]), Verdict { lost: 3, ..Verdict::default() });
    }

    #[test]
    fn what_was_not_acknowledged_is_not_lost() {
        assert_eq!(verdict(&[0, 1, 6], 8, &[(2, 5), (7, 8)]), Verdict { lost: 1, ..Verdict::default() });
        assert_eq!(verdict(&[0, 1, 2, 3], 4, &[(2, 4)]), Verdict { unacknowledged: 2, ..Verdict::default() });
    }

    #[test]
    fn any_order_of_arrival_adds_up() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut numbers: Vec<u64> = (0..40).collect();
            random.shuffle(&mut numbers);
            let received = &numbers[..random.usize(..40)];
            let got = verdict(received, 40, &[]);
            assert_eq!((got.lost, got.duplicates), (40 - received.len() as u64, 0));
        }
    }

    #[test]
    fn latency_is_from_the_time_in_the_line() {
        let mut account = TailAccount::new(1);
        account.see(Mark { stream: 0, number: 0, time: 1_000_000 }, 3_000_000);
        account.see(Mark { stream: 0, number: 1, time: 9_000_000 }, 3_000_000);
        assert_eq!((account.latency.min(), account.latency.max() / 100), (1, 20));
        account.see(Mark { stream: 7, number: 1, time: 0 }, 0);
        assert_eq!(account.broken, 1);
    }
}
