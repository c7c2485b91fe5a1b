//! Rounds of housekeeping over a storage in memory.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tailwater_model::{Clock, Limits, StreamRetention, Timestamp};
use ulid::Ulid;

use super::{DAY, HOUR, House, Line, some_lines, tenant};
use crate::catalog::{Catalog, Change, Committed, Day, Refresh};
use crate::housekeeping::Settings;

fn settings() -> Settings {
    Settings { block_bytes: 1 << 20, ..Settings::default() }
}

fn retention() -> Settings {
    Settings { retention: true, compaction: false, ..settings() }
}

/// Five blocks of a day, and their lines.
async fn five(house: &House, base: i64) -> Vec<Line> {
    let mut all = Vec::new();
    for seq in 1..=5_u64 {
        let mut lines = some_lines("a", seq, &[base + 5, base + 3]);
        lines.extend(some_lines("b", seq, &[base + 7]).into_iter().map(|line| Line { index: 2, ..line }));
        house.add("t", &lines).await;
        all.extend(lines);
    }
    all.sort();
    all
}

#[tokio::test]
async fn small_blocks_are_merged_and_their_objects_go_later() {
    let house = House::new(settings(), Limits::default());
    let base = house.clock.now().nanos() / DAY * DAY;
    let all = five(&house, base).await;
    house.round().await;
    assert_eq!(house.lines("t").await, all);
    let day = Day::of(base);
    let manifest = house.catalog.manifest(&tenant("t"), day).await.unwrap();
    assert_eq!((manifest.blocks.len(), manifest.removed.len(), house.objects().await), (1, 5, 6));
    assert_eq!(manifest.blocks[0].level, 1);
    assert_eq!(manifest.covered.len(), 1, "what is covered stays");
    // Searches that began before may still read them; after that they go, also if the process is another by then.
    let house = house.again();
    house.wait(Duration::from_secs(14 * 60));
    house.round().await;
    assert_eq!(house.objects().await, 6);
    house.wait(Duration::from_secs(60));
    house.round().await;
    assert_eq!(house.objects().await, 1);
    assert!(house.catalog.manifest(&tenant("t"), day).await.unwrap().removed.is_empty());
    assert_eq!(house.lines("t").await, all);
}

#[tokio::test]
async fn of_a_day_that_is_over_two_blocks_are_enough() {
    let house = House::new(settings(), Limits::default());
    let base = house.clock.now().nanos() / DAY * DAY - 2 * DAY;
    house.add("t", &some_lines("a", 1, &[base])).await;
    house.add("t", &some_lines("a", 2, &[base + 1])).await;
    house.add("t", &some_lines("a", 3, &[base + 2 * DAY])).await;
    house.add("t", &some_lines("a", 4, &[base + 2 * DAY])).await;
    house.round().await;
    let count = async |day| house.catalog.manifest(&tenant("t"), Day::of(day)).await.unwrap().blocks.len();
    assert_eq!((count(base).await, count(base + 2 * DAY).await), (1, 2));
}

#[tokio::test]
async fn whoever_comes_second_changes_nothing() {
    let house = House::new(settings(), Limits::default());
    let base = house.clock.now().nanos() / DAY * DAY;
    let all = five(&house, base).await;
    let (tenant, day) = (tenant("t"), Day::of(base));
    // Somebody else removes a block; the catalog of this house does not know.
    let first = house.catalog.manifest(&tenant, day).await.unwrap().blocks[0].id;
    let other = Catalog::new(house.objects.clone(), Refresh::Exclusive);
    let change = Change { remove: vec![first], removed_at: house.clock.now().nanos(), ..Change::default() };
    assert_eq!(other.commit(&tenant, day, &change).await.unwrap(), Committed::Done);
    house.round().await;
    assert_eq!(house.lines("t").await.len(), all.len() - 3);
    assert_eq!(house.objects().await, 5, "what was written in vain is deleted again");
    house.round().await;
    assert_eq!(house.lines("t").await.len(), all.len() - 3);
    assert_eq!(house.catalog.manifest(&tenant, day).await.unwrap().blocks.len(), 1);
}

#[tokio::test]
async fn a_damaged_block_holds_nothing_up() {
    let house = House::new(settings(), Limits::default());
    let base = house.clock.now().nanos() / DAY * DAY;
    five(&house, base).await;
    let (tenant, day) = (tenant("t"), Day::of(base));
    let bad = house.catalog.manifest(&tenant, day).await.unwrap().blocks[2].clone();
    let (object, _) = house.objects.get(&bad.path(&tenant)).await.unwrap().unwrap();
    let mut object = object.to_vec();
    object[10] ^= 1;
    house.objects.put(&bad.path(&tenant), vec![object.into()]).await.unwrap();
    house.round().await;
    house.round().await;
    let manifest = house.catalog.manifest(&tenant, day).await.unwrap();
    assert_eq!(manifest.blocks.len(), 2);
    assert!(manifest.blocks.iter().any(|block| block.id == bad.id));
    assert_eq!(manifest.blocks.iter().map(|block| block.lines).sum::<u64>(), 15);
}

#[tokio::test]
async fn whatever_step_is_the_last_no_line_is_lost_or_doubled() {
    for polls in 0.. {
        let house = House::new(settings(), Limits::default());
        let base = house.clock.now().nanos() / DAY * DAY - 3 * DAY;
        let all = five(&house, base).await;
        let ended = {
            let mut round = pin!(house.keeping.round());
            let mut left = polls;
            std::future::poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(false);
                }
                left -= 1;
                round.as_mut().poll(context).map(|_| true)
            })
            .await
        };
        assert_eq!(house.lines("t").await, all, "after {polls} polls");
        let house = house.again();
        house.round().await;
        assert_eq!(house.lines("t").await, all);
        // A day later nothing is left but the one block, and what may have been written in vain.
        house.wait(Duration::from_secs(25 * 3600));
        house.round().await;
        house.round().await;
        assert_eq!(house.objects().await, 1, "after {polls} polls");
        if ended {
            return;
        }
    }
}

#[tokio::test]
async fn what_is_older_than_the_period_goes_as_whole_days() {
    let limits = Limits { retention_period: Duration::from_secs(2 * 24 * 3600), ..Limits::default() };
    let house = House::new(retention(), limits);
    let today = house.clock.now().nanos() / DAY * DAY;
    for ago in 0..6 {
        house.add("t", &some_lines("a", 1, &[today - ago * DAY])).await;
    }
    house.round().await;
    assert_eq!(house.lines("t").await.len(), 3);
    // Long after, nothing of the days is left at all.
    house.wait(Duration::from_secs(30 * 24 * 3600));
    for _ in 0..3 {
        house.round().await;
        house.wait(Duration::from_secs(3600));
    }
    assert_eq!((house.lines("t").await.len(), house.objects().await), (0, 0));
    assert!(house.catalog.days(&tenant("t")).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn without_retention_nothing_expires() {
    let limits = Limits { retention_period: Duration::from_secs(24 * 3600), ..Limits::default() };
    let house = House::new(settings(), limits);
    house.add("t", &some_lines("a", 1, &[0])).await;
    house.round().await;
    assert_eq!(house.lines("t").await.len(), 1);
}

#[tokio::test]
async fn streams_with_periods_of_their_own_are_taken_out_of_blocks() {
    let day = Duration::from_secs(24 * 3600);
    let rule = |selector: &str, period| StreamRetention { selector: selector.into(), priority: 1, period };
    let limits = Limits {
        retention_period: day * 30,
        retention_stream: vec![rule(r#"{app="dev"}"#, day), rule(r#"{app="few"}"#, day * 2)],
        ..Limits::default()
    };
    let house = House::new(retention(), limits);
    let old = house.clock.now().nanos() / DAY * DAY - 3 * DAY;
    let mut mixed = some_lines("dev", 1, &[old, old + 1, old + 2]);
    mixed.extend(some_lines("keep", 2, &[old, old + 1, old + 2]));
    house.add("t", &mixed).await;
    house.add("t", &some_lines("dev", 3, &[old])).await;
    let mut mostly = some_lines("few", 4, &[old]);
    mostly.extend(some_lines("keep", 5, &(0..40).map(|n| old + n).collect::<Vec<_>>()));
    house.add("t", &mostly).await;
    house.add("t", &some_lines("dev", 6, &[old + 3 * DAY])).await;
    house.round().await;
    let lines = house.lines("t").await;
    let count = |app: &str| lines.iter().filter(|line| line.app == app).count();
    assert_eq!(count("keep"), 43);
    assert_eq!(count("dev"), 1, "only that of today");
    assert_eq!(count("few"), 1, "so little is not worth it");
    let before = house.catalog.manifest(&tenant("t"), Day::of(old)).await.unwrap();
    house.round().await;
    assert_eq!(house.catalog.manifest(&tenant("t"), Day::of(old)).await.unwrap(), before, "nothing is done twice");
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_go_whoevers_they_are() {
    let probe = House::new(settings(), Limits::default());
    let size = probe.add("t", &some_lines("a", 1, &[0])).await.bytes;
    let capped = Settings { max_bytes: size * 3 + size / 2, compaction: false, ..settings() };
    let house = House::new(capped, Limits::default());
    for (of, at) in [("t", 5 * HOUR), ("u", 4 * HOUR), ("u", 3 * DAY), ("t", 6 * HOUR), ("t", 2 * DAY)] {
        house.add(of, &some_lines("a", 1, &[at])).await;
    }
    house.round().await;
    let times = async |of: &str| house.lines(of).await.iter().map(|line| line.timestamp).collect::<Vec<_>>();
    assert_eq!((times("t").await, times("u").await), (vec![6 * HOUR, 2 * DAY], vec![3 * DAY]));
    assert_eq!(house.objects().await, 5);
    house.wait(Duration::from_secs(15 * 60));
    house.round().await;
    assert_eq!(house.objects().await, 3);
}

#[tokio::test]
async fn objects_that_nobody_listed_go_after_a_day() {
    let house = House::new(settings(), Limits::default());
    let (tenant, day) = (tenant("t"), Day::of(0));
    house.add("t", &some_lines("a", 1, &[5])).await;
    let path = |day: Day, id: u128| crate::catalog::names::block_path(&tenant, day, 5, 5, Ulid(id));
    let elsewhere = Day::of(40 * DAY);
    for path in [path(day, 7), path(elsewhere, 8), "t/1970-01-01/notes.txt".to_owned()] {
        house.objects.put(&path, vec!["x".into()]).await.unwrap();
    }
    house.round().await;
    assert_eq!(house.objects().await, 3);
    house.wait(Duration::from_secs(25 * 3600));
    house.round().await;
    // Where there is no manifest nothing is deleted: somebody may want to mend it.
    assert_eq!(house.objects().await, 2);
    assert!(house.objects.get(&path(day, 7)).await.unwrap().is_none());
    assert!(house.objects.get(&path(elsewhere, 8)).await.unwrap().is_some());
    assert!(house.objects.get("t/1970-01-01/notes.txt").await.unwrap().is_some());
    assert_eq!(house.lines("t").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_runs_by_itself_until_it_is_stopped() {
    let house = House::new(Settings { interval: Duration::from_secs(60), ..settings() }, Limits::default());
    let base = house.clock.now().nanos() / DAY * DAY;
    let all = five(&house, base).await;
    house.keeping.start();
    let merged = async || house.catalog.manifest(&tenant("t"), Day::of(base)).await.unwrap().blocks.len() == 1;
    while !merged().await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    house.keeping.stop().await;
    assert_eq!(house.lines("t").await, all);
    let _ = Timestamp::MIN;
}
