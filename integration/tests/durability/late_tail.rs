//! Tails that fall behind what memory holds: they go on from the segments of the WAL, and miss nothing.

use tailwater_integration::read::metric;
use tailwater_integration::{Batch, Checker, Client, Home, Tail, now_ns};

use crate::{config, flush, note, wal};

const STREAM: &str = r#"{app="much"}"#;
const PUSHES: usize = 60;
const LINES: usize = 400;

/// Opens a tail whose client takes little that it does not read.
async fn narrow(client: &Client, query: &str) -> Tail {
    let params = [("query", query), ("limit", "1000000")];
    let target = tailwater_integration::client::target("/loki/api/v1/tail", &params);
    Tail::open_narrow(client, &target).await.unwrap_or_else(|reply| panic!("{}", reply.text()))
}

/// 24 MB: far more than memory, sockets and queues hold.
async fn push_much(client: &Client, checker: &mut Checker, mut between: impl AsyncFnMut(usize)) {
    for push in 0..PUSHES {
        let mut batch = Batch::new();
        for i in 0..LINES {
            batch = batch.line(STREAM, now_ns(), &format!("{push}/{i} {}", "0123456789".repeat(100)));
        }
        client.push_ok(&batch).await;
        checker.pushed("fake", &batch, true);
        between(push).await;
    }
}

async fn late(yaml: &str, flushes: bool) {
    let home = Home::new(yaml);
    let mut server = home.start().await;
    let client = server.client();
    let mut late = narrow(&client, STREAM).await;
    let mut filtered = narrow(&client, r#"{app="much"} |= "7/""#).await;
    client.tails_open(2).await;
    let mut checker = Checker::new();
    let (mut lines, mut sevens) = (Vec::new(), Vec::new());
    push_much(&client, &mut checker, async |push| {
        if flushes && push % 20 == 19 {
            flush(&client).await;
        }
        // A client that takes nothing at all is let go.
        if push % 4 == 3 {
            lines.extend(late.lines(1).await);
        }
        if push % 20 == 19 {
            sevens.extend(filtered.lines(1).await);
        }
    })
    .await;
    let held = metric(&client, "tailwater_log_memory_bytes").await.unwrap();
    assert!(held < 12e6, "memory holds {held} bytes, so nobody is late");
    assert!(lines.len() < PUSHES * LINES / 2, "{} lines were taken, so nobody is late", lines.len());
    lines.extend(late.lines(PUSHES * LINES - lines.len()).await);
    checker.assert_exact("fake", &lines, |_, _| true);
    let wanted = (0..PUSHES).filter(|push| push % 10 == 7).count() * LINES;
    sevens.extend(filtered.lines(wanted - sevens.len()).await);
    sevens.extend(filtered.silent(std::time::Duration::from_millis(200)).await);
    checker.assert_exact("fake", &sevens, |_, line| line.contains("7/"));
    // It is live again.
    let last = Batch::one(STREAM, "last");
    client.push_ok(&last).await;
    assert_eq!(late.lines(1).await[0].line, "last");
    server.assert_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_tail_goes_on_from_the_wal() {
    late(&config(&["log_memory_mb: 4", "target_block_mb: 1024", &wal("interval", 4, 256)]), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_tail_goes_on_from_segments_whose_lines_are_in_blocks() {
    late(&config(&["log_memory_mb: 4", "target_block_mb: 4", &wal("interval", 4, 256)]), true).await;
}

/// Segments that are trimmed may leave a gap, but it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_the_log_was_trimmed_past_is_told() {
    let yaml = config(&["log_memory_mb: 4", "target_block_mb: 2", &wal("interval", 1, 0)]);
    let home = Home::new(&yaml);
    let mut server = home.start().await;
    let client = server.client();
    let mut late = narrow(&client, STREAM).await;
    client.tails_open(1).await;
    let mut checker = Checker::new();
    let mut lines = Vec::new();
    push_much(&client, &mut checker, async |push| {
        if push % 20 == 19 {
            flush(&client).await;
            lines.extend(late.lines(1).await);
        }
    })
    .await;
    let mut dropped = 0;
    while lines.len() + dropped < PUSHES * LINES {
        let frame = late.event().await;
        let tailwater_integration::tail::Event::Frame(frame) = frame else {
            assert!(matches!(frame, tailwater_integration::tail::Event::Ping(_)), "{frame:?}");
            continue;
        };
        lines.extend(tailwater_integration::tail::lines(&frame));
        dropped += frame["dropped_entries"].as_array().map_or(0, Vec::len);
        if dropped > 0 {
            // How many are told one by one is bounded; that some are is enough.
            break;
        }
    }
    let verdict = checker.judge("fake", &lines, |_, _| true);
    assert!(verdict.phantom.is_empty() && verdict.duplicated.is_empty() && verdict.disordered.is_empty(), "{verdict}");
    assert!(dropped > 0 || verdict.lost.is_empty(), "a gap that nobody told: {verdict}");
    note(&format!("{} lines delivered, {dropped} told as dropped", lines.len()));
    server.assert_well();
}
