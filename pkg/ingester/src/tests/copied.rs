//! The log as those see it who copy it, and pushes that wait for them.

use std::time::Duration;

use tailwater_wire::host::{Copied, CopiedRecord, CopyState, Records};
use tailwater_wire::node::NodeError;

use super::durable::Place;
use super::*;
use crate::quorum::MAX_WAITING;
use crate::{PushErrorKind, Receipt, Replication, SyncPolicy};

const A: &str = r#"{app="a"}"#;

pub(super) fn state(node: &str, through: u64) -> CopyState {
    CopyState { node: node.to_owned(), through }
}

async fn piece(records: &mut Records) -> Vec<CopiedRecord> {
    let piece = tokio::time::timeout(Duration::from_secs(20), records.next()).await.expect("records come");
    let piece = piece.unwrap().unwrap();
    let bytes = |record: &CopiedRecord| match record {
        CopiedRecord::Batch { payload, .. } => payload.len(),
        CopiedRecord::Missing { .. } => 0,
    };
    assert!(!piece.is_empty());
    assert!(piece.len() == 1 || piece.iter().map(bytes).sum::<usize>() <= 400);
    piece
}

async fn up_to(records: &mut Records, last: u64) -> Vec<CopiedRecord> {
    let mut all = Vec::new();
    while all.last().is_none_or(|record: &CopiedRecord| record.last() < last) {
        all.extend(piece(records).await);
    }
    all
}

fn one(bench: &Bench, i: i64) -> Receipt {
    bench.ingester.push(&tenant("t"), push_of(&[(A, &[(NOW + i, &format!("line {i}"), &[])])]), None)
}

#[tokio::test]
async fn records_come_from_memory_and_from_disk_alike() {
    for sync in [SyncPolicy::Os, SyncPolicy::Always] {
        let place = Place::new(sync);
        let bench = place.open(no_limits(), 2_000).await;
        let mut live = bench.ingester.records(0);
        assert!(live.next().now_or_never().is_none());
        for i in 0..60 {
            one(&bench, i).await.unwrap();
            if i % 7 == 0 {
                piece(&mut live).await;
            }
        }
        let head = bench.ingester.log.head();
        let whole = up_to(&mut bench.ingester.records(0), head).await;
        assert_eq!(whole.len(), 60);
        for after in [0, 1, 30, 58] {
            let late = up_to(&mut bench.ingester.records(after), head).await;
            assert_eq!(late, whole[after as usize..]);
        }
        // From memory as soon as it is appended.
        up_to(&mut live, head).await;
        let mut early = bench.ingester.records(head);
        assert!(live.next().now_or_never().is_none() && early.next().now_or_never().is_none());
        place.disk.unreadable.store(true, std::sync::atomic::Ordering::SeqCst);
        one(&bench, 100).await.unwrap();
        let new = live.next().now_or_never().expect("it is at hand").unwrap().unwrap();
        assert_eq!(new.iter().map(CopiedRecord::last).collect::<Vec<_>>(), [head + 1]);
        assert_eq!(early.next().now_or_never().unwrap().unwrap().unwrap(), new);
        place.disk.unreadable.store(false, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(piece(&mut bench.ingester.records(head)).await, new, "and the same as on disk");
    }
}

#[tokio::test]
async fn what_failed_or_was_skipped_or_trimmed_is_told() {
    let mut place = Place::new(SyncPolicy::Always);
    place.wal.segment_bytes = 300;
    let bench = place.open(no_limits(), 64 << 20).await;
    one(&bench, 0).await.unwrap();
    let mut live = bench.ingester.records(0);
    assert_eq!(piece(&mut live).await.len(), 1);
    place.disk.unsynced.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(one(&bench, 1).await.is_err());
    place.disk.unsynced.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(live.next().now_or_never().is_none(), "no copy hears of what could not be synced");
    let seq = one(&bench, 2).await.unwrap().seq.unwrap();
    let missing = CopiedRecord::Missing { first: 2, last: seq - 1, lost: false };
    assert_eq!(up_to(&mut live, seq).await[0], missing);
    assert_eq!(up_to(&mut bench.ingester.records(1), seq).await[0], missing);
    let log = Arc::downgrade(&bench.ingester.log);
    drop((bench, live));
    while log.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Power is lost.
    place.disk.boots.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let bench = place.open(no_limits(), 64 << 20).await;
    let head = bench.ingester.log.head();
    assert!(head > seq);
    let told = up_to(&mut bench.ingester.records(1), head).await;
    assert_eq!(told.last(), Some(&CopiedRecord::Missing { first: seq + 1, last: head, lost: true }));
    let last = one(&bench, 3).await.unwrap().seq.unwrap();
    assert_eq!(last, head + 1);
    for i in 10..30 {
        one(&bench, i).await.unwrap();
    }
    bench.ingester.log.set_covered(u64::MAX);
    assert_eq!(Copied::in_blocks(&*bench.ingester), bench.ingester.log.head());
    let mut trimmed = bench.ingester.records(1);
    let Some(Err(NodeError::Trimmed { through, .. })) = trimmed.next().await else { panic!() };
    assert!(through >= last);
    assert!(trimmed.next().await.is_none());
    assert!(bench.ingester.records(through).next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_log_in_memory_cannot_be_copied() {
    let bench = Bench::new(no_limits());
    assert!(bench.ingester.records(0).next().await.unwrap().is_err());
    let replication = Replication { quorum: 1, ..Replication::default() };
    let config = Config { replication, ..Config::default() };
    let limits = Arc::new(Arc::new(no_limits()));
    let error = Ingester::open(config.clone(), limits, Arc::<TestClock>::clone(&bench.clock)).unwrap_err();
    assert!(error.to_string().contains("ingester.wal.enabled: true"), "{error}");
    assert!(crate::CopiesConfig::of(&config, 0).unwrap_err().to_string().contains("ingester.wal.enabled"));
}

/// An ingester whose pushes need copies.
async fn replicated(place: &Place, quorum: usize) -> Bench {
    let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
    let replication = Replication { quorum, timeout: Duration::from_secs(5) };
    let config = Config { log_memory_bytes: 64 << 20, wal: Some(place.wal.clone()), replication, copies: None };
    let limits = Arc::new(Arc::new(no_limits()));
    let ingester = Ingester::open_on(Arc::clone(&place.disk) as _, config, limits, Arc::<TestClock>::clone(&clock));
    let ingester = ingester.unwrap();
    ingester.recover().unwrap();
    Bench { ingester, clock }
}

#[tokio::test(start_paused = true)]
async fn a_push_waits_for_its_copies_and_not_for_ever() {
    let place = Place::new(SyncPolicy::Os);
    let bench = replicated(&place, 1).await;
    // Nobody has a copy yet.
    let error = one(&bench, 0).await.unwrap_err();
    assert_eq!(error.kind, PushErrorKind::Unavailable);
    assert!(error.to_string().contains("may have been stored"), "{error}");
    assert_eq!(bench.ingester.log.head(), 1, "it is there all the same");
    // The same again is dropped as a duplicate, which says nothing before copies have it.
    let mut again = one(&bench, 0);
    assert!((&mut again).now_or_never().is_none());
    let mut receipts = vec![one(&bench, 1), one(&bench, 2), one(&bench, 3)];
    assert_eq!(bench.ingester.quorum.waiting(), 4);
    let copied = |copies: &[CopyState], quorum| bench.ingester.acknowledged_by(copies, quorum);
    copied(&[state("x", 3), state("y", 1)], 2);
    assert!(again.now_or_never().unwrap().is_ok());
    assert!(receipts.iter_mut().all(|receipt| receipt.now_or_never().is_none()));
    copied(&[state("x", 3)], 2);
    assert!(receipts[0].now_or_never_ref().is_none(), "one copy is not two");
    copied(&[state("x", 3), state("z", 3)], 2);
    let last = receipts.pop().unwrap();
    for receipt in receipts {
        assert!(receipt.now_or_never().unwrap().is_ok());
    }
    // What was acknowledged once stays so, and what is not needed is not waited for.
    copied(&[], 2);
    assert!(bench.ingester.quorum.wait(3).is_none());
    copied(&[], 0);
    assert!(last.now_or_never().unwrap().is_ok());
    assert!(one(&bench, 4).now_or_never().unwrap().is_ok());
    assert_eq!(bench.ingester.quorum.waiting(), 0);
    assert_eq!(bench.ingester.quorum.timeouts.get(), 1);
}

trait NowOrNeverRef: std::future::Future + Unpin {
    fn now_or_never_ref(&mut self) -> Option<Self::Output> {
        self.now_or_never()
    }
}

impl NowOrNeverRef for Receipt {}

#[tokio::test(start_paused = true)]
async fn waiting_pushes_are_bounded_and_those_who_go_are_forgotten() {
    let place = Place::new(SyncPolicy::Os);
    let bench = replicated(&place, 1).await;
    let mut waiting: Vec<_> = (0..MAX_WAITING as i64).map(|i| one(&bench, i)).collect();
    let head = bench.ingester.log.head();
    let error = one(&bench, 1000).await.unwrap_err();
    assert_eq!(error.kind, PushErrorKind::Unavailable);
    assert_eq!(bench.ingester.log.head(), head, "nothing of it is stored");
    waiting.pop();
    let next = one(&bench, 1001);
    assert_eq!(bench.ingester.log.head(), head + 1);
    drop((waiting, next));
    assert_eq!(bench.ingester.quorum.waiting(), 0);
}

#[tokio::test]
async fn a_push_that_must_be_synced_needs_both() {
    let place = Place::new(SyncPolicy::Always);
    let bench = replicated(&place, 1).await;
    place.disk.hold_syncs(true);
    let mut push = one(&bench, 0);
    bench.ingester.acknowledged_by(&[state("x", 7)], 1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!((&mut push).now_or_never().is_none());
    place.disk.hold_syncs(false);
    assert_eq!(push.await.unwrap().seq, Some(1));
}
