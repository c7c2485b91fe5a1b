use super::*;
use prometheus_client::registry::Registry;
use std::collections::VecDeque;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Frames from a list; then silence, or the end.
struct Listed {
    frames: VecDeque<Bytes>,
    end: Option<End>,
}

impl Frames for Listed {
    async fn next(&mut self) -> Next {
        match (self.frames.pop_front(), self.end.take()) {
            (Some(frame), end) => {
                self.end = end;
                Next::Frame(frame)
            }
            (None, Some(end)) => Next::End(end),
            (None, None) => std::future::pending().await,
        }
    }
}

fn end(reason: &str, resumable: bool) -> End {
    End { label: "test", reason: reason.to_owned(), resumable }
}

type Cut = watch::Sender<Option<Arc<End>>>;

async fn open(frames: Vec<Bytes>, end: Option<End>, manners: Manners) -> (TcpStream, JoinHandle<&'static str>, Cut) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let mut socket = Socket::new(tcp, Metrics::register(&mut Registry::default()));
    let (cut, receiver) = watch::channel(None);
    let mut frames = Listed { frames: frames.into(), end };
    let task = tokio::spawn(async move {
        let ended = socket.run(b"", &mut frames, manners, receiver).await;
        socket.end(ended, manners).await
    });
    (client, task, cut)
}

/// Reads a whole frame: first byte and payload.
async fn frame(client: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = client.read_u8().await.ok()?;
    let len = match client.read_u8().await.unwrap() {
        126 => u64::from(client.read_u16().await.unwrap()),
        127 => client.read_u64().await.unwrap(),
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    client.read_exact(&mut payload).await.unwrap();
    Some((first, payload))
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    out.extend_from_slice(payload);
    out
}

fn close_frame(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (0x88, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

#[tokio::test]
async fn frames_go_out_whole_and_the_end_is_said() {
    let large = Bytes::from(vec![b'x'; 300_000]);
    let frames = vec![Bytes::from_static(b"{}"), large.clone()];
    let (mut client, task, _cut) =
        open(frames, Some(end("reached tail max duration limit", true)), Manners::default()).await;
    assert_eq!(frame(&mut client).await, Some((0x81, b"{}".to_vec())));
    assert_eq!(frame(&mut client).await, Some((0x81, large.to_vec())));
    assert_eq!(frame(&mut client).await, Some(close_frame(1011, "reached tail max duration limit")));
    assert_eq!(frame(&mut client).await, None);
    drop(client);
    assert_eq!(task.await.unwrap(), "test");
}

#[tokio::test]
async fn a_client_that_resumes_after_drops_gets_one() {
    let manners = Manners { drop_to_resume: true, ..Manners::default() };
    let (mut client, _task, cut) = open(vec![Bytes::from_static(b"{}")], None, manners).await;
    assert_eq!(frame(&mut client).await, Some((0x81, b"{}".to_vec())));
    cut.send(Some(Arc::new(end("all ingesters closed the connection", true)))).unwrap();
    assert_eq!(frame(&mut client).await, None);
    let (mut client, _task, _cut) = open(Vec::new(), Some(end("only log selector is supported", false)), manners).await;
    assert_eq!(frame(&mut client).await, Some(close_frame(1011, "only log selector is supported")));
}

#[tokio::test]
async fn closes_and_pings_of_the_client_are_answered() {
    let (mut client, task, _cut) = open(Vec::new(), None, Manners::default()).await;
    client.write_all(&masked(0x81, b"ignored")).await.unwrap();
    client.write_all(&masked(0x89, b"hello")).await.unwrap();
    assert_eq!(frame(&mut client).await, Some((0x8a, b"hello".to_vec())));
    client.write_all(&masked(0x88, &[0x0f, 0xa0, b'b', b'y', b'e'])).await.unwrap();
    assert_eq!(frame(&mut client).await, Some(close_frame(4000, "")));
    assert_eq!(frame(&mut client).await, None);
    drop(client);
    assert_eq!(task.await.unwrap(), "client");

    let (mut client, task, _cut) = open(Vec::new(), None, Manners::default()).await;
    client.write_all(&[0x81, 1, b'x']).await.unwrap();
    client.write_all(&[0; 8]).await.unwrap();
    let (first, payload) = frame(&mut client).await.unwrap();
    assert_eq!((first, &payload[..2]), (0x88, &1002u16.to_be_bytes()[..]));
    drop(client);
    assert_eq!(task.await.unwrap(), "protocol");
}

#[tokio::test]
async fn a_vanished_client_ends_the_tail() {
    let (client, task, _cut) = open(Vec::new(), None, Manners::default()).await;
    drop(client);
    assert_eq!(task.await.unwrap(), "gone");
}

#[tokio::test(start_paused = true)]
async fn pings_come_each_second() {
    let begin = Instant::now();
    let (mut client, _task, _cut) = open(Vec::new(), None, Manners::default()).await;
    for second in 1..=3 {
        assert_eq!(frame(&mut client).await, Some((0x89, Vec::new())));
        assert_eq!(begin.elapsed().as_secs(), second);
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_follow_lines_soon_and_come_with_pings() {
    let begin = Instant::now();
    let manners = Manners { heartbeat: true, ..Manners::default() };
    let (mut client, _task, _cut) = open(vec![Bytes::from_static(b"{}")], None, manners).await;
    let heartbeat = Some((0x81, HEARTBEAT_JSON.as_bytes().to_vec()));
    assert_eq!(frame(&mut client).await, Some((0x81, b"{}".to_vec())));
    assert_eq!(frame(&mut client).await, heartbeat);
    assert_eq!(begin.elapsed().as_millis() / 100, 6);
    for second in 1..=3 {
        assert_eq!(frame(&mut client).await, Some((0x89, Vec::new())));
        assert_eq!(frame(&mut client).await, heartbeat);
        assert_eq!(begin.elapsed().as_secs(), second);
    }
}

/// The last frame that a client finds after it has taken nothing for too long.
async fn last_frame_after_a_stall(manners: Manners) -> Option<(u8, Vec<u8>)> {
    // Real time, but for the wait itself: the kernel must take what it takes first.
    let line = Bytes::from(vec![b'x'; 32 << 10]);
    let (mut client, task, _cut) = open(vec![line; 2048], None, manners).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(14)).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!task.is_finished());
    tokio::time::pause();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    assert_eq!(task.await.unwrap(), "stalled");
    let mut last = None;
    while let Some(frame) = frame(&mut client).await {
        last = Some(frame);
    }
    last
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_and_finds_the_reason() {
    let last = last_frame_after_a_stall(Manners::default()).await;
    assert_eq!(last, Some(close_frame(1011, STALL_REASON)));
}

#[tokio::test]
async fn a_client_that_resumes_after_drops_gets_one_when_it_stalls() {
    let manners = Manners { drop_to_resume: true, ..Manners::default() };
    let (first, payload) = last_frame_after_a_stall(manners).await.unwrap();
    assert_eq!((first, payload.len()), (0x81, 32 << 10));
}
