//! The account of one tail: what came, what did not.

use std::time::{Duration, Instant};

use crate::moment::human_duration;
use crate::terminal::style::Palette;
use crate::terminal::{counted, grouped, human_bytes};

/// What a tail has received since it began.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    /// Lines that were printed.
    pub(crate) lines: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Lines that the server said it dropped.
    pub(crate) dropped: u64,
    /// How often a broken connection was opened again.
    pub(crate) reconnects: u64,
    /// Lines that a new connection brought again and that were left out.
    pub(crate) repeats: u64,
    /// Reconnects after which the server could not show that nothing is missing.
    pub(crate) gaps: u64,
    began: Instant,
}

impl Ledger {
    /// An empty account that begins now.
    pub(crate) fn new() -> Self {
        Self { lines: 0, bytes: 0, dropped: 0, reconnects: 0, repeats: 0, gaps: 0, began: Instant::now() }
    }

    /// The account in one line.
    pub(crate) fn summary(&self, palette: Palette) -> String {
        self.summary_after(self.began.elapsed(), palette)
    }

    fn summary_after(&self, length: Duration, palette: Palette) -> String {
        let rate = self.lines as f64 / length.as_secs_f64().max(0.001);
        let rate = if rate < 100.0 { format!("{rate:.1}") } else { grouped(rate as u64) };
        let mut parts = vec![
            palette.bold(counted(self.lines, "line")).to_string(),
            human_bytes(self.bytes),
            format!("in {}", human_duration(length)),
            format!("{rate} lines/s"),
        ];
        let dropped = format!("{} dropped", grouped(self.dropped));
        parts.push(if self.dropped == 0 {
            palette.good(dropped).to_string()
        } else {
            palette.failure(dropped).to_string()
        });
        parts.push(counted(self.reconnects, "reconnect"));
        if self.repeats > 0 {
            parts.push(format!("{} left out", counted(self.repeats, "repeat")));
        }
        if self.gaps > 0 {
            parts.push(palette.failure(counted(self.gaps, "possible gap")).to_string());
        }
        format!("{} {}", palette.dim("ledger:"), parts.join(&palette.dim(" · ").to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_came_and_what_did_not() {
        let mut ledger = Ledger { lines: 1500, bytes: 2048, ..Ledger::new() };
        let plain = Palette::new(false);
        assert_eq!(
            ledger.summary_after(Duration::from_secs(10), plain),
            "ledger: 1500 lines · 2.0 KiB · in 10.0 s · 150 lines/s · 0 dropped · 0 reconnects"
        );
        ledger.dropped = 7;
        ledger.reconnects = 1;
        ledger.repeats = 2;
        ledger.gaps = 1;
        let text = ledger.summary_after(Duration::from_secs(10), plain);
        assert!(text.ends_with("7 dropped · 1 reconnect · 2 repeats left out · 1 possible gap"), "{text}");
    }
}
