//! A client library that people use, in this process: `tracing-loki`.

use std::collections::BTreeSet;

use tailwater_integration::{Server, eventually};
use tracing_subscriber::layer::SubscriberExt;

const EVENTS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracing_loki_delivers_every_event() {
    let server = Server::start().await;
    let client = server.client();
    let mut tail = client.tail(&[("query", r#"{host="mine"} | json"#), ("limit", "1000000")]).await;
    let (layer, controller, task) = tracing_loki::builder()
        .label("host", "mine")
        .unwrap()
        .extra_field("release", "1.2.3")
        .unwrap()
        .build_controller_url(server.url().parse().unwrap())
        .unwrap();
    let task = tokio::spawn(task);
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..EVENTS {
            match number % 3 {
                0 => tracing::info!(number, "an event"),
                1 => tracing::warn!(number, quoted = "say \"hi\"", "grüße\n日本語"),
                _ => tracing::error!(number, "it broke"),
            }
        }
    });
    eventually("every event", async || client.lines(r#"{host="mine"}"#).await.len() >= EVENTS).await;
    let lines = client.lines(r#"{host="mine"} | json"#).await;
    let numbers: BTreeSet<usize> = lines
        .iter()
        .map(|l| serde_json::from_str::<serde_json::Value>(&l.line).unwrap()["number"].as_u64().unwrap() as usize)
        .collect();
    assert_eq!((lines.len(), numbers), (EVENTS, (0..EVENTS).collect()));
    assert_eq!(client.lines(r#"{host="mine", level="warn"} | json | quoted="say \"hi\"""#).await.len(), EVENTS / 3 + 1);
    assert_eq!(tail.lines(EVENTS).await.len(), EVENTS);
    controller.shutdown().await;
    task.await.unwrap();
}
