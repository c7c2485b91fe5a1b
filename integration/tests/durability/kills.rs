//! The process dies at any moment (SIGKILL): every acknowledged line is there afterwards, once, and no position is used again.

use std::time::Duration;

use tailwater_integration::lines::Numbers;
use tailwater_integration::load::{Load, Shape};
use tailwater_integration::read::{Query, metric};
use tailwater_integration::{Home, Server, eventually, seeds};
use tokio::task::JoinHandle;

use crate::{LOAD, SMALL, assert_all_there, bytes_of, config, flush, note, shared, wal};

/// The position of the log, which must never fall.
async fn head(server: &Server) -> Option<f64> {
    metric(&server.client(), "tailwater_log_head").await
}

/// Reads, flushes and looks at the log's position until the server dies; answers the last position seen.
fn disturb(server: &Server, mut numbers: Numbers) -> JoinHandle<f64> {
    let client = server.client();
    let reader = server.tenant("a");
    tokio::spawn(async move {
        let mut newest = 0_f64;
        loop {
            tokio::time::sleep(Duration::from_millis(5 + numbers.below(60))).await;
            let alive = match numbers.below(4) {
                0 => client.try_send("POST", "/flush", &[], bytes::Bytes::new()).await.is_ok(),
                1 => {
                    let target = tailwater_integration::client::target("/loki/api/v1/query_range", &[("query", LOAD)]);
                    reader.try_send("GET", &target, &[], bytes::Bytes::new()).await.is_ok()
                }
                _ => match metric(&client, "tailwater_log_head").await {
                    Some(head) => {
                        assert!(head >= newest, "the log went back from {newest} to {head}");
                        newest = head;
                        true
                    }
                    None => false,
                },
            };
            if !alive {
                return newest;
            }
        }
    })
}

async fn kill_again_and_again(sync: &str, seed: u64, rounds: u64) {
    let mut numbers = Numbers::new(seed);
    let wal = wal(sync, 1, numbers.below(3) as u32);
    let yaml = config(&[&SMALL[..], &[&wal]].concat());
    let home = Home::new(&yaml);
    let ledger = shared(seed);
    let mut newest = 0_f64;
    for round in 0..rounds {
        let when = format!("{sync}, seed {seed}, round {round}");
        if numbers.below(3) == 0 {
            // It dies while it starts, maybe more than once.
            for _ in 0..=numbers.below(2) {
                let starting = home.spawn();
                tokio::time::sleep(Duration::from_millis(numbers.below(200))).await;
                let log = starting.kill().await;
                assert!(!log.contains("panicked at"), "{when}: {log}");
            }
        }
        let server = home.start().await;
        if let Some(head) = head(&server).await {
            assert!(head >= newest, "{when}: the log went back from {newest} to {head}");
        }
        assert_all_there(&when, &server, &ledger).await;
        let shape = Shape { pushers: 2 + numbers.below(4) as usize, ..Shape::default() };
        let load = Load::start(&server.client(), &ledger, &shape, numbers.next());
        let disturber = disturb(&server, Numbers::new(numbers.next()));
        tokio::time::sleep(Duration::from_millis(100 + numbers.below(900))).await;
        server.kill().await;
        load.stop().await;
        newest = newest.max(disturber.await.unwrap());
    }
    let mut server = home.start().await;
    assert_all_there("at last", &server, &ledger).await;
    flush(&server.client()).await;
    assert_all_there("in blocks", &server, &ledger).await;
    server.assert_well();
    server.kill().await;
    let mut server = home.start().await;
    assert_all_there("in blocks, started again", &server, &ledger).await;
    server.assert_well();
    let (sent, acknowledged) = ledger.lock().counts();
    note(&format!("{sync}: {sent} lines sent, {acknowledged} acknowledged, {rounds} kills"));
    assert!(acknowledged > 100 * rounds as usize, "too little load to prove anything: {acknowledged} lines");
    // The load was cut into blocks while it came, and the WAL was trimmed.
    assert!(bytes_of(home.data(), ".blk") > 0, "no block was cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_it_syncs_always() {
    for seed in seeds::of("kill-always") {
        kill_again_and_again("always", seed, if seeds::long() { 50 } else { 10 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_it_syncs_at_intervals() {
    for seed in seeds::of("kill-interval") {
        kill_again_and_again("interval", seed, if seeds::long() { 50 } else { 4 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_system_syncs() {
    for seed in seeds::of("kill-os") {
        kill_again_and_again("os", seed, if seeds::long() { 50 } else { 3 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_answers_nothing_or_everything() {
    let yaml = config(&[&wal("os", 1, 64)]);
    let home = Home::new(&yaml);
    let ledger = shared(1);
    let server = home.start().await;
    let load = Load::start(&server.client(), &ledger, &Shape { lines: 200, ..Shape::default() }, 1);
    crate::acknowledged_more(&ledger, 20_000).await;
    load.stop().await;
    server.kill().await;
    let server = home.launch().await;
    let mut refused = 0;
    let client = server.tenant("a");
    eventually("an answer to a query", async || match Query::all(LOAD).read(&client).await {
        Ok(answer) => {
            ledger.lock().assert_exact(
                "the first answer",
                "a",
                &answer.lines,
                &tailwater_integration::ledger::Scope::ALL,
            );
            true
        }
        Err(reply) => {
            assert!(reply.status == 503, "{} {}", reply.status, reply.text());
            refused += 1;
            false
        }
    })
    .await;
    note(&format!("{refused} queries were refused before the first answer"));
    server.ready().await;
    assert_all_there("ready", &server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_keeps_everything_too() {
    let yaml = config(&[&SMALL[..], &[&wal("interval", 1, 0)]].concat());
    let home = Home::new(&yaml);
    let ledger = shared(2);
    for round in 0..3 {
        let server = home.start().await;
        assert_all_there("started again", &server, &ledger).await;
        let load = Load::start(&server.client(), &ledger, &Shape::default(), round);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (status, log) = server.terminate().await;
        assert_eq!(status.code(), Some(0), "{log}");
        load.stop().await;
    }
    let server = home.start().await;
    assert_all_there("at last", &server, &ledger).await;
}
