//! Limits of the configuration file, by Loki's names, with Loki's answers.

use tailwater_integration::{Batch, Server, now_ns};

use crate::texts;

#[tokio::test]
async fn the_tenant_rate_is_all_or_nothing() {
    let server = Server::with_config("limits_config:\n  ingestion_rate_mb: 1\n  ingestion_burst_size_mb: 1\n").await;
    let client = server.client();
    let s = r#"{app="rate"}"#;
    let mut batch = Batch::new();
    for i in 0..20 {
        batch = batch.line(s, now_ns(), &format!("{i} {}", "x".repeat(100_000)));
    }
    let reply = client.push(&batch).await;
    assert_eq!(reply.status, 429);
    let text = "ingestion rate limit exceeded for user fake (limit: 1048576 bytes/sec) while attempting to ingest '20' lines totaling '2000050' bytes, \
                reduce log volume or contact your Loki administrator to see if the limit can be increased\n";
    assert_eq!(reply.text(), text);
    client.push_ok(&Batch::one(s, "small")).await;
    assert_eq!(texts(&client.lines(s).await), ["small"]);
}

#[tokio::test]
async fn streams_are_counted() {
    let server = Server::with_config("limits_config:\n  max_global_streams_per_user: 2\n").await;
    let client = server.client();
    for app in ["a", "b"] {
        client.push_ok(&Batch::one(&format!("{{app=\"{app}\"}}"), "first")).await;
    }
    let reply = client.push(&Batch::one(r#"{app="c"}"#, "no room")).await;
    assert_eq!(reply.status, 429);
    assert!(
        reply.text().starts_with("maximum active stream limit exceeded when trying to create stream {app=\"c\""),
        "{}",
        reply.text()
    );
    client.push_ok(&Batch::one(r#"{app="a"}"#, "second")).await;
    assert_eq!(texts(&client.lines(r#"{app=~".+"}"#).await), ["first", "first", "second"]);
}

#[tokio::test]
async fn long_lines_are_cut_where_configured() {
    let yaml = "limits_config:\n  max_line_size: 16\n  max_line_size_truncate: true\n";
    let server = Server::with_config(yaml).await;
    let client = server.client();
    client.push_ok(&Batch::one(r#"{app="cut"}"#, "0123456789abcdefghij")).await;
    assert_eq!(texts(&client.lines(r#"{app="cut"}"#).await), ["0123456789abcdef"]);
}

#[tokio::test]
async fn one_stream_may_be_too_fast() {
    let yaml = "limits_config:\n  per_stream_rate_limit: 1KB\n  per_stream_rate_limit_burst: 2KB\n";
    let server = Server::with_config(yaml).await;
    let client = server.client();
    let reply = client.push(&Batch::one(r#"{app="fast"}"#, &"x".repeat(10_000))).await;
    assert_eq!(reply.status, 429);
    assert!(reply.text().contains("Per stream rate limit exceeded (limit: 1KB/sec)"), "{}", reply.text());
    client.push_ok(&Batch::one(r#"{app="slow"}"#, "x")).await;
}

#[tokio::test]
async fn structured_metadata_may_be_switched_off() {
    let server = Server::with_config("limits_config:\n  allow_structured_metadata: false\n").await;
    let client = server.client();
    let reply = client.push(&Batch::new().with_metadata(r#"{app="m"}"#, now_ns(), "x", &[("a", "b")])).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("includes structured metadata, but this feature is disallowed"), "{}", reply.text());
}

#[tokio::test]
async fn tails_are_counted_per_tenant_and_freed() {
    let server = Server::with_config("limits_config:\n  max_concurrent_tail_requests: 2\n").await;
    let client = server.client();
    let query = [("query", r#"{app="count"}"#)];
    let first = client.tail(&query).await;
    let second = client.tail(&query).await;
    client.tails_open(2).await;
    let mut third = client.tail(&query).await;
    let end = third.until_end().await.1;
    let tailwater_integration::tail::Event::Closed(1011, reason) = end else { panic!("{end:?}") };
    assert!(reason.contains("max concurrent tail requests limit exceeded, count > limit (3 > 2)"), "{reason}");
    drop((first, second));
    tailwater_integration::eventually("the places of closed tails to be free", async || {
        let mut tail = client.tail(&query).await;
        client.push_ok(&Batch::one(r#"{app="count"}"#, "for the next one")).await;
        matches!(tail.event().await, tailwater_integration::tail::Event::Frame(_))
    })
    .await;
}

#[tokio::test]
async fn a_query_asks_for_at_most_so_many_lines() {
    let server = Server::with_config("limits_config:\n  max_entries_limit_per_query: 10\n").await;
    let reply = server.client().get_with("/loki/api/v1/query_range", &[("query", r#"{a="b"}"#), ("limit", "11")]).await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (400, "max entries limit per query exceeded, limit > max_entries_limit_per_query (11 > 10)")
    );
}

#[tokio::test]
async fn memory_is_bounded_and_without_a_disk_the_oldest_goes_first() {
    let yaml = format!(
        "{}ingester:\n  log_memory_mb: 8\n  wal:\n    enabled: false\n",
        tailwater_integration::server::WIDE_LIMITS
    );
    let server = Server::with_config(&yaml).await;
    let client = server.client();
    let s = r#"{app="fill"}"#;
    for i in 0..200 {
        client.push_ok(&Batch::one(s, &format!("{i:03} {}", "0123456789".repeat(20_000)))).await;
    }
    let lines = client.lines(s).await;
    let kept: Vec<_> = lines.iter().map(|line| line.line[..3].parse::<usize>().unwrap()).collect();
    assert_eq!(kept.last(), Some(&199), "the newest is there");
    assert!((20..=45).contains(&kept.len()), "about 8 MiB are kept: {kept:?}");
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "what is kept has no hole: {kept:?}");
}
