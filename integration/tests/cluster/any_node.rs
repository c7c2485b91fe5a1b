//! A cluster without trouble: every node takes pushes and answers for all, a new ingester is followed at once, tenants see their own.

use std::time::{Duration, Instant};

use tailwater_integration::cluster::{Cluster, Role, Settings};
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Watch, eventually, now_ns, seeds, server};

use crate::{LOAD, S3_SERVER, all_there, assert_exact, assert_exact_since, at_last, balanced, note, shared};

/// How soon an open tail has lines of a new ingester: a second is promised, the rest is for a machine that is busy.
const FOLLOWED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_pushes_and_answers_for_all() {
    for seed in seeds::of("cluster-any-node") {
        let mut cluster = Cluster::start(S3_SERVER, Settings::new(), 3, 2).await;
        let ledger = shared(seed);
        let mut watches = Vec::new();
        for (node, tenant) in [("q0", "a"), ("q1", "b"), ("i1", "a")] {
            watches.push((node, tenant, Watch::open(cluster.board(), &[node], tenant, LOAD).await));
        }
        let pushers = Pushers::start(cluster.board(), &ledger, &Spread::default(), seed);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let outcome = pushers.stop().await;
        assert_eq!(outcome.statuses.keys().copied().collect::<Vec<_>>(), [204], "{:?}", outcome.refusals);
        for (node, tenant, watch) in &watches {
            assert_exact(node, watch, tenant, &ledger).await;
        }
        for node in ["q0", "q1", "i0", "i1", "i2"] {
            all_there("every node", &cluster, node, &ledger).await;
            same_names(&cluster, node).await;
        }
        every_log_has_some(&cluster).await;

        // A new ingester, while the tails are open.
        cluster.define("i3", Role::Ingester, &Settings::default());
        cluster.run("i3").await;
        cluster.server("i3").ready().await;
        let begun = Instant::now();
        let (batch, receipt) =
            ledger.lock().push("a", &[("new", now_ns())], 1, &mut tailwater_integration::lines::Numbers::new(1));
        cluster.tenant("i3", "a").push_ok(&batch).await;
        ledger.lock().acknowledge(&receipt);
        let watch = &watches[0].2;
        watch
            .until("a line of the new ingester", |kept| kept.lines.iter().any(|l| l.line.starts_with("part=new ")))
            .await;
        let took = begun.elapsed();
        note(&format!("a tail had the first line of a new ingester after {took:?}"));
        assert!(took < FOLLOWED, "{took:?}");
        cluster.complete().await;
        all_there("with a new one", &cluster, "q1", &ledger).await;

        // A tail that begins late has what comes from then on, and a page of what was.
        let earlier = ledger.lock().clone();
        let late = Watch::open(cluster.board(), &["q1"], "b", LOAD).await;
        let shape = Spread { prefix: "late".to_owned(), ..Spread::default() };
        let pushers = Pushers::start(cluster.board(), &ledger, &shape, seed + 1);
        crate::acknowledged_more(&ledger, 300).await;
        pushers.stop().await;
        assert_exact_since("late", &late, "b", &ledger, Some(&earlier)).await;
        for (node, tenant, watch) in &watches {
            assert_exact(node, watch, tenant, &ledger).await;
            balanced(&cluster.tenant(node, tenant)).await;
        }
        cluster_is_printed(&cluster).await;
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}

/// Labels, series and counts are those of all logs together, for each tenant its own.
async fn same_names(cluster: &Cluster, node: &str) {
    for tenant in ["a", "b"] {
        let (client, first) = (cluster.tenant(node, tenant), cluster.tenant("q0", tenant));
        for (path, params) in [
            ("/loki/api/v1/label/part/values", vec![]),
            ("/loki/api/v1/series", vec![("match[]", LOAD)]),
            ("/loki/api/v1/index/stats", vec![("query", LOAD)]),
        ] {
            let answers = [client.get_with(path, &params).await.json(), first.get_with(path, &params).await.json()];
            let sorted = answers.map(|mut answer| {
                if let Some(data) = answer["data"].as_array_mut() {
                    data.sort_by_key(ToString::to_string);
                }
                answer
            });
            assert_eq!(sorted[0], sorted[1], "{path} at {node}");
        }
        let parts = client.get("/loki/api/v1/label/part/values").await.text();
        let other = if tenant == "a" { "p1s" } else { "p0s" };
        assert!(!parts.contains(other), "{node}, tenant {tenant}: parts of another one: {parts}");
    }
}

/// The load has gone to every ingester: the test would prove little otherwise.
async fn every_log_has_some(cluster: &Cluster) {
    for node in ["i0", "i1", "i2"] {
        let head = tailwater_integration::read::metric(&cluster.server(node).client(), "tailwater_log_head").await;
        assert!(head.unwrap_or(0.0) >= 1.0, "{node} has no lines");
    }
}

/// `tailwater cluster` and `/ring` name everybody.
async fn cluster_is_printed(cluster: &Cluster) {
    let url = cluster.server("q1").url();
    let output = server::command(["cluster", "--addr", &url]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    for (name, server) in cluster.running() {
        assert!(said.contains(name), "{name} is not in what `tailwater cluster` says: {said}");
        eventually("a page at /ring", async || {
            let page = server.client().get("/ring").await;
            page.status == 200 && ["i0", "i3", "q1"].iter().all(|name| page.text().contains(name))
        })
        .await;
    }
}
