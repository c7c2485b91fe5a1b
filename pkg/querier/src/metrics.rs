//! What operators see of the reading side.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tailwater_wire::node::Scanned;

/// Counters of all feeds and sessions of a querier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) tails: Gauge,
    pub(crate) feeds: Gauge,
    pub(crate) sources: Gauge,
    pub(crate) away: Gauge,
    pub(crate) frames: Counter,
    pub(crate) encoded_lines: Counter,
    pub(crate) delivered_lines: Counter,
    pub(crate) delivered_bytes: Counter,
    pub(crate) dropped_lines: Counter,
    pub(crate) trimmed_lines: Counter,
    pub(crate) late_lines: Counter,
    pub(crate) forced_lines: Counter,
    pub(crate) catch_ups: Counter,
    pub(crate) unread_lines: Counter,
    pub(crate) histories_incomplete: Counter,
    pub(crate) resumed: Counter,
    pub(crate) resume_gaps: Counter,
    pub(crate) untokened: Counter,
    pub(crate) ledger_violations: Counter,
    pub(crate) steps: Counter,
    pub(crate) failed_steps: Counter,
    pub(crate) incomplete_steps: Counter,
    pub(crate) steps_again: Counter,
    pub(crate) step_late_lines: Counter,
    pub(crate) scanned_lines: Counter,
    pub(crate) scanned_bytes: Counter,
    pub(crate) queries_too_large: Counter,
}

impl Metrics {
    pub(crate) fn scanned(&self, scanned: Scanned) {
        self.scanned_lines.inc_by(scanned.lines);
        self.scanned_bytes.inc_by(scanned.bytes);
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("tailwater_querier");
        r.register("tail_active", "Open tails", self.tails.clone());
        r.register("feed_active", "Distinct feeds that open tails share", self.feeds.clone());
        r.register("feed_sources", "Tenants in logs that feeds follow now", self.sources.clone());
        r.register("feed_logs_away", "Logs of which a feed gets nothing for now, per feed", self.away.clone());
        r.register("tail_frames_encoded", "Frames encoded, each once for all tails of a feed", self.frames.clone());
        r.register("tail_lines_encoded", "Lines in encoded frames", self.encoded_lines.clone());
        r.register("tail_lines_delivered", "Lines handed to sockets", self.delivered_lines.clone());
        r.register("tail_bytes", "Bytes of frames handed to sockets", self.delivered_bytes.clone());
        r.register(
            "tail_lines_dropped",
            "Matching lines that a tail did not get, and was told so",
            self.dropped_lines.clone(),
        );
        r.register(
            "tail_lines_trimmed",
            "Lines trimmed from a log before a feed read them",
            self.trimmed_lines.clone(),
        );
        r.register("tail_lines_late", "Lines older than one given out before them", self.late_lines.clone());
        r.register(
            "tail_lines_forced",
            "Lines given out early because a merge buffer was full",
            self.forced_lines.clone(),
        );
        r.register("tail_catch_ups", "Times a slow tail read again from the logs", self.catch_ups.clone());
        r.register("tail_resumed", "Tails that went on with a resume token", self.resumed.clone());
        r.register(
            "tail_resume_gaps",
            "Stretches of a log that a resumed tail could not get, and was told so",
            self.resume_gaps.clone(),
        );
        r.register(
            "tail_tokens_ended",
            "Times a tail that asked for resume tokens was told that there are none for now",
            self.untokened.clone(),
        );
        r.register(
            "tail_lines_unread",
            "Of the dropped lines, those of logs that could not be read for too long",
            self.unread_lines.clone(),
        );
        r.register(
            "tail_histories_incomplete",
            "Histories of tails without a part of some log",
            self.histories_incomplete.clone(),
        );
        r.register(
            "tail_invariant_violations",
            "Ledgers that did not balance; must stay 0",
            self.ledger_violations.clone(),
        );
        r.register(
            "tail_steps",
            "Steps of metric queries evaluated, each once for all tails of a feed",
            self.steps.clone(),
        );
        r.register("tail_steps_failed", "Of these, steps that had no answer but an error", self.failed_steps.clone());
        r.register(
            "tail_steps_incomplete",
            "Of these, steps without a part of some ingester",
            self.incomplete_steps.clone(),
        );
        r.register(
            "tail_steps_again",
            "Steps evaluated for one tail, because it began before its feed or was too slow",
            self.steps_again.clone(),
        );
        r.register(
            "tail_step_lines_late",
            "Lines that came too late for steps that had been answered",
            self.step_late_lines.clone(),
        );
        r.register("query_lines_scanned", "Lines that queries looked at", self.scanned_lines.clone());
        r.register("query_bytes_scanned", "Bytes of lines that queries looked at", self.scanned_bytes.clone());
        r.register(
            "query_memory_refusals",
            "Metric queries that needed more memory than query_memory_mb",
            self.queries_too_large.clone(),
        );
    }
}
