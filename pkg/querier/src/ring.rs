//! The newest frames of a feed, shared by all its sessions.
//!
//! Invariants:
//! * Frames are numbered from 0 and never change. A session takes them in order by number; a number below `first` is gone and
//!   the session must read again from the logs (or, if its client asked for that, count the frames as dropped).
//! * A frame is kept until every session has taken it, but never more than `max_bytes` of frames: the bound wins.
//! * `mark` and `lines` describe the moment after the newest frame; both change under the same lock as the frames, so a session
//!   that joins sees them agree.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tailwater_model::{LabelSet, Timestamp};

use crate::away::Away;
use crate::mark::Mark;
use crate::session::EndReason;

/// What one frame costs beside its text.
const FRAME_OVERHEAD: usize = 256;

/// Most dropped lines that are remembered one by one, as Loki does.
pub(crate) const MAX_DROPPED_ENTRIES: usize = 1000;

/// Some lines, encoded once.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The JSON text.
    pub(crate) bytes: Bytes,
    /// Lines in it.
    pub(crate) lines: u32,
    /// What the feed had given out with it.
    pub(crate) mark: Mark,
    /// The lines' times and labels, kept only while a session drops rather than waits.
    pub(crate) entries: Vec<(Timestamp, LabelSet)>,
    /// Lines (matching or not) that were trimmed from a log before the feed read them.
    pub(crate) trimmed: u64,
    /// The logs that were away then. If frames say so, this one says what has changed since the one before it.
    pub(crate) away: Away,
    /// The token with which it ends, if tokens were asked for.
    pub(crate) token: Option<Arc<str>>,
}

/// A line that was dropped.
#[derive(Clone, Debug)]
pub(crate) struct DroppedLine {
    frame: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) labels: LabelSet,
}

/// Where a session is: the number of the next frame it wants.
pub(crate) type Cursor = Arc<AtomicU64>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ring {
    frames: VecDeque<Frame>,
    first: u64,
    bytes: usize,
    max_bytes: usize,
    /// Lines in frames that are gone.
    lines_gone: u64,
    /// Lines in all frames ever.
    lines: u64,
    mark: Mark,
    /// Lines the feed holds back, at the time of `mark`.
    waiting: usize,
    /// The logs that are away, at the time of `mark`.
    away: Away,
    /// Those of the last frame that is gone.
    away_gone: Away,
    cursors: HashMap<u64, Cursor>,
    /// Sessions that drop rather than wait.
    droppers: usize,
    /// The newest lines of frames that the bound drove out, for the droppers.
    driven_out: VecDeque<DroppedLine>,
    end: Option<EndReason>,
}

/// What a session that joins needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    /// The next frame.
    pub(crate) next: u64,
    /// What was given out before it.
    pub(crate) mark: Mark,
    /// Lines in all frames before it.
    pub(crate) lines: u64,
    /// Lines the feed holds back.
    pub(crate) waiting: usize,
    /// The logs that were away then.
    pub(crate) away: Away,
}

/// What a session gets when it asks for a frame.
pub(crate) enum Taken {
    /// The frame.
    Frame(Frame),
    /// There is none yet.
    Wait,
    /// The frame is gone.
    Gone,
    /// The feed has ended.
    End(EndReason),
}

impl Ring {
    pub(crate) fn new(mark: Mark, away: Away, max_bytes: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            first: 0,
            bytes: 0,
            max_bytes,
            lines_gone: 0,
            lines: 0,
            mark,
            waiting: 0,
            away: away.clone(),
            away_gone: away,
            cursors: HashMap::new(),
            droppers: 0,
            driven_out: VecDeque::new(),
            end: None,
        }
    }

    /// Adds a round's frames. Returns the number of frames ever, for the wake-up.
    pub(crate) fn publish(
        &mut self,
        frames: impl IntoIterator<Item = Frame>,
        mark: Mark,
        waiting: usize,
        away: Away,
    ) -> u64 {
        for frame in frames {
            self.bytes += frame.bytes.len() + FRAME_OVERHEAD;
            self.lines += u64::from(frame.lines);
            self.frames.push_back(frame);
        }
        self.mark = mark;
        self.waiting = waiting;
        self.away = away;
        self.trim();
        self.next()
    }

    /// Ends the feed for every session, after the frames there are.
    pub(crate) fn end(&mut self, reason: EndReason) {
        self.end.get_or_insert(reason);
    }

    pub(crate) fn ended(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn join(&mut self, session: u64, drops: bool) -> (Joined, Cursor) {
        let cursor = Arc::new(AtomicU64::new(self.next()));
        self.cursors.insert(session, Arc::clone(&cursor));
        self.droppers += usize::from(drops);
        (self.newest(), cursor)
    }

    pub(crate) fn leave(&mut self, session: u64, drops: bool) {
        if self.cursors.remove(&session).is_some() {
            self.droppers -= usize::from(drops);
        }
        self.trim();
    }

    /// The moment after the newest frame.
    pub(crate) fn newest(&self) -> Joined {
        let (mark, away) = (self.mark.clone(), self.away.clone());
        Joined { next: self.next(), mark, lines: self.lines, waiting: self.waiting, away }
    }

    pub(crate) fn take(&self, number: u64) -> Taken {
        let Some(at) = number.checked_sub(self.first) else { return Taken::Gone };
        match (self.frames.get(at as usize), &self.end) {
            (Some(frame), _) => Taken::Frame(frame.clone()),
            (None, Some(reason)) => Taken::End(reason.clone()),
            (None, None) => Taken::Wait,
        }
    }

    /// For a session that drops: skips to the oldest frame there is. Returns its number, the lines skipped since `lines_taken`,
    /// the newest of them, and the logs that were away before the frame.
    pub(crate) fn skip(&self, number: u64, lines_taken: u64) -> (u64, u64, Vec<DroppedLine>, Away) {
        let skipped = self.driven_out.iter().filter(|line| line.frame >= number).cloned().collect();
        (self.first, self.lines_gone - lines_taken, skipped, self.away_gone.clone())
    }

    pub(crate) fn has_droppers(&self) -> bool {
        self.droppers > 0
    }

    pub(crate) fn sessions(&self) -> usize {
        self.cursors.len()
    }

    fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    fn trim(&mut self) {
        let wanted = self.cursors.values().map(|c| c.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX);
        while self.first < wanted || self.bytes > self.max_bytes {
            let Some(frame) = self.frames.pop_front() else { break };
            if self.first >= wanted && self.droppers > 0 {
                for (timestamp, labels) in frame.entries {
                    if self.driven_out.len() == MAX_DROPPED_ENTRIES {
                        self.driven_out.pop_front();
                    }
                    self.driven_out.push_back(DroppedLine { frame: self.first, timestamp, labels });
                }
            }
            self.bytes -= frame.bytes.len() + FRAME_OVERHEAD;
            self.lines_gone += u64::from(frame.lines);
            self.away_gone = frame.away;
            self.first += 1;
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Positions;

    fn frame(lines: u32) -> Frame {
        let mark = Mark::beginning(Positions::default());
        Frame {
            bytes: Bytes::from(vec![b'x'; 1000]),
            lines,
            mark,
            entries: Vec::new(),
            trimmed: 0,
            away: Away::default(),
            token: None,
        }
    }

    fn publish(ring: &mut Ring, n: usize) {
        ring.publish((0..n).map(|_| frame(10)), Mark::beginning(Positions::default()), 0, Away::default());
    }

    #[test]
    fn frames_stay_until_every_session_has_them_but_the_bound_wins() {
        let mut ring = Ring::new(Mark::beginning(Positions::default()), Away::default(), 4 * (1000 + FRAME_OVERHEAD));
        let (_, fast) = ring.join(1, false);
        let (_, slow) = ring.join(2, false);
        publish(&mut ring, 3);
        fast.store(3, Ordering::Relaxed);
        publish(&mut ring, 1);
        assert!(matches!(ring.take(0), Taken::Frame(_)), "the slow one still wants it");
        slow.store(2, Ordering::Relaxed);
        publish(&mut ring, 1);
        assert!(matches!(ring.take(1), Taken::Gone), "everybody has it");
        publish(&mut ring, 4);
        assert!(matches!(ring.take(4), Taken::Gone), "the bound drove it out");
        assert!(matches!(ring.take(5), Taken::Frame(_)));
        assert!(matches!(ring.take(9), Taken::Wait));
        let (number, skipped, ..) = ring.skip(2, 20);
        assert_eq!((number, skipped), (5, 30));
    }

    #[test]
    fn the_end_comes_after_the_last_frame() {
        let mut ring = Ring::new(Mark::beginning(Positions::default()), Away::default(), 1 << 20);
        let _cursor = ring.join(1, false);
        publish(&mut ring, 1);
        ring.end(EndReason::IngestersGone);
        assert!(matches!(ring.take(0), Taken::Frame(_)));
        assert!(matches!(ring.take(1), Taken::End(EndReason::IngestersGone)));
    }

    #[test]
    fn without_sessions_nothing_is_kept() {
        let mut ring = Ring::new(Mark::beginning(Positions::default()), Away::default(), 1 << 20);
        publish(&mut ring, 5);
        assert_eq!((ring.newest().next, ring.bytes), (5, 0));
    }
}
