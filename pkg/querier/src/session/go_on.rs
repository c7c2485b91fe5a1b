//! A session that goes on with a token, until its feed is as far as the token in everything.
//!
//! ```text
//!   Joining ──▶ CatchUp ──▶ Live, or Lagging ──▶ Joining
//! ```
//!
//! Invariants:
//! * While [`Foreign`] is there, what the client has had is what its marks and the mark of the session contain.
//! * Frames of the feed are taken only when nothing in them can have been had: the feed's mark covers every mark, of the sources that it
//!   names, and a source that it did not name is read for this session up to where the feed is before its first frame is taken.
//! * What is owed is given up after [`OWED_FOR`], and told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{After, Session, State};
use crate::catch_up::CatchUp;
use crate::had::Had;
use crate::mark::Mark;
use crate::replay::Own;
use crate::resume::{At, Token};

/// How long a session that goes on with a token waits for logs that its feed has not got. Longer than an ingester takes to come back, or
/// its followers to put what it had into blocks.
const OWED_FOR: Duration = Duration::from_secs(180);

/// What a session that goes on with a token has had of other feeds, or may be owed by logs that its feed has not got.
pub(super) struct Foreign {
    pub(super) had: Had,
    /// When what is still owed is given up.
    pub(super) until: Instant,
}

impl Session {
    /// Begins where a token says.
    pub(super) fn go_on(&mut self, token: Token) {
        self.metrics.resumed.inc();
        self.resumed = Some(true);
        let Token { origin, at, .. } = token;
        self.origin = origin;
        let had = match at {
            At::Marks(marks) => Had { origin, marks },
            At::History(history) => {
                let had = Had::of(origin, history.mark.clone());
                self.read_history(history, true);
                had
            }
            At::CatchUp { marks, to, unfinished, part } => {
                let had = Had { origin, marks };
                let catch_up = CatchUp::resumed(&self.outside, had.clone(), to, unfinished, part.as_ref());
                self.state = State::CatchUp(Box::new(catch_up));
                had
            }
        };
        self.foreign = Some(Foreign { had, until: Instant::now() + OWED_FOR });
    }

    /// Whether the feed has got something new, of which this session may be owed more than the feed gives out.
    pub(super) fn is_owed(&self, mark: &Mark) -> bool {
        self.foreign.is_some() && mark.floor.len() > self.mark.floor.len()
    }

    /// Reads the difference to the feed for itself once more.
    pub(super) fn join_again(&mut self) {
        let here = self.feed.placed(self.mark.clone());
        if let Some(foreign) = &mut self.foreign {
            foreign.had.add(here);
        }
        self.state = State::Joining;
    }

    /// Begins to read what the feed has given out and the client has not had.
    pub(super) fn join_feed(&mut self) {
        let Some(foreign) = &self.foreign else {
            self.state = State::Live;
            return;
        };
        let to = self.feed.ring.lock().newest();
        // What the feed publishes from here on is wanted.
        self.cursor.store(to.next, Ordering::Relaxed);
        let last_try = Instant::now() >= foreign.until;
        let catch_up = CatchUp::to_feed(&self.outside, foreign.had.clone(), to, true, last_try);
        self.state = State::CatchUp(Box::new(catch_up));
    }

    /// All that a session with a token had to read has been read.
    pub(super) fn joined(&mut self, catch_up: CatchUp) {
        let last_try = catch_up.last_try;
        let (mut had, to, joined) = catch_up.end();
        had.add(to);
        let Some(joined) = joined else {
            self.has_had(had, State::Joining);
            return;
        };
        let here = self.feed.placed(joined.mark.clone());
        (self.next, self.lines_taken, self.mark) = (joined.next, joined.lines, joined.mark);
        self.turned(joined.away);
        if had.marks.iter().any(|mark| here.lags(mark)) {
            self.has_had(had, State::Lagging);
            return;
        }
        had.marks.retain(|mark| !here.covers(mark));
        let owes_nothing = had.marks.is_empty() && had.origin == self.feed.opened();
        if owes_nothing || last_try {
            self.foreign = None;
            self.origin = self.feed.opened();
        }
        // What is to be told is told before the feed's frames.
        self.has_had(had, State::Sending(Own::new(), After::Live));
    }

    fn has_had(&mut self, had: Had, then: State) {
        if let Some(foreign) = &mut self.foreign {
            foreign.had = had;
        }
        self.state = then;
    }
}
