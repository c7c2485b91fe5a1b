//! Tails over real sockets: handshake, frames, ends.

use serde_json::{Value, json};

use crate::client::{Frame, Tail, World, form};

async fn refused(world: &World, params: &[(&str, &str)], headers: &[(&str, &str)]) -> crate::client::Answer {
    let target = format!("/loki/api/v1/tail?{}", form(params));
    Tail::open(world, &target, headers).await.err().expect("a refusal")
}

#[tokio::test]
async fn history_then_live_in_order_and_once() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["one", "two"]).await;
    let mut tail = Tail::query(&world, r#"{app="a"}"#).await;
    assert_eq!(tail.lines(2).await, ["one", "two"]);
    world.push(&json!({"app": "a"}), &["three"]).await;
    world.push(&json!({"app": "other"}), &["not this"]).await;
    world.push(&json!({"app": "a"}), &["four"]).await;
    assert_eq!(tail.lines(2).await, ["three", "four"]);
    let tails = world.get("/api/v1/tails").await.json();
    assert_eq!(tails["tails"][0]["query"], r#"{app="a"}"#);
    assert_eq!(tails["tails"][0]["ledger"]["delivered"], 4);
}

#[tokio::test]
async fn frames_say_what_was_asked_for() {
    let world = World::start("").await;
    let target = format!("/loki/api/v1/tail?{}", form(&[("query", r#"{app="a"} | logfmt"#)]));
    let flags = [("X-Loki-Response-Encoding-Flags", "categorize-labels")];
    let mut categorised = Tail::open(&world, &target, &flags).await.unwrap();
    let legacy = target.replace("/loki/api/v1/", "/api/prom/");
    let mut legacy = Tail::open(&world, &legacy, &[]).await.unwrap();
    let at = world.push(&json!({"app": "a"}), &["k=v"]).await;
    let Frame::Text(frame) = categorised.next_but_pings().await else { panic!() };
    assert_eq!(frame["encodingFlags"], json!(["categorize-labels"]));
    assert_eq!(frame["streams"][0]["stream"], json!({"app": "a", "service_name": "a"}));
    let parts = json!({"structuredMetadata": {"detected_level": "unknown"}, "parsed": {"k": "v"}});
    assert_eq!(frame["streams"][0]["values"], json!([[at[0], "k=v", parts]]));
    let Frame::Text(frame) = legacy.next_but_pings().await else { panic!() };
    assert_eq!(frame["streams"][0]["labels"], r#"{app="a", detected_level="unknown", k="v", service_name="a"}"#);
    assert_eq!(frame["streams"][0]["entries"][0]["line"], "k=v");
}

#[tokio::test]
async fn bad_requests_are_refused_before_the_upgrade() {
    let world = World::start("auth_enabled: true").await;
    let tenant = [("X-Scope-OrgID", "t")];
    let good = ("query", r#"{app="a"}"#);
    refused(&world, &[good], &[]).await.fails(401, "no org id\n");
    refused(&world, &[], &tenant).await.fails(400, "parse error : syntax error: unexpected $end");
    refused(&world, &[good, ("limit", "0")], &tenant).await.fails(400, "limit must be a positive value");
    refused(&world, &[good, ("delay_for", "6")], &tenant).await.fails(400, "delay_for can't be greater than 5");
    let text = "could not parse 'start' parameter: strconv.ParseInt: parsing \"x\": invalid syntax";
    refused(&world, &[good, ("start", "x")], &tenant).await.fails(400, text);
    refused(&world, &[good], &[("X-Scope-OrgID", "a|b")]).await.fails(400, "multiple org IDs present");
    let text = "tenant ID 'a/b' contains unsupported character '/'";
    refused(&world, &[good], &[("X-Scope-OrgID", "a/b")]).await.fails(400, text);
    // Parameters come before the tenant, both before the handshake.
    refused(&world, &[], &[("X-Scope-OrgID", "a/b")]).await.fails(400, "parse error : syntax error: unexpected $end");
    let target = format!("/loki/api/v1/tail?{}", form(&[good]));
    let plain = world.send("GET", &target, &tenant, b"").await;
    plain.fails(400, "Bad Request\n");
    assert_eq!(plain.header("sec-websocket-version"), Some("13"));
    let regexp = refused(&world, &[good, ("regexp", "[")], &tenant).await;
    assert_eq!(regexp.status, 400);
}

#[tokio::test]
async fn what_fails_after_the_upgrade_is_a_close_frame() {
    let world = World::start("limits_config: {max_concurrent_tail_requests: 1}").await;
    let mut metric = Tail::query(&world, r#"rate({app="a"}[1m])"#).await;
    assert_eq!(metric.next().await, Frame::Close(1011, "only log selector is supported".to_owned()));
    assert_eq!(metric.next().await, Frame::Eof);
    let mut first = Tail::query(&world, r#"{app="a"}"#).await;
    assert_eq!(first.next().await, Frame::Ping);
    let text = "rpc error: code = Code(400) desc = max concurrent tail requests limit exceeded, count > limit (2 > 1)";
    assert_eq!(Tail::query(&world, r#"{app="a"}"#).await.next().await, Frame::Close(1011, text.to_owned()));
    let target = format!("/loki/api/v1/tail?{}", form(&[("query", r#"{app="a"}"#), ("start", "9999999999")]));
    let mut future = Tail::open(&world, &target, &[]).await.unwrap();
    let text =
        "rpc error: code = Code(400) desc = this data is no longer available, it is past now - max_query_lookback (0s)";
    assert_eq!(future.next().await, Frame::Close(1011, text.to_owned()));
    let target = format!("/loki/api/v1/tail?{}", form(&[("query", r#"{app="a"}"#), ("start", "1000000000")]));
    let Frame::Close(1011, reason) = Tail::open(&world, &target, &[]).await.unwrap().next().await else { panic!() };
    assert_eq!(reason.len(), 123, "{reason}");
    assert!(
        reason.starts_with("rpc error: code = Code(400) desc = the query time range exceeds the limit"),
        "{reason}"
    );
}

#[tokio::test]
async fn clients_are_answered_in_kind() {
    let world = World::start("").await;
    let mut tail = Tail::query(&world, r#"{app="a"}"#).await;
    tail.send(0x81, b"ignored").await;
    tail.send(0x89, b"hello").await;
    assert_eq!(tail.next_but_pings().await, Frame::Pong(b"hello".to_vec()));
    tail.send(0x88, &[0x03, 0xe8, b'b', b'y', b'e']).await;
    assert_eq!(tail.next_but_pings().await, Frame::Close(1000, String::new()));
    assert_eq!(tail.next().await, Frame::Eof);
    drop(tail);
    let gone = async || world.get("/api/v1/tails").await.json()["tails"] == json!([]);
    while !gone().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_longest_tail_ends_with_lokis_words() {
    let world = World::start("querier: {tail_max_duration: 200ms}").await;
    let mut tail = Tail::query(&world, r#"{app="a"}"#).await;
    let end = Frame::Close(1011, "reached tail max duration limit".to_owned());
    assert_eq!(tail.next_but_pings().await, end);
}

#[tokio::test]
async fn grafana_gets_heartbeats_and_an_end_that_it_comes_back_from() {
    let mut world = World::start("").await;
    let target = format!("/loki/api/v1/tail?{}", form(&[("query", r#"{app="a"}"#)]));
    let mut grafana = Tail::open(&world, &target, &[("User-Agent", "Grafana/12.3.0")]).await.unwrap();
    let mut other = Tail::open(&world, &target, &[]).await.unwrap();
    assert_eq!(grafana.next_but_pings().await, Frame::Text(json!({"streams": []})));
    world.push(&json!({"app": "a"}), &["last words"]).await;
    world.stop();
    for tail in [&mut grafana, &mut other] {
        loop {
            if let Frame::Text(frame) = tail.next_but_pings().await
                && frame["streams"] != json!([])
            {
                assert_eq!(frame["streams"][0]["values"][0][1], "last words");
                break;
            }
        }
    }
    assert_eq!(grafana.next_but_pings().await, Frame::Eof);
    let end = Frame::Close(1011, "all ingesters closed the connection".to_owned());
    assert_eq!(other.next_but_pings().await, end);
    drop((grafana, other));
    world.stopped().await;
}

#[tokio::test]
async fn going_down_says_so_and_takes_nothing_more_in() {
    let mut world = World::start("").await;
    // A tail that does not go by itself keeps the process up for a while.
    let tail = Tail::query(&world, r#"{app="a"}"#).await;
    let mut kept = world.connect().await;
    world.stop();
    let body = r#"{"streams":[{"stream":{"app":"a"},"values":[["1","x"]]}]}"#;
    let request = format!(
        "GET /ready HTTP/1.1\r\nHost: t\r\n\r\nPOST /loki/api/v1/push HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut kept, request.as_bytes()).await.unwrap();
    let mut raw = Vec::new();
    let _end = tokio::io::AsyncReadExt::read_to_end(&mut kept, &mut raw).await;
    let text = String::from_utf8_lossy(&raw).into_owned();
    // Either the connection was taken first and refused politely, or it was not taken any more.
    if !text.is_empty() {
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("Application is stopping\n"), "{text}");
        assert!(!text.contains("HTTP/1.1 204"), "{text}");
    }
    drop(tail);
    world.stopped().await;
}

#[tokio::test]
async fn unusual_parameters_are_named() {
    let world = World::start("").await;
    let good = ("query", r#"{app="a"}"#);
    let answer = refused(&world, &[good, ("on_slow", "panic")], &[]).await;
    answer.fails(400, "invalid on_slow 'panic', expected wait or drop");
    let answer = refused(&world, &[good, ("heartbeat", "yes")], &[]).await;
    answer.fails(400, "invalid heartbeat 'yes', expected 0 or 1");
    let target = format!("/loki/api/v1/tail?{}", form(&[good, ("heartbeat", "1"), ("on_slow", "drop")]));
    let mut tail = Tail::open(&world, &target, &[]).await.unwrap();
    assert_eq!(tail.next_but_pings().await, Frame::Text(json!({"streams": Value::Array(Vec::new())})));
}

#[tokio::test]
async fn metric_queries_are_tailed_for_who_asks() {
    let world = World::start("{querier: {multi_tenant_queries_enabled: true}}").await;
    let query = r#"sum by (app) (count_over_time({app="a"}[1h]))"#;
    let target = |more: &[(&str, &str)]| {
        let mut params = vec![("query", query), ("metrics", "1"), ("step", "1")];
        params.extend(more);
        format!("/loki/api/v1/tail?{}", form(&params))
    };
    world.push(&json!({"app": "a"}), &["one", "two"]).await;
    let mut tail = Tail::open(&world, &target(&[("since", "1s")]), &[]).await.unwrap();
    let mut last = 0;
    for _ in 0..2 {
        let Frame::Text(frame) = tail.next_but_pings().await else { panic!() };
        let time = frame["time"].as_i64().unwrap();
        assert!(last == 0 || time == last + 1, "{frame}");
        last = time;
    }
    world.push(&json!({"app": "a"}), &["three"]).await;
    let value = loop {
        let Frame::Text(frame) = tail.next_but_pings().await else { panic!() };
        let sample = frame["data"]["result"][0].clone();
        if sample["value"][1] == "3" {
            break sample;
        }
    };
    assert_eq!(value["metric"], json!({"app": "a"}));
    let tails = world.get("/api/v1/tails").await.json();
    assert_eq!(tails["tails"][0]["query"], query.replace(") (", ")("));
    assert!(tails["tails"][0]["ledger"]["delivered"].as_u64().unwrap() >= 3);
    let tenants = [("X-Scope-OrgID", "a|b")];
    let by_tenant = r#"sum by (__tenant_id__) (count_over_time({app="a"}[1h]))"#;
    let both = format!("/loki/api/v1/tail?{}", form(&[("query", by_tenant), ("metrics", "true"), ("step", "1s")]));
    let mut both = Tail::open(&world, &both, &tenants).await.unwrap();
    let Frame::Text(frame) = both.next_but_pings().await else { panic!() };
    assert_eq!(frame["data"], json!({"resultType": "vector", "result": []}));
}

#[tokio::test]
async fn metric_tails_that_make_no_sense_are_refused_before_the_upgrade() {
    let world = World::start("limits_config: {max_query_range: 1h}").await;
    let metric = ("query", r#"rate({app="a"}[1m])"#);
    let steps = ("metrics", "1");
    for (params, text) in [
        (vec![("query", r#"{app="a"}"#), steps], "metrics=1 is for metric queries, this is a log query"),
        (vec![metric, ("metrics", "yes")], "invalid metrics 'yes', expected 0 or 1"),
        (vec![metric, steps, ("step", "500ms")], "step must be at least 1s, not \"500ms\""),
        (vec![metric, steps, ("on_slow", "drop")], "on_slow=drop is for log queries, steps are never dropped"),
        (vec![metric, steps, ("delay_for", "6")], "delay_for can't be greater than 5"),
        (vec![("query", r#"rate({app="a"}[2h])"#), steps], "[interval] value exceeds limit: [2h] > [1h]"),
        (
            vec![metric, steps, ("step", "1s"), ("since", "4h")],
            "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter",
        ),
    ] {
        refused(&world, &params, &[]).await.fails(400, text);
    }
    refused(&world, &[metric, steps], &[("X-Scope-OrgID", "a|b")]).await.fails(400, "multiple org IDs present");
    let legacy = format!("/api/prom/tail?{}", form(&[metric, steps]));
    let answer = Tail::open(&world, &legacy, &[]).await.err().unwrap();
    answer.fails(400, "legacy endpoints only support streams result type");
    // Who does not ask is answered as ever.
    let target = format!("/loki/api/v1/tail?{}", form(&[metric, ("metrics", "0")]));
    let mut plain = Tail::open(&world, &target, &[]).await.unwrap();
    assert_eq!(plain.next().await, Frame::Close(1011, "only log selector is supported".to_owned()));
}

#[tokio::test]
async fn metric_tails_end_at_once_when_the_server_goes_down() {
    let mut world = World::start("").await;
    let target = format!("/loki/api/v1/tail?{}", form(&[("query", "vector(1)"), ("metrics", "1"), ("step", "1s")]));
    let mut tail = Tail::open(&world, &target, &[]).await.unwrap();
    let Frame::Text(frame) = tail.next_but_pings().await else { panic!() };
    assert_eq!(frame["data"]["result"][0]["value"][1], "1");
    world.stop();
    let end = loop {
        match tail.next_but_pings().await {
            Frame::Text(_) => {}
            end => break end,
        }
    };
    assert_eq!(end, Frame::Close(1011, "all ingesters closed the connection".to_owned()));
    world.stopped().await;
}

#[tokio::test]
async fn a_tail_goes_on_with_its_token_and_bad_ones_are_refused_before_the_upgrade() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["one", "two"]).await;
    let query = ("query", r#"{app="a"}"#);
    let target = |more: &[(&str, &str)]| format!("/loki/api/v1/tail?{}", form(&[&[query], more].concat()));
    let mut tail = Tail::open(&world, &target(&[("resume", "true"), ("delay_for", "1")]), &[]).await.unwrap();
    let Frame::Text(frame) = tail.next_but_pings().await else { panic!() };
    let token = frame["resume"].as_str().unwrap().to_owned();
    assert_eq!(frame["resumed"], Value::Null);
    drop(tail);
    world.push(&json!({"app": "a"}), &["three"]).await;
    // As a parameter and as a header; delay_for is the token's.
    let mut tail = Tail::open(&world, &target(&[("resume", &token), ("limit", "1")]), &[]).await.unwrap();
    let Frame::Text(frame) = tail.next_but_pings().await else { panic!() };
    assert_eq!((&frame["resumed"], &frame["streams"][0]["values"][0][1]), (&json!(true), &json!("three")));
    assert!(frame["resume"].is_string());
    let header = [("X-Tailwater-Resume", token.as_str())];
    let mut tail = Tail::open(&world, &target(&[("delay_for", "1")]), &header).await.unwrap();
    assert_eq!(tail.lines(1).await, ["three"]);

    let text = "the resume token is of a tail with delay_for=1";
    refused(&world, &[query, ("resume", &token), ("delay_for", "0")], &[]).await.fails(400, text);
    refused(&world, &[query, ("resume", &token[1..])], &[]).await.fails(400, "the resume token is not valid");
    refused(&world, &[query], &[("X-Tailwater-Resume", "x")]).await.fails(400, "the resume token is not valid");
    let text = "the resume token is of another query";
    refused(&world, &[("query", r#"{app="b"}"#), ("resume", &token)], &[]).await.fails(400, text);
    let steps = [("query", r#"rate({app="a"}[1m])"#), ("metrics", "1"), ("resume", &token)];
    refused(&world, &steps, &[]).await.fails(400, "resume tokens are for log queries, this is a metric query");
    let text = "invalid notices 'x', expected true or false";
    refused(&world, &[query, ("notices", "x")], &[]).await.fails(400, text);
}
