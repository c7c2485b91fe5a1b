//! Tails of several tenants together: each line once, under its tenant, and none of a tenant that was not named.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tailwater_integration::server::{command, signal};
use tailwater_integration::tail::Delivered;
use tailwater_integration::{Batch, Checker, Client, Server, now_ns, within};
use tokio::io::{AsyncBufReadExt, BufReader};

const SETTINGS: &str = "
auth_enabled: true
querier:
  multi_tenant_queries_enabled: true
  feed_ring_mb: 1
limits_config:
  ingestion_rate_mb: 1000
  ingestion_burst_size_mb: 1000
  per_stream_rate_limit: 1GB
  per_stream_rate_limit_burst: 1GB
  max_concurrent_tail_requests: 100
";

const TENANTS: [&str; 3] = ["blue", "green", "red"];

/// Pushes numbered lines for a tenant until told to stop.
async fn push_until(client: Client, tenant: &'static str, stop: Arc<AtomicBool>) -> Vec<Batch> {
    let (mut batches, mut number) = (Vec::new(), 0_usize);
    while !stop.load(Ordering::Relaxed) {
        let mut batch = Batch::new();
        for _ in 0..20 {
            // The same streams in all tenants.
            let stream = format!("{{app=\"load\", part=\"{}\"}}", number % 5);
            batch = batch.line(&stream, now_ns(), &format!("{tenant} {number} {}", "x".repeat(400)));
            number += 1;
        }
        client.push_ok(&batch).await;
        batches.push(batch);
        tokio::task::yield_now().await;
    }
    batches
}

/// What a tail of several tenants delivered of one of them.
fn of_tenant(lines: &[Delivered], tenant: &str) -> Vec<Delivered> {
    let label = format!("__tenant_id__={tenant:?}");
    lines.iter().filter(|line| line.labels.contains(&label)).cloned().collect()
}

/// Fails unless these are exactly the lines of the tenants.
fn assert_exact(checker: &Checker, lines: &[Delivered], tenants: &[&str]) {
    let mut named = 0;
    for tenant in tenants {
        let theirs = of_tenant(lines, tenant);
        assert!(theirs.iter().all(|line| line.line.starts_with(tenant)), "a line under another's name");
        checker.assert_exact(tenant, &theirs, |_, _| true);
        named += theirs.len();
    }
    assert_eq!(named, lines.len(), "lines of a tenant that was not named, or of none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_each_line_comes_once_and_under_its_tenant() {
    let mut server = Server::with_config(SETTINGS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let pushers = TENANTS.map(|tenant| tokio::spawn(push_until(server.tenant(tenant), tenant, Arc::clone(&stop))));
    let all = |query: &str| [("query".to_owned(), query.to_owned()), ("limit".to_owned(), "1000000".to_owned())];
    let plain = all(r#"{app="load"}"#);
    let chosen = all(r#"{app="load", __tenant_id__!="green"}"#);
    let delayed: Vec<_> = plain.iter().cloned().chain([("delay_for".to_owned(), "1".to_owned())]).collect();
    let (mut readers, mut slow) = (Vec::new(), Vec::new());
    // Tails open one after the other while lines come; each must see everything from the first line on.
    for round in 0..4 {
        for (tenants, params, wanted) in [
            ("blue|red", &plain[..], &["blue", "red"][..]),
            ("red|green|blue", &chosen, &["blue", "red"]),
            ("red|green|blue", &delayed, &TENANTS),
        ] {
            let params: Vec<_> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut tail = server.tenant(tenants).tail(&params).await;
            if round == 1 {
                slow.push((tail, wanted));
            } else {
                let ends = wanted.len();
                readers.push((tokio::spawn(async move { ended(&mut tail, ends).await }), wanted));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut single = server.tenant("red").tail(&[("query", plain[0].1.as_str()), ("limit", "1000000")]).await;
    // More than the sockets and the feed's frames hold, so that who does not read must catch up.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let mut checker = Checker::new();
    for (tenant, pusher) in TENANTS.into_iter().zip(pushers) {
        let batches = pusher.await.unwrap();
        let end = Batch::one(r#"{app="load", part="end"}"#, &format!("{tenant} end"));
        server.tenant(tenant).push_ok(&end).await;
        batches.iter().chain([&end]).for_each(|batch| checker.pushed(tenant, batch, true));
    }
    assert!(checker.len() > 1000, "too little load to prove anything: {} lines", checker.len());
    for (reader, wanted) in readers {
        assert_exact(&checker, &within("a reader", reader).await.unwrap(), wanted);
    }
    for (mut tail, wanted) in slow {
        assert_exact(&checker, &ended(&mut tail, wanted.len()).await, wanted);
    }
    let lines = ended(&mut single, 1).await;
    checker.assert_exact("red", &lines, |_, _| true);
    assert!(lines.iter().all(|line| !line.labels.contains("__tenant_id__")));
    let metrics = server.client().get("/metrics").await.text();
    assert!(metrics.contains("tailwater_querier_tail_invariant_violations_total 0\n"), "{metrics}");
    server.assert_well();
}

/// Lines until so many tenants have said that they are at the end.
async fn ended(tail: &mut tailwater_integration::Tail, tenants: usize) -> Vec<Delivered> {
    let mut all: Vec<Delivered> = Vec::new();
    let mut ends = 0;
    while ends < tenants {
        let more = tail.lines(1).await;
        ends += more.iter().filter(|line| line.line.ends_with(" end")).count();
        all.extend(more);
    }
    all
}

#[tokio::test]
async fn the_command_tails_several_tenants() {
    let server = Server::with_config(SETTINGS).await;
    let s = r#"{app="cli"}"#;
    for tenant in TENANTS {
        server.tenant(tenant).push_ok(&Batch::one(s, &format!("of {tenant}"))).await;
    }
    let mut tail = command(["tail", "--addr", &server.url(), "--org-id", "blue|red", s])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    for tenant in ["blue", "red"] {
        let line = within("a line", lines.next_line()).await.unwrap().unwrap();
        assert!(line.contains(&format!("cli@{tenant}")) && line.ends_with(&format!("of {tenant}")), "{line}");
    }
    signal(tail.id().unwrap(), "INT").await;
    assert!(within("the tail to end", tail.wait()).await.unwrap().success());
    // Where it is not allowed, it says what would allow it.
    let server = Server::with_config("auth_enabled: true\n").await;
    let args = ["tail", "--addr", &server.url(), "--org-id", "blue|red", s];
    let refused = within("a command", command(args).stdin(Stdio::null()).output()).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("multiple org IDs present") && said.contains("multi_tenant_queries_enabled"), "{said}");
}
