//! Queries over many logs and blocks: each line once wherever it is, whoever cannot be reached, and what is then said.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use proptest::prelude::*;
use tailwater_logql::ast::Expr;
use tailwater_logql::metric::{Column, Evaluated, Place, Steps};
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Labels, Limits, LogId, TenantId, TenantIds, Timestamp};
use tailwater_wire::node::{
    Answer, Blocks, Direction, Follow, FollowRequest, LabelsRequest, LogState, MatchedLine, Node, NodeError, Part,
    Partial, PatternsRequest, ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest,
    StateRequest, Stats, StreamVolume, VolumeRequest,
};
use tokio::sync::watch;

use crate::testing::TestClock;
use crate::{
    Config, Error, Kind, LogsRequest, MetaRequest, MetricRequest, Nodes, Querier, VolumeBy, VolumeRequest as Volumes,
};

/// A line: its stream, timestamp, text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    stream: u8,
    time: i64,
    text: String,
}

impl Line {
    fn labels(&self) -> Labels {
        Labels::from_pairs(vec![("s".into(), self.stream.to_string().into())])
    }
}

/// A log: one line per batch.
#[derive(Debug, Default)]
struct Log {
    lines: Vec<Line>,
    /// In blocks, up to here.
    in_blocks: u64,
    /// Let go of, up to here; not more than is in blocks.
    trimmed: u64,
    /// Its node does not answer.
    away: bool,
    /// Its node does not even say so.
    silent: bool,
    /// How often it was asked for its state, and for something else.
    asked: (u32, u32),
}

type Shared = Arc<Mutex<Log>>;

/// Lines that can be asked: the node of a log, or blocks.
struct Fake {
    id: LogId,
    logs: Arc<[(LogId, Shared)]>,
    /// Up to where each is read, if it is blocks.
    blocks: Option<HashMap<LogId, u64>>,
}

impl Fake {
    /// Lines with their positions, of those that are asked for.
    fn lines(&self, part: Part) -> Result<Vec<(u64, Line)>, NodeError> {
        let mut all = Vec::new();
        for (id, log) in self.logs.iter().filter(|(id, _)| self.blocks.is_some() || *id == self.id) {
            let mut log = log.lock();
            let numbered = (1..).zip(log.lines.clone());
            if let Some(upto) = &self.blocks {
                let upto = upto.get(id).copied().unwrap_or(u64::MAX).min(log.in_blocks);
                all.extend(numbered.filter(|(seq, _)| *seq <= upto).map(|(_, line)| (0, line)));
                continue;
            }
            log.asked.1 += 1;
            if log.away {
                return Err(NodeError::Unavailable { log: *id, reason: "it is gone".into() });
            }
            let Part::Log { after } = part else { panic!("it is asked for its log alone") };
            if log.trimmed > after {
                return Err(NodeError::Trimmed { log: *id, through: log.trimmed });
            }
            all.extend(numbered.filter(|(seq, _)| *seq > after));
        }
        Ok(all)
    }

    fn answer<T: Send + 'static>(&self, part: Part, of: impl FnOnce(Vec<(u64, Line)>) -> T) -> Answer<T> {
        let answer = self.lines(part).map(of);
        Box::pin(async move { answer })
    }
}

impl Node for Fake {
    fn log_id(&self) -> LogId {
        self.id
    }

    fn state(&self, _: StateRequest) -> Answer<LogState> {
        let log = self.logs.iter().find(|(id, _)| *id == self.id).unwrap().1.clone();
        let id = self.id;
        Box::pin(async move {
            let (silent, away) = {
                let mut log = log.lock();
                log.asked.0 += 1;
                (log.silent, log.away)
            };
            if silent {
                std::future::pending::<()>().await;
            }
            if away {
                return Err(NodeError::Unavailable { log: id, reason: "it is gone".into() });
            }
            let log = log.lock();
            let head = log.lines.len() as u64;
            Ok(LogState { head, whole: head, before: head, in_blocks: log.in_blocks, watermark: Timestamp::MAX })
        })
    }

    fn follow(&self, _: FollowRequest) -> Follow {
        Box::pin(stream::empty())
    }

    fn read(&self, _: ReadRequest) -> Answer<ReadChunk> {
        Box::pin(std::future::pending())
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        self.answer(request.part, move |lines| {
            let mut runner = request.query.runner(false);
            let inside = |line: &Line| (request.start.nanos()..request.end.nanos()).contains(&line.time);
            let mut found: Vec<(MatchedLine, Bytes)> = Vec::new();
            for (seq, line) in lines.into_iter().filter(|(_, line)| inside(line)) {
                runner.enter(&line.labels());
                let Some(hit) = runner.run(Timestamp(line.time), line.text.as_bytes(), &[]) else { continue };
                let matched = MatchedLine {
                    timestamp: Timestamp(line.time),
                    accepted_at: Timestamp(0),
                    seq,
                    index: 0,
                    offset: 0,
                    len: hit.line.len() as u32,
                    labels: hit.labels,
                    stream_hash: line.stream.into(),
                };
                found.push((matched, Bytes::copy_from_slice(hit.line)));
            }
            // Stable: lines of one instant and stream are in the order of the log.
            let backward = request.direction == Direction::Backward;
            if backward {
                found.reverse();
            }
            found.sort_by_key(|(l, _)| (l.timestamp.nanos() * if backward { -1 } else { 1 }, l.stream_hash));
            found.truncate(request.limit);
            Selected { lines: found, ..Selected::default() }
        })
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        self.answer(request.part, move |lines| {
            let mut runner = request.query.runner(false);
            let mut columns = HashMap::<Labels, Column>::new();
            for (seq, line) in lines {
                let Some(pane) = request.grid.pane(line.time) else { continue };
                runner.enter(&line.labels());
                let run = runner.run(Timestamp(line.time), line.text.as_bytes(), &[]);
                let Some((number, value)) = run else { continue };
                let place = Place { timestamp: line.time, stream_hash: line.stream.into(), seq, index: 0 };
                let column = columns.entry(runner.labels(number).unwrap().clone());
                let column = column.or_insert_with(|| request.query.column());
                column.add(pane.number, value, place, &mut usize::MAX.clone()).unwrap();
            }
            Sampled { series: columns.into_iter().collect(), ..Sampled::default() }
        })
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        self.answer(request.part, |lines| {
            Partial::whole(lines.iter().map(|(_, line)| line.stream.to_string()).collect())
        })
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        self.answer(request.part, |lines| Partial::whole(lines.iter().map(|(_, line)| line.labels()).collect()))
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        self.answer(request.part, |lines| {
            let mut streams: Vec<_> = lines.iter().map(|(_, line)| line.stream).collect();
            streams.sort_unstable();
            streams.dedup();
            let bytes = lines.iter().map(|(_, line)| line.text.len() as u64).sum();
            let (streams, entries) = (streams.len() as u64, lines.len() as u64);
            Partial::whole(Stats { streams, chunks: 1, bytes, entries })
        })
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        self.answer(request.series.part, move |lines| {
            let of = |(_, line): &(u64, Line)| StreamVolume {
                labels: line.labels(),
                bytes: vec![(request.series.end, line.text.len() as u64)],
            };
            Partial::whole(lines.iter().map(of).collect())
        })
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        self.answer(request.series.part, |lines| {
            let samples = vec![(0, lines.len() as u64)];
            Partial::whole(vec![Pattern { text: "<_>".into(), level: String::new(), samples }])
        })
    }
}

/// Several logs, and blocks of all of them and of one that is no more.
struct World {
    logs: Arc<[(LogId, Shared)]>,
    nodes: watch::Sender<Arc<[Arc<dyn Node>]>>,
    has_blocks: bool,
}

impl Nodes for World {
    fn nodes(&self) -> watch::Receiver<Arc<[Arc<dyn Node>]>> {
        self.nodes.subscribe()
    }

    fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        self.has_blocks.then(|| Arc::new(FakeBlocks(Arc::clone(&self.logs))) as Arc<dyn Blocks>)
    }
}

struct FakeBlocks(Arc<[(LogId, Shared)]>);

impl Blocks for FakeBlocks {
    fn up_to(&self, boundaries: Arc<[(LogId, u64)]>, own: LogId, fresh_since: Instant) -> Arc<dyn Node> {
        assert!(fresh_since <= Instant::now());
        for (log, upto) in boundaries.iter() {
            let (_, of) = self.0.iter().find(|(id, _)| id == log).unwrap();
            assert!(*upto <= of.lock().in_blocks, "only what is in blocks is read from there");
        }
        let blocks = Some(boundaries.iter().copied().collect());
        Arc::new(Fake { id: own, logs: Arc::clone(&self.0), blocks })
    }
}

fn world(live: u128, allow_partial: bool) -> (Arc<World>, Arc<Querier>) {
    let logs: Arc<[(LogId, Shared)]> = (1..=live + 1).map(|id| (LogId::from_u128(id), Shared::default())).collect();
    let node =
        |(id, _): &(LogId, Shared)| Arc::new(Fake { id: *id, logs: Arc::clone(&logs), blocks: None }) as Arc<dyn Node>;
    let nodes: Vec<_> = logs.iter().take(live as usize).map(node).collect();
    let nodes = watch::Sender::new(nodes.into());
    let world = Arc::new(World { logs, nodes, has_blocks: true });
    let config = Config { allow_partial, ..Config::default() };
    let limits = Arc::new(Arc::new(Limits::default()));
    let querier = Querier::new(config, Arc::<World>::clone(&world), limits, Arc::new(TestClock::default()));
    (world, querier)
}

impl World {
    fn log(&self, number: usize) -> parking_lot::MutexGuard<'_, Log> {
        self.logs[number].1.lock()
    }

    fn push(&self, number: usize, stream: u8, time: i64, text: &str) {
        self.log(number).lines.push(Line { stream, time, text: text.into() });
    }
}

fn tenants() -> TenantIds {
    TenantIds::from(TenantId::parse("t").unwrap())
}

fn logs_request(query: &str, direction: Direction, limit: usize) -> LogsRequest {
    LogsRequest {
        tenants: tenants(),
        expr: tailwater_logql::parse_log(query).unwrap(),
        start: Timestamp(0),
        end: Timestamp(1_000_000_000),
        limit,
        direction,
        interval: Duration::ZERO,
    }
}

async fn texts(querier: &Querier, request: LogsRequest) -> (Vec<String>, Vec<String>) {
    let answer = querier.select_logs(request).await.unwrap();
    let text = |(_, text): &(MatchedLine, Bytes)| String::from_utf8_lossy(text).into_owned();
    (answer.lines.iter().map(text).collect(), answer.warnings)
}

const ALL: &str = r#"{s=~".+"}"#;

fn meta() -> MetaRequest {
    MetaRequest { tenants: tenants(), selectors: Vec::new(), start: Timestamp(0), end: Timestamp(1_000_000_000) }
}

/// How many lines `count_over_time` counts.
async fn counted(querier: &Querier) -> u64 {
    let text = r#"sum(count_over_time({s=~".+"}[1s]))"#;
    let Ok(Expr::Metric(expr)) = tailwater_logql::parse(text) else { panic!() };
    let steps = Steps { start: Timestamp(900_000_000), step: 1, count: 1 };
    let request = MetricRequest { tenants: tenants(), expr, steps, max_series: 0 };
    match querier.evaluate(&request).await.unwrap().value {
        Evaluated::Series(series) => series.first().and_then(|s| s.get(0)).unwrap_or(0.0) as u64,
        Evaluated::Scalar(_) => panic!(),
    }
}

/// What happens between queries.
#[derive(Clone, Debug)]
enum Step {
    Push {
        log: usize,
        stream: u8,
        time: i64,
    },
    /// A part of what is not in blocks goes there, a part of that leaves the log.
    Cut {
        log: usize,
        upto: u64,
        trim: u64,
    },
    Away {
        log: usize,
        away: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_usize, 0..3_u8, 1..40_i64).prop_map(|(log, stream, time)| Step::Push { log, stream, time }),
        2 => (0..4_usize, 0..9_u64, 0..9_u64).prop_map(|(log, upto, trim)| Step::Cut { log, upto, trim }),
        1 => (0..3_usize, any::<bool>()).prop_map(|(log, away)| Step::Away { log, away }),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_answered_once_at_every_moment(steps in steps(), limit in 1..20_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (world, querier) = world(3, true);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    // The log that is no more has blocks alone.
                    Step::Push { log: 3, stream, time } => {
                        world.push(3, stream, time, &format!("{number}"));
                        let mut log = world.log(3);
                        log.in_blocks = log.lines.len() as u64;
                    }
                    Step::Push { log, stream, time } => world.push(log, stream, time, &format!("{number}")),
                    Step::Cut { log, upto, trim } => {
                        let mut log = world.log(log);
                        log.in_blocks = log.in_blocks.max(upto).min(log.lines.len() as u64);
                        log.trimmed = log.trimmed.max(trim).min(log.in_blocks);
                    }
                    Step::Away { log, away } => {
                        world.log(log).away = away;
                        // That it is back is seen within a second.
                        querier.boundaries().ask_again();
                    }
                }
                // Of a log that is away what is in blocks.
                let mut want: Vec<Line> = Vec::new();
                for (_, log) in world.logs.iter() {
                    let log = log.lock();
                    let there = if log.away { log.in_blocks as usize } else { log.lines.len() };
                    want.extend_from_slice(&log.lines[..there]);
                }
                let away = world.logs.iter().filter(|(_, log)| log.lock().away).count();
                want.sort_by_key(|line| (line.time, line.stream, line.text.parse::<usize>().unwrap()));
                for direction in [Direction::Forward, Direction::Backward] {
                    let answer = querier.select_logs(logs_request(ALL, direction, limit)).await.unwrap();
                    prop_assert_eq!(answer.warnings.len(), away);
                    let key = |line: &Line| (line.time, u64::from(line.stream), line.text.clone());
                    let mut got: Vec<_> = answer.lines.iter().map(|(l, t)| {
                        (l.timestamp.nanos(), l.stream_hash, String::from_utf8_lossy(t).into_owned())
                    }).collect();
                    let times: Vec<_> = got.iter().map(|(time, ..)| *time).collect();
                    let mut want_times: Vec<_> = want.iter().map(|line| line.time).collect();
                    if direction == Direction::Backward {
                        want_times.reverse();
                    }
                    want_times.truncate(limit);
                    prop_assert_eq!(times, want_times);
                    // Which of several of the last instant the limit leaves is the order of logs.
                    got.sort();
                    got.dedup();
                    prop_assert_eq!(got.len(), want.len().min(limit), "none twice");
                    prop_assert!(got.iter().all(|line| want.iter().any(|wanted| key(wanted) == *line)));
                }
                prop_assert_eq!(counted(&querier).await, want.len() as u64);
                let stats = querier.stats(&meta()).await.unwrap().value;
                let mut streams: Vec<_> = want.iter().map(|line| line.stream.to_string()).collect();
                streams.sort();
                streams.dedup();
                let bytes = want.iter().map(|line| line.text.len() as u64).sum::<u64>();
                prop_assert_eq!((stats.entries, stats.bytes, stats.streams), (want.len() as u64, bytes, streams.len() as u64));
                prop_assert_eq!(querier.series(&meta()).await.unwrap().value.len(), streams.len());
                prop_assert_eq!(querier.labels(&meta(), Some("s")).await.unwrap().value, streams);
                let (by, target_labels) = (VolumeBy::Series, Vec::new());
                let volumes = Volumes { meta: meta(), step: None, by, target_labels, limit: 100, max_series: 100 };
                let volumes = querier.volume(&volumes).await.unwrap().value;
                prop_assert_eq!(volumes.iter().map(|volume| volume.total).sum::<u64>(), bytes);
                let patterns = querier.patterns(&meta(), 1).await.unwrap().value;
                prop_assert_eq!(patterns.iter().map(Pattern::count).sum::<u64>(), want.len() as u64);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn what_was_sent_again_to_another_ingester_counts_once() {
    let (world, querier) = world(2, true);
    for (log, text) in [(0, "a"), (0, "b"), (1, "b"), (1, "c"), (1, "a")] {
        world.push(log, 1, 5, text);
    }
    world.log(0).in_blocks = 1;
    // Not the same: another stream, another time.
    world.push(1, 2, 5, "a");
    world.push(1, 1, 6, "a");
    let (lines, warnings) = texts(&querier, logs_request(ALL, Direction::Forward, 100)).await;
    assert_eq!((lines, warnings), (["a", "b", "c", "a", "a"].map(str::to_owned).to_vec(), vec![]));
    let (mut lines, _) = texts(&querier, logs_request(ALL, Direction::Backward, 100)).await;
    lines[1..4].reverse();
    assert_eq!(lines, ["a", "a", "b", "c", "a"], "the same, of each stream in the other order");
    // The limit is for what is left.
    assert_eq!(texts(&querier, logs_request(ALL, Direction::Forward, 3)).await.0, ["a", "b", "c"]);
    // Where lines are rewritten, equal ones need not have been equal.
    let query = format!(r#"{ALL} | line_format "x""#);
    assert_eq!(texts(&querier, logs_request(&query, Direction::Forward, 100)).await.0.len(), 7);
    assert_eq!(counted(&querier).await, 7, "metric queries count what is in different places");
}

#[tokio::test]
async fn boundaries_are_asked_for_now_and_then_and_when_a_log_has_let_go_of_something() {
    let (world, querier) = world(2, true);
    for n in 0..9 {
        world.push(n % 2, 1, n as i64, &n.to_string());
    }
    for _ in 0..5 {
        assert_eq!(texts(&querier, logs_request(ALL, Direction::Forward, 100)).await.0.len(), 9);
    }
    assert_eq!(world.log(0).asked, (1, 5));
    world.log(0).in_blocks = 3;
    world.log(0).trimmed = 2;
    assert_eq!(texts(&querier, logs_request(ALL, Direction::Forward, 100)).await.0.len(), 9);
    assert_eq!(world.log(0).asked, (2, 7), "once in vain");
}

#[tokio::test]
async fn who_cannot_be_reached_is_named_or_fails_the_query() {
    let (world, querier) = world(2, true);
    for n in 0..6 {
        world.push(n % 2, 1, n as i64, &n.to_string());
    }
    let request = || logs_request(ALL, Direction::Forward, 100);
    assert_eq!(texts(&querier, request()).await.0.len(), 6);
    // It has put lines into blocks after it was asked last, and is gone: what is there is answered.
    world.log(0).away = true;
    world.log(0).in_blocks = 2;
    let (lines, warnings) = texts(&querier, request()).await;
    assert_eq!(lines, ["0", "1", "2", "3", "5"]);
    assert_eq!(
        warnings,
        [format!(
            "the answer is partial: ingester {} is unavailable: it is gone; its lines since the last ones that are in blocks are missing",
            world.logs[0].0
        )]
    );
    // Nobody is there but blocks.
    world.log(1).away = true;
    world.log(1).in_blocks = 3;
    let (lines, warnings) = texts(&querier, request()).await;
    assert_eq!((lines.len(), warnings.len()), (5, 2));
    world.nodes.send_replace(Arc::from([]));
    let (lines, warnings) = texts(&querier, request()).await;
    assert_eq!((lines.len(), warnings.len()), (5, 1), "{warnings:?}");
    let (_, strict) = {
        let (world, querier) = self::world(1, false);
        world.push(0, 1, 1, "x");
        world.log(0).away = true;
        (world, querier)
    };
    let error = strict.select_logs(request()).await.unwrap_err();
    assert!(matches!(error, Error::Node(NodeError::Unavailable { .. })) && error.kind() == Kind::Unavailable);
    assert!(strict.stats(&meta()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_says_nothing_is_not_waited_for() {
    let (world, querier) = world(2, true);
    world.push(0, 1, 1, "x");
    world.push(1, 1, 1, "y");
    world.log(0).silent = true;
    let began = tokio::time::Instant::now();
    let (lines, warnings) = texts(&querier, logs_request(ALL, Direction::Forward, 100)).await;
    assert_eq!((lines, warnings.len()), (vec!["y".to_owned()], 1));
    assert!(began.elapsed() < Duration::from_secs(1));
}
