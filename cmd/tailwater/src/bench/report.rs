//! What a run found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::moment::human_duration;
use crate::terminal::style::Palette;
use crate::terminal::{counted, escape, grouped, human_bytes};

/// Everything a run found. Times are in the unit that the name ends with.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The server.
    pub(crate) addr: String,
    /// The run: value of the label `bench`.
    pub(crate) tag: String,
    /// What was asked for.
    pub(crate) load: Load,
    /// The pushing half.
    pub(crate) push: Push,
    /// The tails that read as fast as they can; none if there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tails: Option<Tails>,
    /// The tails that read slowly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slow_tails: Option<Tails>,
    /// Tails to which nothing came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_tails: Option<Idle>,
    /// What the server used from the first push until the last line came; none without `--pid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<Server>,
    /// CPU time of the benchmark itself, in the same time.
    pub(crate) own_cpu_seconds: f64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    /// Streams.
    pub(crate) streams: u32,
    /// Connections.
    pub(crate) connections: u32,
    /// Lines of a push.
    pub(crate) batch: u32,
    /// Bytes of a line.
    pub(crate) size: usize,
    /// Lines per second; none = flat out.
    pub(crate) rate: Option<u32>,
    /// How long, in seconds.
    pub(crate) duration_seconds: f64,
    /// `protobuf` or `json`.
    pub(crate) format: &'static str,
    /// Seconds that the tails wait for late lines.
    pub(crate) delay_for: u8,
}

/// The pushing half.
#[derive(Debug, Serialize)]
pub(crate) struct Push {
    /// Lines acknowledged.
    pub(crate) accepted: u64,
    /// Lines not acknowledged.
    pub(crate) refused: u64,
    /// Lines that were due and could not be sent in time.
    pub(crate) late: u64,
    /// Acknowledged lines per second.
    pub(crate) lines_per_second: f64,
    /// Acknowledged bytes of lines per second.
    pub(crate) bytes_per_second: f64,
    /// Until the last acknowledgement.
    pub(crate) seconds: f64,
    /// From when a push was due until it was acknowledged.
    pub(crate) latency: Latency,
    /// Why lines were refused.
    pub(crate) reasons: BTreeMap<String, u64>,
}

/// Several tails together.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tails {
    /// How many.
    pub(crate) count: u32,
    /// Lines received, repeats included.
    pub(crate) delivered: u64,
    /// Frames with lines.
    pub(crate) frames: u64,
    /// Bytes of frames.
    pub(crate) bytes: u64,
    /// Acknowledged and not received, and the server did not say so.
    pub(crate) lost: u64,
    /// Dropped by the server's own account.
    pub(crate) dropped_and_told: u64,
    /// Received again.
    pub(crate) duplicates: u64,
    /// Received after a later line of the same stream.
    pub(crate) out_of_order: u64,
    /// Received although the push was not acknowledged.
    pub(crate) unacknowledged: u64,
    /// Damaged lines.
    pub(crate) broken: u64,
    /// The longest time without a line on any of them while lines were pushed, from the first line on.
    pub(crate) longest_silence_ms: f64,
    /// Why the server closed tails, and how many.
    pub(crate) closed: BTreeMap<String, u32>,
    /// From when a line was due until its frame was read.
    pub(crate) latency: Latency,
}

/// Percentiles, in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p99_9_ms: f64,
    pub(crate) max_ms: f64,
}

/// Idle tails.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    /// How many.
    pub(crate) count: u32,
    /// Memory of the server per tail, in bytes; none without `--pid`.
    pub(crate) resident_bytes_each: Option<u64>,
}

/// What the server used.
#[derive(Debug, Serialize)]
pub(crate) struct Server {
    /// CPU time, user and kernel.
    pub(crate) cpu_seconds: f64,
    /// Per acknowledged line, in microseconds.
    pub(crate) cpu_us_per_pushed_line: Option<f64>,
    /// Per line received by any tail, in microseconds.
    pub(crate) cpu_us_per_delivered_line: Option<f64>,
    /// Memory at the end.
    pub(crate) resident_bytes: u64,
    /// The most memory since the server began.
    pub(crate) peak_bytes: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(micros: &Histogram<u64>) -> Self {
        let at = |quantile: f64| micros.value_at_quantile(quantile) as f64 / 1000.0;
        if micros.is_empty() {
            return Self::default();
        }
        Self {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: micros.max() as f64 / 1000.0,
        }
    }
}

impl Report {
    /// Whether everything that was acknowledged came once, in order, undamaged.
    pub(crate) fn is_clean(&self) -> bool {
        let clean = |t: &Tails| {
            t.lost == 0
                && t.duplicates == 0
                && t.out_of_order == 0
                && t.dropped_and_told == 0
                && t.broken == 0
                && t.closed.is_empty()
        };
        self.tails.as_ref().is_none_or(clean)
            && self.slow_tails.as_ref().is_none_or(|t| t.lost == 0 && t.duplicates == 0 && t.broken == 0)
            && self.push.late == 0
            // Flat out, being told to slow down is part of the game.
            && (self.push.refused == 0 || self.load.rate.is_none())
            && (self.push.accepted > 0 || self.load.duration_seconds == 0.0)
    }

    /// The report as a table.
    pub(crate) fn table(&self, palette: Palette) -> String {
        let mut out = String::new();
        let mut row = |name: &str, text: &str| {
            let _infallible = writeln!(out, "  {} {text}", palette.bold(format!("{name:<9}")));
        };
        if self.load.duration_seconds > 0.0 {
            self.load_rows(palette, &mut row);
        }
        for (name, tails) in [("tails", &self.tails), ("slow", &self.slow_tails)] {
            if let Some(tails) = tails {
                for (i, line) in tails.rows(palette).iter().enumerate() {
                    row(if i == 0 { name } else { "" }, line);
                }
            }
        }
        if let Some(idle) = &self.idle_tails {
            let each = idle.resident_bytes_each.map_or_else(
                || "memory unknown without --pid".to_owned(),
                |bytes| format!("{} of the server's memory each", human_bytes(bytes)),
            );
            row("idle", &format!("{} · {each}", counted(idle.count.into(), "tail")));
        }
        if let Some(server) = &self.server {
            let mut text = format!("{:.2} s CPU", server.cpu_seconds);
            for (per, what) in
                [(server.cpu_us_per_pushed_line, "pushed"), (server.cpu_us_per_delivered_line, "delivered")]
            {
                if let Some(per) = per {
                    let _infallible = write!(text, " · {per:.2} µs per {what} line");
                }
            }
            let (now, peak) = (human_bytes(server.resident_bytes), human_bytes(server.peak_bytes));
            let _infallible = write!(text, " · {now} memory, peak {peak}");
            row("server", &text);
        }
        row("bench", &format!("{:.2} s CPU of its own", self.own_cpu_seconds));
        out
    }

    fn load_rows(&self, palette: Palette, row: &mut impl FnMut(&str, &str)) {
        let load = &self.load;
        let rate = load.rate.map_or_else(|| "flat out".to_owned(), |r| format!("{} lines/s", grouped(r.into())));
        row(
            "load",
            &format!(
                "{rate} for {} · {} · {} · {} · {} B a line · {}",
                human_duration(Duration::from_secs_f64(load.duration_seconds)),
                counted(load.streams.into(), "stream"),
                counted(load.connections.into(), "connection"),
                counted(load.batch.into(), "line") + " a push",
                load.size,
                load.format,
            ),
        );
        let push = &self.push;
        let refused = bad(palette, push.refused, "refused");
        let mut text = format!(
            "{} in {} = {} lines/s, {}/s · {refused}",
            counted(push.accepted, "line"),
            human_duration(Duration::from_secs_f64(push.seconds)),
            grouped(push.lines_per_second as u64),
            human_bytes(push.bytes_per_second as u64),
        );
        if push.late > 0 {
            let _infallible = write!(text, " · {}", bad(palette, push.late, "not sent in time"));
        }
        row("pushed", &text);
        row("", &format!("acknowledged after {}", push.latency.text()));
        for (reason, lines) in &push.reasons {
            row("", &palette.failure(format!("{}: {}", counted(*lines, "line"), escape::message(reason))).to_string());
        }
    }
}

impl Tails {
    fn rows(&self, palette: Palette) -> Vec<String> {
        let mut rows = vec![
            format!(
                "{} · {} delivered in {} · {} · {} · {}",
                counted(self.count.into(), "tail"),
                counted(self.delivered, "line"),
                counted(self.frames, "frame"),
                bad(palette, self.lost, "lost"),
                bad(palette, self.duplicates, "duplicated"),
                bad(palette, self.out_of_order, "out of order"),
            ),
            format!(
                "received after {} · longest silence {}",
                self.latency.text(),
                human_duration(Duration::from_secs_f64(self.longest_silence_ms / 1000.0))
            ),
        ];
        let rare = [
            (self.dropped_and_told, "dropped, and the server said so"),
            (self.unacknowledged, "received although their push was not acknowledged"),
            (self.broken, "damaged"),
        ];
        rows.extend(rare.iter().filter(|(n, _)| *n > 0).map(|(n, what)| bad(palette, *n, what)));
        for (reason, tails) in &self.closed {
            rows.push({
                let reason = escape::message(reason);
                palette
                    .failure(format!("{} closed by the server: {reason}", counted((*tails).into(), "tail")))
                    .to_string()
            });
        }
        rows
    }
}

impl Latency {
    fn text(&self) -> String {
        let ms = |value: f64| human_duration(Duration::from_secs_f64(value / 1000.0));
        format!(
            "p50 {} · p90 {} · p99 {} · p99.9 {} · max {}",
            ms(self.p50_ms),
            ms(self.p90_ms),
            ms(self.p99_ms),
            ms(self.p99_9_ms),
            ms(self.max_ms)
        )
    }
}

/// A number that should be zero.
fn bad(palette: Palette, number: u64, what: &str) -> String {
    let text = format!("{} {what}", grouped(number));
    if number == 0 { palette.good(text).to_string() } else { palette.failure(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::account::latencies;

    fn report() -> Report {
        let mut latency = latencies();
        for micros in 1..=1000 {
            latency.record(micros).unwrap();
        }
        let latency = || Latency::from(&latency);
        Report {
            addr: "http://x".into(),
            tag: "0123abcd".into(),
            load: Load {
                streams: 2,
                connections: 1,
                batch: 10,
                size: 180,
                rate: Some(1000),
                duration_seconds: 10.0,
                format: "protobuf",
                delay_for: 0,
            },
            push: Push {
                accepted: 10_000,
                refused: 0,
                late: 0,
                lines_per_second: 1000.0,
                bytes_per_second: 180_000.0,
                seconds: 10.0,
                latency: latency(),
                reasons: BTreeMap::new(),
            },
            tails: Some(Tails { count: 1, delivered: 10_000, frames: 1000, latency: latency(), ..Tails::default() }),
            slow_tails: None,
            idle_tails: Some(Idle { count: 100, resident_bytes_each: Some(12_288) }),
            server: Some(Server {
                cpu_seconds: 0.5,
                cpu_us_per_pushed_line: Some(50.0),
                cpu_us_per_delivered_line: Some(50.0),
                resident_bytes: 10 << 20,
                peak_bytes: 20 << 20,
            }),
            own_cpu_seconds: 0.25,
        }
    }

    #[test]
    fn the_table_says_what_matters() {
        let text = report().table(Palette::new(false));
        for says in [
            "1000 lines/s for 10.0 s · 2 streams · 1 connection · 10 lines a push · 180 B a line · protobuf",
            "10,000 lines in 10.0 s = 1000 lines/s, 175.8 KiB/s · 0 refused",
            "1 tail · 10,000 lines delivered in 1000 frames · 0 lost · 0 duplicated · 0 out of order",
            "p50 501 µs · p90",
            "100 tails · 12.0 KiB of the server's memory each",
            "0.50 s CPU · 50.00 µs per pushed line · 50.00 µs per delivered line · 10.0 MiB memory, peak 20.0 MiB",
        ] {
            assert!(text.contains(says), "{says}\n{text}");
        }
    }

    #[test]
    fn any_line_that_did_not_come_as_it_should_spoils_the_run() {
        assert!(report().is_clean());
        type Spoil = fn(&mut Report);
        let spoils: [Spoil; 7] = [
            |r| r.tails.as_mut().unwrap().lost = 1,
            |r| r.tails.as_mut().unwrap().duplicates = 1,
            |r| r.tails.as_mut().unwrap().out_of_order = 1,
            |r| r.slow_tails = Some(Tails { lost: 1, ..Tails::default() }),
            |r| r.push.late = 1,
            |r| r.push.accepted = 0,
            |r| r.push.refused = 1,
        ];
        for spoil in spoils {
            let mut spoilt = report();
            spoil(&mut spoilt);
            assert!(!spoilt.is_clean());
        }
    }

    #[test]
    fn programs_get_numbers() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["tails"]["lost"], 0);
        assert_eq!(json["load"]["rate"], 1000);
        assert!(json.get("slow_tails").is_none());
        assert!((json["tails"]["latency"]["p50_ms"].as_f64().unwrap() - 0.5).abs() < 0.01);
    }
}
