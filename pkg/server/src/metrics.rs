//! The edge's own metrics, and the text that `/metrics` answers: Prometheus' format 0.0.4, made from the library's OpenMetrics.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the duration buckets, in seconds.
const DURATION_BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    pub(crate) connections: Gauge,
    pub(crate) body_bytes: Gauge,
    pub(crate) expanded_bytes: Gauge,
    queries_waiting: Gauge,
    pub(crate) queries_refused: Counter,
    pub(crate) tail_sockets: Gauge,
    pub(crate) tail_frames: Counter,
    pub(crate) tail_bytes: Counter<u64, AtomicU64>,
    tails_closed: Family<ReasonLabels, Counter>,
    forwarded: Family<ResultLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            connections: Gauge::default(),
            body_bytes: Gauge::default(),
            expanded_bytes: Gauge::default(),
            queries_waiting: Gauge::default(),
            queries_refused: Counter::default(),
            tail_sockets: Gauge::default(),
            tail_frames: Counter::default(),
            tail_bytes: Counter::default(),
            tails_closed: Family::default(),
            forwarded: Family::default(),
        };
        let mut add = registry.sub_registry_with_prefix("tailwater");
        let registry = &mut add;
        registry.register(
            "request_duration_seconds",
            "Time from a request's head to the head of its answer",
            metrics.requests.clone(),
        );
        registry.register("connections", "Open HTTP connections, tails included", metrics.connections.clone());
        registry.register("request_body_bytes", "Bytes of request bodies in memory", metrics.body_bytes.clone());
        registry.register(
            "request_expanded_bytes",
            "Bytes that the large or compressed push bodies being read may become",
            metrics.expanded_bytes.clone(),
        );
        registry.register(
            "queries_waiting",
            "Queries that wait for others of their tenant to end",
            metrics.queries_waiting.clone(),
        );
        registry.register(
            "queries_refused",
            "Queries refused because too many of their tenant waited already",
            metrics.queries_refused.clone(),
        );
        registry.register("tail_sockets", "Open tail sockets", metrics.tail_sockets.clone());
        registry.register("tail_sent_frames", "Data frames written to tail sockets", metrics.tail_frames.clone());
        registry.register("tail_sent_bytes", "Bytes written to tail sockets", metrics.tail_bytes.clone());
        registry.register("tails_closed", "Tails that ended, by reason", metrics.tails_closed.clone());
        registry.register(
            "forwarded_pushes",
            "Pushes sent on to another node, by what became of that",
            metrics.forwarded.clone(),
        );
        metrics
    }

    pub(crate) fn request(&self, method: &'static str, route: &str, status_code: u16, took: Duration) {
        let labels = RequestLabels { method, route: route.to_owned(), status_code };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a query as waiting until the answer is dropped.
    pub(crate) fn query_waits(&self) -> Waiting {
        self.queries_waiting.inc();
        Waiting(self.queries_waiting.clone())
    }

    pub(crate) fn forwarded(&self, result: &'static str) {
        self.forwarded.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn tail_closed(&self, reason: &'static str) {
        self.tails_closed.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// A query that waits for its turn.
pub(crate) struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Everything that is registered, as Prometheus 0.0.4 text: counters are announced under the name that their samples have, and
/// types that the old format does not know are replaced.
pub(crate) fn prometheus_text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut open = String::new();
    prometheus_client::encoding::text::encode(&mut open, registry)?;
    let mut text = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "unknown" => ("", "untyped"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                other => ("", other),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                writeln!(text, "# HELP {name}{suffix} {words}")?;
            }
            writeln!(text, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_of_the_old_format() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.request("GET", "/ready", 200, Duration::from_millis(3));
        metrics.tail_closed("client");
        let text = prometheus_text(&registry).unwrap();
        assert!(text.contains("# TYPE tailwater_tails_closed_total counter\n"), "{text}");
        assert!(text.contains("tailwater_tails_closed_total{reason=\"client\"} 1\n"), "{text}");
        assert!(text.contains("# HELP tailwater_connections Open HTTP connections"), "{text}");
        assert!(text.contains("# TYPE tailwater_connections gauge\n"), "{text}");
        let bucket = "tailwater_request_duration_seconds_bucket{le=\"0.005\",method=\"GET\",route=\"/ready\",status_code=\"200\"} 1";
        assert!(text.contains(bucket), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
    }
}
