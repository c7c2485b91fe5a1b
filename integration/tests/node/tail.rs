//! The live tail: its parameters, its frames, history joined to live, and what happens at the end of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tailwater_integration::tail::{Delivered, Event};
use tailwater_integration::{Batch, Checker, Client, Server, eventually, now_ns, within};

/// Long enough for a wrong line to show up where nothing may come.
const QUIET: Duration = Duration::from_millis(300);

fn texts(lines: &[Delivered]) -> Vec<&str> {
    lines.iter().map(|line| line.line.as_str()).collect()
}

#[tokio::test]
async fn a_line_arrives_under_its_labels() {
    let server = Server::start().await;
    let client = server.client();
    let mut tail = client.tail(&[("query", r#"{app="a"}"#)]).await;
    let at = now_ns();
    client.push_ok(&Batch::new().line(r#"{app="b"}"#, at, "other").line(r#"{app="a", pod="p"}"#, at, "mine\n")).await;
    let frame = tail.frame().await;
    let labels = json!({"app": "a", "detected_level": "unknown", "pod": "p", "service_name": "a"});
    assert_eq!(frame, json!({"streams": [{"stream": labels, "values": [[at.to_string(), "mine\n"]]}]}));
    assert_eq!(tail.silent(QUIET).await, []);
}

#[tokio::test]
async fn history_comes_first_and_is_bounded() {
    let server = Server::start().await;
    let client = server.client();
    let s = r#"{app="history"}"#;
    let now = now_ns();
    let mut batch = Batch::new().line(s, now - 5_000_000_000_000, "older than an hour");
    for i in 0..150 {
        batch = batch.line(s, now - 200_000_000 + i * 1_000_000, &format!("{i}"));
    }
    client.push_ok(&batch).await;
    // The newest 100, oldest first.
    let mut tail = client.tail(&[("query", s)]).await;
    let wanted: Vec<_> = (50..150).map(|i| i.to_string()).collect();
    assert_eq!(texts(&tail.lines(100).await), wanted);
    let mut tail = client.tail(&[("query", s), ("limit", "2")]).await;
    assert_eq!(texts(&tail.lines(2).await), ["148", "149"]);
    // A start in seconds or nanoseconds, or a duration.
    let start = (now - 6_000_000_000_000).to_string();
    for params in
        [[("query", s), ("start", &start), ("limit", "10000")], [("query", s), ("since", "2h"), ("limit", "10000")]]
    {
        let mut tail = client.tail(&params).await;
        let lines = tail.lines(151).await;
        assert_eq!((lines.len(), lines[0].line.as_str()), (151, "older than an hour"));
    }
    let mut tail = client.tail(&[("query", s), ("since", "1ms")]).await;
    client.push_ok(&Batch::one(s, "live")).await;
    assert_eq!(texts(&tail.lines(1).await), ["live"]);
}

/// Pushes numbered lines to some streams until told to stop; tells the checker what was acknowledged.
async fn push_until(client: Client, stop: Arc<AtomicBool>, lines_per_push: usize) -> Checker {
    let mut checker = Checker::new();
    let mut number = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        let mut batch = Batch::new();
        for _ in 0..lines_per_push {
            batch = batch.line(&format!("{{app=\"load\", part=\"{}\"}}", number % 7), now_ns(), &format!("n={number}"));
            number += 1;
        }
        let acknowledged = client.push(&batch).await.status == 204;
        checker.pushed("fake", &batch, acknowledged);
        tokio::task::yield_now().await;
    }
    checker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_joins_live_without_a_gap_or_a_duplicate() {
    let server = Server::start_wide().await;
    let client = server.client();
    let stop = Arc::new(AtomicBool::new(false));
    let pusher = tokio::spawn(push_until(client.clone(), stop.clone(), 20));
    // Tails open one after the other while lines come; each must see everything from the first line on. Every other query has a
    // pipeline of its own, so feeds are both made and joined under load.
    let mut readers = Vec::new();
    for i in 0..24 {
        let query = if i % 2 == 0 {
            r#"{app="load"}"#.to_owned()
        } else {
            format!("{{app=\"load\"}} | logfmt | n >= 0 | n != {i}.5")
        };
        let client = client.clone();
        readers.push(tokio::spawn(async move {
            let mut tail = client.tail(&[("query", &query), ("limit", "10000000")]).await;
            tail.lines_until("end").await
        }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut checker = pusher.await.unwrap();
    // Half of the queries want n, which the last line brings along.
    let end = Batch::new().with_metadata(r#"{app="load", part="end"}"#, now_ns(), "end", &[("n", "1")]);
    client.push_ok(&end).await;
    checker.pushed("fake", &end, true);
    assert!(checker.len() > 500, "too little load to prove anything: {} lines", checker.len());
    for reader in readers {
        let lines = within("a reader", reader).await.unwrap();
        checker.assert_exact("fake", &lines, |_, _| true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_equal_tails_get_the_same() {
    let server = Server::start_wide().await;
    let client = server.client();
    let mut tails = Vec::new();
    for _ in 0..100 {
        tails.push(client.tail(&[("query", r#"{app="load"} |= "n=""#), ("limit", "1000000")]).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let pusher = tokio::spawn(push_until(client.clone(), stop.clone(), 50));
    let readers: Vec<_> =
        tails.into_iter().map(|mut tail| tokio::spawn(async move { tail.lines_until("n=end").await })).collect();
    eventually("a thousand lines", async || client.lines(r#"{app="load", part="1"}"#).await.len() > 200).await;
    stop.store(true, Ordering::Relaxed);
    let mut checker = pusher.await.unwrap();
    let end = Batch::one(r#"{app="load", part="end"}"#, "n=end");
    client.push_ok(&end).await;
    checker.pushed("fake", &end, true);
    let mut first: Option<Vec<Delivered>> = None;
    for reader in readers {
        let lines = within("a reader", reader).await.unwrap();
        checker.assert_exact("fake", &lines, |_, _| true);
        // Shared evaluation gives every one of them the same lines in the same order.
        assert!(*first.get_or_insert_with(|| lines.clone()) == lines, "equal tails saw different orders");
    }
}

#[tokio::test]
async fn the_pipeline_applies_and_labels_can_be_kept_apart() {
    let server = Server::start().await;
    let plain = server.client();
    let flagged = server.client().header("X-Loki-Response-Encoding-Flags", "categorize-labels");
    let query = r#"{app="p"} |= "user" | json | level="error" | line_format "{{.user}}: {{.msg}}" | drop msg"#;
    let mut tail = plain.tail(&[("query", query)]).await;
    let mut apart = flagged.tail(&[("query", query)]).await;
    let (s, at) = (r#"{app="p"}"#, now_ns());
    let batch = Batch::new()
        .line(s, at, r#"{"user":"u1","level":"info","msg":"no"}"#)
        .with_metadata(s, at + 1, r#"{"user":"u2","level":"error","msg":"yes"}"#, &[("trace_id", "t")])
        .line(s, at + 2, r#"{"level":"error","msg":"nobody"}"#);
    plain.push_ok(&batch).await;
    let ts = (at + 1).to_string();
    let stream = json!({"app": "p", "service_name": "p"});
    let metadata = json!({"detected_level": "error", "trace_id": "t"});
    let parsed = json!({"level": "error", "user": "u2"});
    let mut all = stream.clone();
    for more in [&metadata, &parsed] {
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    assert_eq!(tail.frame().await, json!({"streams": [{"stream": all, "values": [[ts, "u2: yes"]]}]}));
    let third = json!({"structuredMetadata": metadata, "parsed": parsed});
    let wanted = json!({"streams": [{"stream": stream, "values": [[ts, "u2: yes", third]]}], "encodingFlags": ["categorize-labels"]});
    assert_eq!(apart.frame().await, wanted);
    assert_eq!(tail.silent(QUIET).await, []);
}

#[tokio::test]
async fn history_and_live_lines_of_a_stream_bear_the_same_labels() {
    let server = Server::start().await;
    let client = server.client();
    let s = r#"{app="same"}"#;
    let batch = |at, line: &str| Batch::new().with_metadata(s, at, line, &[("trace_id", "t")]);
    client.push_ok(&batch(now_ns(), "old")).await;
    let mut tail = client.tail(&[("query", s)]).await;
    let mut lines = tail.lines(1).await;
    client.push_ok(&batch(now_ns(), "new")).await;
    lines.extend(tail.lines(1).await);
    assert_eq!(texts(&lines), ["old", "new"]);
    assert_eq!(lines[0].labels, lines[1].labels);
    assert!(lines[1].labels.contains("trace_id=\"t\""), "{}", lines[1].labels);
}

#[tokio::test]
async fn equal_lines_of_different_streams_are_both_delivered() {
    let server = Server::start().await;
    let client = server.client();
    let mut tail = client.tail(&[("query", r#"{app=~"x|y"}"#)]).await;
    let at = now_ns();
    client.push_ok(&Batch::new().line(r#"{app="x"}"#, at, "same").line(r#"{app="y"}"#, at, "same")).await;
    let mut labels: Vec<_> = tail.lines(2).await.into_iter().map(|line| line.labels).collect();
    labels.sort();
    assert!(labels[0].contains("\"x\"") && labels[1].contains("\"y\""), "{labels:?}");
}

#[tokio::test]
async fn delay_for_holds_lines_back_and_puts_them_in_order() {
    let server = Server::start().await;
    let client = server.client();
    let s = r#"{app="delay"}"#;
    let mut tail = client.tail(&[("query", s), ("delay_for", "1")]).await;
    // Once this is here the tail has joined: what comes now is live, and held back.
    client.push_ok(&Batch::one(s, "joined")).await;
    assert_eq!(texts(&tail.lines(1).await), ["joined"]);
    let at = now_ns();
    for (i, line) in [(2, "third"), (0, "first"), (1, "second")] {
        client.push_ok(&Batch::new().line(s, at + i, line)).await;
    }
    assert_eq!(texts(&tail.lines(3).await), ["first", "second", "third"]);
    assert!(now_ns() >= at + 1_000_000_000, "delivered before its delay was over");
}

#[tokio::test]
async fn a_clock_that_is_fast_delays_nothing() {
    let server = Server::start().await;
    let client = server.client();
    let s = r#"{app="fast"}"#;
    let mut tail = client.tail(&[("query", s)]).await;
    let at = now_ns();
    client.push_ok(&Batch::new().line(s, at + 300_000_000_000, "five minutes fast")).await;
    client.push_ok(&Batch::new().line(s, at, "on time")).await;
    // Whichever comes first: neither waits.
    let mut lines: Vec<_> = tail.lines(2).await.into_iter().map(|line| line.line).collect();
    lines.sort();
    assert_eq!(lines, ["five minutes fast", "on time"]);
}

#[tokio::test]
async fn bad_requests_are_refused_before_the_upgrade() {
    let server = Server::start().await;
    let client = server.client();
    let good = ("query", r#"{a="b"}"#);
    let cases: [(&[(&str, &str)], &str); 12] = [
        (&[], "parse error : syntax error: unexpected $end"),
        (&[("query", "{")], "parse error at line 1, col 2: syntax error: unexpected $end, expecting IDENTIFIER or }"),
        (
            &[("query", r#"{app=~".*"}"#)],
            "parse error : queries require at least one regexp or equality matcher that does not have an empty-compatible value. \
             For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will",
        ),
        (&[("query", r#"{a="b"} |~ "["#)], ""),
        (&[good, ("limit", "0")], "limit must be a positive value"),
        (&[good, ("limit", "-1")], "limit must be a positive value"),
        (&[good, ("limit", "abc")], "strconv.Atoi: parsing \"abc\": invalid syntax"),
        (&[good, ("delay_for", "6")], "delay_for can't be greater than 5"),
        (&[good, ("delay_for", "-1")], "delay_for value -1 is out of range [0, 4294967295]"),
        (&[good, ("delay_for", "1s")], "strconv.Atoi: parsing \"1s\": invalid syntax"),
        (
            &[good, ("start", "foo")],
            "could not parse 'start' parameter: strconv.ParseInt: parsing \"foo\": invalid syntax",
        ),
        (&[good, ("since", "xx")], "could not parse 'since' parameter: not a valid duration string: \"xx\""),
    ];
    for (params, text) in cases {
        let Err(reply) = client.try_tail(params).await else { panic!("{params:?} was accepted") };
        assert_eq!(reply.status, 400, "{params:?}: {}", reply.text());
        assert!(reply.text().contains(text) && !reply.text().is_empty(), "{params:?}: {:?}", reply.text());
        assert!(!reply.text().ends_with('\n'), "{params:?}");
    }
    // Not a WebSocket at all.
    let reply = client.get_with("/loki/api/v1/tail", &[good]).await;
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.header("sec-websocket-version")),
        (400, "Bad Request\n", "13")
    );
    assert_eq!(client.send("PUT", "/loki/api/v1/tail", &[], "").await.status, 405);
    assert_eq!(client.get("/loki/api/v2alpha/tail").await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_tailed_is_closed_with_a_reason() {
    let server = Server::start().await;
    let client = server.client();
    let mut tail = client.tail(&[("query", r#"rate({a="b"}[1m])"#)]).await;
    assert_eq!(tail.until_end().await, (vec![], Event::Closed(1011, "only log selector is supported".to_owned())));
    let future = (now_ns() + 3_600_000_000_000).to_string();
    let mut tail = client.tail(&[("query", r#"{a="b"}"#), ("start", &future)]).await;
    let (_, end) = tail.until_end().await;
    assert!(matches!(&end, Event::Closed(1011, reason) if !reason.is_empty() && reason.len() <= 123), "{end:?}");
}

#[tokio::test]
async fn pings_come_every_second_and_grafana_gets_json_heartbeats() {
    let server = Server::start().await;
    let query = [("query", r#"{a="b"}"#)];
    let mut tail = server.client().tail(&query).await;
    assert_eq!([tail.event().await, tail.event().await], [Event::Ping(vec![]), Event::Ping(vec![])]);
    let mut tail = server.client().header("User-Agent", "Grafana/12.0.0").tail(&query).await;
    loop {
        match tail.event().await {
            Event::Ping(_) => {}
            event => break assert_eq!(event, Event::Frame(json!({"streams": []}))),
        }
    }
}

#[tokio::test]
async fn a_closing_client_gets_its_code_back() {
    let server = Server::start().await;
    for code in [1000, 1001, 4000] {
        let mut tail = server.client().tail(&[("query", r#"{a="b"}"#)]).await;
        tail.say("ignored").await;
        assert_eq!(tail.close(code).await, Event::Closed(code, String::new()));
    }
}

#[tokio::test]
async fn a_tail_ends_after_its_longest_time_with_the_text_that_clients_know() {
    let server = Server::with_config("querier:\n  tail_max_duration: 1s\n").await;
    let mut tail = server.client().tail(&[("query", r#"{a="b"}"#)]).await;
    assert_eq!(tail.until_end().await.1, Event::Closed(1011, "reached tail max duration limit".to_owned()));
}

#[tokio::test]
async fn the_legacy_path_has_its_own_shape() {
    let server = Server::start().await;
    let client = server.client();
    let target = tailwater_integration::client::target("/api/prom/tail", &[("query", r#"{app="l"}"#)]);
    let mut tail = tailwater_integration::Tail::open(&client, &target).await.unwrap();
    let at = now_ns() / 1000 * 1000 + 7;
    client.push_ok(&Batch::new().line(r#"{app="l"}"#, at, "x")).await;
    let frame = loop {
        if let Event::Frame(frame) = tail.event().await {
            break frame;
        }
    };
    let entry = &frame["streams"][0]["entries"][0];
    assert_eq!(
        (entry["line"].as_str(), frame.get("dropped_entries")),
        (Some("x"), Some(&serde_json::Value::Null)),
        "{frame}"
    );
    let labels = frame["streams"][0]["labels"].as_str().unwrap();
    assert!(labels.starts_with("{app=\"l\", ") && labels.ends_with("service_name=\"l\"}"), "{labels}");
    let wanted = tailwater_integration::push::rfc3339(at);
    assert_eq!(entry["ts"].as_str().unwrap().trim_end_matches('Z'), wanted.trim_end_matches('Z').trim_end_matches('0'));
}

/// As logcli does it: a new tail from the timestamp of the last line, which may come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnecting_client_misses_nothing() {
    let server = Server::start_wide().await;
    let client = server.client();
    let stop = Arc::new(AtomicBool::new(false));
    let pusher = tokio::spawn(push_until(client.clone(), stop.clone(), 10));
    let mut lines: Vec<Delivered> = Vec::new();
    for _ in 0..10 {
        let start = lines.last().map_or(0, |line| line.timestamp).max(now_ns() - 3_600_000_000_000).to_string();
        let mut tail = client.tail(&[("query", r#"{app="load"}"#), ("start", &start), ("limit", "1000000")]).await;
        for line in tail.lines(300).await {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        drop(tail.into_tcp());
    }
    stop.store(true, Ordering::Relaxed);
    let checker = pusher.await.unwrap();
    let start = lines.last().unwrap().timestamp.to_string();
    let end = Batch::one(r#"{app="load", part="end"}"#, "end");
    let mut tail = client.tail(&[("query", r#"{app="load"}"#), ("start", &start), ("limit", "1000000")]).await;
    client.push_ok(&end).await;
    for line in tail.lines_until("end").await {
        if line.line != "end" && !lines.contains(&line) {
            lines.push(line);
        }
    }
    let verdict = checker.judge("fake", &lines, |_, _| true);
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty() && verdict.duplicated.is_empty(), "{verdict}");
}

#[tokio::test]
async fn a_draining_server_lets_its_tails_go() {
    let server = Server::start().await;
    let mut tail = server.client().tail(&[("query", r#"{a="b"}"#)]).await;
    let (ended, (status, log)) = tokio::join!(tail.until_end(), server.terminate());
    assert_eq!(status.code(), Some(0), "{log}");
    // Polite or not: a close frame with a reason, or the end of the connection that makes clients come back.
    assert!(
        matches!(&ended.1, Event::Gone) || matches!(&ended.1, Event::Closed(1011, reason) if !reason.is_empty()),
        "{ended:?}"
    );
}
