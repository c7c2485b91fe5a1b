//! One store for the blocks of all: they are one history, each line is answered once wherever it lies and while it moves, what is deleted
//! is deleted for everybody, and a store that is away stops neither pushes nor tails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_integration::cluster::{Cluster, Settings};
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Batch, Client, Watch, eventually, now_ns, seeds};
use tokio::task::JoinHandle;

use crate::{LOAD, Probe, S3_SERVER, acknowledged_more, all_there, assert_exact, at_last, flush, note, pause, shared};

/// Cuts blocks until told to stop.
fn keep_flushing(clients: Vec<Client>, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut flushes = 0;
        while !stop.load(Ordering::Relaxed) {
            futures_util::future::join_all(clients.iter().map(flush)).await;
            flushes += 1;
            pause(50).await;
        }
        flushes
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blocks_of_all_are_one_history() {
    for seed in seeds::of("cluster-stores") {
        let settings = Settings::new()
            .set("compactor", "retention_enabled: true")
            .set("compactor", "compaction_interval: 1s")
            .set("ingester", "wal: {sync: os, segment_mb: 1, keep_mb: 0}")
            .set("ingester", "log_memory_mb: 4");
        let mut cluster = Cluster::start(S3_SERVER, settings, 2, 1).await;
        let ledger = shared(seed);
        let watch = Watch::open(cluster.board(), &["q0"], "a", LOAD).await;
        let stop = Arc::new(AtomicBool::new(false));
        let clients = ["i0", "i1"].map(|node| cluster.server(node).client()).into();
        let flushing = keep_flushing(clients, stop.clone());
        let probes = ["q0", "i0"].map(|node| Probe::start(cluster.board(), node, "a", &ledger));
        let pushers = Pushers::start(cluster.board(), &ledger, &Spread { lines: 60, ..Spread::default() }, seed);
        pause(if seeds::long() { 60_000 } else { 4_000 }).await;
        stop.store(true, Ordering::Relaxed);
        let flushes = flushing.await.unwrap();
        for probe in probes {
            let answers = probe.stop().await;
            note(&format!("{answers:?}"));
            assert!(answers.partial.is_empty() && answers.failed.is_empty() && answers.whole > 0, "{answers:?}");
        }

        // The store goes away: pushes and tails go on, and when it is back so do queries.
        cluster.store().command("down").await;
        acknowledged_more(&ledger, 500).await;
        let owed = ledger.lock().counts().1;
        note(&format!("{owed} lines acknowledged by the time that the store came back"));
        let outcome = pushers.stop().await;
        assert_exact("without a store", &watch, "a", &ledger).await;
        cluster.store().command("ok").await;
        for node in ["q0", "i0", "i1"] {
            all_there("with the store again", &cluster, node, &ledger).await;
        }

        // All of it in blocks, and everybody new.
        for node in ["i0", "i1"] {
            let client = cluster.server(node).client();
            eventually("a flush", async || client.send("POST", "/flush", &[], "").await.status == 204).await;
        }
        cluster.kill_all().await;
        cluster.start_all().await;
        for node in ["q0", "i0", "i1"] {
            all_there("all in blocks", &cluster, node, &ledger).await;
        }
        note(&format!("{flushes} rounds of flushes, {} blocks", cluster.store().objects(".blk").len()));
        deleted_for_all(&cluster).await;
        all_there("others' lines were deleted", &cluster, "q0", &ledger).await;
        assert_exact("at last", &watch, "a", &ledger).await;
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}

/// Lines in blocks and in logs of several nodes are deleted by a request to one node.
async fn deleted_for_all(cluster: &Cluster) {
    let stream = r#"{app="gone"}"#;
    let batch = |text: &str| Batch::one(stream, text).line(r#"{app="kept"}"#, now_ns(), text);
    for node in ["i0", "i1"] {
        cluster.tenant(node, "a").push_ok(&batch(&format!("in a block of {node}"))).await;
        flush(&cluster.server(node).client()).await;
        cluster.tenant(node, "a").push_ok(&batch(&format!("in the log of {node}"))).await;
    }
    cluster.tenant("i0", "b").push_ok(&batch("of another tenant")).await;
    let nodes = ["q0", "i0", "i1"];
    for node in nodes {
        assert_eq!(cluster.tenant(node, "a").lines(stream).await.len(), 4, "{node}");
    }
    // Times of requests are whole seconds, and not in the future: the second of the lines must be over.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let (start, end) = ((now_ns() / 1_000_000_000 - 3_600).to_string(), (now_ns() / 1_000_000_000).to_string());
    let params = [("query", stream), ("start", &start), ("end", &end)];
    let target = tailwater_integration::client::target("/loki/api/v1/delete", &params);
    let reply = cluster.tenant("i1", "a").send("POST", &target, &[], "").await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    for node in nodes {
        let client = cluster.tenant(node, "a");
        eventually("what was deleted to be gone everywhere", async || client.lines(stream).await.is_empty()).await;
        assert_eq!(client.lines(r#"{app="kept"}"#).await.len(), 4, "{node}");
        assert_eq!(cluster.tenant(node, "b").lines(stream).await.len(), 1, "{node}: another tenant's");
        let requests = client.get("/loki/api/v1/delete").await.text();
        assert!(requests.contains("gone"), "{node} does not list the request: {requests}");
    }
}
