//! Questions about the past: shapes, order of keys, time ranges, and the small endpoints that clients look at.

use serde_json::json;
use tailwater_integration::client::{lines, target};
use tailwater_integration::{Batch, Pairs, Server, now_ns};

use crate::texts;

const RANGE: &str = "/loki/api/v1/query_range";
const S: &str = r#"{app="q", pod="1"}"#;

/// Ten lines a millisecond apart; the time of the first.
async fn ten_lines(server: &Server) -> i64 {
    let at = now_ns() / 1_000_000_000 * 1_000_000_000 - 60_000_000_000;
    let mut batch = Batch::new();
    for i in 0..10 {
        batch = batch.line(S, at + i * 1_000_000, &format!("level=info n={i}"));
    }
    server.client().push_ok(&batch).await;
    at
}

#[tokio::test]
async fn ranges_are_half_open_and_points_are_points() {
    let server = Server::start().await;
    let client = server.client();
    let at = ten_lines(&server).await;
    let ask = async |start: i64, end: i64, more: &[(&str, &str)]| {
        let (start, end) = (start.to_string(), end.to_string());
        let mut params = vec![("query", S), ("start", &start), ("end", &end)];
        params.extend(more);
        let found = client.get_with(RANGE, &params).await.json();
        let values = found["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
        values
            .iter()
            .map(|v| v[1].as_str().unwrap().split("n=").nth(1).unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let ms = 1_000_000;
    assert_eq!(ask(at, at + 10 * ms, &[]).await, "9 8 7 6 5 4 3 2 1 0");
    assert_eq!(ask(at + ms, at + 3 * ms, &[("direction", "forward")]).await, "1 2");
    assert_eq!(ask(at + ms, at + ms, &[]).await, "1");
    assert_eq!(ask(at, at + 10 * ms, &[("limit", "3")]).await, "9 8 7");
    assert_eq!(ask(at, at + 10 * ms, &[("limit", "3"), ("direction", "FORWARD")]).await, "0 1 2");
    assert_eq!(ask(at, at + 10 * ms, &[("interval", "0.004"), ("direction", "forward")]).await, "0 4 8");
    // Seconds, with and without a fraction, and RFC 3339.
    let seconds = at / 1_000_000_000;
    for (start, end) in [
        (format!("{seconds}"), format!("{}", seconds + 1)),
        (format!("{seconds}.000"), format!("{seconds}.010")),
        (tailwater_integration::push::rfc3339(at), tailwater_integration::push::rfc3339(at + 10 * ms)),
    ] {
        let found = client.get_with(RANGE, &[("query", S), ("start", &start), ("end", &end)]).await.json();
        assert_eq!(lines(&found).len(), 10, "{start} {end}");
    }
}

#[tokio::test]
async fn answers_have_the_keys_in_the_order_that_grafana_needs() {
    let server = Server::start().await;
    let client = server.client();
    let at = now_ns();
    let batch = Batch::new().with_metadata(S, at, "<b>&\u{2028}", &[("trace_id", "t")]);
    client.push_ok(&batch).await;
    let request = target(RANGE, &[("query", S)]);
    let plain = client.get(&request).await;
    assert_eq!(plain.header("content-type"), "application/json; charset=UTF-8");
    let order = |text: &str, keys: &[&str]| {
        let places: Vec<_> = keys
            .iter()
            .map(|key| text.find(&format!("\"{key}\"")).unwrap_or_else(|| panic!("no {key}: {text}")))
            .collect();
        assert!(places.is_sorted(), "{keys:?}: {text}");
    };
    order(&plain.text(), &["status", "data", "resultType", "result", "stream", "values", "stats"]);
    let stats = &plain.json()["data"]["stats"];
    assert!(stats["summary"]["totalLinesProcessed"].is_u64() && stats["summary"]["execTime"].is_f64(), "{stats}");
    let all = json!({"app": "q", "detected_level": "unknown", "pod": "1", "service_name": "q", "trace_id": "t"});
    assert_eq!(plain.json()["data"]["result"], json!([{"stream": all, "values": [[at.to_string(), "<b>&\u{2028}"]]}]));
    let flagged = client.clone().header("X-Loki-Response-Encoding-Flags", "categorize-labels").get(&request).await;
    order(&flagged.text(), &["status", "data", "resultType", "encodingFlags", "result", "stream", "values"]);
    let third = json!({"structuredMetadata": {"detected_level": "unknown", "trace_id": "t"}});
    let stream = json!({"app": "q", "pod": "1", "service_name": "q"});
    assert_eq!(
        flagged.json()["data"]["result"],
        json!([{"stream": stream, "values": [[at.to_string(), "<b>&\u{2028}", third]]}])
    );
    let empty = client.get_with(RANGE, &[("query", r#"{app="none"}"#)]).await.json();
    assert_eq!(empty["data"]["result"], json!([]));
}

#[tokio::test]
async fn big_answers_are_compressed_when_asked_and_errors_never() {
    use std::io::Read as _;
    let server = Server::start().await;
    let client = server.client();
    ten_lines(&server).await;
    let gzip = [("Accept-Encoding", "gzip, deflate, br, zstd")];
    let reply = client.send("GET", &target(RANGE, &[("query", S)]), &gzip, "").await;
    let text = if reply.header("content-encoding") == "gzip" {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&reply.body[..]).read_to_string(&mut text).unwrap();
        text
    } else {
        reply.text()
    };
    assert_eq!(lines(&serde_json::from_str(&text).unwrap()).len(), 10);
    let reply = client.send("GET", &target(RANGE, &[("query", "{")]), &gzip, "").await;
    assert_eq!((reply.status, reply.header("content-encoding")), (400, ""));
    assert!(reply.text().starts_with("parse error at line 1, col 2: "), "{}", reply.text());
}

#[tokio::test]
async fn the_whole_pipeline_runs() {
    let server = Server::start().await;
    let client = server.client();
    let (s, at) = (r#"{app="pipe"}"#, now_ns());
    let texts_pushed = [
        r#"{"method":"GET","path":"/a","status":200,"took":"15ms","ip":"10.0.0.7","user":{"name":"ann"}}"#,
        r#"{"method":"POST","path":"/b","status":500,"took":"1.5s","ip":"192.168.1.1","user":{"name":"bob"}}"#,
        r#"method=GET path=/c status=404 took=90ms size=3KB ip=10.0.0.9"#,
        r#"10.0.0.1 - - "GET /d HTTP/1.1" 301 42"#,
        "\u{1b}[31mred\u{1b}[0m alert",
    ];
    let mut batch = Batch::new();
    for (i, line) in texts_pushed.iter().enumerate() {
        batch = batch.line(s, at + i as i64, line);
    }
    client.push_ok(&batch).await;
    let cases = [
        (r#"|= "GET" != "HTTP""#, vec![texts_pushed[0], texts_pushed[2]]),
        (r#"|~ "(?i)get|post" !~ "method=""#, vec![texts_pushed[0], texts_pushed[1], texts_pushed[3]]),
        (r#"|= "/a" or "/b""#, vec![texts_pushed[0], texts_pushed[1]]),
        (r#"|> "<_>method=<_> path=<_>""#, vec![]),
        (r#"|> "method=<_> path=<_> <_>""#, vec![texts_pushed[2]]),
        (r#"|= ip("10.0.0.0/29")"#, vec![texts_pushed[0], texts_pushed[3]]),
        (r#"| json | __error__="" | status >= 500"#, vec![texts_pushed[1]]),
        (r#"| json | took > 1s and user_name="bob""#, vec![texts_pushed[1]]),
        (r#"| json u="user.name" | u=~"a.+" | line_format "{{.u | upper}} {{.app}}""#, vec!["ANN pipe"]),
        (r#"|= "size" | logfmt | size > 2KB | ip=ip("10.0.0.0-10.0.0.10") | line_format "{{.path}}""#, vec!["/c"]),
        (
            r#"| regexp `"(?P<verb>\w+) (?P<path>\S+)` | verb="GET" | label_format where=path | line_format "{{.where}}""#,
            vec!["/d"],
        ),
        (
            r#"| pattern `<ip> - - "<_>" <code> <bytes>` | code="301" | line_format "{{.ip}} {{.bytes}}""#,
            vec!["10.0.0.1 42"],
        ),
        (r#"|= "alert" | decolorize"#, vec!["red alert"]),
        (r#"|= "/a" | json | drop method | line_format "{{.method}}.{{.path}}""#, vec!["./a"]),
        (r#"|= "/a" | json | keep path, app | line_format "{{.method}}.{{.path}}""#, vec!["./a"]),
        (r#"|= "red" | json | __error__="JSONParserErr" | line_format "bad""#, vec!["bad"]),
    ];
    for (pipeline, wanted) in cases {
        let query = format!("{s} {pipeline}");
        assert_eq!(texts(&client.lines(&query).await), wanted, "{query}");
    }
}

#[tokio::test]
async fn labels_values_and_series_are_listed() {
    let server = Server::start().await;
    let client = server.client();
    let empty = client.get("/loki/api/v1/labels").await;
    assert_eq!(empty.json(), json!({"status": "success"}));
    ten_lines(&server).await;
    client.push_ok(&Batch::one(r#"{app="z"}"#, "x")).await;
    for path in ["/loki/api/v1/labels", "/loki/api/v1/label", "/api/prom/label"] {
        assert_eq!(
            client.get(path).await.json(),
            json!({"status": "success", "data": ["app", "pod", "service_name"]}),
            "{path}"
        );
    }
    assert_eq!(client.get("/loki/api/v1/label/app/values").await.json()["data"], json!(["q", "z"]));
    assert_eq!(
        client.get_with("/loki/api/v1/label/app/values", &[("query", r#"{pod="1"}"#)]).await.json()["data"],
        json!(["q"])
    );
    assert_eq!(client.get("/loki/api/v1/label/none/values").await.json(), json!({"status": "success"}));
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("match[]={}", tailwater_integration::client::encode(r#"{app="q"}"#));
    let series = client.send("POST", "/loki/api/v1/series", &form, body).await.json();
    assert_eq!(series["data"], json!([{"app": "q", "pod": "1", "service_name": "q"}]));
    assert_eq!(client.get("/loki/api/v1/series").await.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        client.get_with("/loki/api/v1/series", &[("match[]", r#"{app="none"}"#)]).await.json()["data"],
        json!([])
    );
    let stats = client.get_with("/loki/api/v1/index/stats", &[("query", r#"{app="q"}"#)]).await.json();
    assert_eq!((&stats["streams"], &stats["entries"]), (&json!(1), &json!(10)), "{stats}");
    let reply = client.get_with("/loki/api/v1/labels", &[("query", r#"{app="q"} |= "x""#)]).await;
    assert_eq!((reply.status, reply.text().as_str()), (400, "only label matchers are supported"));
}

#[tokio::test]
async fn parameters_are_checked_with_the_texts_that_users_know() {
    let server = Server::start().await;
    let client = server.client();
    let good = ("query", r#"{a="b"}"#);
    let cases: [(&str, Pairs<'_>, &str); 10] = [
        (RANGE, &[("query", "")], "parse error : syntax error: unexpected $end"),
        (RANGE, &[good, ("direction", "foo")], "invalid direction 'foo'"),
        (RANGE, &[good, ("limit", "0")], "limit must be a positive value"),
        (
            RANGE,
            &[good, ("limit", "5001")],
            "max entries limit per query exceeded, limit > max_entries_limit_per_query (5001 > 5000)",
        ),
        (RANGE, &[good, ("start", "2"), ("end", "1")], "end timestamp must not be before or equal to start time"),
        (
            RANGE,
            &[good, ("start", "foo")],
            "could not parse 'start' parameter: strconv.ParseInt: parsing \"foo\": invalid syntax",
        ),
        (RANGE, &[good, ("step", "xx")], "cannot parse \"xx\" to a valid duration"),
        (RANGE, &[good, ("start", "1"), ("end", "1700000000")], "the query time range exceeds the limit"),
        (
            "/loki/api/v1/query",
            &[good],
            "log queries are not supported as an instant query type, please change your query to a range query type",
        ),
        ("/loki/api/v1/index/stats", &[], "parse error : syntax error: unexpected $end"),
    ];
    for (path, params, text) in cases {
        let reply = client.get_with(path, params).await;
        assert_eq!(reply.status, 400, "{path} {params:?}: {}", reply.text());
        assert!(reply.text().starts_with(text), "{path} {params:?}: {}", reply.text());
        assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn grafana_finds_a_healthy_data_source() {
    let server = Server::start().await;
    let params = [("direction", "backward"), ("query", "vector(1)+vector(1)"), ("time", "4000000000")];
    let answer = server.client().get_with("/loki/api/v1/query", &params).await.json();
    assert_eq!(answer["data"]["resultType"], "vector");
    let result = answer["data"]["result"].as_array().unwrap();
    assert_eq!((result.len(), &result[0]["value"][1]), (1, &json!("2")), "{answer}");
}

#[tokio::test]
async fn the_small_endpoints_answer() {
    let server = Server::start().await;
    let client = server.client();
    let ready = client.get("/ready").await;
    assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    assert!(client.get("/loki/api/v1/status/buildinfo").await.json()["version"].is_string());
    let formatted = client.get_with("/loki/api/v1/format_query", &[("query", r#"{a="b"}|="c""#)]).await.json();
    assert_eq!(formatted, json!({"status": "success", "data": "{a=\"b\"} |= \"c\""}));
    let refused = client.get_with("/loki/api/v1/format_query", &[("query", "{")]).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("\"status\":\"invalid-query\""), "{}", refused.text());
    let config = client.get("/config").await;
    assert!(config.status == 200 && config.text().contains("limits_config:"), "{}", config.text());
    let services = client.get("/services").await.text();
    assert!(services.lines().count() > 0 && services.lines().all(|line| line.contains(" => ")), "{services}");
    let unknown = client.get("/unknown").await;
    assert_eq!((unknown.status, unknown.text().as_str()), (404, "404 page not found\n"));
    assert_eq!(client.send("DELETE", RANGE, &[], "").await.status, 405);
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_count() {
    let server = Server::start().await;
    let client = server.client();
    ten_lines(&server).await;
    let mut tail = client.tail(&[("query", S)]).await;
    assert_eq!(tail.lines(10).await.len(), 10);
    let metrics = client.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"), "{}", metrics.header("content-type"));
    let text = metrics.text();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(name.starts_with("tailwater_") || name.starts_with("loki_") || name.starts_with("process_"), "{line}");
    }
    let sample_of_ten = text.lines().any(|line| line.contains("lines") && line.ends_with(" 10"));
    assert!(sample_of_ten, "no counter of lines says 10:\n{text}");
}

#[tokio::test]
async fn old_paths_answer_in_old_shapes() {
    let server = Server::start().await;
    let client = server.client();
    let at = ten_lines(&server).await;
    let params = [
        ("query", S),
        ("regexp", "n=[34]"),
        ("direction", "forward"),
        ("start", &at.to_string()),
        ("end", &(at + 1_000_000_000).to_string()),
    ];
    let answer = client.get_with("/api/prom/query", &params).await.json();
    let entries = answer["streams"][0]["entries"].as_array().unwrap();
    let found: Vec<_> = entries.iter().map(|e| e["line"].as_str().unwrap()).collect();
    assert_eq!(found, ["level=info n=3", "level=info n=4"]);
    assert!(answer["streams"][0]["labels"].as_str().unwrap().starts_with("{app=\"q\", "));
}
