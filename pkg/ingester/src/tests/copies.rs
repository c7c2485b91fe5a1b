//! Copies of a log: what is read of them is what is read of the log.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tailwater_model::LogId;
use tailwater_wire::host::{Copied, CopiedRecord, CopyBegin, Copying};
use tailwater_wire::node::{LogState, MatchedLine, Node, NodeError, ReadRequest, StateRequest};

use super::durable::Place;
use super::*;
use crate::copies::MAX_COPIES;
use crate::{Copies, CopiesConfig, SyncPolicy};

const STREAMS: [&str; 3] = [r#"{app="a"}"#, r#"{app="b",job="j"}"#, r#"{app="c"}"#];

/// The node that keeps copies.
pub(super) struct Keeper {
    dir: tempfile::TempDir,
    disk: Arc<Faulty>,
    pub(super) clock: Arc<TestClock>,
    config: CopiesConfig,
    copies: Option<Copies>,
}

impl Keeper {
    pub(super) fn new(sync: SyncPolicy, memory_bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wal = WalConfig { dir: PathBuf::new(), sync, segment_bytes: 1 << 10, keep_bytes: 0, max_bytes: 0 };
        let config = CopiesConfig { wal, memory_bytes, max_bytes: 0 };
        let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
        let mut keeper = Self { dir, disk: Arc::default(), clock, config, copies: None };
        keeper.open();
        keeper
    }

    fn open(&mut self) {
        let limits = Arc::new(Arc::new(no_limits()));
        let (disk, clock) = (Arc::clone(&self.disk) as _, Arc::<TestClock>::clone(&self.clock));
        let dir = self.dir.path().to_owned();
        self.copies = Some(Copies::open_on(disk, dir, self.config.clone(), limits, clock).unwrap());
    }

    /// The process ends, in good order or not, and another one begins.
    pub(super) async fn reopen(&mut self, clean: bool) {
        let copies = self.copies.take().unwrap();
        if clean {
            copies.close();
        }
        copies.end_abruptly();
        drop(copies);
        self.open();
        self.copies().opened().await;
    }

    pub(super) fn copies(&self) -> &Copies {
        self.copies.as_ref().unwrap()
    }

    pub(super) async fn begin(&self, owner: &Ingester) -> Arc<dyn Copying> {
        let (log, in_blocks) = (Node::log_id(owner), Copied::in_blocks(owner));
        self.copies().begin(CopyBegin { log, owner: "owner".to_owned(), in_blocks }).await.unwrap()
    }

    pub(super) fn node(&self, owner: &Ingester) -> Arc<dyn Node> {
        self.copies().node(Node::log_id(owner)).unwrap()
    }
}

/// Carries everything there is, from a position on.
async fn carry_from(owner: &Ingester, copy: &Arc<dyn Copying>, after: u64) {
    let mut records = owner.records(after);
    let mut through = after;
    while through < owner.log.head() {
        let piece = records.next().await.unwrap().unwrap();
        through = piece.last().unwrap().last();
        assert!(copy.append(piece).await.unwrap() >= through);
    }
}

pub(super) async fn carry(owner: &Ingester, copy: &Arc<dyn Copying>) {
    carry_from(owner, copy, copy.head()).await;
}

pub(super) type Line = (u64, u32, i64, i64, String, u64, String);

fn line(line: &MatchedLine, text: &[u8]) -> Line {
    let at = (line.seq, line.index, line.timestamp.nanos(), line.accepted_at.nanos());
    (at.0, at.1, at.2, at.3, line.labels.to_string(), line.stream_hash, String::from_utf8_lossy(text).into_owned())
}

/// Every line of a tenant after a position, and what is missing.
pub(super) async fn read(node: &dyn Node, of: &str, mut after: u64) -> (Vec<Line>, Option<u64>) {
    let through = state(node).await.head;
    let (mut lines, mut lost) = (Vec::new(), None);
    while after < through {
        let request =
            ReadRequest { tenant: tenant(of), query: everything(), detect_level: true, after, through, max_bytes: 500 };
        let chunk = node.read(request).await.unwrap();
        assert!(chunk.through > after);
        lost = chunk.gap.map_or(lost, |gap| Some(lost.unwrap_or(0) + gap.lines));
        lines.extend(chunk.batch.lines.iter().map(|l| line(l, &chunk.batch.line(l))));
        after = chunk.through;
    }
    (lines, lost)
}

async fn select(node: &dyn Node, of: &str) -> Vec<Line> {
    let request = SelectRequest {
        tenant: tenant(of),
        part: Part::Whole,
        query: everything(),
        detect_level: false,
        as_of: u64::MAX,
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        direction: Direction::Backward,
        limit: 100_000,
    };
    let selected = node.select(request).await.unwrap();
    assert_eq!(selected.warnings, Vec::<String>::new());
    selected.lines.iter().map(|(l, text)| line(l, text)).collect()
}

pub(super) async fn state(node: &dyn Node) -> LogState {
    node.state(StateRequest::default()).await.unwrap()
}

fn follow(node: &dyn Node, after: u64) -> Follow {
    node.follow(FollowRequest { tenant: tenant("t"), query: everything(), detect_level: false, after })
}

pub(super) fn push(bench: &Bench, of: &str, i: i64) -> u64 {
    let (one, two) = (format!("line {i}"), format!("other {i}"));
    let push = push_of(&[
        (STREAMS[usize::try_from(i).unwrap() % 3], &[(NOW + i, &one, &[("k", "v")])]),
        (STREAMS[0], &[(NOW + i, &two, &[])]),
    ]);
    bench.push_to(&tenant(of), push).unwrap().seq.unwrap()
}

#[tokio::test]
async fn a_copy_answers_as_the_log_does() {
    for sync in [SyncPolicy::Os, SyncPolicy::Always] {
        let place = Place::new(SyncPolicy::Os);
        let (bench, keeper) = (place.open(no_limits(), 4_000).await, Keeper::new(sync, 8_000));
        let copy = keeper.begin(&bench.ingester).await;
        assert_eq!(copy.head(), 0);
        for i in 0..100 {
            push(&bench, if i % 3 == 0 { "else" } else { "t" }, i);
            if i % 11 == 0 {
                carry(&bench.ingester, &copy).await;
            }
        }
        carry(&bench.ingester, &copy).await;
        // Whatever comes again is passed over, what does not follow is refused.
        carry_from(&bench.ingester, &copy, 0).await;
        let record = CopiedRecord::Missing { first: 102, last: 103, lost: true };
        assert!(copy.append(vec![record]).await.is_err());
        let node = keeper.node(&bench.ingester);
        assert_eq!((node.log_id(), keeper.copies().logs()), (bench.ingester.log.id(), vec![node.log_id()]));
        let own: &dyn Node = &*bench.ingester;
        for of in ["t", "else", "nobody"] {
            assert_eq!(read(&*node, of, 0).await, read(own, of, 0).await, "{of}");
            assert_eq!(read(&*node, of, 55).await, read(own, of, 55).await, "{of}");
            assert_eq!(select(&*node, of).await, select(own, of).await, "{of}");
        }
        for clock in [&bench.clock, &keeper.clock] {
            clock.0.fetch_add(10 * SECOND, Ordering::Relaxed);
        }
        let (at, of) = (state(&*node).await, state(own).await);
        assert_eq!((at.head, at.in_blocks), (of.head, of.in_blocks));
        assert!(at.watermark < of.watermark, "the owner may have accepted what has not come yet");
        assert!(at.watermark > Timestamp(NOW), "but a tail does not stand still");
        let info = &keeper.copies().state()[0];
        assert!(info.is_ready && info.is_written && info.head == 100 && info.bytes > 0);
        let refused = keeper.copies().copy_of(own.log_id()).push(&tenant("t"), push_of(&[]), None).await;
        assert!(refused.is_err());
    }
}

#[tokio::test]
async fn a_tail_goes_on_at_a_copy_and_misses_nothing() {
    let place = Place::new(SyncPolicy::Os);
    let (bench, keeper) = (place.open(no_limits(), 4_000).await, Keeper::new(SyncPolicy::Os, 8_000));
    let copy = keeper.begin(&bench.ingester).await;
    let (mut own, mut seen, mut position) = (follow(&*bench.ingester, 0), Vec::new(), 0);
    for i in 0..50 {
        push(&bench, "t", i);
        if i == 40 {
            carry(&bench.ingester, &copy).await;
        }
    }
    while position < 45 {
        let FollowEvent::Lines(batch) = next(&mut own).await.unwrap() else { panic!() };
        seen.extend(batch.lines.iter().map(|l| line(l, &batch.line(l))));
        position = batch.through;
    }
    // The copy has less than was seen: nothing comes twice, and it is waited for.
    let node = keeper.node(&bench.ingester);
    let mut theirs = follow(&*node, position);
    let Some(FollowEvent::Idle { through, .. }) = theirs.next().await else { panic!() };
    assert_eq!(through, position);
    carry(&bench.ingester, &copy).await;
    for i in 50..60 {
        push(&bench, "t", i);
        carry(&bench.ingester, &copy).await;
    }
    let all = read(&*bench.ingester, "t", 0).await.0;
    while seen.len() < all.len() {
        match next(&mut theirs).await.unwrap() {
            FollowEvent::Lines(batch) => seen.extend(batch.lines.iter().map(|l| line(l, &batch.line(l)))),
            event => panic!("{event:?}"),
        }
    }
    let plain = |lines: &[Line]| lines.iter().map(|l| (l.0, l.1, l.6.clone())).collect::<Vec<_>>();
    assert_eq!(plain(&seen), plain(&all));
    // A record wakes it at once, as a push does.
    assert!(ready(&mut theirs).is_none_or(|event| matches!(event, FollowEvent::Idle { .. })));
    push(&bench, "t", 60);
    carry(&bench.ingester, &copy).await;
    assert_eq!(lines(&next(&mut theirs).await.unwrap()), ["line 60", "other 60"]);
}

#[tokio::test]
async fn what_is_missing_reaches_those_who_wait_at_the_copy() {
    let place = Place::new(SyncPolicy::Os);
    let (bench, keeper) = (place.open(no_limits(), 64 << 20).await, Keeper::new(SyncPolicy::Os, 1 << 20));
    let copy = keeper.begin(&bench.ingester).await;
    push(&bench, "t", 0);
    carry(&bench.ingester, &copy).await;
    let mut theirs = follow(&*keeper.node(&bench.ingester), 0);
    assert_eq!(lines(&next(&mut theirs).await.unwrap()).len(), 2);
    drop((bench, copy));
    place.disk.boots.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let bench = place.open(no_limits(), 64 << 20).await;
    let copy = keeper.begin(&bench.ingester).await;
    carry(&bench.ingester, &copy).await;
    push(&bench, "t", 1);
    carry(&bench.ingester, &copy).await;
    let Some(FollowEvent::Gap(gap)) = next(&mut theirs).await else { panic!() };
    assert_eq!((gap.after, gap.lines), (1, 0));
    assert_eq!(lines(&next(&mut theirs).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn a_copy_begins_after_what_is_in_blocks_and_catches_up_with_it() {
    let mut place = Place::new(SyncPolicy::Os);
    place.wal.segment_bytes = 500;
    let (bench, mut keeper) = (place.open(no_limits(), 4_000).await, Keeper::new(SyncPolicy::Os, 8_000));
    for i in 0..30 {
        push(&bench, "t", i);
    }
    bench.ingester.log.set_covered(20);
    let copy = keeper.begin(&bench.ingester).await;
    assert_eq!(copy.head(), 20);
    carry(&bench.ingester, &copy).await;
    let node = keeper.node(&bench.ingester);
    assert_eq!(read(&*node, "t", 20).await, read(&*bench.ingester, "t", 20).await);
    copy.in_blocks(25);
    until(|| keeper.copies().state()[0].in_blocks == 25).await;
    // It is told more than it has.
    copy.in_blocks(33);
    drop((copy, node));
    for i in 30..60 {
        push(&bench, "t", i);
    }
    bench.ingester.log.set_covered(50);
    for known in [60, 0] {
        let copy = keeper.begin(&bench.ingester).await;
        assert!(copy.head() >= 50, "what is in blocks need not be copied");
        carry(&bench.ingester, &copy).await;
        let node = keeper.node(&bench.ingester);
        assert_eq!(state(&*node).await.in_blocks, 50);
        assert_eq!(read(&*node, "t", 50).await, read(&*bench.ingester, "t", 50).await);
        // What it let go of is told, with as many lines as are known; after a restart that is none.
        let (lines, lost) = read(&*node, "t", 20).await;
        assert_eq!((lines.len(), lost), (20, Some(known)));
        drop((copy, node));
        keeper.reopen(false).await;
    }
}

#[tokio::test]
async fn a_copy_that_nobody_needs_goes_and_others_stay() {
    let place = Place::new(SyncPolicy::Os);
    let (bench, keeper) = (place.open(no_limits(), 4_000).await, Keeper::new(SyncPolicy::Os, 8_000));
    push(&bench, "t", 0);
    let copy = keeper.begin(&bench.ingester).await;
    carry(&bench.ingester, &copy).await;
    let later = || keeper.clock.0.fetch_add(7_200 * SECOND, Ordering::Relaxed);
    later();
    keeper.copies().tidy();
    drop(copy);
    later();
    keeper.copies().tidy();
    assert_eq!(keeper.copies().logs().len(), 1, "it has lines that are in no block");
    let copy = keeper.begin(&bench.ingester).await;
    copy.in_blocks(1);
    until(|| keeper.copies().state()[0].in_blocks == 1).await;
    keeper.copies().tidy();
    later();
    keeper.copies().tidy();
    assert_eq!(keeper.copies().logs().len(), 1, "somebody writes to it");
    drop(copy);
    keeper.copies().tidy();
    assert_eq!(keeper.copies().logs().len(), 1, "it was written to just now");
    later();
    keeper.copies().tidy();
    assert!(keeper.copies().logs().is_empty());
    assert_eq!(std::fs::read_dir(keeper.dir.path()).unwrap().count(), 0);
    push(&bench, "t", 1);
    let copy = keeper.begin(&bench.ingester).await;
    carry(&bench.ingester, &copy).await;
    let all = read(&*keeper.node(&bench.ingester), "t", 0).await;
    assert_eq!(all.0.len(), 4, "it can come again");
}

#[tokio::test]
async fn copies_are_bounded() {
    let place = Place::new(SyncPolicy::Os);
    let (bench, mut keeper) = (place.open(no_limits(), 64 << 20).await, Keeper::new(SyncPolicy::Os, 40_000));
    keeper.config.max_bytes = 4_000;
    keeper.copies().end_abruptly();
    keeper.open();
    for i in 0..40 {
        push(&bench, "t", i);
    }
    let copy = keeper.begin(&bench.ingester).await;
    let mut records = bench.ingester.records(0);
    let refused = loop {
        let piece = records.next().await.unwrap().unwrap();
        if let Err(error) = copy.append(piece).await {
            break error.to_string();
        }
    };
    assert!(refused.contains("ingester.copies_max_mb"), "{refused}");
    // What is in blocks makes room.
    let head = copy.head();
    copy.in_blocks(head);
    until(|| keeper.copies().state()[0].in_blocks == head).await;
    let piece = bench.ingester.records(head).next().await.unwrap().unwrap();
    assert!(copy.append(piece).await.unwrap() > head);
    for other in 1..MAX_COPIES {
        let log = LogId::from_u128(other as u128);
        keeper.copies().begin(CopyBegin { log, owner: String::new(), in_blocks: 9 }).await.unwrap();
    }
    let log = LogId::from_u128(1 << 70);
    assert!(keeper.copies().begin(CopyBegin { log, owner: String::new(), in_blocks: 9 }).await.is_err());
    assert!(keeper.copies().copy_of(bench.ingester.log.id()).log.memory() <= 40_000 / MAX_COPIES);
}

#[tokio::test]
async fn a_copy_that_cannot_be_synced_acknowledges_nothing_until_it_can() {
    let place = Place::new(SyncPolicy::Os);
    let (bench, keeper) = (place.open(no_limits(), 64 << 20).await, Keeper::new(SyncPolicy::Always, 1 << 20));
    let copy = keeper.begin(&bench.ingester).await;
    push(&bench, "t", 0);
    carry(&bench.ingester, &copy).await;
    push(&bench, "t", 1);
    keeper.disk.unsynced.store(true, std::sync::atomic::Ordering::SeqCst);
    let piece = bench.ingester.records(1).next().await.unwrap().unwrap();
    assert!(copy.append(piece).await.is_err());
    drop(copy);
    let copy = keeper.begin(&bench.ingester).await;
    assert_eq!(copy.head(), 1, "what is not synced is not acknowledged");
    keeper.disk.unsynced.store(false, std::sync::atomic::Ordering::SeqCst);
    push(&bench, "t", 2);
    carry(&bench.ingester, &copy).await;
    assert_eq!(copy.head(), 3);
    assert_eq!(read(&*keeper.node(&bench.ingester), "t", 0).await, read(&*bench.ingester, "t", 0).await);
}

pub(super) async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come to that");
}

#[derive(Clone, Debug)]
enum Op {
    Push {
        tenant: bool,
        lines: usize,
    },
    /// So many pieces are carried over.
    Carry {
        pieces: usize,
    },
    /// The stream begins anew, perhaps earlier than it has to.
    Restart {
        back: u64,
    },
    /// So many more batches are in blocks; the copy hears of it or not.
    Cover {
        batches: u64,
        told: bool,
    },
    Owner {
        clean: bool,
        power: bool,
    },
    Keeper {
        clean: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (any::<bool>(), 1..6_usize).prop_map(|(tenant, lines)| Op::Push { tenant, lines }),
        6 => (1..5_usize).prop_map(|pieces| Op::Carry { pieces }),
        2 => (0..20_u64).prop_map(|back| Op::Restart { back }),
        1 => (0..10_u64, any::<bool>()).prop_map(|(batches, told)| Op::Cover { batches, told }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(clean, power)| Op::Owner { clean, power }),
        1 => any::<bool>().prop_map(|clean| Op::Keeper { clean }),
    ]
}

async fn run(ops: Vec<Op>) {
    let mut place = Place::new(SyncPolicy::Os);
    place.wal.segment_bytes = 1 << 10;
    let (mut bench, mut keeper) = (place.open(no_limits(), 3_000).await, Keeper::new(SyncPolicy::Os, 10_000));
    let mut copy = keeper.begin(&bench.ingester).await;
    let mut records = bench.ingester.records(copy.head());
    let mut through = copy.head();
    let mut pushed = 0;
    for op in ops.into_iter().chain([Op::Restart { back: 0 }, Op::Carry { pieces: usize::MAX }]) {
        let mut restart = None;
        match op {
            Op::Push { tenant: other, lines } => {
                let texts: Vec<String> = (0..lines).map(|i| format!("line {pushed} {i}")).collect();
                let entries: Vec<TestEntry<'_>> = texts.iter().map(|t| (NOW + pushed, t.as_str(), &[][..])).collect();
                let stream = STREAMS[usize::try_from(pushed).unwrap() % 3];
                bench.push_to(&tenant(if other { "else" } else { "t" }), push_of(&[(stream, &entries)])).unwrap();
                bench.advance(3);
                pushed += 1;
            }
            Op::Carry { pieces } => {
                for _ in 0..pieces {
                    if through >= bench.ingester.log.head() {
                        break;
                    }
                    match records.next().await.unwrap() {
                        Ok(piece) => {
                            through = piece.last().unwrap().last();
                            assert!(copy.append(piece).await.unwrap() >= through);
                        }
                        Err(NodeError::Trimmed { .. }) => {
                            restart = Some(0);
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                if pieces == usize::MAX && restart.is_some() {
                    copy = keeper.begin(&bench.ingester).await;
                    carry(&bench.ingester, &copy).await;
                }
            }
            Op::Restart { back } => restart = Some(back),
            Op::Cover { batches, told } => {
                let covered = bench.ingester.log.covered() + batches;
                bench.ingester.log.set_covered(covered);
                if told {
                    copy.in_blocks(bench.ingester.log.covered());
                }
            }
            Op::Owner { clean, power } => {
                let now = bench.clock.now().nanos();
                if clean {
                    bench.ingester.close();
                    bench.ingester.end().unwrap();
                }
                drop(records);
                let log = Arc::downgrade(&bench.ingester.log);
                drop(bench);
                while log.strong_count() > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if power {
                    place.disk.boots.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
                bench = Bench::reopen(no_limits(), 3_000, &place.wal, &place.disk, now).await;
                records = bench.ingester.records(0);
                restart = Some(0);
            }
            Op::Keeper { clean } => {
                drop(copy);
                keeper.reopen(clean).await;
                copy = keeper.begin(&bench.ingester).await;
                restart = Some(0);
            }
        }
        if let Some(back) = restart {
            copy = keeper.begin(&bench.ingester).await;
            through = copy.head().saturating_sub(back).max(bench.ingester.log.before_disk());
            through = through.min(copy.head());
            records = bench.ingester.records(through);
        }
    }
    let (own, node) = (&*bench.ingester as &dyn Node, keeper.node(&bench.ingester));
    assert_eq!(state(&*node).await.head, bench.ingester.log.head());
    // Whatever is after what is in blocks both have, and it is the same. (What was skipped at the beginning counts as in blocks.)
    let after = bench.ingester.log.covered().max(keeper.copies().copy_of(own.log_id()).log.covered());
    for of in ["t", "else"] {
        assert_eq!(read(&*node, of, after).await.0, read(own, of, after).await.0, "{of} after {after}");
        let lines = |lines: Vec<Line>| lines.into_iter().filter(|line| line.0 > after).collect::<Vec<_>>();
        assert_eq!(lines(select(&*node, of).await), lines(select(own, of).await), "{of} after {after}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_happens_a_copy_is_what_the_log_is(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(ops));
    }
}
