//! A token bucket over the service's own clock: it starts full, a cost above its size never fits, and a clock that jumps back adds nothing.

use tailwater_model::Timestamp;

#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    tokens: f64,
    filled_at: Timestamp,
}

impl Default for TokenBucket {
    fn default() -> Self {
        Self { tokens: f64::INFINITY, filled_at: Timestamp::MIN }
    }
}

impl TokenBucket {
    /// Takes `cost` if the bucket holds that much. `rate` is per second.
    pub(crate) fn take(&mut self, now: Timestamp, rate: f64, burst: f64, cost: f64) -> bool {
        let filled = now.since(self.filled_at).as_secs_f64() * rate;
        self.tokens = (self.tokens + filled).min(burst);
        self.filled_at = self.filled_at.max(now);
        let fits = cost <= self.tokens;
        if fits {
            self.tokens -= cost;
        }
        fits
    }

    /// Takes back a [`TokenBucket::take`] of so much. The next one sees to it that the bucket holds no more than it may.
    pub(crate) fn give_back(&mut self, cost: f64) {
        self.tokens += cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn it_starts_full_and_refills_at_its_rate() {
        let mut bucket = TokenBucket::default();
        let at = |s: i64| Timestamp(s * SECOND);
        assert!(bucket.take(at(100), 10.0, 30.0, 30.0));
        assert!(!bucket.take(at(100), 10.0, 30.0, 1.0));
        assert!(bucket.take(at(101), 10.0, 30.0, 10.0));
        assert!(!bucket.take(at(101), 10.0, 30.0, 0.5));
        assert!(
            bucket.take(at(1000), 10.0, 30.0, 30.0),
            "a refusal costs nothing, and it never holds more than the burst"
        );
        assert!(!bucket.take(at(1000), 10.0, 30.0, 1.0));
    }

    #[test]
    fn what_exceeds_the_burst_never_fits_and_a_clock_that_goes_back_adds_nothing() {
        let mut bucket = TokenBucket::default();
        assert!(!bucket.take(Timestamp(100 * SECOND), 10.0, 30.0, 31.0));
        assert!(bucket.take(Timestamp(100 * SECOND), 10.0, 30.0, 30.0));
        assert!(!bucket.take(Timestamp(10 * SECOND), 10.0, 30.0, 1.0));
        assert!(!bucket.take(Timestamp(100 * SECOND), 10.0, 30.0, 1.0), "the way back does not count twice");
    }
}
