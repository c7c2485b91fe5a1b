//! Several nodes as one, seen from outside: real processes that come, go, die, stop and lose each other's packets, and what pushers,
//! tails and queries make of it. A module per kind of trouble.
//!
//! Tests that choose at random print their seed; `TAILWATER_TEST_SEED` repeats one, `integration/tests/durability/seeds.txt` lists those
//! that failed once, and `TAILWATER_TEST_LONG=1` makes the tests run longer.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod any_node;
mod deaths;
mod leaving;
mod members;
mod network;
mod power;
mod probe;
mod replicas;
mod resume;
mod stores;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater_integration::checker::{Verdict, unbalanced};
use tailwater_integration::cluster::{Cluster, Settings};
use tailwater_integration::ledger::Scope;
use tailwater_integration::load::Shared;
use tailwater_integration::read::Query;
use tailwater_integration::spread::Outcome;
use tailwater_integration::{Client, DEADLINE, Ledger, Watch, eventually};

use self::probe::Probe;

/// The object store's program.
const S3_SERVER: &str = env!("CARGO_BIN_EXE_s3-server");

/// Everything that the pushers push.
const LOAD: &str = r#"{app="load"}"#;

/// How long nothing may come that must not come.
const QUIET: Duration = Duration::from_millis(500);

fn shared(seed: u64) -> Shared {
    Arc::new(parking_lot::Mutex::new(Ledger::new(seed)))
}

/// Settings of nodes that keep two copies of every line.
fn two_copies() -> Settings {
    Settings::new().set("common", "replication_factor: 2").set("ingester", "replication_timeout: 2s")
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Has blocks cut of everything up to now.
async fn flush(client: &Client) {
    let reply = client.send("POST", "/flush", &[], "").await;
    assert_eq!(reply.status, 204, "{}", reply.text());
}

/// Says something that is shown beside a failure, or when the tests are asked to show what they say.
#[expect(clippy::print_stdout, reason = "the test harness shows it beside a failure")]
fn note(text: &str) {
    println!("{text}");
}

/// What a query of everything at a node is worth; with the answer's warnings. Pushes may go on meanwhile.
async fn verdict(client: &Client, tenant: &str, ledger: &Shared) -> Result<(Verdict, Vec<String>), String> {
    let before = ledger.lock().clone();
    let answer = Query::all(LOAD).read(client).await.map_err(|e| format!("{} {}", e.status, e.text().trim_end()))?;
    let as_of = ledger.lock().as_of(&before);
    Ok((as_of.judge(tenant, &answer.lines, &Scope::ANSWER), answer.warnings))
}

/// Waits until the node answers every tenant with all of its lines and lacks nothing. An answer that lacks something must say so.
async fn all_there(when: &str, cluster: &Cluster, node: &str, ledger: &Shared) {
    let tenants: Vec<_> = ledger.lock().tenants().into_iter().map(str::to_owned).collect();
    for tenant in tenants {
        let client = cluster.tenant(node, &tenant);
        let mut said = Vec::new();
        let begun = Instant::now();
        loop {
            match verdict(&client, &tenant, ledger).await {
                Ok((verdict, warnings)) if warnings.is_empty() => {
                    assert!(verdict.is_clean(), "{when}, {node}, tenant {tenant}, after {said:?}: {verdict}");
                    break;
                }
                Ok((verdict, warnings)) => {
                    let sound = verdict.phantom.is_empty() && verdict.duplicated.is_empty();
                    assert!(sound && verdict.disordered.is_empty(), "{when}, {node}, tenant {tenant}: {verdict}");
                    said = warnings;
                }
                Err(refused) => said = vec![refused],
            }
            assert!(begun.elapsed() < DEADLINE, "{when}, {node}: never whole: {said:?}");
            pause(100).await;
        }
    }
}

/// Waits until a tail has every line that the ledger says it must have, and a little longer in case that something comes twice.
async fn assert_exact(when: &str, watch: &Watch, tenant: &str, ledger: &Shared) {
    assert_exact_since(when, watch, tenant, ledger, None).await;
}

/// The same for a tail that began when `earlier`, a copy of the ledger, was made.
async fn assert_exact_since(when: &str, watch: &Watch, tenant: &str, ledger: &Shared, earlier: Option<&Ledger>) {
    let judge = || {
        let ledger = ledger.lock().clone();
        let owed = earlier.map_or_else(|| ledger.clone(), |earlier| ledger.since(earlier));
        owed.judge(tenant, &watch.kept().lines, &Scope::ALL)
    };
    let begun = Instant::now();
    loop {
        let verdict = judge();
        if verdict.lost.is_empty() {
            break;
        }
        let told = || watch.look(|kept| format!("{:?} {:?} {:?}", kept.dropped, kept.notices, kept.ends));
        assert!(begun.elapsed() < DEADLINE, "{when}, tenant {tenant}, {}: {verdict}", told());
        pause(100).await;
    }
    tokio::time::sleep(QUIET).await;
    let verdict = judge();
    let told =
        || watch.look(|kept| format!("served {:?}, ends {:?}, notices {:?}", kept.served, kept.ends, kept.notices));
    assert!(verdict.is_clean(), "{when}, tenant {tenant}, {}: {verdict}", told());
    watch.look(|kept| {
        assert!(kept.dropped.is_empty(), "{when}: lines were dropped: {:?}", kept.dropped);
        assert_eq!(kept.untold, 0, "{when}: frames with lines and without a token");
    });
}

/// Waits until the ledger has so many acknowledged lines more than now.
async fn acknowledged_more(ledger: &Shared, lines: usize) {
    let before = ledger.lock().counts().1;
    eventually("acknowledged lines", async || ledger.lock().counts().1 >= before + lines).await;
}

/// Waits until the accounts of a node's tails balance.
async fn balanced(client: &Client) {
    eventually("the accounts of tails to balance", async || {
        unbalanced(&client.get("/api/v1/tails").await.json()).is_empty()
    })
    .await;
}

/// Fails if a node has counted a violation of a tail's invariants.
async fn no_violations(cluster: &Cluster) {
    for (name, server) in cluster.running() {
        let metric = "tailwater_querier_tail_invariant_violations_total";
        let count = tailwater_integration::read::metric(&server.client(), metric).await;
        assert_eq!(count.unwrap_or(0.0), 0.0, "{name}: {metric}");
    }
}

/// The end of most tests: nobody has panicked or miscounted, and what the pushers saw is told.
async fn at_last(cluster: &mut Cluster, ledger: &Shared, outcome: &Outcome) {
    no_violations(cluster).await;
    cluster.assert_well();
    let (sent, acknowledged) = ledger.lock().counts();
    let Outcome { statuses, unreachable, longest, refusals } = outcome;
    note(&format!(
        "{sent} lines sent, {acknowledged} acknowledged; answers {statuses:?}, {unreachable} unreachable; \
         the longest push took {longest:?}; refusals: {refusals:?}"
    ));
    assert!(acknowledged > 200, "too little load to prove anything");
}
