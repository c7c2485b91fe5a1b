//! Two copies of every line: one of three ingesters may die, stop, or be lost for good, and no acknowledged line is missing, in tails or
//! queries.

use tailwater_integration::cluster::{Cluster, Role};
use tailwater_integration::lines::Numbers;
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Watch, eventually, seeds};

use crate::{
    LOAD, Probe, S3_SERVER, acknowledged_more, all_there, assert_exact, at_last, note, pause, shared, two_copies,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_lost_when_one_of_three_dies_or_stops() {
    for seed in seeds::of("cluster-replicas") {
        let mut numbers = Numbers::new(seed);
        let mut cluster = Cluster::start(S3_SERVER, two_copies(), 3, 1).await;
        let ledger = shared(seed);
        let watches = [
            ("a", Watch::open(cluster.board(), &["q0"], "a", LOAD).await),
            ("b", Watch::open(cluster.board(), &["q0"], "b", LOAD).await),
        ];
        let pushers = Pushers::start(cluster.board(), &ledger, &Spread::default(), seed);
        let probe = Probe::start(cluster.board(), "q0", "a", &ledger);
        for round in 0..if seeds::long() { 20 } else { 2 } {
            acknowledged_more(&ledger, 300).await;
            let victim = format!("i{}", numbers.below(3));
            let when = format!("seed {seed}, round {round}, {victim} killed");
            pause(numbers.below(200)).await;
            cluster.kill(&victim).await;
            // Pushes go on and are seen, those of the dead one's log by its copy.
            acknowledged_more(&ledger, 300).await;
            all_there(&when, &cluster, "q0", &ledger).await;
            cluster.run(&victim).await;
            cluster.complete().await;

            acknowledged_more(&ledger, 300).await;
            let victim = format!("i{}", numbers.below(3));
            let when = format!("seed {seed}, round {round}, {victim} stopped");
            cluster.pause(&victim).await;
            pause(3_000).await;
            cluster.unpause(&victim).await;
            acknowledged_more(&ledger, 300).await;
            all_there(&when, &cluster, "q0", &ledger).await;
            cluster.complete().await;
        }
        let outcome = pushers.stop().await;
        for (tenant, watch) in &watches {
            assert_exact(&format!("seed {seed}"), watch, tenant, &ledger).await;
        }
        for node in ["q0", "i0", "i1", "i2"] {
            all_there("at last", &cluster, node, &ledger).await;
        }
        let answers = probe.stop().await;
        note(&format!("{answers:?}"));
        assert!(answers.whole > 5, "{answers:?}");
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingester_that_is_lost_for_good_has_left_its_lines() {
    for seed in seeds::of("cluster-orphans") {
        let settings = two_copies().set("ingester", "orphan_after: 2s");
        let mut cluster = Cluster::start(S3_SERVER, settings, 3, 1).await;
        let ledger = shared(seed);
        let watch = Watch::open(cluster.board(), &["q0"], "a", LOAD).await;
        let shape = Spread { tenants: vec!["a".to_owned()], ..Spread::default() };
        let pushers = Pushers::start(cluster.board(), &ledger, &shape, seed);
        acknowledged_more(&ledger, 800).await;
        cluster.kill("i2").await;
        cluster.forget("i2");
        acknowledged_more(&ledger, 200).await;
        let outcome = pushers.stop().await;
        all_there("from the copies", &cluster, "q0", &ledger).await;
        assert!(cluster.store().objects(".blk").is_empty(), "blocks were cut before an orphan was one");
        // Those who have copies put them into blocks.
        eventually("blocks of the orphan", async || !cluster.store().objects(".blk").is_empty()).await;
        all_there("while it becomes blocks", &cluster, "q0", &ledger).await;
        // It is taken over wholly, and nobody needs to have seen it.
        cluster.kill_all().await;
        cluster.start_all().await;
        for node in ["q0", "i0", "i1"] {
            all_there("all started again", &cluster, node, &ledger).await;
        }
        assert_exact("after all", &watch, "a", &ledger).await;
        // Its name may be had by another one.
        cluster.add("i2", Role::Ingester).await;
        let pushers = Pushers::start(cluster.board(), &ledger, &Spread { prefix: "new".to_owned(), ..shape }, seed + 1);
        acknowledged_more(&ledger, 300).await;
        pushers.stop().await;
        all_there("with a new one", &cluster, "q0", &ledger).await;
        assert_exact("with a new one", &watch, "a", &ledger).await;
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}

/// The acknowledged lines of a node whose only follower is not there wait, and are refused in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_anybody_to_keep_a_copy_pushes_are_refused() {
    let mut cluster = Cluster::start(S3_SERVER, two_copies(), 2, 1).await;
    let ledger = shared(1);
    cluster.kill("i1").await;
    let (batch, receipt) = ledger.lock().push("a", &[("x", tailwater_integration::now_ns())], 3, &mut Numbers::new(1));
    let client = cluster.tenant("i0", "a");
    let reply = client.push(&batch).await;
    note(&format!("{} {}", reply.status, reply.text()));
    assert_eq!((reply.status, reply.header("retry-after").is_empty()), (503, false), "{}", reply.text());
    // When there is somebody again it is taken, and a query has it once, although it was stored before.
    cluster.run("i1").await;
    cluster.complete().await;
    ledger.lock().again(&receipt);
    eventually("the push to be taken", async || client.push(&batch).await.status == 204).await;
    ledger.lock().acknowledge(&receipt);
    all_there("sent again", &cluster, "q0", &ledger).await;
    cluster.assert_well();
}
