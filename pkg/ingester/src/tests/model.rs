//! The log and its readers against a plain list of what was pushed; in memory alone, and with a write-ahead log that is trimmed and
//! opened anew in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tailwater_wire::node::{Gap, ReadRequest};
use tailwater_wire::push::pack;

use super::*;
use crate::SyncPolicy;

/// Streams that are pushed to.
const STREAMS: [&str; 4] = [r#"{app="a"}"#, r#"{app="b"}"#, r#"{app="a",n="1"}"#, r#"{app="c"}"#];

#[derive(Clone, Debug)]
enum Op {
    /// Streams and how many lines each.
    Push {
        tenant: usize,
        streams: Vec<(usize, usize)>,
    },
    Join {
        tenant: usize,
        query: usize,
        back: u64,
    },
    Take {
        follower: usize,
        events: usize,
    },
    Leave {
        follower: usize,
    },
    /// The clock moves, also back.
    Tick {
        nanos: i64,
    },
    Read {
        tenant: usize,
        query: usize,
        after: u64,
        len: u64,
        max_bytes: usize,
    },
    /// So many of the oldest batches that are not in blocks yet are.
    Cover {
        batches: u64,
    },
    /// The process ends and comes back. Followers go on where they were.
    Reopen {
        clean: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let streams = proptest::collection::vec((0..STREAMS.len(), 1..5_usize), 1..4);
    prop_oneof![
        6 => (0..2_usize, streams).prop_map(|(tenant, streams)| Op::Push { tenant, streams }),
        2 => (0..2_usize, 0..3_usize, 0..30_u64).prop_map(|(tenant, query, back)| Op::Join { tenant, query, back }),
        4 => (0..8_usize, 1..6_usize).prop_map(|(follower, events)| Op::Take { follower, events }),
        1 => (0..8_usize).prop_map(|follower| Op::Leave { follower }),
        1 => (-50..100_i64).prop_map(|nanos| Op::Tick { nanos }),
        1 => (0..2_usize, 0..3_usize, 0..60_u64, 0..60_u64, 1..3000_usize)
            .prop_map(|(tenant, query, after, len, max_bytes)| Op::Read { tenant, query, after, len, max_bytes }),
    ]
}

fn durable_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => op(),
        1 => (0..20_u64).prop_map(|batches| Op::Cover { batches }),
        1 => any::<bool>().prop_map(|clean| Op::Reopen { clean }),
    ]
}

/// What was pushed as one batch.
struct Pushed {
    tenant: usize,
    /// Stream and line.
    lines: Vec<(usize, String)>,
}

struct Following {
    tenant: usize,
    query: usize,
    /// Everything up to here was told.
    position: u64,
    /// Lines that were lost and not told, as far as that cannot be known: a later gap may tell them.
    owed: u64,
    follow: Option<Follow>,
}

/// What keeps the log.
struct Keeper {
    memory: usize,
    place: Option<(tempfile::TempDir, WalConfig, Arc<Faulty>)>,
    /// Whether it is certain how many lines were lost, also before the process was started.
    exact: bool,
}

impl Keeper {
    async fn open(&self, now: i64) -> Bench {
        match &self.place {
            Some((_, wal, disk)) => Bench::reopen(no_limits(), self.memory, wal, disk, now).await,
            None => Bench::with_memory(no_limits(), self.memory),
        }
    }

    /// The last batch that a gap may name.
    fn trimmed(&self, bench: &Bench) -> u64 {
        let log = &bench.ingester.log;
        if self.place.is_some() { log.before_disk().min(log.before_memory()) } else { log.before_memory() }
    }
}

#[derive(Default)]
struct Model {
    batches: Vec<Pushed>,
    /// When batches were accepted, as far as lines told.
    accepted: BTreeMap<u64, Timestamp>,
    /// Positions and what was said of everything after them.
    watermarks: Vec<(u64, Timestamp)>,
}

/// Sequence number, place, line.
type Line = (u64, u32, String);

impl Model {
    fn matching(&self, tenant: usize, query: usize, after: u64, through: u64) -> Vec<Line> {
        let batches =
            self.batches.iter().zip(1..).filter(|(b, seq)| b.tenant == tenant && after < *seq && *seq <= through);
        let lines = batches.flat_map(|(b, seq)| b.lines.iter().zip(0..).map(move |(line, index)| (seq, index, line)));
        let matching = lines.filter(|(_, _, (stream, line))| match query {
            0 => STREAMS[*stream].contains(r#"app="a""#),
            1 => STREAMS[*stream].contains(r#"app="b""#),
            _ => line.contains('7'),
        });
        matching.map(|(seq, index, (_, line))| (seq, index, line.clone())).collect()
    }

    fn lines_of(&self, tenant: usize, after: u64, through: u64) -> u64 {
        let batches = &self.batches[after as usize..through as usize];
        batches.iter().filter(|b| b.tenant == tenant).map(|b| b.lines.len() as u64).sum()
    }

    fn note(&mut self, batch: &tailwater_wire::node::MatchedBatch) -> Vec<Line> {
        self.accepted.extend(batch.lines.iter().map(|l| (l.seq, l.accepted_at)));
        let text = |line: bytes::Bytes| String::from_utf8(line.to_vec()).unwrap();
        batch.lines.iter().map(|l| (l.seq, l.index, text(batch.line(l)))).collect()
    }

    /// Checks one event of a follow. Nothing may be left out without a gap, nothing told twice.
    fn check(&mut self, following: &mut Following, event: &FollowEvent, trimmed: u64, exact: bool) {
        let Following { tenant, query, position, owed, .. } = following;
        match event {
            FollowEvent::Away { reason } => panic!("a log in the same process is never away: {reason}"),
            FollowEvent::Lines(batch) => {
                let got = self.note(batch);
                assert!(!got.is_empty());
                assert_eq!(
                    got,
                    self.matching(*tenant, *query, *position, batch.through),
                    "after {position}, trimmed {trimmed}"
                );
                self.watermarks.push((batch.through, batch.watermark));
                *position = batch.through;
            }
            FollowEvent::Idle { through, watermark } => {
                assert_eq!(self.matching(*tenant, *query, *position, *through), []);
                self.watermarks.push((*through, *watermark));
                assert!(*position <= *through);
                *position = *through;
            }
            FollowEvent::Gap(gap) => {
                assert_eq!(self.matching(*tenant, *query, *position, gap.after), []);
                assert!(*position <= gap.after && gap.after < gap.through && gap.through <= trimmed);
                *owed = self.check_gap(*tenant, gap, *owed, exact);
                *position = gap.through;
            }
        }
    }

    fn check_gap(&self, tenant: usize, gap: &Gap, owed: u64, exact: bool) -> u64 {
        let lost = self.lines_of(tenant, gap.after, gap.through) + owed;
        assert!(if exact { gap.lines == lost } else { gap.lines <= lost }, "{gap:?} of {lost}");
        lost - gap.lines
    }

    /// `read` of a stretch tells the same lines, or their gap.
    fn check_read(
        &mut self,
        (tenant, query): (usize, usize),
        mut after: u64,
        through: u64,
        mut read: impl FnMut(u64) -> tailwater_wire::node::ReadChunk,
        trimmed: u64,
        exact: bool,
    ) {
        let mut owed = 0;
        while after < through {
            let chunk = read(after);
            let begin = chunk.gap.map_or(after, |gap| {
                assert!(gap.after == after && gap.through <= trimmed.min(through));
                owed = self.check_gap(tenant, &gap, owed, exact);
                gap.through
            });
            assert!(chunk.through > after && chunk.through <= through && chunk.batch.through == chunk.through);
            assert_eq!(self.note(&chunk.batch), self.matching(tenant, query, begin, chunk.through));
            after = chunk.through;
        }
    }
}

fn queries() -> [Arc<LogQuery>; 3] {
    [app("a"), app("b"), query_of(vec![matcher("app", MatchOp::Re, ".+")], Some("7"))]
}

async fn run(mut keeper: Keeper, ops: Vec<Op>) {
    let durable = keeper.place.is_some();
    let mut bench = keeper.open(NOW).await;
    let tenants = [tenant("one"), tenant("two")];
    let queries = queries();
    let mut model = Model::default();
    let mut following: Vec<Following> = Vec::new();
    let mut lines = 0;
    for op in ops {
        let log = Arc::clone(&bench.ingester.log);
        match op {
            Op::Push { tenant, streams } => {
                let mut pushed = Pushed { tenant, lines: Vec::new() };
                for (stream, n) in &streams {
                    pushed.lines.extend((0..*n).map(|i| {
                        lines += 1;
                        (*stream, format!("line {lines} {}", "·".repeat((lines * 7 + i) % 90)))
                    }));
                }
                let mut at = pushed.lines.iter();
                let take = |(stream, n): &(usize, usize)| {
                    let entries: Vec<TestEntry<'_>> =
                        at.by_ref().take(*n).map(|(_, line)| (NOW, &**line, &[][..])).collect();
                    (STREAMS[*stream], entries)
                };
                let taken: Vec<_> = streams.iter().map(take).collect();
                let parts: Vec<_> = taken.iter().map(|(stream, entries)| (*stream, entries.as_slice())).collect();
                let push = push_of(&parts);
                let packed = (lines % 2 == 0).then(|| pack(&push).unwrap());
                let accepted = bench.ingester.push(&tenants[tenant], push, packed.as_deref());
                let accepted = accepted.now_or_never().unwrap().unwrap();
                model.batches.push(pushed);
                assert_eq!(accepted.seq, Some(model.batches.len() as u64));
            }
            Op::Join { tenant, query, back } => {
                let after = log.head().saturating_sub(back);
                let request = FollowRequest {
                    tenant: tenants[tenant].clone(),
                    query: Arc::clone(&queries[query]),
                    detect_level: false,
                    after,
                };
                let follow = bench.ingester.follow(request);
                following.push(Following { tenant, query, position: after, owed: 0, follow: Some(follow) });
            }
            Op::Take { follower, events } => {
                let n = following.len().max(1);
                let Some(following) = following.get_mut(follower % n) else { continue };
                for _ in 0..events {
                    let Some(follow) = &mut following.follow else { break };
                    // Reading from disk takes its time.
                    let event = if durable { follow.next().await } else { ready(follow) };
                    let Some(event) = event else { break };
                    model.check(following, &event, keeper.trimmed(&bench), keeper.exact);
                }
            }
            Op::Leave { follower } => {
                if follower < following.len() {
                    following.swap_remove(follower);
                }
            }
            Op::Tick { nanos } => bench.advance(nanos),
            Op::Read { tenant, query, after, len, max_bytes } => {
                let after = after.min(log.head());
                let through = (after + len).min(log.head());
                let of = bench.ingester.tenants.get_or_create(&tenants[tenant]);
                let read = |after| {
                    let (tenant, query) = (tenants[tenant].clone(), Arc::clone(&queries[query]));
                    let request = ReadRequest { tenant, query, detect_level: false, after, through, max_bytes };
                    crate::read::chunk(&log, &of.account, &request, &tailwater_store::scan::Cancel::default()).unwrap()
                };
                model.check_read((tenant, query), after, through, read, keeper.trimmed(&bench), keeper.exact);
            }
            Op::Cover { batches } => log.set_covered(log.covered() + batches),
            Op::Reopen { clean } => {
                if clean {
                    bench.ingester.close();
                    bench.ingester.end().unwrap();
                }
                let (id, now) = (log.id(), bench.clock.now().nanos());
                // What was lost before is not known any more.
                keeper.exact &= log.before_disk() == 0;
                following.iter_mut().for_each(|f| f.follow = None);
                // The clock was another process's.
                model.watermarks.clear();
                drop((bench, log));
                bench = keeper.open(now).await;
                assert_eq!((bench.ingester.log.id(), bench.ingester.log.head()), (id, model.batches.len() as u64));
                for f in &mut following {
                    let (tenant, query) = (tenants[f.tenant].clone(), Arc::clone(&queries[f.query]));
                    let request = FollowRequest { tenant, query, detect_level: false, after: f.position };
                    f.follow = Some(bench.ingester.follow(request));
                }
            }
        }
    }
    for mut following in following {
        while following.position < bench.ingester.log.head() {
            let Some(follow) = &mut following.follow else { break };
            let event = follow.next().await.unwrap();
            model.check(&mut following, &event, keeper.trimmed(&bench), keeper.exact);
        }
    }
    for (position, watermark) in &model.watermarks {
        let mut later = model.accepted.range(position + 1..);
        assert!(later.all(|(_, accepted)| accepted >= watermark));
    }
    assert_eq!(bench.ingester.metrics_of_tails(), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // At most 64 pushes, for as many trimmed ones even the smallest log remembers exactly.
    #[test]
    fn every_line_is_told_once_or_its_loss_is(memory in 3_000..40_000_usize, ops in proptest::collection::vec(op(), 1..120)) {
        prop_assume!(ops.iter().filter(|op| matches!(op, Op::Push { .. })).count() <= 64);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(Keeper { memory, place: None, exact: true }, ops));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_line_on_disk_is_told_once(memory in 3_000..20_000_usize, ops in proptest::collection::vec(durable_op(), 1..120)) {
        prop_assume!(ops.iter().filter(|op| matches!(op, Op::Push { .. })).count() <= 64);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let wal = WalConfig { dir: dir.path().to_owned(), sync: SyncPolicy::Os, segment_bytes: 1 << 10, keep_bytes: 0, max_bytes: 0 };
        let place = Some((dir, wal, Arc::default()));
        runtime.block_on(run(Keeper { memory, place, exact: true }, ops));
    }
}
