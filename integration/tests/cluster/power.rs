//! A machine loses power and comes back with a log that lacks its last records: what was acknowledged is read from copies, and what it still
//! has is one.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use tailwater_integration::cluster::Cluster;
use tailwater_integration::lines::Numbers;
use tailwater_integration::spread::{Pushers, Spread};
use tailwater_integration::{Client, Watch, eventually, now_ns, read, s3, seeds};

use crate::{LOAD, Probe, S3_SERVER, acknowledged_more, all_there, assert_exact, at_last, note, shared, two_copies};

/// The id of the log in a folder, as its `meta` says.
fn log_in(wal: &Path) -> String {
    let meta = std::fs::read_to_string(wal.join("meta")).unwrap();
    meta.lines().find_map(|line| line.strip_prefix("log ")).unwrap().to_owned()
}

/// Leaves a log as a machine does that lost power: without the last records, and not known to have been open since the machine started.
fn lose_power(wal: &Path) {
    let newest: PathBuf = s3::files(wal, ".wal").into_iter().max().unwrap();
    let file = OpenOptions::new().write(true).open(newest).unwrap();
    let len = file.metadata().unwrap().len();
    assert!(len > 4096, "{len} bytes are too few to lose any");
    file.set_len(len / 2).unwrap();
    std::fs::remove_file(wal.join("meta")).unwrap();
}

/// The logs that a node says it answers for, its own first.
async fn logs(client: &Client, node: &str) -> Vec<String> {
    let ring = client.get("/ring?format=json").await.json();
    let members = ring["members"].as_array().unwrap();
    let member = members.iter().find(|member| member["name"] == node).unwrap();
    member["logs"].as_array().unwrap().iter().map(tailwater_integration::client::text).collect()
}

/// How far a node's copy of a log goes, and how far that is in blocks.
async fn copy(client: &Client, log: &str) -> Option<(f64, f64)> {
    let text = client.get("/metrics").await.text();
    let of = |name: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{log=\"{log}\"}} ")).map(str::to_owned));
        line?.parse().ok()
    };
    Some((of("tailwater_copy_head")?, of("tailwater_copy_covered")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_line_is_lost_with_the_power_of_one_machine() {
    for seed in seeds::of("cluster-power") {
        let settings = two_copies().set("ingester", "orphan_after: 5s");
        let mut cluster = Cluster::start(S3_SERVER, settings, 3, 1).await;
        let ledger = shared(seed);
        let watch = Watch::open(cluster.board(), &["q0"], "a", LOAD).await;
        let shape = Spread { tenants: vec!["a".to_owned()], routes: false, ..Spread::default() };
        let pushers = Pushers::start(cluster.board(), &ledger, &shape, seed);
        acknowledged_more(&ledger, 800).await;
        let data = cluster.server("i0").home().data().to_owned();
        let wal = data.join("wal");
        let old = log_in(&wal);
        cluster.kill("i0").await;
        lose_power(&wal);
        let probe = Probe::start(cluster.board(), "q0", "a", &ledger);
        cluster.run("i0").await;
        cluster.complete().await;
        let new = log_in(&wal);
        assert_ne!(new, old);
        let copied = data.join("copies").join(&old);
        assert!(!s3::files(&copied, ".wal").is_empty(), "{} has no log", copied.display());
        assert!(cluster.server("i0").log().contains("a new log begins"), "{}", cluster.server("i0").log());

        // It takes pushes, and says what it has.
        let (batch, receipt) = ledger.lock().push("a", &[("after", now_ns())], 3, &mut Numbers::new(seed));
        cluster.tenant("i0", "a").push_ok(&batch).await;
        ledger.lock().acknowledge(&receipt);
        acknowledged_more(&ledger, 300).await;
        let q0 = cluster.server("q0").client();
        eventually("i0 to name its new log and its old one", async || {
            let logs = logs(&q0, "i0").await;
            logs.first() == Some(&new) && logs.contains(&old)
        })
        .await;
        let outcome = pushers.stop().await;
        assert_exact("after a loss of power", &watch, "a", &ledger).await;
        for node in ["q0", "i0", "i1", "i2"] {
            all_there("after a loss of power", &cluster, node, &ledger).await;
        }

        // Its old log comes into blocks, and all who have some of it find that out.
        let mut lengths = Vec::new();
        eventually("the old log in blocks", async || {
            lengths.clear();
            for node in ["i0", "i1", "i2"] {
                lengths.extend(copy(&cluster.server(node).client(), &old).await);
            }
            // What one has put there the others know of, also if they never had it.
            lengths.len() >= 2 && lengths.iter().all(|(_, covered)| *covered >= lengths[0].0.max(lengths[1].0))
        })
        .await;
        note(&format!("copies of the old log end at {lengths:?}"));
        let answers = probe.stop().await;
        note(&format!("{answers:?}"));
        for node in ["q0", "i0", "i1", "i2"] {
            all_there("in blocks", &cluster, node, &ledger).await;
        }
        assert!(!cluster.store().objects(".blk").is_empty());
        let adopted = "tailwater_copies_flushed_total";
        let mut flushed = 0.0;
        for node in ["i0", "i1", "i2"] {
            flushed += read::metric(&cluster.server(node).client(), adopted).await.unwrap_or(0.0);
        }
        assert!(flushed >= 1.0, "nobody has put it into blocks");
        cluster.kill_all().await;
        cluster.start_all().await;
        for node in ["q0", "i0", "i1", "i2"] {
            all_there("all started again", &cluster, node, &ledger).await;
        }
        assert_exact("after all", &watch, "a", &ledger).await;
        at_last(&mut cluster, &ledger, &outcome).await;
    }
}
