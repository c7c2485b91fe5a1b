//! One copy of every line, and an ingester that dies: what it alone has is away with it, everything else goes on, and when it is back
//! nothing is missing.

use tailwater_integration::cluster::{Cluster, Role, Settings};
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Watch, eventually, seeds};

use crate::{
    LOAD, Probe, S3_SERVER, acknowledged_more, all_there, assert_exact, assert_exact_since, at_last, note, shared,
    verdict,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_ingester_has_alone_is_away_with_it_and_comes_back() {
    for seed in seeds::of("cluster-deaths") {
        let mut cluster = Cluster::start(S3_SERVER, Settings::new(), 3, 1).await;
        let strict = Settings::default().set("querier", "allow_partial: false");
        cluster.define("strict", Role::Querier, &strict);
        cluster.start_all().await;
        let ledger = shared(seed);
        let watch = Watch::open(cluster.board(), &["q0"], "a", LOAD).await;
        // Of what goes by a querier it is not known who has it.
        let nodes = ["i0", "i1", "i2"].map(str::to_owned).to_vec();
        let shape = Spread { tenants: vec!["a".to_owned()], nodes, pushers: 3, ..Spread::default() };
        let pushers = Pushers::start(cluster.board(), &ledger, &shape, seed);
        acknowledged_more(&ledger, 500).await;
        cluster.kill("i1").await;
        watch.until("a notice that a log is away", |kept| kept.noticed("away")).await;

        // What the others have goes on.
        let seen = watch.look(|kept| kept.lines.len());
        watch.until("lines of the others", |kept| kept.lines.len() > seen + 200).await;
        // A tail begins without it.
        let earlier = ledger.lock().clone();
        let late = Watch::open(cluster.board(), &["q0"], "a", LOAD).await;
        late.until("lines of the others in a new tail", |kept| kept.lines.len() > 200).await;
        late.until("a notice in a new tail", |kept| kept.noticed("away")).await;

        // A query says what it lacks, and lacks nothing else; one that must be whole fails.
        let (q0, number) = (cluster.tenant("q0", "a"), format!("route={}", cluster.number("i1")));
        let mut lost = 0;
        eventually("a partial answer", async || {
            let (verdict, warnings) = verdict(&q0, "a", &ledger).await.unwrap();
            lost = verdict.lost.len();
            let others: Vec<_> = verdict.lost.iter().filter(|line| !line.ends_with(&number)).collect();
            assert!(others.is_empty(), "lost of those who are there: {others:?}; {warnings:?}");
            assert!(warnings.is_empty() != (lost > 0), "{lost} lines are missing, and it is said: {warnings:?}");
            !warnings.is_empty()
        })
        .await;
        let strict = cluster.tenant("strict", "a");
        let refused = verdict(&strict, "a", &ledger).await.err();
        note(&format!("{lost} lines away; a query that must be whole: {refused:?}"));
        assert!(refused.as_ref().is_some_and(|text| text.starts_with('5')), "{refused:?}");

        // It comes back, with lines that the tails have not had.
        cluster.run("i1").await;
        cluster.complete().await;
        watch.until("a notice that it is back", |kept| kept.noticed("back")).await;
        let probe = Probe::start(cluster.board(), "strict", "a", &ledger);
        acknowledged_more(&ledger, 300).await;
        let outcome = pushers.stop().await;
        assert_exact("open all the time", &watch, "a", &ledger).await;
        assert_exact_since("opened while it was away", &late, "a", &ledger, Some(&earlier)).await;
        for node in ["q0", "strict", "i0"] {
            all_there("back again", &cluster, node, &ledger).await;
        }
        note(&format!("{:?}", probe.stop().await));
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}
