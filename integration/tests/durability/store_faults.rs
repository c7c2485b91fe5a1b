//! The object store is away, slow or answers with errors: pushes and tails go on, what memory and the WAL hold can be queried, a query
//! that cannot be answered in full fails, and when the store is well again, blocks arrive and the WAL shrinks.

use std::time::Duration;

use tailwater_integration::ledger::Scope;
use tailwater_integration::load::{Load, Shape};
use tailwater_integration::read::Query;
use tailwater_integration::s3::S3;
use tailwater_integration::{eventually, now_ns, seeds};

use crate::{
    LOAD, S3_SERVER, acknowledged_more, assert_all_there, bytes_of, config, flush, note, read_to_mark, shared, wal,
};

/// Bytes of WAL that may be left when everything is in blocks: the segment that is being written, and one that is about to go.
const WAL_LEFT: u64 = 3 << 20;

/// Goes through trouble of so many seconds, or of a minute in the long form.
async fn trouble(command: &str, seconds: u64) {
    let seconds = if seeds::long() { 60 } else { seconds };
    let mut store = S3::start(S3_SERVER).await;
    let yaml = config(&["target_block_mb: 2", "max_block_age: 1s", "log_memory_mb: 64", &wal("interval", 1, 0)]);
    let home = store.home(&yaml);
    let ledger = shared(8);
    let mut server = home.start().await;
    let tenant = server.tenant("a");
    let shape = Shape { pause: Duration::from_millis(10), pushers: 3, ..Shape::default() };
    let load = Load::start(&server.client(), &ledger, &shape, 8);
    acknowledged_more(&ledger, 1_000).await;
    flush(&server.client()).await;
    let before = store.objects(".blk").len();
    assert!(before > 0, "no block before the trouble");
    let begin = now_ns();
    let mut tail = tenant.tail(&[("query", LOAD), ("start", &begin.to_string()), ("limit", "10000000")]).await;
    store.command(command).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let (mut recent, mut old_failed, mut old_answered) = (0, 0, 0);
    while tokio::time::Instant::now() < until {
        // Pushes go on: this waits for them.
        acknowledged_more(&ledger, 100).await;
        // Lines that no block can hold yet, or only one that never arrived.
        let query = Query { start: now_ns() - 500_000_000, limit: 100, forward: false, ..Query::all(LOAD) };
        match query.page(&tenant).await {
            Ok(page) => recent += usize::from(!page.lines.is_empty()),
            Err(reply) => assert!(reply.status >= 500, "{} {}", reply.status, reply.text()),
        }
        // What had been acknowledged before is there, or the query fails: it is never less.
        let before = ledger.lock().clone();
        match Query::all(LOAD).read(&tenant).await {
            Ok(answer) => {
                let as_of = ledger.lock().as_of(&before);
                as_of.assert_exact(command, "a", &answer.lines, &Scope::ALL);
                old_answered += 1;
            }
            Err(reply) => {
                assert!(reply.status >= 500 && !reply.text().is_empty(), "{} {}", reply.status, reply.text());
                old_failed += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    server.assert_well();
    let grown = bytes_of(&home.data().join("wal"), ".wal");
    note(&format!(
        "{command}: recent lines {recent} times, all {old_answered} times, refused {old_failed} times, WAL {grown}"
    ));
    assert!(recent > 0, "{command}: recent lines could never be queried");
    store.command("ok").await;
    let statuses = load.stop().await;
    assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [204], "{command}: pushes were refused: {statuses:?}");
    let mut lines = read_to_mark(&mut tail, &server, &ledger, "a", "z").await;
    lines.retain(|line| line.timestamp >= begin);
    let scope = Scope { time: begin..i64::MAX, ..Scope::ALL };
    ledger.lock().assert_exact(&format!("{command}, tail"), "a", &lines, &scope);
    eventually("blocks to arrive", async || store.objects(".blk").len() > before).await;
    eventually("a flush", async || server.client().send("POST", "/flush", &[], "").await.status == 204).await;
    eventually("the WAL to shrink", async || bytes_of(&home.data().join("wal"), ".wal") <= WAL_LEFT).await;
    assert_all_there(&format!("{command}, well again"), &server, &ledger).await;
    server.assert_well();
    server.kill().await;
    let server = home.start().await;
    assert_all_there(&format!("{command}, started again"), &server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away() {
    trouble("down", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_slow() {
    trouble("slow 400", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_answers_with_errors() {
    trouble("errors 40", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_up() {
    trouble("reset", 3).await;
}

/// A server starts without its store, takes pushes, and has everything when the store comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_without_its_store_takes_pushes() {
    let mut store = S3::start(S3_SERVER).await;
    let home = store.home(&config(&["target_block_mb: 1", "max_block_age: 1s", &wal("os", 1, 0)]));
    let ledger = shared(9);
    for round in 0..2 {
        let server = home.start().await;
        let shape = Shape { prefix: format!("r{round}"), ..Shape::default() };
        let load = Load::start(&server.client(), &ledger, &shape, 9);
        acknowledged_more(&ledger, 1_000).await;
        if round == 0 {
            flush(&server.client()).await;
        } else {
            store.command("ok").await;
            eventually("a flush", async || server.client().send("POST", "/flush", &[], "").await.status == 204).await;
        }
        load.stop().await;
        assert_all_there(&format!("round {round}"), &server, &ledger).await;
        server.kill().await;
        if round == 0 {
            store.command("down").await;
        }
    }
}
