//! Metric queries as dashboards, the canary and Explore's histogram ask them.

use serde_json::{Value, json};
use tailwater_integration::{Batch, Server, now_ns};

const INSTANT: &str = "/loki/api/v1/query";
const RANGE: &str = "/loki/api/v1/query_range";
const S: i64 = 1_000_000_000;

fn value(series: &Value) -> f64 {
    series["value"][1].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_canary_finds_its_lines_in_one_series() {
    let server = Server::start().await;
    let client = server.client();
    let now = now_ns();
    for i in 0..20 {
        let at = now - (20 - i) * S;
        let line = format!("{at} {}\n", "p".repeat(79));
        client.push_ok(&Batch::new().line(r#"{name="loki-canary", stream="push"}"#, at, &line)).await;
    }
    let query = r#"count_over_time({name="loki-canary", stream="push"}[60s])"#;
    let found =
        client.get_with(INSTANT, &[("query", query), ("time", &now.to_string()), ("limit", "1000")]).await.json();
    let series = found["data"]["result"].as_array().unwrap();
    assert_eq!((series.len(), value(&series[0])), (1, 20.0), "{found}");
}

#[tokio::test]
async fn the_histogram_of_explore_counts_what_the_query_lists() {
    let server = Server::start().await;
    let client = server.client();
    let begin = now_ns() / (60 * S) * 60 * S - 300 * S;
    let mut batch = Batch::new();
    for i in 0..120 {
        let level = ["info", "warn", "error"][(i % 3) as usize];
        batch = batch.line(r#"{app="h"}"#, begin + i * S, &format!("level={level} n={i}"));
    }
    client.push_ok(&batch).await;
    let (start, end) = (begin.to_string(), (begin + 120 * S).to_string());
    let log = r#"{app="h"} | logfmt | level!="warn""#;
    let query = format!("sum by (level, detected_level) (count_over_time({log} | drop __error__[30s]))");
    let params = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", "30000ms")];
    let found = client.get_with(RANGE, &params).await.json();
    let result = found["data"]["result"].as_array().unwrap();
    let labels: Vec<_> = result.iter().map(|series| series["metric"].clone()).collect();
    let both = |level: &str| json!({"detected_level": level, "level": level});
    assert_eq!(labels, [both("error"), both("info")]);
    let points = result.iter().flat_map(|series| series["values"].as_array().unwrap());
    let counted: f64 = points.map(|point| point[1].as_str().unwrap().parse::<f64>().unwrap()).sum();
    let params = [("query", log), ("start", &start), ("end", &end), ("limit", "1000")];
    let listed = client.get_with(RANGE, &params).await.json();
    assert_eq!(counted as usize, tailwater_integration::client::lines(&listed).len());
}

#[tokio::test]
async fn a_range_has_at_each_step_what_an_instant_query_has_then() {
    let server = Server::start().await;
    let client = server.client();
    let begin = now_ns() / (60 * S) * 60 * S - 600 * S;
    // Several streams, out of order, with equal times, in many pushes.
    for push in 0..30_i64 {
        let mut batch = Batch::new();
        for i in 0..20_i64 {
            let at = begin + ((push * 7 + i * 13) % 300) * S + (i % 3) * S / 2;
            let stream = format!(r#"{{app="r", pod="{}"}}"#, i % 4);
            batch = batch.line(&stream, at, &format!("push={push} i={i} took={}ms", (push * 31 + i * 17) % 97));
        }
        client.push_ok(&batch).await;
    }
    for query in [
        r#"sum by (pod) (rate({app="r"}[45s]))"#,
        r#"max_over_time({app="r"} | logfmt | unwrap duration(took) [1m]) by (pod)"#,
        r#"quantile_over_time(0.9, {app="r"} | logfmt | unwrap i [20s] offset 10s) by ()"#,
        r#"sum(count_over_time({app="r"}[10s])) / on () count(count_over_time({app="r"}[2m]))"#,
        r#"topk(2, sum by (pod) (bytes_over_time({app="r"} |= "took" [30s])))"#,
    ] {
        let (start, end) = (begin.to_string(), (begin + 330 * S).to_string());
        let params = [("query", query), ("start", &start), ("end", &end), ("step", "30")];
        let range = client.get_with(RANGE, &params).await.json();
        let mut compared = 0;
        for step in 0..=11 {
            let at = (begin + step * 30 * S) / S;
            let instant = client.get_with(INSTANT, &[("query", query), ("time", &at.to_string())]).await.json();
            let at_step = |series: &Value| {
                let point = series["values"].as_array()?.iter().find(|point| point[0] == json!(at))?;
                Some((series["metric"].clone(), point[1].as_str()?.parse::<f64>().ok()?))
            };
            let of_range: Vec<_> = range["data"]["result"].as_array().unwrap().iter().filter_map(at_step).collect();
            let of_instant = instant["data"]["result"].as_array().unwrap().iter();
            let of_instant: Vec<_> = of_instant.map(|series| (series["metric"].clone(), value(series))).collect();
            assert_eq!(of_range.len(), of_instant.len(), "{query} at {at}: {of_range:?} {of_instant:?}");
            for ((labels, a), (same, b)) in of_range.iter().zip(&of_instant) {
                assert_eq!(labels, same, "{query} at {at}");
                assert!((a - b).abs() <= 1e-9 * b.abs(), "{query} at {at}: {a} {b}");
                compared += 1;
            }
        }
        assert!(compared > 5, "{query}: {range}");
    }
}

#[tokio::test]
async fn a_line_pushed_twice_counts_once() {
    let server = Server::start().await;
    let client = server.client();
    let at = now_ns() - 10 * S;
    let batch = |numbers: &[i64]| {
        numbers.iter().fold(Batch::new(), |batch, n| batch.line(r#"{app="d"}"#, at + n / 10 * S, &format!("line {n}")))
    };
    for numbers in [&[10, 11, 20][..], &[11, 10, 20], &[5, 11, 12], &[12]] {
        client.push_ok(&batch(numbers)).await;
    }
    let query = r#"sum(count_over_time({app="d"}[5m]))"#;
    let found = client.get_with(INSTANT, &[("query", query)]).await.json();
    assert_eq!(value(&found["data"]["result"][0]), 5.0, "{found}");
    let listed = client.get_with(RANGE, &[("query", r#"{app="d"}"#)]).await.json();
    assert_eq!(tailwater_integration::client::lines(&listed).len(), 5);
}
