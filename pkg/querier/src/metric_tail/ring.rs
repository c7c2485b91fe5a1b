//! The newest frames of a feed, one per step, shared by all its sessions.
//!
//! Invariants:
//! * Frames are numbered by their steps, without holes, and never change. A session that wants one before `first` must have it evaluated
//!   again, as of `gone`.
//! * A frame is kept until every session has taken it, but beyond the newest never more than `max_bytes` of frames: the bound wins.
//! * What a frame tells beside its value reaches every session that wanted the frame, also one for which it was driven out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::frame::Told;
use crate::EndReason;
use bytes::Bytes;

/// For each node of the plan the last batch that lies before some place; none if that is not known, or if the node was not listed yet.
pub(super) type Positions = Arc<[Option<u64>]>;

/// What one frame costs beside its text.
const FRAME_OVERHEAD: usize = 128;

/// A step, encoded once.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The JSON text.
    pub(super) bytes: Bytes,
    /// What it tells beside its value.
    pub(super) told: Told,
    /// Up to where the logs had been read then.
    pub(super) positions: Positions,
}

/// Where a session is: the next step it wants.
pub(super) type Cursor = Arc<AtomicU32>;

/// A session, as the ring knows it.
#[derive(Debug)]
struct Seat {
    cursor: Cursor,
    /// What frames told that were driven out before the session took them.
    missed: Told,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    frames: VecDeque<Frame>,
    first: u32,
    bytes: usize,
    max_bytes: usize,
    gone: Positions,
    seats: HashMap<u64, Seat>,
    end: Option<EndReason>,
}

/// What a session gets when it asks for a step.
pub(super) enum Taken {
    /// The frame.
    Frame(Frame),
    /// There is none yet.
    Wait,
    /// It is gone.
    Gone(Gone),
    /// The feed has ended.
    End(EndReason),
}

/// What a session needs that wants steps the ring does not hold any more.
pub(super) struct Gone {
    /// The first step that there is again.
    pub(super) first: u32,
    /// As of where the ones before it are to be evaluated.
    pub(super) as_of: Positions,
    /// What their frames told.
    pub(super) missed: Told,
}

impl Ring {
    /// A ring whose first frame will be that of `first`; `heads` is where the logs end now.
    pub(super) fn new(first: u32, heads: Positions, max_bytes: usize) -> Self {
        Self { frames: VecDeque::new(), first, bytes: 0, max_bytes, gone: heads, seats: HashMap::new(), end: None }
    }

    /// Adds the next step's frame. Returns the step after it.
    pub(super) fn publish(&mut self, frame: Frame) -> u32 {
        self.bytes += frame.bytes.len() + FRAME_OVERHEAD;
        self.frames.push_back(frame);
        self.trim();
        self.next()
    }

    /// Ends the feed for every session, after the frames there are.
    pub(super) fn end(&mut self, reason: EndReason) {
        self.end.get_or_insert(reason);
    }

    pub(super) fn ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn join(&mut self, session: u64, step: u32) -> Cursor {
        let cursor = Arc::new(AtomicU32::new(step));
        self.seats.insert(session, Seat { cursor: Arc::clone(&cursor), missed: Told::default() });
        cursor
    }

    pub(super) fn leave(&mut self, session: u64) {
        self.seats.remove(&session);
        self.trim();
    }

    pub(super) fn take(&mut self, session: u64, step: u32) -> Taken {
        let Some(at) = step.checked_sub(self.first) else {
            let missed = self.seats.get_mut(&session).map(|seat| std::mem::take(&mut seat.missed)).unwrap_or_default();
            return Taken::Gone(Gone { first: self.first, as_of: self.gone.clone(), missed });
        };
        match (self.frames.get(at as usize), &self.end) {
            (Some(frame), _) => Taken::Frame(frame.clone()),
            (None, Some(reason)) => Taken::End(reason.clone()),
            (None, None) => Taken::Wait,
        }
    }

    fn next(&self) -> u32 {
        self.first.saturating_add(u32::try_from(self.frames.len()).unwrap_or(u32::MAX))
    }

    fn trim(&mut self) {
        let wanted = self.seats.values().map(|seat| seat.cursor.load(Ordering::Relaxed)).min().unwrap_or(u32::MAX);
        while self.first < wanted || (self.bytes > self.max_bytes && self.frames.len() > 1) {
            let Some(frame) = self.frames.pop_front() else { break };
            for seat in self.seats.values_mut().filter(|seat| seat.cursor.load(Ordering::Relaxed) <= self.first) {
                seat.missed += frame.told;
            }
            self.bytes -= frame.bytes.len() + FRAME_OVERHEAD;
            self.gone = frame.positions;
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_wire::node::Late;

    use super::*;

    fn at(seq: u64) -> Positions {
        [Some(seq)].into()
    }

    fn publish(ring: &mut Ring, n: u64) {
        for _ in 0..n {
            let seq = u64::from(ring.next()) * 10;
            let told = Told { late: Late { lines: 1, ..Late::default() }, trimmed: 0 };
            ring.publish(Frame { bytes: Bytes::from(vec![b'x'; 1000]), told, positions: at(seq) });
        }
    }

    fn gone(ring: &mut Ring, session: u64, step: u32) -> (u32, u64, u64) {
        let Taken::Gone(Gone { first, as_of, missed }) = ring.take(session, step) else { panic!("it is there") };
        (first, as_of[0].unwrap(), missed.late.lines)
    }

    #[test]
    fn frames_stay_until_every_session_has_them_but_the_bound_wins() {
        let mut ring = Ring::new(100, at(3), 4 * (1000 + FRAME_OVERHEAD));
        let fast = ring.join(1, 100);
        let slow = ring.join(2, 100);
        let _later = ring.join(3, 103);
        assert_eq!(gone(&mut ring, 1, 90), (100, 3, 0), "steps before the feed");
        assert!(matches!(ring.take(1, 100), Taken::Wait));
        publish(&mut ring, 3);
        fast.store(103, Ordering::Relaxed);
        publish(&mut ring, 1);
        assert!(matches!(ring.take(2, 100), Taken::Frame(_)), "the slow one still wants it");
        publish(&mut ring, 4);
        assert_eq!(gone(&mut ring, 2, 100), (104, 1030, 4), "the bound drove them out");
        assert_eq!(gone(&mut ring, 2, 100), (104, 1030, 0), "told once");
        assert_eq!(gone(&mut ring, 1, 103), (104, 1030, 1));
        assert_eq!(gone(&mut ring, 3, 103), (104, 1030, 1));
        slow.store(108, Ordering::Relaxed);
        assert!(matches!(ring.take(2, 108), Taken::Wait));
    }

    #[test]
    fn the_newest_frame_stays_and_the_end_comes_after_it() {
        let mut ring = Ring::new(7, at(0), 10);
        let _cursor = ring.join(1, 7);
        publish(&mut ring, 2);
        assert_eq!(gone(&mut ring, 1, 7).0, 8);
        ring.end(EndReason::IngestersGone);
        assert!(matches!(ring.take(1, 8), Taken::Frame(_)));
        assert!(matches!(ring.take(1, 9), Taken::End(EndReason::IngestersGone)));
        ring.leave(1);
        assert_eq!((ring.bytes, ring.first), (0, 9), "without sessions nothing is kept");
    }
}
