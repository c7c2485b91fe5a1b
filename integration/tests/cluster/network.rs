//! Nodes in network namespaces of their own, which lose each other's packets: at random, in one direction, or all of them.
//!
//! Where namespaces cannot be made the test says so and passes.

use tailwater_integration::cluster::Cluster;
use tailwater_integration::netns::Net;
use tailwater_integration::s3::S3;
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Watch, seeds};

use crate::{
    LOAD, Probe, S3_SERVER, acknowledged_more, all_there, assert_exact, at_last, note, pause, shared, two_copies,
};

/// The places of the nodes.
const I0: usize = 0;
const I1: usize = 1;
const I2: usize = 2;
const Q0: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_lost_by_a_network_that_loses_packets() {
    let net = match Net::new(5) {
        Ok(net) => net,
        Err(why) => return note(&format!("not tested here, network namespaces cannot be made: {why}")),
    };
    for seed in seeds::of("cluster-network") {
        let store = S3::start_on(S3_SERVER, net.outside()).await;
        let mut cluster = Cluster::new(store, two_copies()).in_places(net.clone());
        cluster.populate(3, 2).await;
        let ledger = shared(seed);
        let near = Watch::open(cluster.board(), &["q0"], "a", LOAD).await;
        let far = Watch::open(cluster.board(), &["q1"], "b", LOAD).await;
        let probe = Probe::start(cluster.board(), "q1", "a", &ledger);
        let pushers = Pushers::start(cluster.board(), &ledger, &Spread::default(), seed);
        for round in 0..if seeds::long() { 5 } else { 1 } {
            for percent in [5, 20] {
                net.lose(percent).unwrap();
                pause(3_000).await;
                net.heal().unwrap();
                whole(&cluster, &ledger, &format!("seed {seed}, round {round}, {percent} % lost")).await;
            }

            // i1 hears nothing of i0, whereas i0 hears i1.
            net.cut(I0, I1).unwrap();
            pause(4_000).await;
            net.heal().unwrap();
            whole(&cluster, &ledger, &format!("seed {seed}, round {round}, i0 not heard by i1")).await;

            // A querier alone: its tails are told, and get everything when it is back.
            let seen = near.look(|kept| kept.notices.len());
            net.isolate(Q0).unwrap();
            near.until("a notice at the querier that is alone", |kept| {
                kept.notices[seen..].iter().any(|(_, notice)| notice["type"] == "away")
            })
            .await;
            net.heal().unwrap();
            whole(&cluster, &ledger, &format!("seed {seed}, round {round}, q0 alone")).await;

            // An ingester alone cannot acknowledge anything.
            net.isolate(I2).unwrap();
            pause(4_000).await;
            net.heal().unwrap();
            whole(&cluster, &ledger, &format!("seed {seed}, round {round}, i2 alone")).await;
        }
        let outcome = pushers.stop().await;
        assert_exact("healed", &near, "a", &ledger).await;
        assert_exact("healed", &far, "b", &ledger).await;
        for node in ["q0", "i0", "i2"] {
            all_there("healed", &cluster, node, &ledger).await;
        }
        let answers = probe.stop().await;
        note(&format!("{answers:?}"));
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}

/// After a trouble everybody finds everybody again, pushes are taken and nothing is missing.
async fn whole(cluster: &Cluster, ledger: &tailwater_integration::load::Shared, when: &str) {
    cluster.complete().await;
    acknowledged_more(ledger, 200).await;
    for node in ["q0", "q1"] {
        all_there(when, cluster, node, ledger).await;
    }
}
