//! The process dies while a block is on its way to the object store, while the manifest is exchanged, or just after, with a store that
//! is slow or whose answers are lost: every line is there once, whatever of it had arrived.

use std::time::Duration;

use tailwater_integration::lines::Numbers;
use tailwater_integration::load::{Load, Shape};
use tailwater_integration::s3::S3;
use tailwater_integration::{eventually, seeds};

use crate::{S3_SERVER, acknowledged_more, assert_all_there, config, flush, note, shared, wal};

/// What is written when a block is cut.
const WRITES: [&str; 5] = [".blk", ".blk", "manifest.json", "manifest.json", "tenant.json"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_a_kill_interrupts_is_done_again_or_was_done() {
    for seed in seeds::of("store-kills") {
        kill_during_cuts(seed, if seeds::long() { 100 } else { 6 }).await;
    }
}

async fn kill_during_cuts(seed: u64, rounds: u64) {
    let mut numbers = Numbers::new(seed);
    let mut store = S3::start(S3_SERVER).await;
    let yaml = config(&["target_block_mb: 1024", "max_block_age: 1h", &wal("os", 1, 0)]);
    let home = store.home(&yaml);
    let ledger = shared(seed);
    let shape = Shape { pause: Duration::from_millis(2), ..Shape::default() };
    for round in 0..rounds {
        let server = home.start().await;
        let load = Load::start(&server.client(), &ledger, &shape, numbers.next());
        acknowledged_more(&ledger, 300).await;
        let write = WRITES[numbers.below(WRITES.len() as u64) as usize];
        let fault = match numbers.below(3) {
            0 => "lost-answers".to_owned(),
            _ => format!("slow {}", 1 + numbers.below(300)),
        };
        let command = format!("{fault} PUT {write}");
        let when = format!("seed {seed}, round {round}, {command}");
        store.command(&command).await;
        let client = server.client();
        let flushing = tokio::spawn(async move {
            // It dies of the kill.
            let _ = client.try_send("POST", "/flush", &[], bytes::Bytes::new()).await;
        });
        // A tenant's list of days changes rarely.
        let hit = tokio::time::timeout(Duration::from_secs(if write == "tenant.json" { 1 } else { 60 }), store.hit());
        let hit = hit.await.unwrap_or_default();
        assert!(write == "tenant.json" || !hit.is_empty(), "{when}: nothing was written");
        tokio::time::sleep(Duration::from_millis(numbers.below(400))).await;
        server.kill().await;
        load.stop().await;
        flushing.await.unwrap();
        store.command("ok").await;
        // What the dead process had sent may still arrive while the next one starts.
        let server = home.start().await;
        assert_all_there(&when, &server, &ledger).await;
        if numbers.below(2) == 0 {
            flush(&server.client()).await;
            assert_all_there(&format!("{when}, in blocks"), &server, &ledger).await;
        }
        server.kill().await;
    }
    let server = home.start().await;
    flush(&server.client()).await;
    assert_all_there(&format!("seed {seed}, at last"), &server, &ledger).await;
    note(&format!("{:?} lines sent and acknowledged, {} blocks", ledger.lock().counts(), store.objects(".blk").len()));
}

/// An exchange of the manifest that succeeded and whose answer is lost looks like one that somebody else won.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_neither_lose_nor_repeat_lines() {
    let mut store = S3::start(S3_SERVER).await;
    let yaml = config(&["target_block_mb: 1024", "max_block_age: 1h", &wal("os", 1, 0)]);
    let home = store.home(&yaml);
    let ledger = shared(6);
    let mut server = home.start().await;
    for write in ["manifest.json", ".blk", "tenant.json", ""] {
        let shape = Shape { prefix: format!("w{}", write.len()), ..Shape::default() };
        let load = Load::start(&server.client(), &ledger, &shape, 6);
        acknowledged_more(&ledger, 300).await;
        load.stop().await;
        store.command(&format!("lost-answers PUT {write}")).await;
        let client = server.client();
        let flushing = tokio::spawn(async move { client.send("POST", "/flush", &[], "").await.status });
        tokio::time::sleep(Duration::from_millis(500)).await;
        store.command("ok").await;
        let status = flushing.await.unwrap();
        assert!(status == 204 || status >= 500, "{status}");
        assert_all_there(&format!("answers to PUT {write} were lost"), &server, &ledger).await;
        eventually("a flush", async || server.client().send("POST", "/flush", &[], "").await.status == 204).await;
        assert_all_there(&format!("answers to PUT {write} were lost, in blocks"), &server, &ledger).await;
    }
    server.assert_well();
    server.kill().await;
    let server = home.start().await;
    assert_all_there("started again", &server, &ledger).await;
}
