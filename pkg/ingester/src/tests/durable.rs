//! The arrival log on disk: restarts, readers behind memory, disks that fail.

use std::time::Duration;

use tailwater_wire::node::{FollowEvent, Gap, MatchedLine, NodeError, Part, ReadRequest, StateRequest};
use tailwater_wire::push::pack;

use super::*;
use crate::{PushErrorKind, SyncPolicy};

const A: &str = r#"{app="a"}"#;
const B: &str = r#"{app="b", job="j"}"#;

pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    pub(super) disk: Arc<Faulty>,
    pub(super) wal: WalConfig,
}

impl Place {
    pub(super) fn new(sync: SyncPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wal = WalConfig { dir: dir.path().join("wal"), sync, segment_bytes: 4 << 10, keep_bytes: 0, max_bytes: 0 };
        Self { dir, disk: Arc::default(), wal }
    }

    pub(super) async fn open(&self, limits: Limits, memory: usize) -> Bench {
        Bench::reopen(limits, memory, &self.wal, &self.disk, NOW).await
    }
}

/// Everything that a line is and where it stands.
type Line = (u64, u32, i64, i64, String, u64, String);

fn line(line: &MatchedLine, text: &[u8]) -> Line {
    let at = (line.seq, line.index, line.timestamp.nanos(), line.accepted_at.nanos());
    (at.0, at.1, at.2, at.3, line.labels.to_string(), line.stream_hash, String::from_utf8_lossy(text).into_owned())
}

impl Bench {
    /// All lines of the tenant `t` after a position, in log order, and the gaps.
    async fn log_lines(&self, mut after: u64) -> (Vec<Line>, Vec<Gap>) {
        let (mut lines, mut gaps) = (Vec::new(), Vec::new());
        let through = self.ingester.log.head();
        while after < through {
            let request = ReadRequest {
                tenant: tenant("t"),
                query: everything(),
                detect_level: false,
                after,
                through,
                max_bytes: 1000,
            };
            let chunk = self.ingester.read(request).await.unwrap();
            assert!(chunk.through > after);
            gaps.extend(chunk.gap);
            lines.extend(chunk.batch.lines.iter().map(|l| line(l, &chunk.batch.line(l))));
            after = chunk.through;
        }
        (lines, gaps)
    }

    fn select(&self, as_of: u64, (start, end): (i64, i64)) -> SelectRequest {
        let (start, end) = (Timestamp(start), Timestamp(end));
        let (query, direction) = (everything(), Direction::Forward);
        SelectRequest {
            tenant: tenant("t"),
            part: Part::Whole,
            query,
            detect_level: false,
            as_of,
            start,
            end,
            direction,
            limit: 10_000,
        }
    }
}

/// Pushes of every kind: whole ones as they came and not, and ones of which a part is refused, dropped, cut, moved or rewritten.
fn push_all_kinds(bench: &Bench) -> u64 {
    let many: Vec<String> = (0..30).map(|i| format!("line {i}")).collect();
    let many: Vec<TestEntry<'_>> = many.iter().map(|line| (NOW, line.as_str(), &[][..])).collect();
    let pushes: [&[(&str, &[TestEntry<'_>])]; 8] = [
        &[(A, &[(NOW, "one", &[]), (NOW + 1, "two", &[("k", "v")])]), (B, &[(NOW, "three", &[])])],
        &[(A, &[(NOW + 2, "same", &[]), (NOW + 2, "same", &[]), (NOW + 2, "other", &[])])],
        &[(r"{", &[(NOW, "lost", &[])]), (B, &[(NOW + 3, "kept", &[])])],
        &[(B, &[(NOW - 3 * 3600 * SECOND, "behind", &[]), (NOW + 4, "in time", &[])])],
        &[(A, &[(NOW + 5, "metadata", &[("a.b", "1"), ("empty", ""), ("c", "x")])])],
        &[(A, &[(NOW + 6, "far longer than a line may be here, so that it is cut", &[])])],
        &[(A, &[]), (r#"{service_name="mine", x="y"}"#, &[(NOW + 7, "", &[])]), (B, &[]), (A, &many)],
        &[(r#"{app="a",  }"#, &[(NOW + 8, "the same stream, written otherwise", &[])])],
    ];
    for (i, push) in pushes.into_iter().enumerate() {
        let push = push_of(push);
        let packed = pack(&push).unwrap();
        // Every other one came as it is kept.
        let packed = (i % 2 == 0).then_some(packed.as_slice());
        let _partly_refused = bench.ingester.push(&tenant("t"), push.clone(), packed).now_or_never().unwrap();
        let _partly_refused = bench.push_to(&tenant("else"), push);
    }
    bench.ingester.log.head()
}

fn strict() -> Limits {
    Limits { max_line_size: 40, max_line_size_truncate: true, increment_duplicate_timestamp: false, ..no_limits() }
}

#[tokio::test]
async fn a_restart_keeps_every_line_once_where_it_was() {
    for (memory, clean) in [(64 << 20, true), (64 << 20, false), (3_000, false)] {
        let place = Place::new(SyncPolicy::Os);
        let bench = place.open(strict(), memory).await;
        assert!(bench.ingester.recovering().is_none());
        let head = push_all_kinds(&bench);
        assert_eq!(head, 16);
        let id = bench.ingester.log_id();
        let before = bench.log_lines(0).await;
        assert_eq!(before.0.len(), 41, "{:?}", before.0);
        assert!(before.1.is_empty());
        if clean {
            bench.ingester.close();
            bench.ingester.end().unwrap();
        }
        drop(bench);

        // Where a service's name comes from has changed meanwhile.
        let changed = Limits { discover_service_name: vec!["job".into()], ..strict() };
        let bench = place.open(changed, memory).await;
        assert_eq!(
            (bench.ingester.log_id(), bench.ingester.state(StateRequest::default()).await.unwrap().head),
            (id, head)
        );
        assert_eq!(bench.log_lines(0).await, before);
        let selected = bench.ingester.select(bench.select(u64::MAX, (i64::MIN, i64::MAX))).await.unwrap();
        assert_eq!((selected.lines.len(), selected.warnings.len()), (41, 0));
        // The last lines of streams are known, and where the out-of-order window is.
        let again = (NOW + 8, "the same stream, written otherwise", &[][..]);
        let behind = (NOW - 3 * 3600 * SECOND, "behind", &[][..]);
        let with_name = r#"{app="a", service_name="a"}"#;
        let error = bench.push(&[(with_name, &[again, behind])]).unwrap_err();
        assert_eq!(error.kind, PushErrorKind::BadRequest, "{error}");
        assert!(error.text.contains("entry too far behind"), "{error}");
        assert_eq!(bench.ingester.log.head(), head, "nothing of it was new");
        let accepted = bench.push(&[(A, &[(NOW + 9, "goes on", &[])])]).unwrap();
        assert_eq!(accepted.seq, Some(head + 1));
        drop(bench);
        let bench = place.open(strict(), memory).await;
        let (lines, gaps) = bench.log_lines(0).await;
        assert_eq!((lines[..41].to_vec(), gaps), before);
        assert_eq!(lines[41].6, "goes on");
        drop(place.dir);
    }
}

#[tokio::test]
async fn nothing_is_accepted_or_answered_before_all_is_back() {
    let place = Place::new(SyncPolicy::Os);
    let bench = place.open(no_limits(), 64 << 20).await;
    bench.push(&[(A, &[(NOW, "before", &[])])]).unwrap();
    drop(bench);
    let bench = Bench::open(no_limits(), 64 << 20, &place.wal, &place.disk, NOW);
    let starting = bench.ingester.recovering().unwrap();
    assert!(starting.done_bytes == 0 && starting.total_bytes > 0, "{starting:?}");
    let refused = bench.push(&[(A, &[(NOW + 1, "too early", &[])])]).unwrap_err();
    assert_eq!(refused.kind, PushErrorKind::Unavailable);
    assert!(matches!(bench.ingester.state(StateRequest::default()).await, Err(NodeError::Unavailable { .. })));
    let select = bench.ingester.select(bench.select(u64::MAX, (i64::MIN, i64::MAX))).await;
    assert!(matches!(select, Err(NodeError::Unavailable { .. })));
    let mut old = bench.follow(&app("a"), 0);
    let mut new = bench.follow(&app("a"), u64::MAX);
    assert!(ready(&mut old).is_none() && ready(&mut new).is_none());
    let ingester = Arc::clone(&bench.ingester);
    tokio::task::spawn_blocking(move || ingester.recover()).await.unwrap().unwrap();
    assert_eq!(lines(&next(&mut old).await.unwrap()), ["before"]);
    assert!(matches!(new.next().await, Some(FollowEvent::Idle { through: 1, .. })));
    bench.push(&[(A, &[(NOW + 1, "after", &[])])]).unwrap();
    assert_eq!(lines(&next(&mut new).await.unwrap()), ["after"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_behind_memory_goes_on_from_disk() {
    let place = Place::new(SyncPolicy::Os);
    let bench = place.open(no_limits(), 4_000).await;
    let mut live = bench.follow(&app("a"), 0);
    let mut slow = bench.follow(&app("a"), 0);
    let mut other = bench.follow(&query_of(vec![matcher("app", MatchOp::Eq, "a")], Some("7")), 0);
    let mut told = 0;
    for i in 0..300 {
        bench.push(&[(A, &[(NOW + i, &format!("line {i}"), &[])])]).unwrap();
        bench.push_to(&tenant("else"), push_of(&[(A, &[(NOW + i, "of somebody else", &[])])])).unwrap();
        if i % 3 == 0 {
            while let Some(event) = ready(&mut live) {
                told += if matches!(event, FollowEvent::Lines(_)) { lines(&event).len() } else { 0 };
            }
        }
    }
    assert!(bench.ingester.log.size().batches < 40, "memory is small");
    let mut got = Vec::new();
    while got.len() < 300 {
        got.extend(lines(&next(&mut slow).await.unwrap()));
    }
    assert!(got.iter().enumerate().all(|(i, line)| *line == format!("line {i}")), "each line once and in order");
    let mut sevens = Vec::new();
    while sevens.last().is_none_or(|line| line != "line 297") {
        sevens.extend(lines(&next(&mut other).await.unwrap()));
    }
    assert_eq!(sevens, (0..300).map(|i| format!("line {i}")).filter(|l| l.contains('7')).collect::<Vec<_>>());
    while told < 300 {
        told += lines(&next(&mut live).await.unwrap()).len();
    }
    bench.push(&[(A, &[(NOW + 300, "live again 7", &[])])]).unwrap();
    for follow in [&mut live, &mut slow, &mut other] {
        assert_eq!(lines(&next(follow).await.unwrap()), ["live again 7"]);
    }
    assert_eq!(told, 300);
}

#[tokio::test(start_paused = true)]
async fn a_tail_waits_for_a_disk_that_cannot_be_read() {
    let place = Place::new(SyncPolicy::Os);
    let bench = place.open(no_limits(), 2_000).await;
    for i in 0..50 {
        bench.push(&[(A, &[(NOW + i, &format!("{i}"), &[])])]).unwrap();
    }
    place.disk.unreadable.store(true, Ordering::SeqCst);
    let mut follow = bench.follow(&app("a"), 0);
    for _ in 0..20 {
        let Some(FollowEvent::Idle { through: 0, .. }) = follow.next().await else { panic!() };
    }
    let request = bench.select(u64::MAX, (i64::MIN, i64::MAX));
    assert!(matches!(bench.ingester.select(request).await, Err(NodeError::Unavailable { .. })));
    place.disk.unreadable.store(false, Ordering::SeqCst);
    let mut got = Vec::new();
    while got.len() < 50 {
        got.extend(lines(&next(&mut follow).await.unwrap()));
    }
    assert_eq!(got, (0..50).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_query_as_of_a_position_sees_memory_and_disk_as_one() {
    let place = Place::new(SyncPolicy::Os);
    let (bench, plain) = (place.open(no_limits(), 3_000).await, Bench::new(no_limits()));
    for i in 0..200_i64 {
        let (line, at) = (format!("line {i}"), NOW + (i * 37) % 101);
        let push = push_of(&[(if i % 3 == 0 { A } else { B }, &[(at, &line, &[]), (at + 1, "more", &[("k", "v")])])]);
        for bench in [&bench, &plain] {
            bench.push_to(&tenant("t"), push.clone()).unwrap();
            bench.push_to(&tenant("else"), push_of(&[(A, &[(NOW, &line, &[])])])).unwrap();
        }
    }
    assert!(bench.ingester.log.size().batches < 30);
    for (as_of, range) in [
        (u64::MAX, (i64::MIN, i64::MAX)),
        (7, (i64::MIN, i64::MAX)),
        (200, (NOW + 10, NOW + 40)),
        (390, (NOW + 50, NOW + 52)),
        (399, (NOW - 10, NOW)),
    ] {
        let lines = async |bench: &Bench| {
            let selected = bench.ingester.select(bench.select(as_of, range)).await.unwrap();
            assert!(selected.warnings.is_empty());
            let lines = selected.lines.iter().map(|(l, text)| line(l, text)).collect::<Vec<_>>();
            (lines, selected.scanned.matched)
        };
        assert_eq!(lines(&bench).await, lines(&plain).await, "{as_of} {range:?}");
    }
    // Reads go on while everything is being trimmed.
    let head = bench.ingester.log.head();
    let want = plain.ingester.select(plain.select(head, (i64::MIN, i64::MAX))).await.unwrap().lines.len();
    for i in 0..50 {
        let reading = bench.ingester.select(bench.select(head, (i64::MIN, i64::MAX)));
        let reading = tokio::spawn(reading);
        for j in 0..10 {
            bench.push(&[(B, &[(NOW + 200, &format!("{i} {j}"), &[])])]).unwrap();
        }
        assert_eq!(reading.await.unwrap().unwrap().lines.len(), want);
    }
}

#[tokio::test]
async fn whoever_cuts_blocks_sees_everything_once_and_what_is_covered_goes() {
    let mut place = Place::new(SyncPolicy::Os);
    place.wal.segment_bytes = 1 << 10;
    let bench = place.open(no_limits(), 3_000).await;
    let log = &bench.ingester.log;
    assert_eq!((log.uncovered().first, log.uncovered().last, log.uncovered().bytes), (1, 0, 0));
    for i in 0..60 {
        bench.advance(SECOND);
        let of = tenant(if i % 2 == 0 { "t" } else { "else" });
        bench.push_to(&of, push_of(&[(A, &[(NOW + i, "0123456789", &[])])])).unwrap();
    }
    let uncovered = log.uncovered();
    assert_eq!((uncovered.first, uncovered.last, uncovered.bytes), (1, 60, 600));
    assert_eq!(uncovered.oldest, Some(Timestamp(NOW + SECOND)));
    let (mut after, mut seen, mut rounds) = (0, Vec::new(), 0);
    while after < 60 {
        let (batches, through) = log.stretch(after, 60, 40).unwrap();
        assert!(through > after && !batches.is_empty());
        assert!(batches.iter().map(|b| b.line_bytes).sum::<u64>() <= 40);
        seen.extend(batches.iter().map(|b| (b.seq, b.account.tenant.to_string(), b.line_bytes)));
        after = through;
        rounds += 1;
    }
    assert!(rounds >= 15, "{rounds}");
    let name = |seq: u64| if seq % 2 == 1 { "t" } else { "else" }.to_owned();
    assert_eq!(seen, (1..=60).map(|seq| (seq, name(seq), 10)).collect::<Vec<_>>());

    let (mut slow, mut early) = (bench.follow(&app("a"), 10), bench.follow(&app("a"), 0));
    log.set_covered(50);
    assert_eq!(log.covered(), 50);
    let uncovered = log.uncovered();
    assert_eq!((uncovered.first, uncovered.bytes, uncovered.oldest), (51, 100, Some(Timestamp(NOW + 51 * SECOND))));
    log.set_covered(9);
    assert_eq!(log.covered(), 50, "never back");
    // What the write-ahead log let go of is a gap of which the size is known; the rest is there.
    let Some(FollowEvent::Gap(gap)) = next(&mut early).await else { panic!() };
    assert!(gap.after == 0 && gap.through == 10, "{gap:?}");
    assert_eq!(gap.lines, gap.through.div_ceil(2));
    let Some(FollowEvent::Gap(gap)) = next(&mut early).await else { panic!() };
    assert!(gap.after == 10 && gap.through > 30 && gap.through <= 50, "{gap:?}");
    assert_eq!(gap.lines, gap.through.div_ceil(2) - 5);
    let mut rest = Vec::new();
    while rest.len() as u64 + gap.lines < 25 {
        rest.extend(lines(&next(&mut early).await.unwrap()));
    }
    let Some(FollowEvent::Gap(later)) = next(&mut slow).await else { panic!() };
    assert_eq!(later, gap);
    let (_, gaps) = bench.log_lines(10).await;
    assert_eq!(gaps, [later]);
    drop((slow, early));
    drop(bench);

    let bench = place.open(no_limits(), 3_000).await;
    assert_eq!(bench.ingester.log.covered(), 50, "remembered");
    let account = Arc::clone(&bench.ingester.tenants.get(&tenant("t")).unwrap().account);
    let look = bench.ingester.log.look(&account, (0, 60), (i64::MIN, i64::MAX), crate::log::Boundary::Lowest);
    assert!((40..=50).contains(&look.boundary), "{look:?}");
    let (lines, gaps) = bench.log_lines(gap.through).await;
    assert_eq!((lines.len() as u64, gaps.len()), (25 - gap.lines, 0));
    let accepted = bench.push(&[(A, &[(NOW + 60, "goes on", &[])])]).unwrap();
    assert_eq!(accepted.seq, Some(61));
}

#[tokio::test]
async fn a_full_disk_refuses_whole_pushes_which_are_accepted_whole_later() {
    for sync in [SyncPolicy::Os, SyncPolicy::Interval(Duration::from_millis(1))] {
        let place = Place::new(sync);
        let limits = Limits { ingestion_rate_mb: 0.000_001, ingestion_burst_size_mb: 0.000_2, ..no_limits() };
        let bench = place.open(limits.clone(), 64 << 20).await;
        let mut follow = bench.follow(&app("a"), 0);
        bench.push(&[(A, &[(NOW, "before", &[])])]).unwrap();
        place.disk.full.store(true, Ordering::SeqCst);
        let push = push_of(&[
            (A, &[(NOW, "before", &[]), (NOW + 5, "one", &[]), (NOW + 6, "two", &[])]),
            (r#"{app="a", new="stream"}"#, &[(NOW + 7, "three", &[])]),
        ]);
        for _ in 0..40 {
            let error = bench.push_to(&tenant("t"), push.clone()).unwrap_err();
            assert_eq!(error.kind, PushErrorKind::StorageFailed, "{error}");
        }
        assert_eq!(bench.ingester.log.head(), 1);
        assert_eq!(lines(&next(&mut follow).await.unwrap()), ["before"]);
        place.disk.full.store(false, Ordering::SeqCst);
        let accepted = bench.push_to(&tenant("t"), push.clone()).unwrap();
        assert_eq!((accepted.seq, accepted.lines), (Some(2), 3));
        assert_eq!(lines(&next(&mut follow).await.unwrap()), ["one", "two", "three"]);
        let again = bench.push_to(&tenant("t"), push_of(&[(A, &[(NOW + 6, "two", &[])])])).unwrap();
        assert_eq!(again.lines, 0, "now it is a duplicate");
        let before = bench.log_lines(0).await;
        drop((bench, follow));
        assert_eq!(place.open(limits, 64 << 20).await.log_lines(0).await, before);
    }
}

#[tokio::test]
async fn a_push_is_answered_and_seen_only_once_it_is_synced() {
    let place = Place::new(SyncPolicy::Always);
    let bench = place.open(no_limits(), 64 << 20).await;
    let push = |bench: &Bench, i: i64| {
        bench.ingester.push(&tenant("t"), push_of(&[(A, &[(NOW + i, &format!("{i}"), &[])])]), None)
    };
    assert_eq!(push(&bench, 0).await.unwrap().seq, Some(1));
    place.disk.hold_syncs(true);
    let before = place.disk.syncs.load(Ordering::SeqCst);
    let mut waiting: Vec<_> = (1..=50).map(|i| push(&bench, i)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(waiting.iter_mut().all(|receipt| receipt.now_or_never().is_none()));
    assert_eq!(bench.ingester.log.head(), 1);
    assert_eq!(bench.stored().await.len(), 1);
    // The same again is dropped, but nobody says so before it is certain that it is there.
    let mut again = push(&bench, 50);
    assert!((&mut again).now_or_never().is_none());
    // Later accepted than what cannot be seen yet is nothing that is told to be complete.
    let account = &bench.ingester.tenants.get(&tenant("t")).unwrap().account;
    bench.advance(1000);
    assert_eq!(bench.ingester.log.with_head(account, || ()).0.watermark, Timestamp(NOW));
    place.disk.hold_syncs(false);
    for (receipt, seq) in waiting.into_iter().zip(2..) {
        assert_eq!(receipt.await.unwrap().seq, Some(seq));
    }
    assert_eq!(again.await.unwrap(), Accepted::default());
    let syncs = place.disk.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 5, "many pushes share a sync: {syncs}");
    assert_eq!(bench.stored().await.len(), 51);
    assert_eq!(bench.ingester.log.with_head(account, || ()).0.watermark, Timestamp(NOW + 1000));
}

#[tokio::test]
async fn what_could_not_be_synced_was_never_there() {
    let place = Place::new(SyncPolicy::Always);
    let bench = place.open(no_limits(), 64 << 20).await;
    let push = |bench: &Bench, i: i64| {
        let entries: &[TestEntry<'_>] = &[(NOW + i, &format!("{i}"), &[])];
        bench.ingester.push(&tenant("t"), push_of(&[(A, entries), (B, entries)]), None)
    };
    push(&bench, 0).await.unwrap();
    let mut follow = bench.follow(&everything(), 0);
    assert_eq!(lines(&next(&mut follow).await.unwrap()), ["0", "0"]);
    for round in 0..3 {
        place.disk.unsynced.store(true, Ordering::SeqCst);
        place.disk.hold_syncs(true);
        let waiting: Vec<_> = (1..=10).map(|i| push(&bench, i + 100 * round)).collect();
        let again = push(&bench, 10 + 100 * round);
        place.disk.hold_syncs(false);
        for receipt in waiting {
            assert_eq!(receipt.await.unwrap_err().kind, PushErrorKind::StorageFailed);
        }
        assert_eq!(again.await.unwrap_err().kind, PushErrorKind::StorageFailed, "what it repeated is not there");
        assert_eq!(push(&bench, 11).await.unwrap_err().kind, PushErrorKind::StorageFailed);
        place.disk.unsynced.store(false, Ordering::SeqCst);
        // The last one of them first: it is no duplicate, and the others are not behind.
        for i in [10, 1, 2] {
            let accepted = push(&bench, i + 100 * round).await.unwrap();
            assert_eq!(accepted.lines, 2, "{i}");
            assert_eq!(lines(&next(&mut follow).await.unwrap()).len(), 2);
        }
    }
    let (lines, gaps) = bench.log_lines(0).await;
    assert_eq!((lines.len(), gaps.len()), (20, 0));
    let mut numbers: Vec<u64> = lines.iter().map(|l| l.0).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 10);
    assert_ne!(numbers, (1..=10).collect::<Vec<_>>(), "numbers of what failed are not used again");
    let selected = bench.ingester.select(bench.select(u64::MAX, (i64::MIN, i64::MAX))).await.unwrap();
    assert_eq!(selected.lines.len(), 20);
    let log = Arc::downgrade(&bench.ingester.log);
    drop((bench, follow));
    // The thread that syncs may still be at it.
    while log.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for memory in [64 << 20, 2_000] {
        let bench = place.open(no_limits(), memory).await;
        assert_eq!(bench.log_lines(0).await, (lines.clone(), vec![]));
    }
}

#[tokio::test]
async fn lines_that_are_corrupt_are_told_as_a_gap() {
    let place = Place::new(SyncPolicy::Os);
    let bench = place.open(no_limits(), 64 << 20).await;
    for i in 0..30 {
        let entries: &[TestEntry<'_>] = &[(NOW + i, &format!("needle-{i}-"), &[]), (NOW + i, "second", &[])];
        bench.push_to(&tenant("t"), push_of(&[(A, entries)])).unwrap();
        bench.push_to(&tenant("else"), push_of(&[(A, &[(NOW + i, "else", &[])])])).unwrap();
    }
    let before = bench.log_lines(0).await.0;
    drop(bench);
    for file in std::fs::read_dir(&place.wal.dir).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(10).position(|w| w == b"needle-12-") {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let bench = place.open(no_limits(), 64 << 20).await;
    let (lines, gaps) = bench.log_lines(0).await;
    assert_eq!(gaps.iter().map(|gap| gap.lines).collect::<Vec<_>>(), [2], "{gaps:?}");
    assert!(gaps[0].after < 25 && gaps[0].through >= 25);
    assert_eq!(lines, before.into_iter().filter(|l| l.0 != 25).collect::<Vec<_>>());
    let selected = bench.ingester.select(bench.select(u64::MAX, (i64::MIN, i64::MAX))).await.unwrap();
    assert_eq!((selected.lines.len(), selected.warnings.len()), (58, 1), "the answer says that it is partial");
    let mut follow = bench.follow(&app("a"), 0);
    let (mut told, mut lost) = (0, 0);
    while told + lost < 60 {
        match next(&mut follow).await.unwrap() {
            FollowEvent::Gap(gap) => lost += gap.lines,
            event => told += self::lines(&event).len() as u64,
        }
    }
    assert_eq!((told, lost), (58, 2));
}

#[tokio::test]
async fn the_log_after_a_position_is_all_there_or_said_to_be_trimmed() {
    let place = Place::new(SyncPolicy::Os);
    let bench = place.open(no_limits(), 20_000).await;
    let ask = async |after: u64| {
        let all = bench.select(u64::MAX, (i64::MIN, i64::MAX));
        bench.ingester.select(SelectRequest { part: Part::Log { after }, limit: 1000, ..all }).await
    };
    for n in 1..=60 {
        bench.push(&[(A, &[(NOW + n, &"x".repeat(900), &[])])]).unwrap();
    }
    let log = &bench.ingester.log;
    for covered in [0, 7, 30, 59, 60] {
        log.set_covered(covered);
        // Memory or the write-ahead log, whichever goes further back.
        let held_after = log.before_disk().min(log.before_memory());
        assert!(held_after <= covered);
        for after in 0..=61 {
            match ask(after).await {
                Ok(found) => {
                    assert!(after >= held_after, "{after} {held_after}");
                    let seqs: Vec<u64> = found.lines.iter().map(|(line, _)| line.seq).collect();
                    assert_eq!(seqs, (after + 1..=60).collect::<Vec<_>>());
                }
                Err(NodeError::Trimmed { log: of, through }) => {
                    assert!(after < held_after, "{after} {held_after}");
                    assert_eq!((of, through), (log.id(), held_after));
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(ask(0).await.is_err(), "something was trimmed");
    // Without blocks what has left memory is nowhere, and nobody is sent to look for it.
    let bench = Bench::with_memory(no_limits(), 20_000);
    for n in 1..=60 {
        bench.push(&[(A, &[(NOW + n, &"x".repeat(900), &[])])]).unwrap();
    }
    let all = bench.select(u64::MAX, (i64::MIN, i64::MAX));
    let found =
        bench.ingester.select(SelectRequest { part: Part::Log { after: 0 }, limit: 1000, ..all }).await.unwrap();
    assert_eq!(found.lines.len() as u64, 60 - bench.ingester.log.before_memory());
}
