//! Tails with tokens: whatever node or all of them go, the tail goes on at any querier with what it has not had.

use std::time::Duration;

use tailwater_integration::cluster::{Cluster, Settings};
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Watch, seeds};

use crate::{
    LOAD, Probe, S3_SERVER, acknowledged_more, all_there, assert_exact, at_last, note, pause, shared, two_copies,
};

/// The longest that a push with all its repetitions may take while nodes restart one by one.
const REFUSED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_at_another_querier_and_after_the_end_of_all() {
    for seed in seeds::of("cluster-resume") {
        let mut cluster = Cluster::start(S3_SERVER, Settings::new(), 2, 2).await;
        let ledger = shared(seed);
        let watch = Watch::open(cluster.board(), &["q0", "q1"], "a", LOAD).await;
        // Pushed where nobody dies at first.
        let shape = Spread {
            tenants: vec!["a".to_owned()],
            nodes: vec!["i0".to_owned(), "i1".to_owned()],
            pushers: 3,
            ..Spread::default()
        };
        let pushers = Pushers::start(cluster.board(), &ledger, &shape, seed);
        watch.until("a first token", |kept| kept.token.is_some() && kept.lines.len() > 200).await;
        cluster.kill("q0").await;
        watch.until("the tail at the other querier", |kept| kept.served.last().is_some_and(|node| node == "q1")).await;
        let seen = watch.look(|kept| kept.lines.len());
        watch.until("lines there", |kept| kept.lines.len() > seen + 200).await;
        let outcome = pushers.stop().await;
        assert_exact("at the other querier", &watch, "a", &ledger).await;
        assert_eq!(outcome.statuses.keys().copied().collect::<Vec<_>>(), [204], "nobody who is pushed to has died");
        cluster.start_all().await;

        for round in 0..if seeds::long() { 5 } else { 1 } {
            let shape = Spread { prefix: format!("r{round}"), ..shape.clone() };
            let pushers = Pushers::start(cluster.board(), &ledger, &shape, seed + 1 + round);
            acknowledged_more(&ledger, 300).await;
            cluster.kill_all().await;
            pause(200).await;
            cluster.start_all().await;
            acknowledged_more(&ledger, 300).await;
            let outcome = pushers.stop().await;
            assert_exact(&format!("all killed, round {round}"), &watch, "a", &ledger).await;
            for node in ["q0", "q1", "i1"] {
                all_there(&format!("all killed, round {round}"), &cluster, node, &ledger).await;
            }
            note(&format!("{outcome:?}"));
        }
        note(&format!("served by {:?}", watch.stop().await.served));
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_goes_unnoticed() {
    for seed in seeds::of("cluster-rolling") {
        let mut cluster = Cluster::start(S3_SERVER, two_copies(), 3, 2).await;
        let ledger = shared(seed);
        let watches = [
            ("a", Watch::open(cluster.board(), &["q0", "q1"], "a", LOAD).await),
            ("b", Watch::open(cluster.board(), &["q1", "q0"], "b", LOAD).await),
        ];
        let pushers = Pushers::start(cluster.board(), &ledger, &Spread { routes: false, ..Spread::default() }, seed);
        for (_, watch) in &watches {
            watch.until("a first token", |kept| kept.token.is_some()).await;
        }
        let probe = Probe::start(cluster.board(), "q1", "b", &ledger);
        for node in ["i0", "q0", "i1", "i2", "q1"] {
            acknowledged_more(&ledger, 150).await;
            let (status, log) = cluster.terminate(node).await;
            assert_eq!(status.code(), Some(0), "{node}: {log}");
            acknowledged_more(&ledger, 50).await;
            cluster.run(node).await;
            cluster.complete().await;
        }
        acknowledged_more(&ledger, 150).await;
        let outcome = pushers.stop().await;
        for (tenant, watch) in &watches {
            assert_exact("restarted one by one", watch, tenant, &ledger).await;
            note(&format!("served by {:?}", watch.look(|kept| kept.served.clone())));
        }
        for node in ["q0", "q1", "i0"] {
            all_there("restarted one by one", &cluster, node, &ledger).await;
        }
        note(&format!("{:?}", probe.stop().await));
        assert!(outcome.longest < REFUSED, "{outcome:?}");
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}
