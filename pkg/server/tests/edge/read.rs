//! Queries and what is there: shapes, forms, tenants, compression.

use std::io::Read;

use serde_json::{Value, json};

use crate::client::{World, form};

#[tokio::test]
async fn the_small_reads_have_lokis_shapes() {
    let world = World::start("").await;
    let read = async |path: &str, params: &[(&str, &str)]| world.ask(path, params).await;
    assert_eq!(read("/loki/api/v1/labels", &[]).await.text(), r#"{"status":"success"}"#);
    assert_eq!(read("/loki/api/v1/series", &[]).await.text(), r#"{"status":"success","data":[]}"#);
    world.push(&json!({"app": "a", "env": "x"}), &["one"]).await;
    world.push(&json!({"app": "b"}), &["two two"]).await;
    for path in ["/loki/api/v1/labels", "/loki/api/v1/label", "/api/prom/label"] {
        let answer = read(path, &[]).await;
        assert_eq!(answer.header("content-type"), Some("application/json; charset=UTF-8"));
        assert_eq!(answer.json(), json!({"status": "success", "data": ["app", "env", "service_name"]}));
    }
    let answer = read("/loki/api/v1/labels", &[("query", r#"{app="b"}"#)]).await;
    assert_eq!(answer.json()["data"], json!(["app", "service_name"]));
    for path in ["/loki/api/v1/label/app/values", "/api/prom/label/%61pp/values"] {
        assert_eq!(read(path, &[]).await.json()["data"], json!(["a", "b"]));
    }
    let b = json!([{"app": "b", "service_name": "b"}]);
    assert_eq!(read("/loki/api/v1/series", &[("match[]", r#"{app="b"}"#)]).await.json()["data"], b);
    assert_eq!(read("/api/prom/series", &[("match", r#"{app="b"}"#)]).await.json()["data"], b);
    assert_eq!(read("/loki/api/v1/series", &[("match[]", " { } ")]).await.json()["data"].as_array().unwrap().len(), 2);
    let stats = read("/loki/api/v1/index/stats", &[("query", r#"{app="b"}"#)]).await.json();
    assert_eq!((&stats["streams"], &stats["entries"], &stats["bytes"]), (&json!(1), &json!(1), &json!(7)));
}

#[tokio::test]
async fn failures_of_reads_are_plain_texts_without_a_line_break() {
    let world = World::start("auth_enabled: true").await;
    let ask = async |path: &str, params: &[(&str, &str)], tenant: &'static str| {
        world
            .send(
                "GET",
                &format!("{path}?{}", form(params)),
                &[("X-Scope-OrgID", tenant), ("Accept-Encoding", "gzip")],
                b"",
            )
            .await
    };
    let range = "/loki/api/v1/query_range";
    ask(range, &[("query", "")], "t").await.fails(400, "parse error : syntax error: unexpected $end");
    let bad_limit = [("query", r#"{app="a"}"#), ("limit", "0")];
    ask(range, &bad_limit, "t").await.fails(400, "limit must be a positive value");
    let many = [("query", r#"{app="a"}"#), ("limit", "5001")];
    let text = "max entries limit per query exceeded, limit > max_entries_limit_per_query (5001 > 5000)";
    ask(range, &many, "t").await.fails(400, text);
    let long = [("query", r#"{app="a"}"#), ("start", "0"), ("end", "100000000")];
    let text = "the query time range exceeds the limit (query length: 27777h46m40s, limit: 30d1h)";
    ask(range, &long, "t").await.fails(400, text);
    let text = "log queries are not supported as an instant query type, please change your query to a range query type";
    ask("/loki/api/v1/query", &[("query", r#"{app="a"}"#)], "t").await.fails(400, text);
    ask("/loki/api/v1/labels", &[("query", "rate({a=\"b\"}[1m])")], "t")
        .await
        .fails(400, "only label matchers are supported");
    ask("/loki/api/v1/index/stats", &[], "t").await.fails(400, "parse error : syntax error: unexpected $end");
    ask(range, &[("query", r#"{app="a"}"#)], "a|b").await.fails(500, "multiple org IDs present");
    ask("/api/prom/query", &[("query", "vector(1)")], "t")
        .await
        .fails(400, "rpc error: code = Code(400) desc = legacy endpoints only support streams result type");
    world.ask(range, &[("query", r#"{app="a"}"#)]).await.fails(401, "no org id\n");
}

#[tokio::test]
async fn constants_are_evaluated_for_the_health_check() {
    let world = World::start("").await;
    let params = [("direction", "backward"), ("query", "vector(1)+vector(1)"), ("time", "4000000000")];
    let data = &world.ask("/loki/api/v1/query", &params).await.json()["data"];
    assert_eq!(data["resultType"], "vector");
    assert_eq!(data["result"], json!([{"metric": {}, "value": [4_000_000_000u64, "2"]}]));
    let data = &world.ask("/loki/api/v1/query", &[("query", "1+1")]).await.json()["data"];
    assert_eq!((&data["resultType"], &data["result"][1]), (&json!("scalar"), &json!("2")));
    let params = [("query", "vector(3)"), ("start", "7"), ("end", "125"), ("step", "30s")];
    let data = &world.ask("/loki/api/v1/query_range", &params).await.json()["data"];
    let points: Vec<_> = (0..=5).map(|i| json!([i * 30, "3"])).collect();
    assert_eq!((&data["resultType"], &data["result"]), (&json!("matrix"), &json!([{"metric": {}, "values": points}])));
}

#[tokio::test]
async fn parameters_may_come_in_the_body_and_the_query_may_be_long() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["needle", "hay"]).await;
    let urlencoded = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = form(&[("query", r#"{app="a"} |= "needle""#)]);
    let answer =
        world.send("POST", "/loki/api/v1/query_range?limit=7&query=ignored", &urlencoded, body.as_bytes()).await;
    assert_eq!(answer.json()["data"]["result"][0]["values"].as_array().unwrap().len(), 1);
    let long = format!(r#"{{app="a"}} |= "needle" != "{}""#, "x".repeat(100_000));
    let answer = world.ask("/loki/api/v1/query_range", &[("query", &long)]).await;
    assert_eq!(answer.json()["data"]["result"][0]["values"].as_array().unwrap().len(), 1);
    let longer = format!(r#"{{app="a"}} |= "{}""#, "x".repeat(131_072));
    let text = format!("parse error : input size too long ({} > 131072)", longer.len());
    world.ask("/loki/api/v1/query_range", &[("query", &longer)]).await.fails(400, &text);
    world.get("/loki/api/v1/query_range?query=%zz").await.fails(400, "invalid URL escape \"%zz\"");
}

#[tokio::test]
async fn good_answers_are_compressed_when_asked_for() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["one"]).await;
    let answer = world.send("GET", "/loki/api/v1/labels", &[("Accept-Encoding", "gzip")], b"").await;
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (Some("gzip"), Some("Accept-Encoding")));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, r#"{"status":"success","data":["app","service_name"]}"#);
    assert_eq!(world.get("/loki/api/v1/labels").await.header("content-encoding"), None);
}

#[tokio::test]
async fn parquet_is_refused_and_anything_else_is_json() {
    let world = World::start("").await;
    let target = format!("/loki/api/v1/query?{}", form(&[("query", "vector(1)")]));
    let accept = async |what: &'static str| world.send("GET", &target, &[("Accept", what)], b"").await;
    let text = "support for Parquet encoded responses is disabled. Enable with -frontend.support-parquet-encoding=true";
    accept("application/vnd.apache.parquet").await.fails(400, text);
    assert_eq!(accept("text/html").await.json()["status"], "success");
}

#[tokio::test]
async fn several_tenants_at_once_are_told_apart() {
    let world = World::start("querier: {multi_tenant_queries_enabled: true}").await;
    let body = r#"{"streams":[{"stream":{"app":"s"},"values":[["TS","line"]]}]}"#
        .replace("TS", &crate::client::now().to_string());
    for tenant in ["t1", "t2"] {
        let headers = [("Content-Type", "application/json"), ("X-Scope-OrgID", tenant)];
        assert_eq!(world.send("POST", "/loki/api/v1/push", &headers, body.as_bytes()).await.status, 204);
    }
    let ask = async |tenants: &'static str| {
        let target = format!("/loki/api/v1/query_range?{}", form(&[("query", r#"{app="s"}"#)]));
        world.send("GET", &target, &[("X-Scope-OrgID", tenants)], b"").await.json()["data"]["result"].clone()
    };
    let tenants = |result: &Value| -> Vec<Value> {
        result.as_array().unwrap().iter().map(|stream| stream["stream"]["__tenant_id__"].clone()).collect()
    };
    assert_eq!(tenants(&ask("t2|t1").await), [json!("t1"), json!("t2")]);
    assert_eq!(tenants(&ask("t1").await), [Value::Null]);
    assert_eq!(ask("t3").await, json!([]));
}

#[tokio::test]
async fn legacy_queries_have_text_labels_and_a_regexp() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["one", "two"]).await;
    let answer = world.ask("/api/prom/query", &[("query", r#"{app="a"}"#), ("regexp", "^t")]).await.json();
    let stream = &answer["streams"][0];
    assert_eq!(stream["labels"], r#"{app="a", detected_level="unknown", service_name="a"}"#);
    assert_eq!(stream["entries"].as_array().unwrap().len(), 1);
    assert_eq!(stream["entries"][0]["line"], "two");
}

#[tokio::test]
async fn categorised_answers_say_so_before_the_result() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["k=v"]).await;
    let target = format!("/loki/api/v1/query_range?{}", form(&[("query", r#"{app="a"} | logfmt"#)]));
    let answer = world.send("GET", &target, &[("X-Loki-Response-Encoding-Flags", "categorize-labels")], b"").await;
    let text = answer.text();
    assert!(text.find("encodingFlags").unwrap() < text.find(r#""result":"#).unwrap(), "{text}");
    let value = &answer.json()["data"]["result"][0]["values"][0];
    assert_eq!(value[2], json!({"structuredMetadata": {"detected_level": "unknown"}, "parsed": {"k": "v"}}));
}
