//! Tails of several tenants over real sockets.

use serde_json::{Value, json};

use crate::client::{Answer, Frame, Tail, World, form};

const SEVERAL: &str = "{auth_enabled: true, querier: {multi_tenant_queries_enabled: true}}";

fn target(params: &[(&str, &str)]) -> String {
    format!("/loki/api/v1/tail?{}", form(params))
}

async fn open_as(world: &World, tenants: &str, query: &str) -> Result<Tail, Answer> {
    Tail::open(world, &target(&[("query", query)]), &[("X-Scope-OrgID", tenants)]).await
}

/// The next `n` stream objects.
async fn streams(tail: &mut Tail, n: usize) -> Vec<Value> {
    let mut all = Vec::new();
    while all.len() < n {
        let Frame::Text(frame) = tail.next_but_pings().await else { panic!("after {all:?}") };
        all.extend(frame["streams"].as_array().unwrap().iter().cloned());
    }
    all
}

#[tokio::test]
async fn each_line_comes_with_its_tenant() {
    let world = World::start(SEVERAL).await;
    let app = json!({"app": "a"});
    for tenant in ["red", "blue", "green"] {
        world.push_as(tenant, &app, &[&format!("old of {tenant}")]).await;
    }
    let mut tail = open_as(&world, "red|blue", r#"{app="a"}"#).await.unwrap();
    let old = streams(&mut tail, 2).await;
    for tenant in ["green", "blue", "red"] {
        world.push_as(tenant, &app, &[&format!("new of {tenant}")]).await;
    }
    let new = streams(&mut tail, 2).await;
    for (stream, (age, tenant)) in
        old.iter().chain(&new).zip([("old", "red"), ("old", "blue"), ("new", "blue"), ("new", "red")])
    {
        let labels = json!({"__tenant_id__": tenant, "app": "a", "detected_level": "unknown", "service_name": "a"});
        assert_eq!(stream["stream"], labels);
        assert_eq!(stream["values"][0][1], format!("{age} of {tenant}"));
    }
}

#[tokio::test]
async fn the_tenant_is_a_label_of_the_stream_in_every_form() {
    let world = World::start(SEVERAL).await;
    let both = ("X-Scope-OrgID", "red|blue");
    let path = target(&[("query", r#"{app="a", __tenant_id__=~"r.*"} | logfmt"#)]);
    let flags = ("X-Loki-Response-Encoding-Flags", "categorize-labels");
    let mut categorised = Tail::open(&world, &path, &[both, flags]).await.unwrap();
    let mut legacy = Tail::open(&world, &path.replace("/loki/api/v1/", "/api/prom/"), &[both]).await.unwrap();
    // A label of that name that a sender has made up is kept under another.
    let labels = json!({"app": "a", "__tenant_id__": "forged"});
    world.push_as("blue", &labels, &["k=of-blue"]).await;
    world.push_as("red", &labels, &["k=v"]).await;
    let stream = streams(&mut categorised, 1).await.remove(0);
    let named = json!({"__tenant_id__": "red", "app": "a", "original___tenant_id__": "forged", "service_name": "a"});
    assert_eq!(stream["stream"], named);
    let parts = json!({"structuredMetadata": {"detected_level": "unknown"}, "parsed": {"k": "v"}});
    assert_eq!(stream["values"][0][2], parts);
    let stream = streams(&mut legacy, 1).await.remove(0);
    let named = r#"{__tenant_id__="red", app="a", detected_level="unknown", k="v", original___tenant_id__="forged", service_name="a"}"#;
    assert_eq!(stream["labels"], named);
}

#[tokio::test]
async fn several_tenants_are_refused_unless_configured() {
    let world = World::start("auth_enabled: true").await;
    for path in ["/loki/api/v1/tail", "/api/prom/tail"] {
        let target = format!("{path}?{}", form(&[("query", r#"{app="a"}"#)]));
        let refused = Tail::open(&world, &target, &[("X-Scope-OrgID", "a|b")]).await.err().expect("a refusal");
        refused.fails(400, "multiple org IDs present");
        assert!(Tail::open(&world, &target, &[("X-Scope-OrgID", "a|a")]).await.is_ok());
    }
    let world = World::start(SEVERAL).await;
    let refused = open_as(&world, "a|b/c", r#"{app="a"}"#).await.err().expect("a refusal");
    refused.fails(400, "tenant ID 'b/c' contains unsupported character '/'");
    let refused = open_as(&world, "a|b", r#"{app="a", __tenant_id__=~"("}"#).await.err().expect("a refusal");
    assert_eq!(refused.status, 400);
    let crowd: Vec<_> = (0..300).map(|i| i.to_string()).collect();
    let mut crowd = open_as(&world, &crowd.join("|"), r#"{app="a"}"#).await.unwrap();
    let reason = "rpc error: code = Code(400) desc = a tail is of at most 256 tenants, and this one names 300";
    assert_eq!(crowd.next().await, Frame::Close(1011, reason.to_owned()));
}

#[tokio::test]
async fn the_limits_of_each_tenant_hold() {
    let settings = "
auth_enabled: true
querier: {multi_tenant_queries_enabled: true}
overrides:
  few: {max_concurrent_tail_requests: 1, discover_log_levels: false}
";
    let world = World::start(settings).await;
    let mut both = open_as(&world, "few|many", r#"{app="a"}"#).await.unwrap();
    world.push_as("few", &json!({"app": "a"}), &["level=warn"]).await;
    world.push_as("many", &json!({"app": "a"}), &["level=warn"]).await;
    let levels: Vec<_> =
        streams(&mut both, 2).await.into_iter().map(|s| s["stream"]["detected_level"].clone()).collect();
    assert_eq!(levels, [Value::Null, json!("warn")]);
    let text = "rpc error: code = Code(400) desc = max concurrent tail requests limit exceeded, count > limit (2 > 1)";
    for tenants in ["few", "few|other"] {
        let mut refused = open_as(&world, tenants, r#"{app="a"}"#).await.unwrap();
        assert_eq!(refused.next().await, Frame::Close(1011, text.to_owned()));
    }
    let mut other = open_as(&world, "many|other", r#"{app="a"}"#).await.unwrap();
    assert_eq!(streams(&mut other, 1).await[0]["stream"]["__tenant_id__"], "many");
}

#[tokio::test]
async fn a_tail_is_listed_for_those_who_may_see_all_its_tenants() {
    let world = World::start(SEVERAL).await;
    let _both = open_as(&world, "red|blue", r#"{app="a"}"#).await.unwrap();
    let _one = open_as(&world, "red", r#"{app="a"}"#).await.unwrap();
    let seen = async |tenants: &str| -> Vec<String> {
        let answer = world.send("GET", "/api/v1/tails", &[("X-Scope-OrgID", tenants)], b"").await.json();
        let tails = answer["tails"].as_array().unwrap().iter();
        let mut tails: Vec<_> = tails.map(|tail| tail["tenant"].as_str().unwrap().to_owned()).collect();
        tails.sort();
        tails
    };
    while seen("red|blue").await.len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(seen("red|blue").await, ["blue|red", "red"]);
    assert_eq!(seen("green|red|blue").await, ["blue|red", "red"]);
    assert_eq!(seen("red").await, ["red"]);
    assert_eq!(seen("red|green").await, ["red"]);
    assert!(seen("blue").await.is_empty());
}
