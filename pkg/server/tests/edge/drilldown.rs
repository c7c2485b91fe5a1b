//! What Logs Drilldown asks: volume, detected labels and fields, patterns.

use serde_json::{Value, json};

use crate::client::{World, form};

async fn filled(settings: &str) -> World {
    let world = World::start(settings).await;
    world.push(&json!({"app": "a", "env": "x"}), &["level=info took=1ms", "level=info took=22ms"]).await;
    world.push(&json!({"app": "b", "id": "12"}), &[r#"{"user":{"id":7}}"#]).await;
    world
}

fn metrics(answer: &Value) -> Vec<(Value, String)> {
    let result = answer["data"]["result"].as_array().unwrap();
    result.iter().map(|s| (s["metric"].clone(), s["value"][1].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn volume_is_exact_and_grouped() {
    let world = filled("").await;
    let path = "/loki/api/v1/index/volume";
    let ask = async |params: &[(&str, &str)]| world.ask(path, params).await.json();
    let answer = ask(&[("query", r#"{app=~".+"}"#), ("end", "4000000000"), ("start", "3999999999")]).await;
    assert_eq!(answer["data"]["result"], json!([]));
    let answer = ask(&[("query", r#"{app=~".+"}"#)]).await;
    assert_eq!(answer["data"]["resultType"], "vector");
    assert_eq!(metrics(&answer), [(json!({"app": "a"}), "39".to_owned()), (json!({"app": "b"}), "17".to_owned())]);
    let answer = ask(&[("query", r#"{app=~".+"}"#), ("limit", "1"), ("targetLabels", "id")]).await;
    assert_eq!(metrics(&answer), [(json!({"id": "12"}), "17".to_owned())]);
    let answer = ask(&[("query", "{}"), ("aggregateBy", "labels"), ("limit", "0")]).await;
    let both = "56".to_owned();
    assert_eq!(metrics(&answer)[..2], [(json!({"app": ""}), both.clone()), (json!({"service_name": ""}), both)]);
    let post = world
        .send(
            "POST",
            path,
            &[("Content-Type", "application/x-www-form-urlencoded")],
            form(&[("query", "{}")]).as_bytes(),
        )
        .await;
    assert_eq!(metrics(&post.json()).len(), 2);
    for (params, text) in [
        (&[("query", "{}"), ("limit", "-1")][..], "limit must be a positive value"),
        (&[("query", "{}"), ("aggregateBy", "x")], "invalid aggregation option"),
        (&[("query", "")], "parse error : syntax error: unexpected $end"),
        (&[("query", r#"{app="a"} |= "x""#)], "only label matchers are supported"),
        (&[("query", "{}"), ("start", "2"), ("end", "1")], "end timestamp must not be before or equal to start time"),
    ] {
        world.ask(path, params).await.fails(400, text);
    }
    let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
    world.ask("/loki/api/v1/index/volume_range", &[("query", "{}"), ("step", "0")]).await.fails(400, text);
}

#[tokio::test]
async fn volume_in_steps_is_a_matrix_if_there_are_several() {
    let world = World::start("limits_config: {reject_old_samples: false}").await;
    let at = |seconds: u64| format!("{}000000000", 1_700_000_000 + seconds);
    let body = json!({"streams": [{"stream": {"app": "a"}, "values": [
        [at(0), "1"], [at(9), "22"], [at(10), "333"], [at(25), "4444"], [at(30), "55555"],
    ]}]});
    let headers = [("Content-Type", "application/json")];
    world.send("POST", "/loki/api/v1/push", &headers, body.to_string().as_bytes()).await;
    let ask = async |start: u64, end: u64| {
        let (start, end) = (at(start), at(end));
        let params = [("query", r#"{app="a"}"#), ("start", start.as_str()), ("end", end.as_str()), ("step", "10")];
        world.ask("/loki/api/v1/index/volume_range", &params).await.json()["data"].clone()
    };
    let (several, one) = (ask(0, 30).await, ask(5, 9).await);
    let point = |seconds: u64, bytes: &str| json!([1_700_000_000 + seconds, bytes]);
    assert_eq!(several["resultType"], "matrix");
    let values = json!([point(10, "3"), point(20, "3"), point(30, "9")]);
    assert_eq!(several["result"], json!([{"metric": {"app": "a"}, "values": values}]));
    assert_eq!(one["resultType"], "vector");
    assert_eq!(one["result"], json!([{"metric": {"app": "a"}, "value": point(9, "2")}]));
}

#[tokio::test]
async fn volume_has_its_limits() {
    let world = filled("limits_config: {volume_enabled: false}").await;
    for path in ["/loki/api/v1/index/volume", "/loki/api/v1/index/volume_range"] {
        world.ask(path, &[("query", "{}")]).await.fails(404, "not found");
    }
    let world = filled("limits_config: {volume_max_series: 1}").await;
    let text = "the query hit the max number of series limit (limit: 1 series)";
    world.ask("/loki/api/v1/index/volume", &[("query", "{}")]).await.fails(400, text);
    let one = world.ask("/loki/api/v1/index/volume", &[("query", r#"{app="a"}"#)]).await;
    assert_eq!(metrics(&one.json()).len(), 1);
}

#[tokio::test]
async fn labels_and_fields_are_detected() {
    let world = filled("").await;
    let ask = async |path: &str, params: &[(&str, &str)]| world.ask(path, params).await.json();
    let labels = ask("/loki/api/v1/detected_labels", &[]).await;
    let label = |name: &str, cardinality: u32| json!({"label": name, "cardinality": cardinality});
    assert_eq!(labels, json!({"detectedLabels": [label("app", 2), label("env", 1), label("service_name", 2)]}));
    assert_eq!(ask("/loki/api/v1/detected_labels", &[("query", r#"{app="c"}"#)]).await, json!({}));
    let fields = "/loki/api/v1/detected_fields";
    let field = |name: &str, kind: &str, cardinality: u32, parsers: Value| json!({"label": name, "type": kind, "cardinality": cardinality, "parsers": parsers});
    assert_eq!(
        ask(fields, &[("query", r#"{app="a"}"#)]).await,
        json!({"limit": 1000, "fields": [
            field("detected_level", "string", 1, Value::Null),
            field("level", "string", 1, json!(["logfmt"])),
            field("took", "duration", 2, json!(["logfmt"])),
        ]})
    );
    let answer = ask(fields, &[("query", r#"{app="b"}"#), ("field_limit", "7")]).await;
    assert_eq!((&answer["limit"], &answer["fields"][1]["jsonPath"]), (&json!(7), &json!(["user", "id"])), "{answer}");
    let newest =
        ask("/loki/api/v1/detected_field/took/values", &[("query", r#"{app="a"}"#), ("line_limit", "1")]).await;
    assert_eq!(newest, json!({"values": ["22ms"], "limit": 1000}));
    assert_eq!(ask("/loki/api/v1/detected_field/x/values", &[("query", r#"{app="a"}"#)]).await, json!({}));
    for (params, text) in [
        (&[("query", "rate({app=\"a\"}[1m])")][..], "only log selector is supported"),
        (&[("query", r#"{app="a"}"#), ("limit", "0")], "limit must be a positive value"),
        (&[("query", r#"{app="a"}"#), ("line_limit", "x")], "strconv.Atoi: parsing \"x\": invalid syntax"),
        (
            &[("query", r#"{app="a"}"#), ("line_limit", "5001")],
            "max entries limit per query exceeded, limit > max_entries_limit_per_query (5001 > 5000)",
        ),
    ] {
        world.ask(fields, params).await.fails(400, text);
        world.ask("/loki/api/v1/detected_field/took/values", params).await.fails(400, text);
    }
}

#[tokio::test]
async fn patterns_and_shards_are_answered() {
    let world = filled("").await;
    let answer = world.ask("/loki/api/v1/patterns", &[("query", r#"{app="a"}"#), ("step", "1h")]).await.json();
    assert_eq!(answer["status"], "success");
    let pattern = &answer["data"][0];
    assert_eq!((&pattern["pattern"], &pattern["level"]), (&json!("level=info took=<_>"), &json!("info")));
    let count: u64 = pattern["samples"].as_array().unwrap().iter().map(|s| s[1].as_u64().unwrap()).sum();
    assert_eq!(count, 2);
    let none = world.ask("/loki/api/v1/patterns", &[("query", r#"{app="c"}"#)]).await;
    assert_eq!(none.text(), r#"{"status":"success","data":[]}"#);
    let piped = [("query", r#"{app="a"} |= "x""#)];
    world.ask("/loki/api/v1/patterns", &piped).await.fails(400, "only label matchers are supported");
    let path = "/loki/api/v1/index/shards";
    let query = ("query", r#"{app="a"}"#);
    world.ask(path, &[query]).await.fails(400, "targetBytesPerShard must be a positive value");
    let shards = world.ask(path, &[query, ("targetBytesPerShard", "600MB")]).await.json();
    assert_eq!(
        (&shards["shards"][0]["bounds"], &shards["shards"][0]["stats"]["entries"]),
        (&json!({"min": 0, "max": u64::MAX}), &json!(2))
    );
}
