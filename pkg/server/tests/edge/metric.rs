//! Metric queries: shapes, alignment, limits and their texts, statistics.

use serde_json::{Value, json};

use crate::client::{World, form};

const INSTANT: &str = "/loki/api/v1/query";
const RANGE: &str = "/loki/api/v1/query_range";

/// Labels and value of each series of an instant answer.
fn values(answer: &Value) -> Vec<(Value, String)> {
    assert_eq!(answer["data"]["resultType"], "vector", "{answer}");
    let series = answer["data"]["result"].as_array().unwrap().iter();
    series.map(|s| (s["metric"].clone(), s["value"][1].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn lines_are_counted_by_what_parsers_find() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["level=info n=1", "level=warn n=2", "level=info n=4 x"]).await;
    let ask = async |query: &str| values(&world.ask(INSTANT, &[("query", query)]).await.json());
    let one = |labels: Value, value: &str| vec![(labels, value.to_owned())];
    let sum = r#"sum(count_over_time({app="a"}[1h]))"#;
    assert_eq!(ask(sum).await, one(json!({}), "3"));
    let by_level = r#"sum by (level) (sum_over_time({app="a"} | logfmt | unwrap n [1h]))"#;
    let expected = [(json!({"level": "info"}), "5".to_owned()), (json!({"level": "warn"}), "2".to_owned())];
    assert_eq!(ask(by_level).await, expected);
    assert_eq!(ask(&format!("{sum} / 2 > 1")).await, one(json!({}), "1.5"));
    let absent = r#"absent_over_time({app="b", env="x"}[5m])"#;
    assert_eq!(ask(absent).await, one(json!({"app": "b", "env": "x"}), "1"));
    let quantile = r#"quantile_over_time(0.5, {app="a"} | logfmt | unwrap n [1h]) by ()"#;
    assert_eq!(ask(quantile).await, one(json!({}), "2"));
    assert_eq!(ask(r#"sum(rate({app="nobody"}[5m]))"#).await, []);
}

#[tokio::test]
async fn ranges_are_aligned_to_their_step() {
    let world = World::start("limits_config: {reject_old_samples: false}").await;
    let values: Vec<_> = (0..10).map(|i| json!([format!("{}", (1_000 + i * 10) * 1_000_000_000_i64), "x"])).collect();
    let body = json!({"streams": [{"stream": {"app": "a"}, "values": values}]}).to_string();
    let json_type = [("Content-Type", "application/json")];
    assert_eq!(world.send("POST", "/loki/api/v1/push", &json_type, body.as_bytes()).await.status, 204);
    let params =
        [("query", r#"sum(count_over_time({app="a"}[30s]))"#), ("start", "1007"), ("end", "1071"), ("step", "30")];
    let answer = world.ask(RANGE, &params).await.json();
    assert_eq!(answer["data"]["resultType"], "matrix");
    // 990 has no line yet in (960, 990].
    let points = json!([[1020, "3"], [1050, "3"], [1080, "3"]]);
    assert_eq!(answer["data"]["result"], json!([{"metric": {}, "values": points}]));
    let summary = &answer["data"]["stats"]["summary"];
    assert_eq!(
        (&summary["totalLinesProcessed"], &summary["totalPostFilterLines"], &summary["totalEntriesReturned"]),
        (&json!(9), &json!(9), &json!(3))
    );
    assert_eq!(summary["totalBytesProcessed"], 9);
    assert_eq!(answer["data"]["stats"]["ingester"]["totalReached"], 1);
}

#[tokio::test]
async fn a_line_with_an_error_fails_the_query_unless_it_is_filtered() {
    let world = World::start("").await;
    world.push(&json!({"app": "a"}), &["n=1", "n=much"]).await;
    let query = r#"sum_over_time({app="a"} | logfmt | unwrap n [1h])"#;
    let answer = world.ask(INSTANT, &[("query", query)]).await;
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(
        text.starts_with("pipeline error: 'SampleExtractionErr' for series: '{__error__=\"SampleExtractionErr\""),
        "{text}"
    );
    assert!(text.contains("To skip all potential errors you can match empty errors.(e.g __error__=\"\")"), "{text}");
    let query = r#"sum_over_time({app="a"} | logfmt | unwrap n | __error__="" [1h])"#;
    assert_eq!(values(&world.ask(INSTANT, &[("query", query)]).await.json())[0].1, "1");
}

#[tokio::test]
async fn limits_name_themselves_and_the_value() {
    let settings = "limits_config: {max_query_series: 2, max_query_range: 10m, max_query_bytes_read: 20B, max_streams_matchers_per_query: 3}";
    let world = World::start(settings).await;
    for app in ["a", "b", "c"] {
        world.push(&json!({"app": app}), &["12345"]).await;
    }
    let ask = async |query: &str| world.ask(INSTANT, &[("query", query)]).await;
    ask(r#"sum by (app) (count_over_time({app=~".+"}[5m]))"#).await.fails(
        400,
        "maximum number of series (2) reached for a single query; consider reducing query cardinality by adding more specific \
         stream selectors, reducing the time range, or aggregating results with functions like sum(), count() or topk()",
    );
    assert_eq!(ask(r#"sum(count_over_time({app=~".+"}[5m]))"#).await.status, 200);
    ask(r#"sum(count_over_time({app="a"}[1h]))"#).await.fails(400, "[interval] value exceeds limit: [1h] > [10m]");
    ask(r#"sum(count_over_time({app="a", a="", b="", c=""}[5m]))"#)
        .await
        .fails(400, "max streams matchers per query exceeded, matchers-count > limit (4 > 3)");
    world.push(&json!({"app": "a"}), &["1234567890"]).await;
    let text = "the query would read too many bytes (query: 25 B, limit: 20 B); consider adding more specific stream selectors or \
                reduce the time range of the query";
    ask(r#"sum(count_over_time({app=~".+"}[5m]))"#).await.fails(400, text);
    world.ask(RANGE, &[("query", r#"{app=~".+"}"#)]).await.fails(400, text);
    assert_eq!(world.ask(RANGE, &[("query", r#"{app="b"}"#)]).await.status, 200);
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_is_refused() {
    let world = World::start("querier: {query_memory_mb: 1}").await;
    let lines: Vec<String> = (0..5_000).map(|i| format!("id={i:06}")).collect();
    world.push(&json!({"app": "a"}), &lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let query = r#"sum by (id) (count_over_time({app="a"} | logfmt [1h]))"#;
    let answer = world.ask(INSTANT, &[("query", query)]).await;
    let text = "the query needs more than 1048576 bytes of memory for its series; narrow the selector or the time range, or group by fewer labels";
    answer.fails(400, text);
    let query = r#"sum(count_over_time({app="a"} | logfmt [1h]))"#;
    assert_eq!(values(&world.ask(INSTANT, &[("query", query)]).await.json())[0].1, "5000");
}

#[tokio::test]
async fn the_memory_of_a_query_is_that_of_all_its_parts() {
    let world = World::start("querier: {query_memory_mb: 1}").await;
    world.push(&json!({"app": "a"}), &["x"]).await;
    // 10,001 steps of 8 bytes for each of the parts.
    let end = crate::client::now() / 1_000_000_000 + 1;
    let ask = async |parts: usize| {
        let query = vec![r#"sum(count_over_time({app="a"}[5m]))"#; parts].join(" + ");
        let (start, end) = ((end - 10_000).to_string(), end.to_string());
        let params = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", "1")];
        world.ask(RANGE, &params).await
    };
    assert_eq!(ask(10).await.status, 200);
    let refused = ask(20).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().starts_with("the query needs more than 1048576 bytes of memory"), "{}", refused.text());
}

#[tokio::test]
async fn what_loki_answers_as_its_own_fault_is_500() {
    let world = World::start("").await;
    world.push(&json!({"app": "a", "n": "1"}), &["x"]).await;
    world.push(&json!({"app": "a", "n": "2"}), &["x"]).await;
    let count = r#"count_over_time({app="a"}[5m])"#;
    let query = format!("{count} / on (app) {count}");
    world.ask(INSTANT, &[("query", &query)]).await.fails(
        500,
        "found duplicate series on the right hand-side;many-to-many matching not allowed: matching labels must be unique on one side",
    );
    let query = format!("approx_topk(1, {count})");
    world
        .ask(INSTANT, &[("query", &query)])
        .await
        .fails(500, "approx_topk is not enabled. See -limits.shard_aggregations");
}

#[tokio::test]
async fn tenants_of_a_query_are_told_apart_and_added_up() {
    let world = World::start("querier: {multi_tenant_queries_enabled: true}").await;
    world.push_as("t1", &json!({"app": "a"}), &["x", "y"]).await;
    world.push_as("t2", &json!({"app": "a"}), &["z"]).await;
    let ask = async |query: &str| {
        let target = format!("{INSTANT}?{}", form(&[("query", query)]));
        values(&world.send("GET", &target, &[("X-Scope-OrgID", "t1|t2")], b"").await.json())
    };
    let of = |tenant: &str, value: &str| (json!({"__tenant_id__": tenant}), value.to_owned());
    assert_eq!(ask(r#"sum by (__tenant_id__) (count_over_time({app="a"}[5m]))"#).await, [of("t1", "2"), of("t2", "1")]);
    assert_eq!(ask(r#"sum(count_over_time({app="a"}[5m]))"#).await, [(json!({}), "3".to_owned())]);
    let one = r#"sum(count_over_time({app="a", __tenant_id__="t1"}[5m]))"#;
    assert_eq!(ask(one).await, [(json!({}), "2".to_owned())]);
}

#[tokio::test]
async fn queries_beyond_the_tenants_share_wait_and_then_are_refused() {
    let world =
        World::start("{limits_config: {max_query_parallelism: 1}, frontend: {max_outstanding_per_tenant: 1}}").await;
    world.push(&json!({"app": "a"}), &["x"]).await;
    let ask = || world.ask(INSTANT, &[("query", r#"sum(count_over_time({app="a"}[5m]))"#)]);
    let answers = futures_join(ask(), ask(), ask(), ask()).await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    for answer in &answers {
        if answer.status != 200 {
            answer.fails(429, "too many outstanding requests");
        }
    }
}

async fn futures_join<F: Future>(a: F, b: F, c: F, d: F) -> [F::Output; 4] {
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    [a, b, c, d]
}
