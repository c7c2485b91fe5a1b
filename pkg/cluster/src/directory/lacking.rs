//! Answers that can say that they lack something.

use tailwater_wire::node::{LogState, Partial, ReadChunk, Sampled, Selected, warn};

/// See the module.
pub(super) trait Lacking {
    /// Whether it can.
    const TELLS: bool = true;

    /// Says so.
    fn lacks(&mut self, warning: String);
}

impl Lacking for Selected {
    fn lacks(&mut self, warning: String) {
        warn(&mut self.warnings, [warning]);
    }
}

impl Lacking for Sampled {
    fn lacks(&mut self, warning: String) {
        warn(&mut self.warnings, [warning]);
    }
}

impl<T> Lacking for Partial<T> {
    fn lacks(&mut self, warning: String) {
        warn(&mut self.warnings, [warning]);
    }
}

/// Where a log is may be too low: who follows it from there misses nothing.
impl Lacking for LogState {
    const TELLS: bool = false;

    fn lacks(&mut self, _: String) {}
}

/// It says up to which position it goes: there is nothing missing up to there.
impl Lacking for ReadChunk {
    const TELLS: bool = false;

    fn lacks(&mut self, _: String) {}
}
