//! Nodes that leave in good order: their tails are told where to go on, pushes go elsewhere, and what they had is in blocks.

use std::time::Duration;

use tailwater_integration::cluster::{Cluster, Settings};
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Watch, eventually, seeds};

use crate::{LOAD, S3_SERVER, acknowledged_more, all_there, assert_exact, at_last, note, shared};

/// The longest that a push with all its repetitions may take.
const REFUSED: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_says_so_and_leaves_nothing_behind() {
    for seed in seeds::of("cluster-leaving") {
        let settings =
            Settings::new().set("ingester", "wal: {sync: os, segment_mb: 1, keep_mb: 64, flush_on_shutdown: true}");
        let mut cluster = Cluster::start(S3_SERVER, settings, 3, 2).await;
        let ledger = shared(seed);
        let at_querier = Watch::open(cluster.board(), &["q1", "q0"], "a", LOAD).await;
        let at_ingester = Watch::open(cluster.board(), &["i2", "q0"], "a", LOAD).await;
        let shape = Spread { tenants: vec!["a".to_owned()], routes: false, ..Spread::default() };
        let pushers = Pushers::start(cluster.board(), &ledger, &shape, seed);
        for watch in [&at_querier, &at_ingester] {
            watch.until("a first token", |kept| kept.token.is_some()).await;
        }
        acknowledged_more(&ledger, 300).await;
        for (node, watch) in [("q1", &at_querier), ("i2", &at_ingester)] {
            let (status, log) = cluster.terminate(node).await;
            assert_eq!(status.code(), Some(0), "{log}");
            watch.until("the tail at another node", |kept| kept.served.last().is_some_and(|last| last == "q0")).await;
            let urls: Vec<_> = cluster.running().map(|(_, server)| server.url()).collect();
            watch.look(|kept| {
                let told = kept.notices.iter().find(|(_, notice)| notice["type"] == "draining");
                let (_, notice) = told.unwrap_or_else(|| {
                    panic!(
                        "{node} left without a word: {:?}; served by {:?}, ended {:?}",
                        kept.notices, kept.served, kept.ends
                    )
                });
                let named = notice["nodes"].as_array().into_iter().flatten().any(|url| urls.iter().any(|u| url == u));
                assert!(named, "{notice} names nobody of {urls:?}");
            });
            acknowledged_more(&ledger, 200).await;
        }
        // Nobody waits for who has left.
        for (_, server) in cluster.running() {
            let left = |names: &std::collections::BTreeSet<String>| !names.contains("i2") && !names.contains("q1");
            eventually("the ring without them", async || {
                left(&tailwater_integration::cluster::active(&server.client()).await)
            })
            .await;
        }
        let outcome = pushers.stop().await;
        for watch in [&at_querier, &at_ingester] {
            assert_exact("after they left", watch, "a", &ledger).await;
        }
        for node in ["q0", "i0", "i1"] {
            all_there("after they left", &cluster, node, &ledger).await;
        }
        note(&format!("the longest push took {:?}", outcome.longest));
        assert!(outcome.longest < REFUSED, "{outcome:?}");
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}
