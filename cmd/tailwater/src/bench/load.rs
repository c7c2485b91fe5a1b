//! The pushing half: numbered lines over several connections, at a rate or as fast as they are taken.
//!
//! Invariants:
//! * a stream belongs to one connection, and a connection has one push under way: lines of a stream arrive in their order;
//! * at a rate, the time in a line is when its push was *due*, whether or not an earlier push was still under way: a server that
//!   stalls is charged for every line that had to wait (no coordinated omission);
//! * a number is used once: what the server does not acknowledge is not sent again, and not counted as lost;
//! * of several nodes a connection has one, and goes over to the next when that cannot be reached or sends it away.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::StatusCode;
use tailwater_model::Timestamp;
use tailwater_wire::push::{Outgoing, encode};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::account::{Sent, latencies};
use super::line::{Mark, Template};
use crate::client::{ClientError, Endpoint, Http};
use crate::push::sender::PROTOBUF;
use crate::signals::Stop;

const PATH: &str = "/loki/api/v1/push";
const JSON: &str = "application/json";
/// Pause after 429 when pushing flat out: the limit will not have changed within less.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// So many pushes in a row and node without an answer end the run.
const MAX_BROKEN_PUSHES: usize = 5;
/// How long after the end of the run pushes that were due in it may still be sent.
const GRACE: Duration = Duration::from_secs(5);
/// Different refusals that are remembered.
const MAX_REASONS: usize = 8;

/// The form of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Protobuf, snappy-compressed
    Protobuf,
    /// JSON
    Json,
}

/// What to push.
#[derive(Clone, Debug)]
pub(crate) struct LoadPlan {
    /// The run.
    pub(crate) tag: String,
    /// Streams.
    pub(crate) streams: u32,
    /// Connections, at most as many as streams.
    pub(crate) connections: u32,
    /// Lines of a push.
    pub(crate) batch: u32,
    /// Bytes of a line.
    pub(crate) size: usize,
    /// Lines per second over all connections; none = flat out.
    pub(crate) rate: Option<u32>,
    /// How long.
    pub(crate) duration: Duration,
    /// The form.
    pub(crate) format: Format,
}

/// What was pushed.
pub(crate) struct Pushed {
    /// Per stream.
    pub(crate) sent: Vec<Sent>,
    /// Lines that the server acknowledged.
    pub(crate) accepted: u64,
    /// Lines that it did not.
    pub(crate) refused: u64,
    /// Lines that were due and never sent, because the pushes before them took too long.
    pub(crate) late: u64,
    /// Reasons of refusals, with their lines.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Time from when each push was due until it was acknowledged, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the first push to the last acknowledgement.
    pub(crate) elapsed: Duration,
}

/// When the pushes of a connection are due.
#[derive(Clone)]
struct Schedule {
    began: Instant,
    began_wall: i64,
    /// Time between pushes of one connection, in nanoseconds.
    every: u64,
    /// Of the first push of this connection.
    offset: u64,
    pushes: u64,
    /// A permit for each push that is due.
    due: Arc<Semaphore>,
}

impl Schedule {
    /// Wall-clock time of push `index`, in Unix nanoseconds.
    fn time(&self, index: u64) -> i64 {
        let after = self.offset.saturating_add(index.saturating_mul(self.every));
        self.began_wall.saturating_add_unsigned(after)
    }
}

/// Pushes to the end of the plan, or until the user ends it.
///
/// # Errors
/// A server that is not there.
pub(crate) async fn run(nodes: &[Arc<Endpoint>], plan: &LoadPlan, stop: &Stop) -> Result<Pushed, ClientError> {
    let (began, began_wall) = (Instant::now(), Timestamp::now().nanos());
    let connections = plan.connections.clamp(1, plan.streams);
    let schedules = plan.rate.map(|rate| schedules(plan, rate, connections, began, began_wall));
    if let Some(schedules) = &schedules {
        pace(schedules.clone(), stop.clone());
    }
    let mut workers = tokio::task::JoinSet::new();
    for index in 0..connections {
        let worker = Worker::new(nodes, plan, index, connections);
        let schedule = schedules.as_ref().map(|s| s[index as usize].clone());
        let (stop, until) = (stop.clone(), began + plan.duration);
        workers.spawn(async move { (index, worker.run(schedule, until, stop).await) });
    }
    let mut pushed = Pushed {
        sent: vec![Sent::default(); plan.streams as usize],
        accepted: 0,
        refused: 0,
        late: 0,
        reasons: BTreeMap::new(),
        latency: latencies(),
        elapsed: Duration::ZERO,
    };
    while let Some(ended) = workers.join_next().await {
        let Ok((index, outcome)) = ended else { continue };
        let worker = outcome?;
        for (i, sent) in worker.streams.into_iter().enumerate() {
            pushed.sent[index as usize + i * connections as usize] = sent.sent;
        }
        pushed.accepted += worker.accepted;
        pushed.refused += worker.refused;
        pushed.late += worker.late;
        for (reason, lines) in worker.reasons {
            *pushed.reasons.entry(reason).or_default() += lines;
        }
        // Histograms of the same bounds always add up.
        let _infallible = pushed.latency.add(&worker.latency);
        pushed.elapsed = pushed.elapsed.max(worker.last_answer.saturating_duration_since(began));
    }
    Ok(pushed)
}

fn schedules(plan: &LoadPlan, rate: u32, connections: u32, began: Instant, began_wall: i64) -> Vec<Schedule> {
    // One push of one of the connections, round and round.
    let tick = u128::from(plan.batch) * 1_000_000_000 / u128::from(rate.max(1));
    let tick = u64::try_from(tick).unwrap_or(u64::MAX).max(1);
    let ticks = (plan.duration.as_nanos() / u128::from(tick)) as u64;
    let connections = u64::from(connections);
    let one = |index: u64| Schedule {
        began,
        began_wall,
        every: tick.saturating_mul(connections),
        offset: tick.saturating_mul(index),
        pushes: ticks / connections + u64::from(index < ticks % connections),
        due: Arc::new(Semaphore::new(0)),
    };
    (0..connections).map(one).collect()
}

/// Tells the connections when a push is due. A thread of its own: the runtime's timers have a millisecond, and latencies below one
/// are to be measured.
#[expect(
    clippy::disallowed_methods,
    reason = "sleeps on a thread of its own, for the precision of the kernel's timers"
)]
fn pace(schedules: Vec<Schedule>, stop: Stop) {
    let pacer = move || {
        let rounds = schedules.iter().map(|s| s.pushes).max().unwrap_or(0);
        for round in 0..rounds {
            for schedule in schedules.iter().filter(|s| round < s.pushes) {
                let due = schedule.began + Duration::from_nanos(schedule.offset + round * schedule.every);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                schedule.due.add_permits(1);
            }
            if stop.asked() {
                break;
            }
        }
        schedules.iter().for_each(|s| s.due.add_permits(1));
    };
    // Without the thread nothing is ever due; the workers then end with the duration of the run, and the report says so.
    let _started = std::thread::Builder::new().name("pacer".to_owned()).spawn(pacer);
}

struct WorkerStream {
    labels: String,
    number: u32,
    sent: Sent,
}

/// One connection.
struct Worker {
    /// Where it may go, the present node first.
    nodes: VecDeque<Arc<Endpoint>>,
    http: Option<Http>,
    template: Template,
    format: Format,
    batch: u32,
    streams: Vec<WorkerStream>,
    /// The stream with which the next batch begins.
    turn: usize,
    text: Vec<u8>,
    accepted: u64,
    refused: u64,
    late: u64,
    reasons: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    last_answer: Instant,
    broken: u32,
}

impl Worker {
    fn new(nodes: &[Arc<Endpoint>], plan: &LoadPlan, index: u32, connections: u32) -> Self {
        let mut nodes: VecDeque<_> = nodes.iter().cloned().collect();
        let first = index as usize % nodes.len().max(1);
        nodes.rotate_left(first);
        let stream = |number: u32| WorkerStream {
            labels: format!("{{app=\"tailwater-bench\", bench=\"{}\", stream=\"{number:05}\"}}", plan.tag),
            number,
            sent: Sent::default(),
        };
        Self {
            http: nodes.front().cloned().map(Http::new),
            nodes,
            template: Template::new(&plan.tag, plan.size),
            format: plan.format,
            batch: plan.batch,
            streams: (index..plan.streams).step_by(connections as usize).map(stream).collect(),
            turn: 0,
            text: Vec::new(),
            accepted: 0,
            refused: 0,
            late: 0,
            reasons: BTreeMap::new(),
            latency: latencies(),
            last_answer: Instant::now(),
            broken: 0,
        }
    }

    async fn run(mut self, schedule: Option<Schedule>, until: Instant, mut stop: Stop) -> Result<Self, ClientError> {
        let Some(schedule) = schedule else {
            while Instant::now() < until && !stop.asked() {
                self.push(Timestamp::now().nanos()).await?;
            }
            return Ok(self);
        };
        for index in 0..schedule.pushes {
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(self),
                permit = schedule.due.acquire() => if let Ok(permit) = permit { permit.forget() },
            }
            if Instant::now() > until + GRACE {
                self.late += (schedule.pushes - index) * u64::from(self.batch);
                return Ok(self);
            }
            self.push(schedule.time(index)).await?;
        }
        Ok(self)
    }

    /// One push of lines that were due at `time`.
    async fn push(&mut self, time: i64) -> Result<(), ClientError> {
        let before: Vec<u64> = self.streams.iter().map(|s| s.sent.lines).collect();
        let body = self.body(time);
        let content_type = if self.format == Format::Json { JSON } else { PROTOBUF };
        let Some(http) = &mut self.http else { return Ok(()) };
        let outcome = http.post(PATH, content_type, body).await;
        self.last_answer = Instant::now();
        let why = match outcome {
            Ok(answer) if answer.status.is_success() => {
                self.broken = 0;
                self.accepted += u64::from(self.batch);
                let micros = u64::try_from(Timestamp::now().nanos().saturating_sub(time)).unwrap_or(0) / 1000;
                self.latency.saturating_record(micros.max(1));
                return Ok(());
            }
            Ok(answer) => {
                self.broken = 0;
                if answer.status == StatusCode::TOO_MANY_REQUESTS {
                    sleep(REFUSED_PAUSE).await;
                }
                if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                    self.go_over();
                }
                ClientError::Refused { status: answer.status, text: answer.text() }.to_string()
            }
            Err(e @ ClientError::Connect { .. }) if self.accepted + self.refused == 0 => return Err(e),
            Err(e) => {
                self.broken += 1;
                if self.broken as usize >= MAX_BROKEN_PUSHES * self.nodes.len() {
                    return Err(e);
                }
                self.go_over();
                e.to_string()
            }
        };
        self.refused += u64::from(self.batch);
        if self.reasons.len() < MAX_REASONS || self.reasons.contains_key(&why) {
            *self.reasons.entry(why).or_default() += u64::from(self.batch);
        }
        for (stream, from) in self.streams.iter_mut().zip(before) {
            if stream.sent.lines > from {
                stream.sent.refused.push((from, stream.sent.lines));
            }
        }
        Ok(())
    }

    /// The next node, if there are several.
    fn go_over(&mut self) {
        if self.nodes.len() > 1 {
            self.nodes.rotate_left(1);
            self.http = self.nodes.front().cloned().map(Http::new);
        }
    }

    /// A batch, spread evenly over the streams of this connection.
    fn body(&mut self, time: i64) -> Bytes {
        let (lines, streams) = (self.batch as usize, self.streams.len());
        let size = self.template.size();
        self.text.clear();
        let mut parts: Vec<(usize, usize)> = Vec::with_capacity(streams.min(lines));
        for i in 0..streams.min(lines) {
            let at = (self.turn + i) % streams;
            let count = lines / streams + usize::from(i < lines % streams);
            let stream = &mut self.streams[at];
            for _ in 0..count {
                let mark = Mark { stream: stream.number, number: stream.sent.lines, time };
                self.template.write(mark, &mut self.text);
                stream.sent.lines += 1;
            }
            parts.push((at, count));
        }
        self.turn = (self.turn + lines) % streams;
        let mut rest = self.text.chunks_exact(size);
        let streams = parts.iter().map(|(at, count)| {
            let lines: Vec<&[u8]> = rest.by_ref().take(*count).collect();
            (self.streams[*at].labels.as_str(), lines)
        });
        match self.format {
            Format::Protobuf => {
                let outgoing = streams.map(|(labels, lines)| {
                    let entry = move |(i, line): (usize, _)| Outgoing { timestamp: nth(time, i), line, metadata: &[] };
                    (labels, lines.into_iter().enumerate().map(entry))
                });
                encode(outgoing).map(Bytes::from).unwrap_or_default()
            }
            Format::Json => json(streams, time),
        }
    }
}

/// Times of the lines of a stream in one push rise, so that order is theirs.
fn nth(time: i64, index: usize) -> Timestamp {
    Timestamp(time.saturating_add(index as i64))
}

fn json<'a>(streams: impl Iterator<Item = (&'a str, Vec<&'a [u8]>)>, time: i64) -> Bytes {
    let mut body = Vec::new();
    body.extend_from_slice(b"{\"streams\":[");
    for (i, (labels, lines)) in streams.enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"stream\":");
        // `{a="b", c="d"}` as an object: our own labels hold nothing that needs more care.
        body.extend_from_slice(labels.replace("{", "{\"").replace(", ", ",\"").replace('=', "\":").as_bytes());
        body.extend_from_slice(b",\"values\":[");
        for (j, line) in lines.into_iter().enumerate() {
            if j > 0 {
                body.push(b',');
            }
            body.extend_from_slice(format!("[\"{}\",\"", nth(time, j).nanos()).as_bytes());
            body.extend_from_slice(line);
            body.extend_from_slice(b"\"]");
        }
        body.extend_from_slice(b"]}");
    }
    body.extend_from_slice(b"]}");
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeLoki, lines_of_body};

    fn plan() -> LoadPlan {
        LoadPlan {
            tag: "0123abcd".into(),
            streams: 5,
            connections: 2,
            batch: 4,
            size: 100,
            rate: Some(4000),
            duration: Duration::from_millis(20),
            format: Format::Protobuf,
        }
    }

    #[tokio::test]
    async fn every_number_of_every_stream_is_pushed_once_and_in_order() {
        let loki = FakeLoki::start(vec![], vec![]).await;
        let (_ask, stop) = Stop::manual();
        let pushed = run(&[loki.endpoint()], &plan(), &stop).await.unwrap();
        assert_eq!((pushed.accepted, pushed.refused, pushed.late), (80, 0, 0));
        let stored = loki.stored();
        assert_eq!(stored.len(), 80);
        let scanner = super::super::line::Scanner::new("0123abcd");
        let mut next = [0_u64; 5];
        for (labels, _, line) in &stored {
            scanner.scan(line, |mark| {
                assert!(labels.contains(&format!("stream=\"{:05}\"", mark.stream)));
                assert_eq!(mark.number, next[mark.stream as usize]);
                next[mark.stream as usize] += 1;
            });
        }
        assert_eq!(next.to_vec(), pushed.sent.iter().map(|s| s.lines).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_refused_is_noted_and_its_numbers_are_not_used_again() {
        let loki = FakeLoki::start(vec![], vec![(204, ""), (500, "oh")]).await;
        let (_ask, stop) = Stop::manual();
        let plan = LoadPlan { streams: 1, connections: 1, ..plan() };
        let pushed = run(&[loki.endpoint()], &plan, &stop).await.unwrap();
        assert_eq!((pushed.accepted, pushed.refused), (76, 4));
        assert_eq!(pushed.sent[0].refused, [(4, 8)]);
        assert!(pushed.reasons.keys().all(|r| r.contains("oh")), "{:?}", pushed.reasons);
    }

    #[test]
    fn both_forms_hold_the_same_lines() {
        let endpoint = Arc::new(crate::client::ServerArgs::local("127.0.0.1:1".parse().unwrap()).endpoint().unwrap());
        let worker =
            |format| Worker::new(std::slice::from_ref(&endpoint), &LoadPlan { format, ..plan() }, 0, 1).body(1_000);
        let protobuf = lines_of_body(&worker(Format::Protobuf));
        let json: serde_json::Value = serde_json::from_slice(&worker(Format::Json)).unwrap();
        let mut from_json = Vec::new();
        for stream in json["streams"].as_array().unwrap() {
            for value in stream["values"].as_array().unwrap() {
                let number = stream["stream"]["stream"].as_str().unwrap();
                let at: i64 = value[0].as_str().unwrap().parse().unwrap();
                let labels = format!("{{app=\"tailwater-bench\", bench=\"0123abcd\", stream=\"{number}\"}}");
                from_json.push((labels, at, value[1].as_str().unwrap().as_bytes().to_vec()));
            }
        }
        assert_eq!(protobuf, from_json);
    }

    #[test]
    fn pushes_are_due_evenly_over_all_connections() {
        let schedules = schedules(&plan(), 4000, 2, Instant::now(), 0);
        assert_eq!(schedules.iter().map(|s| s.pushes).collect::<Vec<_>>(), [10, 10]);
        assert_eq!((schedules[0].time(1), schedules[1].time(0)), (2_000_000, 1_000_000));
    }
}
