//! Tails of metric queries: a frame per step, each what a query answers at its time.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater_integration::tail::Event;
use tailwater_integration::{Batch, Client, Server, Tail, now_ns};

const QUERY: &str = r#"sum by (level) (count_over_time({app="m"} | logfmt [10s]))"#;
const STREAM: &str = r#"{app="m"}"#;

/// The next frame that is not a ping.
async fn step(tail: &mut Tail) -> Value {
    loop {
        match tail.event().await {
            Event::Frame(frame) => return frame,
            Event::Ping(_) => {}
            end => panic!("the tail ended: {end:?}"),
        }
    }
}

fn time(frame: &Value) -> i64 {
    frame["time"].as_i64().unwrap_or_else(|| panic!("no step of whole seconds: {frame}"))
}

/// What a query answers at a time, without its statistics.
async fn asked(client: &Client, time: i64) -> Value {
    let time = time.to_string();
    let mut answer = client.get_with("/loki/api/v1/query", &[("query", QUERY), ("time", &time)]).await.json();
    answer["data"].as_object_mut().unwrap().remove("stats");
    answer
}

/// What the tails of a node have told of late lines.
fn late(frames: &[Value]) -> u64 {
    let warnings = frames.iter().flat_map(|f| f["warnings"].as_array().map(Vec::as_slice).unwrap_or_default());
    let told = warnings.filter_map(|w| w.as_str()).filter(|w| w.contains("too late"));
    told.map(|w| w.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn each_frame_is_what_the_query_answers_at_its_time() {
    let server = Server::start().await;
    let client = server.client();
    let old = now_ns();
    for i in 0..20 {
        client.push_ok(&Batch::new().line(STREAM, old - i * 400_000_000, &format!("level=warn n={i}"))).await;
    }
    // History of five seconds, then live; a second one only live, and a second late so that nothing is.
    let mut tail = client.tail(&[("query", QUERY), ("metrics", "1"), ("step", "1s"), ("since", "5s")]).await;
    let live = [("query", QUERY), ("metrics", "1"), ("step", "1s"), ("delay_for", "1")];
    let mut patient = client.tail(&live).await;
    let mut twin = client.tail(&live).await;
    client.tails_open(3).await;
    let pusher = tokio::spawn({
        let client = client.clone();
        async move {
            for i in 0..60 {
                let level = ["info", "error", "debug"][i % 3];
                client.push_ok(&Batch::one(STREAM, &format!("level={level} n={i}"))).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let (mut frames, mut exact) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        frames.push(step(&mut tail).await);
    }
    for _ in 0..7 {
        let frame = step(&mut patient).await;
        assert_eq!(step(&mut twin).await, frame, "equal tails get equal frames");
        exact.push(frame);
    }
    pusher.await.unwrap();
    for frames in [&frames, &exact] {
        let times: Vec<_> = frames.iter().map(time).collect();
        assert!(times.windows(2).all(|pair| pair[1] == pair[0] + 1), "every second once and in order: {times:?}");
    }
    assert!(time(&frames[0]) >= old / 1_000_000_000 - 5 && time(&exact[0]) > old / 1_000_000_000);
    for frame in &exact {
        let mut answer = asked(&client, time(frame)).await;
        answer["time"] = frame["time"].clone();
        assert_eq!(*frame, answer);
    }
    assert_eq!(exact.last().unwrap()["data"]["result"].as_array().unwrap().len(), 4, "{exact:?}");
    // Without a delay a line that was on its way is late, and told; nothing else differs.
    let differ = async |frame: &Value| asked(&client, time(frame)).await["data"] != frame["data"];
    let mut different = 0;
    for frame in &frames {
        different += u64::from(differ(frame).await);
    }
    assert!(different == 0 || late(&frames) > 0, "{different} frames differ and nobody said so");
}

#[tokio::test]
async fn a_late_line_is_told_and_empty_steps_are_sent() {
    let server = Server::start().await;
    let client = server.client();
    let mut tail = client.tail(&[("query", QUERY), ("metrics", "1"), ("step", "1s")]).await;
    let first = step(&mut tail).await;
    let at = time(&first);
    assert_eq!(first, json!({"status": "success", "data": {"resultType": "vector", "result": []}, "time": at}));
    let old = (at - 3) * 1_000_000_000 + 250_000_000;
    client
        .push_ok(&Batch::new().line(STREAM, old, "level=late").line(STREAM, now_ns() + 60_000_000_000, "later"))
        .await;
    let second = step(&mut tail).await;
    let text = format!("1 line came too late for steps that had been answered, the oldest of {}.25", at - 3);
    assert_eq!(second["warnings"], json!([text]));
    assert_eq!(second["data"]["result"][0]["value"], json!([at + 1, "1"]));
    assert_eq!(step(&mut tail).await.get("warnings"), None, "told once");
}

#[tokio::test]
async fn a_failing_step_is_a_frame_and_the_tail_goes_on() {
    let server = Server::start().await;
    let client = server.client();
    let query = r#"sum_over_time({app="m"} | logfmt | unwrap n [1s])"#;
    let mut tail = client.tail(&[("query", query), ("metrics", "1"), ("step", "1s"), ("delay_for", "1")]).await;
    client.push_ok(&Batch::one(STREAM, "n=x")).await;
    let failed = loop {
        let frame = step(&mut tail).await;
        if frame["status"] == "error" {
            break frame;
        }
    };
    assert_eq!(failed["errorType"], "execution");
    assert!(failed["error"].as_str().unwrap().starts_with("pipeline error: 'SampleExtractionErr'"), "{failed}");
    let next = step(&mut tail).await;
    assert_eq!((time(&next), &next["status"]), (time(&failed) + 1, &json!("success")));
}

#[tokio::test]
async fn who_does_not_ask_is_answered_as_loki_does() {
    let server = Server::start().await;
    let client = server.client();
    let mut plain = client.tail(&[("query", QUERY)]).await;
    assert_eq!(plain.until_end().await.1, Event::Closed(1011, "only log selector is supported".to_owned()));
    for (params, text) in [
        (vec![("query", STREAM), ("metrics", "1")], "metrics=1 is for metric queries, this is a log query"),
        (vec![("query", QUERY), ("metrics", "2")], "invalid metrics '2', expected 0 or 1"),
        (vec![("query", QUERY), ("metrics", "1"), ("step", "0.9")], "step must be at least 1s, not \"0.9\""),
        (vec![("query", QUERY), ("metrics", "1"), ("step", "?")], "cannot parse \"?\" to a valid duration"),
    ] {
        let refused = client.try_tail(&params).await.err().unwrap();
        assert_eq!((refused.status, refused.text()), (400, text.to_owned()));
    }
}

#[tokio::test]
async fn it_counts_as_a_tail() {
    let server = Server::with_config("limits_config: {max_concurrent_tail_requests: 1}").await;
    let client = server.client();
    let params = [("query", QUERY), ("metrics", "1"), ("step", "1s")];
    let mut tail = client.tail(&params).await;
    step(&mut tail).await;
    let mut second = client.tail(&params).await;
    let text = "rpc error: code = Code(400) desc = max concurrent tail requests limit exceeded, count > limit (2 > 1)";
    assert_eq!(second.until_end().await.1, Event::Closed(1011, text.to_owned()));
    let open = client.get("/api/v1/tails").await.json();
    assert_eq!(open["tails"][0]["ledger"]["dropped"], 0);
    assert!(open["tails"][0]["ledger"]["delivered"].as_u64().unwrap() > 0);
    let metrics = client.get("/metrics").await.text();
    assert!(metrics.contains("tailwater_querier_tail_steps_total"), "{metrics}");
    let (status, log) = server.terminate().await;
    assert!(status.success(), "{log}");
    assert_eq!(tail.until_end().await.1, Event::Closed(1011, "all ingesters closed the connection".to_owned()));
}
