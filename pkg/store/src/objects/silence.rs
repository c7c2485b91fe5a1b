//! For how long the store has answered nothing of what it was asked to read.
//!
//! Invariant: an answer is what was asked for, or that it is not there; a refusal and a failure after which it is tried again are none.
//! While nothing is asked there is no silence. Writes do not count: a large one may take long.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Silence(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Operations under way.
    under_way: usize,
    /// The last answer, or when the first of them began if that was later.
    since: Instant,
}

/// An operation that is under way.
pub(super) struct Asked<'a>(&'a Silence);

impl Silence {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { under_way: 0, since: Instant::now() }))
    }

    /// An operation begins.
    pub(super) fn asked(&self) -> Asked<'_> {
        let mut state = self.0.lock();
        if state.under_way == 0 {
            state.since = Instant::now();
        }
        state.under_way += 1;
        Asked(self)
    }

    /// How long it has lasted.
    pub(super) fn lasts(&self) -> Duration {
        let state = self.0.lock();
        if state.under_way == 0 { Duration::ZERO } else { state.since.elapsed() }
    }
}

impl Asked<'_> {
    /// The store has answered.
    pub(super) fn answered(&self) {
        self.0.0.lock().since = Instant::now();
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.0.lock().under_way -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_while_something_is_asked_and_nothing_answered() {
        let (silence, second) = (Silence::new(), Duration::from_secs(1));
        tokio::time::sleep(second).await;
        assert_eq!(silence.lasts(), Duration::ZERO);
        let first = silence.asked();
        tokio::time::sleep(second).await;
        let other = silence.asked();
        tokio::time::sleep(second).await;
        assert_eq!(silence.lasts(), 2 * second);
        other.answered();
        drop(other);
        tokio::time::sleep(second).await;
        assert_eq!(silence.lasts(), second, "of what is still asked");
        drop(first);
        assert_eq!(silence.lasts(), Duration::ZERO);
        let _third = silence.asked();
        assert_eq!(silence.lasts(), Duration::ZERO);
    }
}
