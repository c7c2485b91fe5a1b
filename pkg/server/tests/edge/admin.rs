//! State, settings, metrics, and the endpoints that Grafana probes.

use serde_json::json;

use crate::client::World;

#[tokio::test]
async fn small_endpoints_answer_as_lokis_do() {
    let world = World::start("limits_config: {max_query_series: 7}").await;
    let ready = world.get("/ready").await;
    assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    assert!(world.get("/services").await.text().contains("ingester => Running\n"));
    let build = world.get("/loki/api/v1/status/buildinfo").await;
    assert_eq!(build.header("content-type"), Some("application/json"));
    let build = build.json();
    for key in ["version", "revision", "branch", "buildUser", "buildDate", "goVersion"] {
        assert!(build[key].is_string(), "{key}");
    }
    let diff = world.get("/config?mode=diff").await;
    assert_eq!(diff.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(
        diff.text().contains("max_query_series: 7") && !diff.text().contains("max_query_lookback"),
        "{}",
        diff.text()
    );
    assert!(world.get("/config").await.text().contains("max_query_lookback"));
    assert!(world.get("/config?mode=defaults").await.text().contains("max_query_series: 500"));
    assert_eq!(world.get("/config?mode=x").await.status, 400);
    let limits = world.get("/loki/api/v1/drilldown-limits").await.json();
    assert_eq!(limits["limits"]["max_entries_limit_per_query"], 5000);
    assert_eq!(limits["limits"]["retention_period"], "0s");
    assert_eq!(limits["pattern_ingester_enabled"], true);
    let names: Vec<_> = limits["limits"].as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = "discover_log_levels discover_service_name log_level_fields max_entries_limit_per_query \
                  max_line_size_truncate max_query_bytes_read max_query_length max_query_lookback max_query_range \
                  max_query_series metric_aggregation_enabled otlp_config pattern_persistence_enabled query_timeout \
                  retention_period retention_stream volume_enabled volume_max_series";
    assert_eq!(names.join(" "), wanted);
    assert_eq!(limits["limits"]["max_query_length"], "30d1h");
    let rules = world.get("/prometheus/api/v1/rules").await.json();
    assert_eq!(rules, json!({"status": "success", "data": {"groups": []}}));
    assert_eq!(world.get("/api/v1/tails").await.json(), json!({"tails": []}));
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let world = World::start("").await;
    for path in ["/", "/loki/api/v1/nope", "/loki/api/v2alpha/tail", "/loki/api/v1/rules", "/api/prom/rules"] {
        world.get(path).await.fails(404, "404 page not found\n");
    }
    for (method, path) in [
        ("GET", "/loki/api/v1/push"),
        ("DELETE", "/loki/api/v1/query_range"),
        ("PUT", "/loki/api/v1/tail"),
        ("POST", "/ready"),
    ] {
        let answer = world.send(method, path, &[], b"").await;
        assert_eq!((answer.status, answer.body.len()), (405, 0), "{method} {path}");
    }
}

#[tokio::test]
async fn format_query_answers_json_either_way() {
    let world = World::start("").await;
    let good = world.ask("/loki/api/v1/format_query", &[("query", r#"{a="b"}|="c""#)]).await;
    assert_eq!(good.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(good.json(), json!({"status": "success", "data": r#"{a="b"} |= "c""#}));
    let bad = world.ask("/loki/api/v1/format_query", &[("query", "{")]).await;
    let error = "parse error at line 1, col 2: syntax error: unexpected $end, expecting IDENTIFIER or }";
    assert_eq!(bad.status, 400);
    let body: serde_json::Value = serde_json::from_slice(&bad.body).unwrap();
    assert_eq!(body, json!({"status": "invalid-query", "error": error}));
}

#[tokio::test]
async fn metrics_count_requests_pushes_and_tails() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["one", "two"]).await;
    let answer = world.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let pushes =
        "tailwater_request_duration_seconds_count{method=\"POST\",route=\"/loki/api/v1/push\",status_code=\"204\"} 1\n";
    assert!(text.contains(pushes), "{text}");
    assert!(text.contains("tailwater_tail_sockets 0\n"), "{text}");
    // Who leaves before the answer is counted as gone.
    let mut leaver = world.connect().await;
    let head = b"POST /loki/api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut leaver, head).await.unwrap();
    drop(leaver);
    let gone = "{method=\"POST\",route=\"/loki/api/v1/push\",status_code=\"499\"} 1\n";
    loop {
        let text = world.get("/metrics").await.text();
        if text.contains(gone) {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn with_authentication_limits_need_the_header() {
    let world = World::start("auth_enabled: false").await;
    world.get("/loki/api/v1/drilldown-limits").await.fails(401, "no org id\n");
    let named = world.send("GET", "/config/tenant/v1/limits", &[("X-Scope-OrgID", "t")], b"").await;
    assert!(named.text().contains("max_query_series: 500"), "{}", named.text());
}
