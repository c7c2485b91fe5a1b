//! The object store of the tests itself: what it promises, and that it fails as commanded.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tailwater_integration::Client;
use tailwater_integration::s3::S3;

use crate::S3_SERVER;

fn client(store: &S3) -> Client {
    Client::new(store.endpoint().trim_start_matches("http://").parse().unwrap())
}

async fn put(client: &Client, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String)> {
    let reply = client.try_send("PUT", path, headers, Bytes::from(body.to_owned())).await.ok()?;
    Some((reply.status, reply.header("etag").to_owned()))
}

#[tokio::test]
async fn conditional_writes_are_atomic() {
    let store = S3::start_open(S3_SERVER).await;
    let (client, path) = (client(&store), format!("{}manifest.json", store.bucket()));
    let mut winners = 0;
    for _ in 0..10 {
        winners += usize::from(put(&client, &path, &[("If-None-Match", "*")], "0").await.unwrap().0 == 200);
    }
    assert_eq!(winners, 1);
    let adders: Vec<_> = (0..8)
        .map(|_| {
            let (client, path) = (client.clone(), path.clone());
            tokio::spawn(async move {
                let mut added = 0;
                while added < 10 {
                    let now = client.send("GET", &path, &[], "").await;
                    let next = (now.text().parse::<u32>().unwrap() + 1).to_string();
                    let (status, _) = put(&client, &path, &[("If-Match", now.header("etag"))], &next).await.unwrap();
                    assert!([200, 412].contains(&status), "{status}");
                    added += u32::from(status == 200);
                }
            })
        })
        .collect();
    for adder in adders {
        adder.await.unwrap();
    }
    assert_eq!(client.send("GET", &path, &[], "").await.text(), "80");
    let part = client.send("GET", &path, &[("Range", "bytes=-1")], "").await;
    assert_eq!((part.status, part.text().as_str()), (206, "0"));
}

#[tokio::test]
async fn faults_come_and_go_as_commanded() {
    let mut store = S3::start_open(S3_SERVER).await;
    let (client, path) = (client(&store), format!("{}x.blk", store.bucket()));
    let get = async |path: &str| client.try_send("GET", path, &[], Bytes::new()).await.ok().map(|reply| reply.status);
    assert_eq!(put(&client, &path, &[], "1").await.unwrap().0, 200);
    for command in ["down", "reset", "errors 100", "reset GET .blk"] {
        store.command(command).await;
        let status = get(&path).await;
        assert_eq!(status, command.starts_with("errors").then_some(500), "{command}");
        store.command("ok").await;
        assert_eq!(get(&path).await, Some(200), "after {command}");
    }
    store.command("reset PUT .blk").await;
    assert_eq!(get(&path).await, Some(200), "another method");
    store.command("lost-answers PUT .blk").await;
    assert!(put(&client, &path, &[], "2").await.is_none());
    assert_eq!(store.hit().await, format!("PUT {path}"));
    assert_eq!(client.send("GET", &path, &[], "").await.text(), "2");
    store.command("slow 200 GET").await;
    let begin = Instant::now();
    assert_eq!(get(&path).await, Some(200));
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn requests_must_be_signed() {
    let store = S3::start(S3_SERVER).await;
    let reply = client(&store).send("PUT", &format!("{}x", store.bucket()), &[], "1").await;
    assert_eq!(reply.status, 403, "{}", reply.text());
    assert!(store.objects("x").is_empty());
}
