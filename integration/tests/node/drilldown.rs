//! What a user of Grafana's Logs Drilldown clicks through, in the order of the clicks: services by volume, labels, fields,
//! patterns.

use serde_json::{Value, json};
use tailwater_integration::push::rfc3339;
use tailwater_integration::{Batch, Server, now_ns};

use crate::texts;

const MINUTE: i64 = 60_000_000_000;

/// Two services over three minutes; the time of the first line.
async fn two_services(server: &Server, tenant: &str) -> i64 {
    let at = now_ns() / MINUTE * MINUTE - 10 * MINUTE;
    let (shop, api) = (r#"{app="shop", env="prod", shard="17"}"#, r#"{app="api", env="dev", shard="18"}"#);
    let mut batch = Batch::new();
    for i in 0..30 {
        let time = at + i * MINUTE / 10;
        batch = batch.line(shop, time, &format!("level=info order={i} took={i}ms msg=\"order {i} paid by user u{i}\""));
        let line = format!(r#"{{"level":"error","req":{{"path":"/p{i}","size":"{i}KB"}},"ok":false}}"#);
        batch = batch.with_metadata(api, time + 1, &line, &[("trace_id", &format!("t{}", i % 3))]);
    }
    server.tenant(tenant).push_ok(&batch).await;
    at
}

/// Millisecond RFC 3339, as Logs Drilldown sends it.
fn range(at: i64) -> (String, String) {
    (rfc3339(at), rfc3339(at + 5 * MINUTE))
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let all = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    all.iter().find(|entry| entry["label"] == name).unwrap_or_else(|| panic!("no {name}: {list}"))
}

#[tokio::test]
async fn services_are_listed_by_volume() {
    let server = Server::start().await;
    let client = server.client();
    let at = two_services(&server, "fake").await;
    let (start, end) = range(at);
    let params = [("query", r#"{service_name=~".+"}"#), ("limit", "5000"), ("start", &start), ("end", &end)];
    let answer = client.get_with("/loki/api/v1/index/volume", &params).await.json();
    let result = answer["data"]["result"].as_array().unwrap();
    let names: Vec<_> = result.iter().map(|r| r["metric"].clone()).collect();
    assert_eq!(names, [json!({"service_name": "api"}), json!({"service_name": "shop"})]);
    // Bytes of lines and structured metadata, to the byte.
    let api: usize = (0..30_usize)
        .map(|i| format!(r#"{{"level":"error","req":{{"path":"/p{i}","size":"{i}KB"}},"ok":false}}trace_idt0"#).len())
        .sum();
    assert_eq!(result[0]["value"], json!([(at + 5 * MINUTE) / 1_000_000_000, api.to_string()]));
    let params = [("query", r#"{app="shop"}"#), ("step", "60"), ("start", &start), ("end", &end)];
    let answer = client.get_with("/loki/api/v1/index/volume_range", &params).await.json();
    assert_eq!(answer["data"]["resultType"], "matrix");
    let series = &answer["data"]["result"][0];
    let times: Vec<_> = series["values"].as_array().unwrap().iter().map(|v| v[0].as_i64().unwrap()).collect();
    let minute = at / 1_000_000_000;
    assert_eq!((&series["metric"], times), (&json!({"app": "shop"}), vec![minute + 60, minute + 120, minute + 180]));
}

#[tokio::test]
async fn labels_and_fields_are_found_and_lead_to_the_lines() {
    let server = Server::start().await;
    let client = server.client();
    let at = two_services(&server, "fake").await;
    let (start, end) = range(at);
    let labels = client.get_with("/loki/api/v1/detected_labels", &[("start", &start), ("end", &end)]).await.json();
    assert_eq!(named(&labels["detectedLabels"], "env")["cardinality"], 2);
    assert!(!labels.to_string().contains("shard"), "numbers are no labels to choose from: {labels}");
    let query = r#"{service_name="api"}"#;
    let asked = [("query", query), ("start", &start), ("end", &end)];
    let answer = client.get_with("/loki/api/v1/detected_fields", &asked).await.json();
    let fields = &answer["fields"];
    assert_eq!(
        named(fields, "req_path"),
        &json!({"label": "req_path", "type": "string", "cardinality": 30, "parsers": ["json"], "jsonPath": ["req", "path"]})
    );
    assert_eq!(named(fields, "req_size")["type"], "bytes");
    assert_eq!(named(fields, "ok")["type"], "boolean");
    assert_eq!(
        named(fields, "trace_id"),
        &json!({"label": "trace_id", "type": "string", "cardinality": 3, "parsers": null})
    );
    let form = format!("query={}&start={start}&end={end}", tailwater_integration::client::encode(query));
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let path = "/loki/api/v1/detected_field/req_path/values";
    let values = client.send("POST", path, &headers, form).await.json();
    let value = values["values"][7].as_str().unwrap();
    let lines = client.lines(&format!("{query} | json | req_path=\"{value}\"")).await;
    assert!(lines.len() == 1 && lines[0].line.contains(value), "{value}: {lines:?}");
}

#[tokio::test]
async fn patterns_can_be_filtered_by() {
    let server = Server::start().await;
    let client = server.client();
    let at = two_services(&server, "fake").await;
    let (start, end) = range(at);
    for (query, level) in [(r#"{service_name="shop"}"#, "info"), (r#"{service_name="api"}"#, "error")] {
        let asked = [("query", query), ("start", &start), ("end", &end), ("step", "60s")];
        let answer = client.get_with("/loki/api/v1/patterns", &asked).await.json();
        let [pattern] = &answer["data"].as_array().unwrap()[..] else { panic!("{answer}") };
        assert_eq!(pattern["level"], level);
        let minute = at / 1_000_000_000;
        assert_eq!(pattern["samples"], json!([[minute, 10], [minute + 60, 10], [minute + 120, 10]]));
        let pattern = pattern["pattern"].as_str().unwrap();
        assert!(pattern.contains("<_>") && !pattern.contains("<_><_>"), "{pattern}");
        assert_eq!(client.lines(&format!("{query} |> `{pattern}`")).await.len(), 30, "{pattern}");
        assert_eq!(texts(&client.lines(&format!("{query} !> `{pattern}`")).await), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn tenants_see_their_own_and_together_what_is_of_both() {
    let yaml = "auth_enabled: true\nquerier:\n  multi_tenant_queries_enabled: true\n";
    let server = Server::with_config(yaml).await;
    two_services(&server, "a").await;
    two_services(&server, "b").await;
    server.tenant("c").push_ok(&Batch::one(r#"{app="secret"}"#, "hidden=1")).await;
    let ask = async |tenant: &str, path: &str, query: &str| {
        server.tenant(tenant).get_with(&format!("/loki/api/v1/{path}"), &[("query", query)]).await.json()
    };
    let bytes = |answer: &Value| answer["data"]["result"][0]["value"][1].as_str().unwrap().parse::<u64>().unwrap();
    let shop = r#"{app="shop"}"#;
    let (one, both) = (ask("a", "index/volume", shop).await, ask("a|b", "index/volume", shop).await);
    assert_eq!(bytes(&both), 2 * bytes(&one));
    let apart = ask("a|b", "index/volume", r#"{app="shop", __tenant_id__=~".+"}"#).await;
    assert_eq!(apart["data"]["result"][0]["metric"], json!({"__tenant_id__": "a", "app": "shop"}));
    assert_eq!(bytes(&ask("a|b", "index/volume", r#"{app="shop", __tenant_id__="b"}"#).await), bytes(&one));
    let samples = |answer: &Value| -> u64 {
        answer["data"][0]["samples"].as_array().unwrap().iter().map(|s| s[1].as_u64().unwrap()).sum()
    };
    assert_eq!(samples(&ask("a|b", "patterns", shop).await), 60);
    for path in ["index/volume", "detected_labels", "detected_fields", "patterns"] {
        let answer = ask("a|b", path, r#"{app=~".+"}"#).await.to_string();
        assert!(answer.contains("app") || answer.contains("order"), "{path}: {answer}");
        assert!(!answer.contains("secret") && !answer.contains("hidden"), "{path}: {answer}");
        let reply = server.client().get_with(&format!("/loki/api/v1/{path}"), &[("query", shop)]).await;
        assert_eq!((reply.status, reply.text().as_str()), (401, "no org id\n"), "{path}");
    }
}

#[tokio::test]
async fn what_there_is_and_what_there_is_not_is_said() {
    let server = Server::start().await;
    let client = server.client();
    let limits = client.get("/loki/api/v1/drilldown-limits").await.json();
    assert_eq!(limits["pattern_ingester_enabled"], true);
    assert_eq!(
        (&limits["limits"]["volume_enabled"], &limits["limits"]["volume_max_series"]),
        (&json!(true), &json!(1000))
    );
    assert_eq!(
        (&limits["limits"]["retention_period"], &limits["limits"]["query_timeout"]),
        (&json!("0s"), &json!("1m"))
    );
    // The alerting page takes this for a ruler that is off.
    for path in ["/api/prom/rules", "/api/prom/rules/test/test", "/loki/api/v1/rules", "/loki/api/v1/rules/ns/group"] {
        let reply = client.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (404, "404 page not found\n"), "{path}");
    }
    let rules = client.get("/prometheus/api/v1/rules").await.json();
    assert_eq!(rules, json!({"status": "success", "data": {"groups": []}}));
    let alerts = client.get("/prometheus/api/v1/alerts").await.json();
    assert_eq!(alerts, json!({"status": "success", "data": {"alerts": []}}));
    let reply = client
        .get_with(
            "/loki/api/v1/patterns",
            &[("query", r#"{a="b"}"#), ("start", "1"), ("end", "1700000000"), ("step", "7d")],
        )
        .await;
    assert!(
        reply.status == 400 && reply.text().starts_with("the query time range exceeds the limit"),
        "{}",
        reply.text()
    );
}
