//! Clients that are slow, silent or gone: late but not lossy, bounded, and nobody else's problem.

use std::time::Duration;

use tailwater_integration::tail::Event;
use tailwater_integration::{Batch, Checker, Client, Server, eventually, now_ns, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Opens a tail by hand, so that nothing answers its pings and nothing reads.
async fn mute_tail(client: &Client, query: &str) -> TcpStream {
    let target = tailwater_integration::client::target("/loki/api/v1/tail", &[("query", query)]);
    let mut socket = TcpStream::connect(client.addr()).await.unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the handshake", socket.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    socket
}

async fn push_much(client: &Client, checker: &mut Checker, label: &str, pushes: usize) {
    for push in 0..pushes {
        let mut batch = Batch::new();
        for i in 0..500 {
            batch = batch.line(label, now_ns(), &format!("{push}/{i} {}", "0123456789".repeat(100)));
        }
        client.push_ok(&batch).await;
        checker.pushed("fake", &batch, true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_late_and_loses_nothing() {
    let mut server = Server::start_wide().await;
    let client = server.client();
    let s = r#"{app="much"}"#;
    // Whenever exactly they join, they see everything.
    let mut slow = client.tail(&[("query", s), ("limit", "1000000")]).await;
    let mut quick = client.tail(&[("query", s), ("limit", "1000000")]).await;
    let mut checker = Checker::new();
    // 40 MB: far more than sockets and any queue of one tail may hold.
    let reader = tokio::spawn(async move { quick.lines(40_000).await });
    push_much(&client, &mut checker, s, 80).await;
    // The quick one has everything while the slow one has read nothing.
    let lines = within("the quick tail", reader).await.unwrap();
    checker.assert_exact("fake", &lines, |_, _| true);
    let lines = slow.lines(40_000).await;
    checker.assert_exact("fake", &lines, |_, _| true);
    server.assert_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_let_go_and_costs_little() {
    let mut server = Server::start_wide().await;
    let client = server.client();
    let s = r#"{app="mute"}"#;
    let mut checker = Checker::new();
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(mute_tail(&client, s).await);
    }
    push_much(&client, &mut checker, s, 10).await;
    let before = server.resident_bytes();
    push_much(&client, &mut checker, s, 60).await;
    // 30 MB of lines are in the log once; twenty queues that held them as well would be 600 MB.
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 200_000_000, "{grown} bytes more with twenty clients that do not read");
    // Others are served meanwhile.
    let mut quick = client.tail(&[("query", s), ("limit", "100000")]).await;
    checker.assert_exact("fake", &quick.lines(35_000).await, |_, _| true);
    drop(quick);
    // In the end each is let go, although it still reads nothing.
    let tails = async || client.get("/api/v1/tails").await.text();
    eventually("the mute tails to be let go", async || !tails().await.contains("mute")).await;
    // What had been sent can still be read, and then the connection ends.
    for mut socket in sockets {
        let mut rest = Vec::new();
        let read = within("the end of a mute tail", socket.read_to_end(&mut rest)).await;
        assert!(read.is_err() || !rest.is_empty());
    }
    server.assert_well();
}

#[tokio::test]
async fn a_client_that_never_pongs_is_served() {
    let server = Server::start().await;
    let client = server.client();
    let s = r#"{app="pongless"}"#;
    let mut socket = mute_tail(&client, s).await;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    // Three pings (0x89 0x00) unanswered, then a line.
    while seen.windows(2).filter(|w| w == b"\x89\x00").count() < 3 {
        let n = within("pings", socket.read(&mut buffer)).await.unwrap();
        assert_ne!(n, 0, "cut off for not answering pings");
        seen.extend(&buffer[..n]);
    }
    client.push_ok(&Batch::one(s, "still-here")).await;
    while !String::from_utf8_lossy(&seen).contains("still-here") {
        let n = within("the line", socket.read(&mut buffer)).await.unwrap();
        assert_ne!(n, 0, "cut off for not answering pings");
        seen.extend(&buffer[..n]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_vanish_free_what_they_held() {
    let server = Server::with_config("limits_config:\n  max_concurrent_tail_requests: 10\n").await;
    let client = server.client();
    for round in 0..20 {
        let query = format!("{{app=\"vanish\"}} |= \"{round}\"");
        let mut sockets = Vec::new();
        for _ in 0..5 {
            sockets.push(mute_tail(&client, &query).await);
        }
        for (i, socket) in sockets.into_iter().enumerate() {
            if i % 2 == 0 {
                // A reset instead of an orderly end.
                socket.set_zero_linger().unwrap();
            }
        }
    }
    eventually("all places to be free again", async || {
        let mut tails = Vec::new();
        for _ in 0..10 {
            tails.push(client.tail(&[("query", r#"{app="vanish"}"#)]).await);
        }
        client.push_ok(&Batch::one(r#"{app="vanish"}"#, "x")).await;
        for tail in &mut tails {
            if !matches!(tail.event().await, Event::Frame(_)) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn odd_frames_of_a_client_end_at_most_that_client() {
    let mut server = Server::start().await;
    let client = server.client();
    let s = r#"{app="frames"}"#;
    let mut good = client.tail(&[("query", s)]).await;
    // Unmasked; reserved bits; an unknown opcode; a huge declared length; a ping longer than a control frame may be.
    let frames: [&[u8]; 5] = [
        b"\x81\x02hi",
        b"\xf1\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x89\xfe\x01\x00\0\0\0\0",
    ];
    for frame in frames {
        let mut socket = mute_tail(&client, s).await;
        socket.write_all(frame).await.unwrap();
        let mut rest = Vec::new();
        // A reset is as good an end as an orderly one.
        let _ = within(
            "the bad client's end",
            tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut rest)),
        )
        .await;
    }
    client.push_ok(&Batch::one(s, "x")).await;
    assert_eq!(good.lines(1).await[0].line, "x");
    server.assert_well();
}

/// Idle tails must be cheap; the bound is loose because a test build is measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_tails_cost_little_memory() {
    const TAILS: u64 = 200;
    let server = Server::start_wide().await;
    let client = server.client();
    let mut tails = Vec::new();
    for _ in 0..50 {
        tails.push(client.tail(&[("query", r#"{app="idle"}"#)]).await);
    }
    let before = server.resident_bytes();
    for _ in 0..TAILS {
        tails.push(client.tail(&[("query", r#"{app="idle"}"#)]).await);
    }
    client.push_ok(&Batch::one(r#"{app="idle"}"#, "x")).await;
    for tail in &mut tails {
        assert_eq!(tail.lines(1).await.len(), 1);
    }
    let each = server.resident_bytes().saturating_sub(before) / TAILS;
    assert!(each < 200 << 10, "{each} bytes per tail");
}
