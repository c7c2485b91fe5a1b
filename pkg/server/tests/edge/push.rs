//! Pushes: status codes, texts, and what they leave behind.

use serde_json::json;

use crate::client::{World, now};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn body(lines: &str) -> String {
    format!(r#"{{"streams":[{{"stream":{{"app":"a"}},"values":[["{}","{lines}"]]}}]}}"#, now())
}

#[tokio::test]
async fn a_push_is_204_and_can_be_queried() {
    let world = World::start("").await;
    let stamps = world.push(&json!({"app": "a"}), &["one", "two"]).await;
    let answer = world.ask("/loki/api/v1/query_range", &[("query", r#"{app="a"}"#), ("direction", "forward")]).await;
    let result = &answer.json()["data"]["result"];
    assert_eq!(result[0]["stream"], json!({"app": "a", "detected_level": "unknown", "service_name": "a"}));
    assert_eq!(result[0]["values"], json!([[stamps[0], "one"], [stamps[1], "two"]]));
}

#[tokio::test]
async fn legacy_and_otlp_pushes_arrive_too() {
    let world = World::start("").await;
    let legacy = r#"{"streams":[{"labels":"{app=\"l\"}","entries":[{"ts":"TS","line":"old"}]}]}"#;
    let legacy = legacy.replace("TS", &jiff::Timestamp::now().to_string());
    assert_eq!(world.send("POST", "/api/prom/push", &JSON, legacy.as_bytes()).await.status, 204);
    let otlp = json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": now().to_string(), "body": {"stringValue": "sold"}}]}],
    }]});
    let answer = world.send("POST", "/otlp/v1/logs", &JSON, otlp.to_string().as_bytes()).await;
    assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    for (query, line) in [(r#"{app="l"}"#, "old"), (r#"{service_name="shop"}"#, "sold")] {
        let found = world.ask("/loki/api/v1/query_range", &[("query", query)]).await.json();
        assert_eq!(found["data"]["result"][0]["values"][0][1], line);
    }
}

#[tokio::test]
async fn refusals_have_lokis_texts() {
    let world = World::start("auth_enabled: true").await;
    let push = async |headers: &[(&str, &str)], body: &str| {
        world.send("POST", "/loki/api/v1/push", headers, body.as_bytes()).await
    };
    push(&JSON, &body("x")).await.fails(401, "no org id\n");
    let with = |tenant| [("Content-Type", "application/json"), ("X-Scope-OrgID", tenant)];
    push(&with("a|b"), &body("x")).await.fails(400, "multiple org IDs present\n");
    push(&with("a/b"), &body("x")).await.fails(400, "tenant ID 'a/b' contains unsupported character '/'\n");
    let none = "error at least one valid stream is required for ingestion\n";
    push(&with("t"), r#"{"streams":[]}"#).await.fails(422, none);
    push(&[("X-Scope-OrgID", "t")], "x").await.fails(400, "mime: no media type\n");
    push(&[("X-Scope-OrgID", "t"), ("Content-Type", "application/x-protobuf")], "x")
        .await
        .fails(400, "snappy: corrupt input\n");
    assert_eq!(push(&with("t"), &body("x")).await.status, 204);
    // Exporters get a status message in protobuf: field 2, length, text.
    let answer =
        world.send("POST", "/otlp/v1/logs", &[("X-Scope-OrgID", "t"), ("Content-Type", "text/html")], b"x").await;
    let text = "content type: text/html is not supported";
    assert_eq!((answer.status, &answer.body[2..]), (400, text.as_bytes()));
    assert_eq!(answer.body[..2], [0x12, u8::try_from(text.len()).unwrap()]);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
}

#[tokio::test]
async fn too_large_is_413_before_and_after_decompression() {
    let world = World::start("distributor: {max_recv_msg_size: 1KB, max_decompressed_size: 4KB}").await;
    let large = "x".repeat(1025);
    let answer = world.send("POST", "/loki/api/v1/push", &JSON, large.as_bytes()).await;
    answer.fails(413, "request body too large: message size too large than max (1025 vs 1024)\n");
    // A snappy body that claims 1 GiB.
    let bomb = [0x80, 0x80, 0x80, 0x80, 0x04, 0, 0];
    let answer = world.send("POST", "/loki/api/v1/push", &[("Content-Type", "application/x-protobuf")], &bomb).await;
    let text = "request body too large: decompressed message size too large than max (1073741824 vs 4096)\n";
    answer.fails(413, text);
    assert_eq!(world.get("/ready").await.status, 200);
}

#[tokio::test]
async fn what_is_good_in_a_bad_push_is_stored() {
    let world = World::start("limits_config: {max_line_size: 10B}").await;
    let at = now();
    let values = json!([[at.to_string(), "short"], [(at + 1).to_string(), "far too long a line"]]);
    let body = json!({"streams": [{"stream": {"app": "p"}, "values": values}]}).to_string();
    let answer = world.send("POST", "/loki/api/v1/push", &JSON, body.as_bytes()).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().starts_with("max entry size '10' bytes exceeded for stream '{app=\"p\""),
        "{}",
        answer.text()
    );
    let found = world.ask("/loki/api/v1/query_range", &[("query", r#"{app="p"}"#)]).await.json();
    assert_eq!(found["data"]["result"][0]["values"], json!([[at.to_string(), "short"]]));
}
