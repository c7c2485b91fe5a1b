//! Clients that take their time or too much room.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Tail, World};

/// Reads to the end; what came.
async fn rest(tcp: &mut tokio::net::TcpStream) -> String {
    let mut raw = Vec::new();
    let _reset = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut raw)).await.unwrap();
    String::from_utf8_lossy(&raw).into_owned()
}

#[tokio::test]
async fn heads_that_dribble_and_bodies_that_stop_are_cut_off() {
    let world = World::start("server: {http_server_read_timeout: 300ms}").await;
    let mut dribbler = world.connect().await;
    dribbler.write_all(b"GET /ready HTTP/1.1\r\nHost: ").await.unwrap();
    let mut stopper = world.connect().await;
    let head =
        b"POST /loki/api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stopper.write_all(head).await.unwrap();
    assert_eq!(rest(&mut dribbler).await, "");
    let answer = rest(&mut stopper).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(world.get("/ready").await.status, 200);
}

#[tokio::test]
async fn heads_have_a_bound() {
    let world = World::start("").await;
    let mut tcp = world.connect().await;
    let head = format!("GET /ready HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(2 << 20));
    let _cut_off = tcp.write_all(head.as_bytes()).await;
    let answer = rest(&mut tcp).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{}", &answer[..answer.len().min(200)]);
    assert_eq!(world.get("/ready").await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let world = World::start("server: {http_listen_conn_limit: 1}").await;
    let mut first = world.connect().await;
    first.write_all(b"GET /ready HTTP/1.1\r\nHost: t\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut second = world.connect().await;
    second.write_all(b"GET /ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(waiting.is_err());
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200"));
    drop(second);
    // A tail takes its place until it ends.
    let tail = Tail::query(&world, r#"{app="a"}"#).await;
    let mut third = world.connect().await;
    third.write_all(b"GET /ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), third.read_u8()).await.is_err());
    drop(tail);
    assert!(rest(&mut third).await.starts_with("HTTP/1.1 200"));
}
