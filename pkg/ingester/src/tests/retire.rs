//! A node's own log that may lack its last records, and becomes a copy; copies that end before others, or have lost something.

use std::path::{Path, PathBuf};

use tailwater_model::LogId;
use tailwater_wire::node::Node;

use super::copies::{Keeper, carry, push, read, state, until};
use super::durable::Place;
use super::*;
use crate::copies::MAX_COPIES;
use crate::{Copies, CopiesConfig, SyncPolicy};

fn folder(place: &Place) -> PathBuf {
    Copies::folder(place.dir.path())
}

/// The node's own ingester, as it begins where there are copies.
fn start(place: &Place) -> Bench {
    let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
    let config = Config {
        log_memory_bytes: 4_000,
        wal: Some(place.wal.clone()),
        copies: Some(folder(place)),
        ..Config::default()
    };
    let (disk, limits) = (Arc::clone(&place.disk) as _, Arc::new(Arc::new(no_limits())));
    let ingester = Ingester::open_on(disk, config, limits, Arc::<TestClock>::clone(&clock)).unwrap();
    ingester.recover().unwrap();
    Bench { ingester, clock }
}

/// The node's copies.
async fn copies(place: &Place) -> Copies {
    let config = CopiesConfig { wal: place.wal.clone(), memory_bytes: 8_000, max_bytes: 0 };
    let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
    let limits = Arc::new(Arc::new(no_limits()));
    let copies = Copies::open_on(Arc::clone(&place.disk) as _, folder(place), config, limits, clock).unwrap();
    copies.opened().await;
    copies
}

fn lose_power(place: &Place) {
    place.disk.boots.fetch_add(1, Ordering::SeqCst);
}

/// A log with lines, whose process is gone.
async fn gone(place: &Place) -> (LogId, Vec<super::copies::Line>) {
    let bench = start(place);
    for i in 0..40 {
        push(&bench, "t", i);
    }
    let (lines, _) = read(&*bench.ingester, "t", 0).await;
    (Node::log_id(&*bench.ingester), lines)
}

#[tokio::test]
async fn a_log_whose_machine_lost_power_is_a_copy_from_then_on() {
    let place = Place::new(SyncPolicy::Os);
    let (log, all) = gone(&place).await;
    // The end of a process alone is no reason.
    assert_eq!(Node::log_id(&*start(&place).ingester), log);
    lose_power(&place);
    for round in 0..2 {
        let bench = start(&place);
        let new = Node::log_id(&*bench.ingester);
        assert_ne!(new, log);
        assert!(push(&bench, "t", 100 + round) > 0);
        let copies = copies(&place).await;
        assert_eq!(copies.logs(), [log]);
        let node = copies.node(log).unwrap();
        let at = state(&*node).await;
        assert_eq!((at.head, at.whole), (40, 40));
        assert_eq!(read(&*node, "t", 0).await, (all.clone(), None));
        copies.end_abruptly();
    }
}

#[tokio::test]
async fn a_start_that_was_interrupted_leads_to_the_same() {
    for moved in [false, true] {
        let place = Place::new(SyncPolicy::Os);
        let (log, all) = gone(&place).await;
        lose_power(&place);
        if moved {
            std::fs::create_dir_all(folder(&place)).unwrap();
            std::fs::rename(&place.wal.dir, folder(&place).join(log.to_string())).unwrap();
        } else {
            std::fs::create_dir_all(folder(&place)).unwrap();
        }
        let bench = start(&place);
        assert_ne!(Node::log_id(&*bench.ingester), log);
        assert_eq!(bench.ingester.log.head(), 0);
        let copies = copies(&place).await;
        assert_eq!(read(&*copies.node(log).unwrap(), "t", 0).await, (all, None));
        copies.end_abruptly();
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_moved_goes_on_elsewhere_in_its_numbers() {
    let in_the_way: [fn(&Path, LogId); 3] = [
        |copies, log| std::fs::create_dir_all(copies.join(log.to_string()).join("x")).unwrap(),
        |copies, _| std::fs::write(copies, "no folder").unwrap(),
        |copies, _| {
            for log in 0..MAX_COPIES {
                std::fs::create_dir_all(copies.join(LogId::from_u128(log as u128).to_string())).unwrap();
            }
        },
    ];
    for put in in_the_way {
        let place = Place::new(SyncPolicy::Os);
        let (log, all) = gone(&place).await;
        lose_power(&place);
        put(&folder(&place), log);
        let bench = start(&place);
        assert_eq!(Node::log_id(&*bench.ingester), log);
        assert!(push(&bench, "t", 100) > 1 << 20);
        assert_eq!(read(&*bench.ingester, "t", 0).await.0[..all.len()], all);
    }
}

#[tokio::test]
async fn a_log_that_lost_a_part_in_the_middle_is_not_whole_beyond_it() {
    let place = Place::new(SyncPolicy::Os);
    let (log, _) = gone(&place).await;
    let mut segments: Vec<_> = std::fs::read_dir(&place.wal.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    segments.sort();
    assert!(segments.len() > 1, "{segments:?}");
    let newest = segments.pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    // The payload of its first record.
    bytes[150..154].fill(0);
    std::fs::write(&newest, bytes).unwrap();
    let first: u64 = newest.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    lose_power(&place);
    let _bench = start(&place);
    let copies = copies(&place).await;
    let node = copies.node(log).unwrap();
    let at = state(&*node).await;
    assert_eq!((at.head, at.whole, at.in_blocks), (40, first - 1, 0));
    // Somebody else's copy was whole.
    copies.catch_up(log, first);
    let at = state(&*node).await;
    assert_eq!((at.head, at.whole, at.in_blocks), (40, 40, first));
    copies.end_abruptly();
}

#[tokio::test]
async fn a_copy_that_ends_early_learns_what_others_have_put_into_blocks() {
    let place = Place::new(SyncPolicy::Os);
    let (bench, mut keeper) = (place.open(no_limits(), 64 << 20).await, Keeper::new(SyncPolicy::Os, 8_000));
    let log = Node::log_id(&*bench.ingester);
    let copy = keeper.begin(&bench.ingester).await;
    push(&bench, "t", 0);
    carry(&bench.ingester, &copy).await;
    push(&bench, "t", 1);
    keeper.copies().catch_up(log, 2);
    assert_eq!(state(&*keeper.node(&bench.ingester)).await.head, 1, "it is being written");
    drop(copy);
    until(|| !keeper.copies().state()[0].is_written).await;
    for _ in 0..2 {
        keeper.copies().catch_up(log, 2);
        let at = state(&*keeper.node(&bench.ingester)).await;
        assert_eq!((at.head, at.in_blocks), (2, 2));
        keeper.reopen(false).await;
    }
    assert_eq!(state(&*keeper.node(&bench.ingester)).await.in_blocks, 2, "also after a restart");
    keeper.clock.0.fetch_add(7_200 * SECOND, Ordering::Relaxed);
    keeper.copies().tidy();
    assert!(keeper.copies().logs().is_empty(), "nobody needs it");
}
