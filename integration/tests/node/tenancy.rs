//! Tenants see their own lines and nothing of others.

use tailwater_integration::tail::Event;
use tailwater_integration::{Batch, Checker, Server, eventually, now_ns};

use crate::{delivered, texts};

#[tokio::test]
async fn with_auth_every_request_names_its_tenant() {
    let server = Server::with_config("auth_enabled: true\n").await;
    let client = server.client();
    let push = client.push(&Batch::one(r#"{a="b"}"#, "x")).await;
    assert_eq!((push.status, push.text().as_str()), (401, "no org id\n"));
    for path in ["/loki/api/v1/query_range?query=%7Ba%3D%22b%22%7D", "/loki/api/v1/labels", "/loki/api/v1/series"] {
        let reply = client.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (401, "no org id\n"), "{path}");
    }
    let Err(refused) = client.try_tail(&[("query", r#"{a="b"}"#)]).await else { panic!("accepted") };
    assert_eq!((refused.status, refused.text().as_str()), (401, "no org id\n"));
    for path in ["/ready", "/metrics", "/config", "/loki/api/v1/status/buildinfo"] {
        assert_eq!(client.get(path).await.status, 200, "{path} needs no tenant");
    }
}

#[tokio::test]
async fn without_auth_the_header_is_ignored() {
    let server = Server::with_config("auth_enabled: false\n").await;
    server.tenant("one").push_ok(&Batch::one(r#"{a="b"}"#, "x")).await;
    assert_eq!(texts(&server.tenant("two").lines(r#"{a="b"}"#).await), ["x"]);
    assert_eq!(texts(&server.client().lines(r#"{a="b"}"#).await), ["x"]);
}

#[tokio::test]
async fn no_line_label_or_stream_reaches_another_tenant() {
    let server = Server::with_config("auth_enabled: true\n").await;
    let tenants = ["blue", "red"];
    let mut tails = Vec::new();
    for tenant in tenants {
        tails.push(server.tenant(tenant).tail(&[("query", r#"{app=~".+"}"#)]).await);
    }
    let mut checker = Checker::new();
    for i in 0..50 {
        for tenant in tenants {
            // The same stream in both, and one that only this tenant has.
            let batch = Batch::new().line(r#"{app="common"}"#, now_ns(), &format!("{tenant} {i}")).line(
                &format!("{{app=\"{tenant}-only\", {tenant}_label=\"x\"}}"),
                now_ns(),
                &format!("{tenant} own {i}"),
            );
            server.tenant(tenant).push_ok(&batch).await;
            checker.pushed(tenant, &batch, true);
        }
    }
    for (tenant, tail) in tenants.into_iter().zip(&mut tails) {
        checker.assert_exact(tenant, &tail.lines(100).await, |_, _| true);
        let client = server.tenant(tenant);
        checker.assert_exact(tenant, &delivered(client.lines(r#"{app=~".+"}"#).await), |_, _| true);
        let other = if tenant == "red" { "blue" } else { "red" };
        for path in [
            "/loki/api/v1/labels",
            "/loki/api/v1/series",
            "/loki/api/v1/label/app/values",
            "/loki/api/v1/index/stats?query=%7Bapp%3D~%22.%2B%22%7D",
        ] {
            let reply = client.get(path).await;
            assert!(reply.status == 200 && !reply.text().contains(other), "{tenant} {path}: {}", reply.text());
        }
        let stats = client.get("/loki/api/v1/index/stats?query=%7Bapp%3D~%22.%2B%22%7D").await.json();
        assert_eq!(stats["streams"], 2);
    }
}

#[tokio::test]
async fn tenant_ids_are_checked() {
    let server = Server::with_config("auth_enabled: true\n").await;
    let long = "x".repeat(151);
    let cases = [
        ("a/b", "tenant ID 'a/b' contains unsupported character '/'"),
        (long.as_str(), "tenant ID is too long: max 150 characters"),
        ("..", "tenant ID is '.' or '..'"),
    ];
    for (tenant, text) in cases {
        let push = server.tenant(tenant).push(&Batch::one(r#"{a="b"}"#, "x")).await;
        assert_eq!((push.status, push.text().trim_end()), (400, text));
        let Err(refused) = server.tenant(tenant).try_tail(&[("query", r#"{a="b"}"#)]).await else { panic!("accepted") };
        assert_eq!((refused.status, refused.text().trim_end()), (400, text));
    }
    // What follows a colon is metadata.
    server.tenant("a:k=v").push_ok(&Batch::one(r#"{a="b"}"#, "x")).await;
    assert_eq!(texts(&server.tenant("a").lines(r#"{a="b"}"#).await), ["x"]);
}

#[tokio::test]
async fn several_tenants_are_asked_together_only_where_configured() {
    let both = r#"{app="m"}"#;
    let server = Server::with_config("auth_enabled: true\n").await;
    let push = server.tenant("a|b").push(&Batch::one(both, "x")).await;
    assert_eq!((push.status, push.text().as_str()), (400, "multiple org IDs present\n"));
    server.tenant("a|a").push_ok(&Batch::one(both, "x")).await;
    let query = server.tenant("a|b").get_with("/loki/api/v1/query_range", &[("query", both)]).await;
    assert!(query.status >= 400 && query.text() == "multiple org IDs present", "{} {}", query.status, query.text());

    let server = Server::with_config("auth_enabled: true\nquerier:\n  multi_tenant_queries_enabled: true\n").await;
    for tenant in ["a", "b", "c"] {
        server.tenant(tenant).push_ok(&Batch::one(both, &format!("of {tenant}"))).await;
    }
    let lines = server.tenant("a|b").lines(both).await;
    assert_eq!(texts(&lines), ["of a", "of b"]);
    assert!(
        lines[0].labels.contains("__tenant_id__=\"a\"") && lines[1].labels.contains("__tenant_id__=\"b\""),
        "{lines:?}"
    );
    assert_eq!(texts(&server.tenant("a|b").lines(r#"{app="m", __tenant_id__="b"}"#).await), ["of b"]);
}

#[tokio::test]
async fn the_tails_of_one_tenant_leave_the_others_their_places() {
    let server = Server::with_config("auth_enabled: true\nlimits_config:\n  max_concurrent_tail_requests: 1\n").await;
    let query = [("query", r#"{a="b"}"#)];
    let _first = server.tenant("one").tail(&query).await;
    server.tenant("one").tails_open(1).await;
    let mut refused = server.tenant("one").tail(&query).await;
    assert!(matches!(refused.until_end().await.1, Event::Closed(1011, _)));
    let mut other = server.tenant("two").tail(&query).await;
    eventually("the other tenant's line", async || {
        server.tenant("two").push_ok(&Batch::one(r#"{a="b"}"#, "x")).await;
        matches!(other.event().await, Event::Frame(_))
    })
    .await;
}
