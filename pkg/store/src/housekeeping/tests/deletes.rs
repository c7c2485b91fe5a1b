//! Delete requests, from being made to being carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tailwater_model::{Clock, DeletionMode, Limits, Timestamp};

use super::{CANCEL, DAY, House, Turned, some_lines, tenant};
use crate::catalog::Refresh;
use crate::deletes::{Cancelled, DeleteError, NewRequest, STAYS_ACTIVE, Status};
use crate::housekeeping::Settings;
use crate::objects::tests::s3::{Fault, Server};
use crate::objects::{Objects, Options, Timing};

fn settings() -> Settings {
    Settings { block_bytes: 1 << 20, compaction: false, retention: true, ..Settings::default() }
}

fn house() -> House {
    House::new(settings(), Limits::default())
}

fn request(start: i64, end: i64, query: &str) -> NewRequest {
    NewRequest { start: Timestamp(start), end: Timestamp(end), query: query.into() }
}

#[tokio::test]
async fn requests_are_made_listed_and_cancelled() {
    let house = house();
    let (t, u) = (tenant("t"), tenant("u"));
    assert!(house.deletes.filter(&t).await.unwrap().is_empty());
    let id = house.deletes.add(&t, request(1, 2, r#"{app="a"}"#)).await.unwrap();
    assert_eq!(house.deletes.filter(&t).await.unwrap().len(), 1, "at once");
    assert!(house.deletes.filter(&u).await.unwrap().is_empty());
    let other = house.deletes.add(&t, request(1, 2, r#"{app="b"} |= "x""#)).await.unwrap();
    let listed = house.deletes.list(&t).await.unwrap();
    assert_eq!(listed.iter().map(|r| &r.request_id).collect::<Vec<_>>(), [&id, &other]);
    assert!(listed.iter().all(|r| r.status == Status::Received));
    // Another process sees them too.
    assert_eq!(house.again().deletes.filter(&t).await.unwrap().len(), 2);
    assert_eq!(house.deletes.cancel(&t, "nothing", false).await.unwrap(), Cancelled::Unknown);
    assert_eq!(house.deletes.cancel(&t, &id, false).await.unwrap(), Cancelled::Done);
    assert_eq!(house.deletes.filter(&t).await.unwrap().len(), 1, "at once");
    house.wait(CANCEL);
    assert_eq!(house.deletes.cancel(&t, &other, false).await.unwrap(), Cancelled::PastDeadline);
    assert_eq!(house.deletes.cancel(&t, &other, true).await.unwrap(), Cancelled::Done);
    assert!(house.deletes.list(&t).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_known_stands_in_for_a_store_that_says_nothing() {
    let server = Server::start().await;
    let (objects, clock) = (server.objects("s3://logs/p"), Arc::new(Turned(AtomicI64::new(DAY))));
    let house = |objects| House::of(objects, Refresh::Exclusive, settings(), Limits::default(), Arc::clone(&clock));
    let (asks, asked) = (house(objects.clone()), house(objects.clone()));
    let t = tenant("t");
    asks.deletes.add(&t, request(1, 2, r#"{app="a"}"#)).await.unwrap();
    assert_eq!(asked.deletes.filter(&t).await.unwrap().len(), 1);
    asks.deletes.add(&t, request(1, 2, r#"{app="b"}"#)).await.unwrap();
    asked.wait(Duration::from_secs(11));
    server.always(Fault::Slow(Duration::from_secs(60)));
    let began = Instant::now();
    assert_eq!(asked.deletes.filter(&t).await.unwrap().len(), 1);
    assert!(began.elapsed() < Duration::from_millis(2500), "it did not wait for all attempts: {:?}", began.elapsed());
    assert!(objects.unanswered() >= Duration::from_millis(900), "{:?}", objects.unanswered());
    assert!(asked.deletes.filter(&tenant("u")).await.is_err(), "of this tenant nothing is known");
    // What nobody waits for any more is taken in all the same.
    server.always(Fault::None);
    asked.wait(Duration::from_secs(11));
    server.next([Fault::Slow(Duration::from_millis(1500)), Fault::None]);
    let options =
        Options { timing: Timing { attempt: Duration::from_secs(30), ..server.options().timing }, ..server.options() };
    let patient = house(Objects::open("s3://logs/p", &options).unwrap());
    assert_eq!(patient.deletes.filter(&t).await.unwrap().len(), 2);
    patient.wait(Duration::from_secs(11));
    asks.deletes.add(&t, request(1, 2, r#"{app="c"}"#)).await.unwrap();
    server.next([Fault::Slow(Duration::from_millis(1500))]);
    assert_eq!(patient.deletes.filter(&t).await.unwrap().len(), 2);
    let deadline = Instant::now() + Duration::from_secs(20);
    while patient.deletes.filter(&t).await.unwrap().len() < 3 {
        assert!(Instant::now() < deadline, "the third request is never seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(objects.unanswered(), Duration::ZERO);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let house = house();
    let t = tenant("t");
    let refused = async |new| house.deletes.add(&t, new).await.unwrap_err();
    assert!(matches!(refused(request(1, 2, "{")).await, DeleteError::Query(_)));
    assert!(matches!(refused(request(1, 2, r#"rate({app="a"}[1m])"#)).await, DeleteError::Query(_)));
    assert!(matches!(refused(request(2, 1, r#"{app="a"}"#)).await, DeleteError::Range));
    let long = format!(r#"{{app="{}"}}"#, "x".repeat(20_000));
    assert!(matches!(refused(request(1, 2, &long)).await, DeleteError::TooLong));
    assert!(house.deletes.list(&t).await.unwrap().is_empty());
}

#[tokio::test]
async fn several_who_ask_at_a_time_lose_no_request() {
    let house = house();
    let others = [house.again(), house.again(), house.again()];
    let t = tenant("t");
    let ask = |house: &House| {
        let (deletes, t) = (house.deletes.clone(), t.clone());
        tokio::spawn(async move {
            for _ in 0..5 {
                deletes.add(&t, request(1, 2, r#"{app="a"}"#)).await.unwrap();
            }
        })
    };
    for asked in others.iter().map(ask).collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    assert_eq!(house.deletes.list(&t).await.unwrap().len(), 15);
}

#[tokio::test]
async fn lines_go_when_a_request_cannot_be_cancelled_any_more() {
    let house = house();
    let t = tenant("t");
    let base = house.clock.now().nanos() / DAY * DAY - DAY;
    house.add("t", &some_lines("a", 1, &[base, base + 1, base + 2])).await;
    house.add("t", &some_lines("b", 2, &[base + 1])).await;
    house.add("t", &some_lines("a", 3, &[base + DAY])).await;
    let untouched = house.add("t", &some_lines("a", 4, &[base + 5])).await;
    let id = house.deletes.add(&t, request(base + 1, base + DAY, r#"{app="a"} != "line 4""#)).await.unwrap();
    house.round().await;
    assert_eq!(house.lines("t").await.len(), 6, "it can still be cancelled");
    house.wait(CANCEL);
    house.settled.store(house.clock.now().nanos() - 1, Ordering::Relaxed);
    house.round().await;
    assert_eq!(house.lines("t").await.len(), 6, "there may be lines that are in no block yet");
    house.settled.store(house.clock.now().nanos(), Ordering::Relaxed);
    house.round().await;
    let left: Vec<_> = house.lines("t").await.into_iter().map(|line| (line.app, line.seq, line.index)).collect();
    let entry = |app: &str, seq, index| (app.to_owned(), seq, index);
    assert_eq!(left, [entry("a", 1, 0), entry("a", 4, 0), entry("b", 2, 0)]);
    let blocks = house.catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks;
    assert!(blocks.iter().any(|block| block.id == untouched.id), "a block without such lines stays as it is");
    let listed = house.deletes.list(&t).await.unwrap();
    assert_eq!((listed[0].request_id.as_str(), listed[0].status), (id.as_str(), Status::Processed));
    assert_eq!(house.deletes.cancel(&t, &id, true).await.unwrap(), Cancelled::Processed);
    // Searches go on to leave them out for a while: they may have an older catalog.
    assert_eq!(house.deletes.filter(&t).await.unwrap().len(), 1);
    house.wait(STAYS_ACTIVE + Duration::from_secs(10));
    assert!(house.deletes.filter(&t).await.unwrap().is_empty());
}

#[tokio::test]
async fn lines_stay_where_they_are_only_left_out_or_nothing_may_be_deleted() {
    let filter_only = Limits { deletion_mode: DeletionMode::FilterOnly, ..Limits::default() };
    for (settings, limits) in
        [(settings(), filter_only), (Settings { retention: false, ..settings() }, Limits::default())]
    {
        let house = House::new(settings, limits);
        let t = tenant("t");
        house.add("t", &some_lines("a", 1, &[5])).await;
        house.deletes.add(&t, request(1, 9, r#"{app="a"}"#)).await.unwrap();
        house.wait(CANCEL);
        house.round().await;
        assert_eq!(house.lines("t").await.len(), 1);
        assert_eq!(house.deletes.list(&t).await.unwrap()[0].status, Status::Received);
        assert_eq!(house.deletes.filter(&t).await.unwrap().len(), 1, "searches leave it out");
    }
}

#[tokio::test]
async fn a_block_that_cannot_be_read_keeps_the_request_open() {
    let house = house();
    let t = tenant("t");
    let bad = house.add("t", &some_lines("a", 1, &[5])).await;
    let (object, _) = house.objects.get(&bad.path(&t)).await.unwrap().unwrap();
    let mut object = object.to_vec();
    object[10] ^= 1;
    house.objects.put(&bad.path(&t), vec![object.into()]).await.unwrap();
    house.deletes.add(&t, request(1, 9, r#"{app="a"} |= "line""#)).await.unwrap();
    house.wait(CANCEL);
    house.round().await;
    assert_eq!(house.deletes.list(&t).await.unwrap()[0].status, Status::Received);
    assert_eq!(house.deletes.filter(&t).await.unwrap().len(), 1);
}
