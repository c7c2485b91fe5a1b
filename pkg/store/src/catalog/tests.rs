//! Changes that race, stop halfway or come twice, over each kind of storage.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use ulid::Ulid;

use super::*;
use crate::objects::Options;
use crate::objects::tests::s3::{Fault, Server};

const NANOS: i64 = 86_400_000_000_000;

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

fn day(number: i64) -> Day {
    Day::of(number * NANOS)
}

fn log(number: u128) -> LogId {
    LogId::from_u128(number)
}

/// A block of some nanoseconds of a day.
fn block(id: u128, day: Day, from: i64, to: i64) -> BlockMeta {
    let first = *day.range().start();
    BlockMeta {
        id: Ulid(id),
        day,
        min: first + from,
        max: first + to,
        lines: 1,
        raw_bytes: 10,
        bytes: 100,
        streams: 1,
        level: 0,
        created: 0,
        logs: vec![],
    }
}

fn add(id: u128, day: Day) -> Change {
    Change { add: vec![block(id, day, 0, 1)], ..Change::default() }
}

fn cut(id: u128, day: Day, log: LogId, expected: u64, to: u64) -> Change {
    Change { covered: Some(Advance { log, expected, to }), ..add(id, day) }
}

fn memory() -> Objects {
    Objects::open("memory:", &Options::default()).unwrap()
}

fn exclusive(objects: &Objects) -> Catalog {
    Catalog::new(objects.clone(), Refresh::Exclusive)
}

fn shared(objects: &Objects) -> Catalog {
    Catalog::new(objects.clone(), Refresh::Shared { max_age: Duration::ZERO })
}

fn ids(found: &[Arc<BlockMeta>]) -> Vec<u128> {
    found.iter().map(|block| block.id.0).collect()
}

async fn listed(catalog: &Catalog, tenant: &TenantId, day: Day) -> Vec<u128> {
    ids(&catalog.manifest_now(tenant, day).await.unwrap().blocks)
}

#[tokio::test]
async fn blocks_are_found_by_time() {
    let catalog = exclusive(&memory());
    let t = tenant(".team's-(a)!*");
    for (n, number) in (0..).zip([-1, 0, 1, 5]) {
        let day = day(number);
        let add = vec![block(2 * n, day, 10, 20), block(2 * n + 1, day, 30, 40)];
        let change = Change { add, ..Change::default() };
        assert_eq!(catalog.commit(&t, day, &change).await.unwrap(), Committed::Done);
    }
    let count = async |start, end| {
        let found = catalog.blocks(&t, start, end).await.unwrap();
        assert!(found.corrupt.is_empty());
        found.blocks.len()
    };
    assert_eq!(count(i64::MIN, i64::MAX).await, 8);
    assert_eq!(count(-1, 0).await, 0);
    assert_eq!(count(10 - NANOS, 10 - NANOS).await, 1);
    assert_eq!(count(20 - NANOS, 30).await, 4);
    assert_eq!(count(21, 29).await, 0);
    assert_eq!(count(40, NANOS + 10).await, 2);
    assert_eq!(count(1, 0).await, 0);
    assert_eq!(catalog.days(&t).await.unwrap().0, [-1, 0, 1, 5].map(day).into());
    assert_eq!(catalog.tenants().await.unwrap(), std::slice::from_ref(&t));
    assert!(catalog.blocks(&tenant("other"), i64::MIN, i64::MAX).await.unwrap().blocks.is_empty());
    let wrong = Change { add: vec![block(9, day(1), 0, NANOS)], ..Change::default() };
    assert!(matches!(catalog.commit(&t, day(1), &wrong).await, Err(Error::Corrupt { .. })));
}

#[tokio::test]
async fn covered_moves_only_from_what_is_expected() {
    let objects = memory();
    let (t, d) = (tenant("t"), day(3));
    let catalog = exclusive(&objects);
    assert_eq!(catalog.covered(&t, d, log(1)).await.unwrap(), 0);
    assert_eq!(catalog.commit(&t, d, &cut(1, d, log(1), 0, 7)).await.unwrap(), Committed::Done);
    assert_eq!(catalog.covered(&t, d, log(1)).await.unwrap(), 7);
    // A crash before the pager knew: it cuts the same lines again, as another block.
    let again = exclusive(&objects);
    assert_eq!(again.commit(&t, d, &cut(2, d, log(1), 0, 7)).await.unwrap(), Committed::Stale(7));
    assert_eq!(again.commit(&t, d, &cut(2, d, log(1), 5, 9)).await.unwrap(), Committed::Stale(7));
    assert_eq!(listed(&again, &t, d).await, [1]);
    // The very same change is known.
    assert_eq!(again.commit(&t, d, &cut(1, d, log(1), 0, 7)).await.unwrap(), Committed::Done);
    assert_eq!(again.commit(&t, d, &cut(3, d, log(1), 7, 9)).await.unwrap(), Committed::Done);
    // Another log and another day have counts of their own; a log's never goes back.
    assert_eq!(again.commit(&t, d, &cut(4, d, log(2), 0, 2)).await.unwrap(), Committed::Done);
    assert_eq!(again.covered(&t, day(4), log(1)).await.unwrap(), 0);
    assert_eq!(again.commit(&t, d, &cut(5, d, log(1), 9, 1)).await.unwrap(), Committed::Done);
    assert_eq!(again.covered(&t, d, log(1)).await.unwrap(), 9);
}

#[tokio::test]
async fn of_two_compactions_of_the_same_blocks_one_wins() {
    let objects = memory();
    let (t, d) = (tenant("t"), day(3));
    let (one, other) = (exclusive(&objects), shared(&objects));
    for id in 1..=3 {
        let _done = one.commit(&t, d, &add(id, d)).await.unwrap();
    }
    let merge = |ids: &[u128], into| Change { remove: ids.iter().map(|id| Ulid(*id)).collect(), ..add(into, d) };
    assert_eq!(other.commit(&t, d, &merge(&[1, 2], 10)).await.unwrap(), Committed::Done);
    assert_eq!(one.commit(&t, d, &merge(&[2, 3], 11)).await.unwrap(), Committed::Gone(Ulid(2)));
    assert_eq!(listed(&one, &t, d).await, [3, 10]);
    // What was made already is not refused when it comes again.
    assert_eq!(one.commit(&t, d, &merge(&[1, 2], 10)).await.unwrap(), Committed::Done);
    assert_eq!(
        one.commit(&t, d, &Change { remove: vec![Ulid(10), Ulid(10)], ..Change::default() }).await.unwrap(),
        Committed::Done
    );
    assert_eq!(listed(&one, &t, d).await, [3]);
}

/// Writers over one storage, each adding blocks of its own log and merging what it finds: in the end every line is listed once.
async fn race(objects: &Objects, writers: u128, rounds: u64) {
    let (t, d) = (tenant("t"), day(-3));
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let catalog = Arc::new(shared(objects));
            let t = t.clone();
            tokio::spawn(async move {
                for round in 1..=rounds {
                    let id = Ulid::generate().0;
                    let mut change = cut(id, d, log(writer), round - 1, round);
                    change.add[0].logs = vec![Covered { log: log(writer), first: round, last: round }];
                    assert_eq!(catalog.commit(&t, d, &change).await.unwrap(), Committed::Done);
                    let blocks = catalog.manifest(&t, d).await.unwrap().blocks.clone();
                    if blocks.len() > 3 {
                        let old = &blocks[..2];
                        let mut merged = block(Ulid::generate().0, d, 0, 1);
                        merged.lines = old.iter().map(|block| block.lines).sum();
                        merged.logs = old.iter().flat_map(|block| block.logs.clone()).collect();
                        let remove = old.iter().map(|block| block.id).collect();
                        let change = Change { add: vec![merged], remove, ..Change::default() };
                        let _won_or_not = catalog.commit(&t, d, &change).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let manifest = shared(objects).manifest(&t, d).await.unwrap();
    let expected: BTreeMap<_, _> = (0..writers).map(|writer| (log(writer), rounds)).collect();
    assert_eq!(manifest.covered, expected);
    let mut seen: Vec<_> = manifest.blocks.iter().flat_map(|b| &b.logs).map(|c| (c.log, c.first)).collect();
    seen.sort();
    let all: Vec<_> = (0..writers).flat_map(|writer| (1..=rounds).map(move |round| (log(writer), round))).collect();
    assert_eq!(seen, all);
    assert_eq!(manifest.blocks.iter().map(|block| block.lines).sum::<u64>(), writers as u64 * rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_writers_lose_nothing_in_memory() {
    race(&memory(), 4, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_writers_lose_nothing_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    race(&Objects::open(folder.path().to_str().unwrap(), &Options::default()).unwrap(), 3, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_writers_lose_nothing_over_s3_with_faults() {
    let server = Server::start().await;
    let options = Options { timing: crate::objects::Timing::default(), ..server.options() };
    let objects = Objects::open("s3://logs/p", &options).unwrap();
    let lose_answers = async {
        for round in 0_usize.. {
            let faults = [Fault::DoneBroken, Fault::DoneStatus, Fault::Broken, Fault::Status(503), Fault::Status(409)];
            server.next([Fault::None, Fault::None, faults[round % 5]]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = race(&objects, 3, 8) => {}
        () = lose_answers => {}
    }
}

#[tokio::test]
async fn a_commit_that_may_have_happened_can_be_made_again() {
    let server = Server::start().await;
    let objects = server.objects("s3://logs");
    let (t, d) = (tenant("t"), day(0));
    let catalog = exclusive(&objects);
    let _done = catalog.commit(&t, d, &cut(1, d, log(1), 0, 1)).await.unwrap();
    let requests = server.requests();
    catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap();
    assert_eq!(server.requests(), requests, "what is known is not asked for");
    server.always(Fault::DoneStatus);
    let change = cut(2, d, log(1), 1, 2);
    assert!(matches!(catalog.commit(&t, d, &change).await, Err(Error::Unavailable { .. })));
    assert!(matches!(catalog.blocks(&t, i64::MIN, i64::MAX).await, Err(Error::Unavailable { .. })));
    server.always(Fault::None);
    assert_eq!(ids(&catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks), [1, 2]);
    assert_eq!(catalog.commit(&t, d, &change).await.unwrap(), Committed::Done);
    assert_eq!(listed(&catalog, &t, d).await, [1, 2]);
}

#[tokio::test]
async fn a_crash_between_the_steps_leaves_what_the_next_start_mends() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Objects::open(folder.path().to_str().unwrap(), &Options::default()).unwrap();
    let (t, d) = (tenant("t"), day(0));
    {
        let objects = open();
        let catalog = exclusive(&objects);
        let _done = catalog.commit(&t, d, &cut(1, d, log(1), 0, 1)).await.unwrap();
        // The block was written, and nothing else.
        objects.put(&block(2, day(1), 0, 1).path(&t), vec![Bytes::from_static(b"x")]).await.unwrap();
        // The day was listed, and nothing else.
        catalog.list_days(&t, &BTreeSet::from([day(2)])).await.unwrap();
    }
    {
        let catalog = exclusive(&open());
        let loaded = catalog.load().await.unwrap();
        assert_eq!((loaded.tenants, loaded.days, loaded.mended, loaded.corrupt.len()), (1, 3, 1, 0));
        assert_eq!(ids(&catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks), [1]);
        assert_eq!(catalog.covered(&t, day(1), log(1)).await.unwrap(), 0);
        assert_eq!(catalog.commit(&t, day(1), &cut(3, day(1), log(1), 0, 1)).await.unwrap(), Committed::Done);
    }
    // The list of days is lost, then damaged.
    for content in [None, Some(Bytes::from_static(b"{\"version\":1,")), Some(Bytes::new())] {
        let objects = open();
        match content {
            None => objects.delete("t/tenant.json").await.unwrap(),
            Some(content) => objects.put("t/tenant.json", vec![content]).await.unwrap(),
        }
        let catalog = exclusive(&objects);
        assert_eq!(catalog.load().await.unwrap().mended, 2);
        assert_eq!(ids(&catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks), [1, 3]);
    }
    // A commit mends it, too.
    let objects = open();
    objects.put("t/tenant.json", vec![Bytes::from_static(b"[]")]).await.unwrap();
    let catalog = exclusive(&objects);
    assert_eq!(catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().corrupt.len(), 1);
    assert_eq!(catalog.commit(&t, d, &cut(4, d, log(1), 1, 2)).await.unwrap(), Committed::Done);
    assert_eq!(ids(&catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks), [1, 4, 3]);
    // One who only looks mends nothing.
    objects.put("t/tenant.json", vec![Bytes::from_static(b"[]")]).await.unwrap();
    let beside = Objects::open_read_only(folder.path().to_str().unwrap(), &Options::default()).unwrap();
    assert_eq!(shared(&beside).load().await.unwrap().corrupt.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_other_days_go_on() {
    let objects = memory();
    let t = tenant("t");
    let catalog = exclusive(&objects);
    for number in 0..4_u8 {
        let day = day(number.into());
        let _done = catalog.commit(&t, day, &add(number.into(), day)).await.unwrap();
    }
    let newer = r#"{"version":2,"colour":"blue"}"#;
    for (number, content) in [(0, "{}"), (1, newer), (2, "")] {
        let path = names::manifest_path(&t, day(number));
        objects.put(&path, vec![Bytes::from_static(content.as_bytes())]).await.unwrap();
    }
    let catalog = exclusive(&objects);
    let found = catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap();
    assert_eq!(ids(&found.blocks), [3]);
    assert_eq!(found.corrupt.len(), 3);
    let text = found.corrupt[1].to_string();
    assert!(text.contains("memory:/t/1970-01-02/manifest.json") && text.contains("version 2"), "{text}");
    for number in 0..3 {
        let refused = catalog.commit(&t, day(number), &add(9, day(number))).await;
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    assert_eq!(objects.get("t/1970-01-02/manifest.json").await.unwrap().unwrap().0, newer);

    // Without any day there is nothing to tell of, so nothing stays damaged.
    objects.put("none/tenant.json", vec![Bytes::from_static(b"{")]).await.unwrap();
    assert_eq!(exclusive(&objects).load().await.unwrap().corrupt.len(), 0);
    assert!(exclusive(&objects).days(&tenant("none")).await.unwrap().0.is_empty());

    // What another tenant, or a newer version, has written is never replaced.
    let strange = r#"{"version":1,"tenant":"T","change":"00000000000000000000000002","days":[]}"#;
    for content in [strange, newer] {
        objects.put("t/tenant.json", vec![Bytes::from_static(content.as_bytes())]).await.unwrap();
        let catalog = exclusive(&objects);
        assert_eq!(catalog.load().await.unwrap().corrupt.len(), 1);
        assert!(matches!(catalog.commit(&t, day(3), &add(9, day(3))).await, Err(Error::Corrupt { .. })));
        assert_eq!(objects.get("t/tenant.json").await.unwrap().unwrap().0, content);
    }
}

#[tokio::test]
async fn what_others_write_is_seen_in_time() {
    let objects = memory();
    let (t, d) = (tenant("t"), day(0));
    let writer = exclusive(&objects);
    let now = shared(&objects);
    let later = Catalog::new(objects.clone(), Refresh::Shared { max_age: Duration::from_secs(3600) });
    for catalog in [&now, &later] {
        assert!(catalog.blocks(&t, 0, 9).await.unwrap().blocks.is_empty());
    }
    let _done = writer.commit(&t, d, &add(1, d)).await.unwrap();
    assert_eq!(ids(&now.blocks(&t, 0, 9).await.unwrap().blocks), [1]);
    assert!(later.blocks(&t, 0, 9).await.unwrap().blocks.is_empty());
    // A change sees everything, and so does whoever made it.
    assert_eq!(later.commit(&t, d, &add(2, d)).await.unwrap(), Committed::Done);
    assert_eq!(ids(&later.blocks(&t, 0, 9).await.unwrap().blocks), [1, 2]);
}

#[tokio::test]
async fn a_day_without_blocks_can_be_dropped() {
    let objects = memory();
    let (t, d) = (tenant("t"), day(0));
    let catalog = exclusive(&objects);
    let _done = catalog.commit(&t, d, &cut(1, d, log(1), 0, 5)).await.unwrap();
    assert!(!catalog.drop_day(&t, d).await.unwrap());
    let change = Change { remove: vec![Ulid(1)], removed_at: 7, ..Change::default() };
    let _done = catalog.commit(&t, d, &change).await.unwrap();
    assert_eq!(catalog.covered(&t, d, log(1)).await.unwrap(), 5, "what was covered stays so without its blocks");
    let removed = catalog.manifest(&t, d).await.unwrap().removed.clone();
    assert_eq!(removed, [Removed { id: Ulid(1), min: 0, max: 1, at: 7 }]);
    assert_eq!(exclusive(&objects).manifest(&t, d).await.unwrap().removed, removed, "also for others, and later");
    assert!(!catalog.drop_day(&t, d).await.unwrap(), "there is an object to be deleted");
    let _done = catalog.commit(&t, d, &Change { purge: vec![Ulid(1)], ..Change::default() }).await.unwrap();
    assert!(catalog.manifest(&t, d).await.unwrap().removed.is_empty());
    assert!(catalog.drop_day(&t, d).await.unwrap());
    assert!(catalog.days(&t).await.unwrap().0.is_empty());
    let left: Vec<_> = objects.list("").map_ok(|object| object.path).try_collect().await.unwrap();
    assert_eq!(left, ["t/tenant.json"]);
    let _done = catalog.commit(&t, d, &add(2, d)).await.unwrap();
    assert_eq!(ids(&catalog.blocks(&t, 0, 9).await.unwrap().blocks), [2]);
}

#[tokio::test]
async fn a_day_that_somebody_drops_comes_back_with_the_next_block() {
    let objects = memory();
    let (t, d) = (tenant("t"), day(0));
    let later = || Catalog::new(objects.clone(), Refresh::Shared { max_age: Duration::from_secs(3600) });
    let (one, other) = (later(), later());
    assert_eq!(one.commit(&t, d, &cut(1, d, log(1), 0, 5)).await.unwrap(), Committed::Done);
    assert!(!other.drop_day(&t, d).await.unwrap(), "it has a block");
    let change = Change { remove: vec![Ulid(1)], removed_at: 7, ..Change::default() };
    assert_eq!(other.commit(&t, d, &change).await.unwrap(), Committed::Done);
    assert_eq!(
        other.commit(&t, d, &Change { purge: vec![Ulid(1)], ..Change::default() }).await.unwrap(),
        Committed::Done
    );
    assert!(other.drop_day(&t, d).await.unwrap());
    // To the one it is still there, with what the logs had covered.
    assert_eq!(one.manifest(&t, d).await.unwrap().covered.len(), 1);
    assert_eq!(one.commit(&t, d, &cut(2, d, log(2), 0, 9)).await.unwrap(), Committed::Done);
    assert_eq!(ids(&shared(&objects).blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_are_dropped_while_blocks_are_added_hide_none() {
    let server = Server::start().await;
    let objects = server.objects("s3://logs");
    let t = tenant("t");
    let (adding, dropping) = (Arc::new(shared(&objects)), Arc::new(shared(&objects)));
    for round in 0..30 {
        let d = day(round);
        // An empty day.
        assert_eq!(adding.commit(&t, d, &cut(1, d, log(1), 0, 1)).await.unwrap(), Committed::Done);
        let change = Change { remove: vec![Ulid(1)], ..Change::default() };
        assert_eq!(adding.commit(&t, d, &change).await.unwrap(), Committed::Done);
        assert_eq!(
            adding.commit(&t, d, &Change { purge: vec![Ulid(1)], ..Change::default() }).await.unwrap(),
            Committed::Done
        );
        let (of_adding, of_t) = (adding.clone(), t.clone());
        let added = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..4000))).await;
            of_adding.commit(&of_t, d, &cut(2, d, log(2), 0, 1)).await.unwrap()
        });
        let dropped = dropping.drop_day(&t, d).await.unwrap();
        assert_eq!(added.await.unwrap(), Committed::Done);
        let manifest = shared(&objects).manifest(&t, d).await.unwrap();
        let listed = shared(&objects).days(&t).await.unwrap().0.contains(&d);
        // What was added in the instant in which the manifest was deleted is gone with it, as documented; nothing is there and hidden.
        assert!(listed || manifest.blocks.is_empty(), "round {round}: there is a block that nobody finds");
        assert!(dropped || !manifest.blocks.is_empty(), "round {round}: it was not dropped, and the block is gone");
    }
}

#[tokio::test]
async fn what_was_known_before_an_instant_is_asked_for_again() {
    let objects = memory();
    let (t, d) = (tenant("t"), day(0));
    let reader = Catalog::new(objects.clone(), Refresh::Shared { max_age: Duration::from_secs(3600) });
    let writer = shared(&objects);
    assert_eq!(writer.commit(&t, d, &add(1, d)).await.unwrap(), Committed::Done);
    let found = async |since| ids(&reader.blocks_since(&t, i64::MIN, i64::MAX, since).await.unwrap().blocks);
    assert_eq!(found(None).await, [1]);
    let before = Instant::now();
    assert_eq!(found(Some(before)).await, [1]);
    // Also a day that is new.
    assert_eq!(writer.commit(&t, day(1), &add(2, day(1))).await.unwrap(), Committed::Done);
    assert_eq!(writer.commit(&t, d, &add(3, d)).await.unwrap(), Committed::Done);
    assert_eq!(found(None).await, [1], "it is not old");
    assert_eq!(found(Some(before)).await, [1], "it was read after that");
    assert_eq!(found(Some(Instant::now())).await, [1, 3, 2]);
}

#[tokio::test]
async fn many_days_are_read_and_memory_stays_bounded() {
    let objects = memory();
    let t = tenant("t");
    let mut catalog = exclusive(&objects);
    catalog.days = Slots::new(50, 120);
    for number in -200..200 {
        let day = day(number);
        let add = (0..2).map(|n| block(Ulid::generate().0, day, n, n)).collect();
        let _done = catalog.commit(&t, day, &Change { add, ..Change::default() }).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks.len(), 800);
        let (slots, weight) = catalog.days.size();
        assert!(slots <= 50 && weight <= 120, "{slots} {weight}");
    }
    let loaded = exclusive(&objects).load().await.unwrap();
    assert_eq!((loaded.tenants, loaded.days, loaded.mended), (1, 400, 0));
}

#[tokio::test]
async fn a_change_that_nobody_waits_for_any_more_leaves_no_false_memory() {
    let server = Server::start().await;
    let objects = server.objects("s3://logs");
    let (t, d) = (tenant("t"), day(0));
    let catalog = exclusive(&objects);
    let _done = catalog.commit(&t, d, &add(1, d)).await.unwrap();
    server.next([Fault::Slow(Duration::from_millis(300))]);
    let change = add(2, d);
    let dropped = tokio::time::timeout(Duration::from_millis(100), catalog.commit(&t, d, &change)).await;
    assert!(dropped.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = ids(&catalog.blocks(&t, 0, 9).await.unwrap().blocks);
    assert_eq!(seen, listed(&shared(&objects), &t, d).await);
}
