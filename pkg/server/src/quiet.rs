//! Log lines that a client can cause, at most one per second and place; what was not said is counted and said with the next.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// See the module. One per place.
pub(crate) struct Quiet {
    /// The second, since the first call, after which the next line may come.
    next: AtomicU64,
    unheard: AtomicU64,
}

static BEGIN: OnceLock<Instant> = OnceLock::new();

impl Quiet {
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(0), unheard: AtomicU64::new(0) }
    }

    /// Whether to log now: `Some` with the number of lines left out since the last.
    pub(crate) fn speak(&self) -> Option<u64> {
        self.speak_at(BEGIN.get_or_init(Instant::now).elapsed().as_secs())
    }

    fn speak_at(&self, second: u64) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        let mine = second >= next
            && self.next.compare_exchange(next, second + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            return Some(self.unheard.swap(0, Ordering::Relaxed));
        }
        self.unheard.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_rest_is_counted() {
        let quiet = Quiet::new();
        assert_eq!(quiet.speak_at(0), Some(0));
        assert_eq!((quiet.speak_at(0), quiet.speak_at(0)), (None, None));
        assert_eq!(quiet.speak_at(1), Some(2));
        assert_eq!(quiet.speak_at(5), Some(0));
    }
}
