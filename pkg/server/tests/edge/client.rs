//! A server and the plainest clients for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tailwater_server::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server. Dropping it leaves it to the runtime's end.
pub(crate) struct World {
    pub(crate) port: u16,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl World {
    /// A server with these settings on a free port.
    pub(crate) async fn start(settings: &str) -> Self {
        let mut config = Config::parse(settings, "test").unwrap().config;
        config.server.http_listen_port = 0;
        // What is on disk is tested elsewhere.
        config.ingester.wal.enabled = false;
        let server = Server::start(config).await.unwrap();
        let port = server.addrs().http.port();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run_until(async move {
            let _told = stopped.await;
        }));
        Self { port, stop: Some(stop), running }
    }

    /// Asks it to go down.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it is down.
    pub(crate) async fn stopped(&mut self) {
        tokio::time::timeout(Duration::from_secs(20), &mut self.running).await.unwrap().unwrap();
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut tcp = self.connect().await;
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        tcp.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused the head need not take the body.
        let _refused = tcp.write_all(body).await;
        let mut raw = Vec::new();
        let _reset = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut raw)).await.unwrap();
        Answer::parse(&raw)
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"").await
    }

    /// `GET` with parameters.
    pub(crate) async fn ask(&self, path: &str, params: &[(&str, &str)]) -> Answer {
        self.get(&format!("{path}?{}", form(params))).await
    }

    /// Pushes lines of one stream as JSON, one nanosecond apart, ending now. Answers their timestamps.
    pub(crate) async fn push(&self, labels: &Value, lines: &[&str]) -> Vec<String> {
        self.push_with(&[], labels, lines).await
    }

    /// The same for a tenant.
    pub(crate) async fn push_as(&self, tenant: &str, labels: &Value, lines: &[&str]) -> Vec<String> {
        self.push_with(&[("X-Scope-OrgID", tenant)], labels, lines).await
    }

    async fn push_with(&self, headers: &[(&str, &str)], labels: &Value, lines: &[&str]) -> Vec<String> {
        let begin = now() - lines.len() as u128;
        let stamps: Vec<String> = (0..lines.len()).map(|i| (begin + i as u128).to_string()).collect();
        let values: Vec<_> = stamps.iter().zip(lines).map(|(at, line)| serde_json::json!([at, line])).collect();
        let body = serde_json::json!({ "streams": [{ "stream": labels, "values": values }] }).to_string();
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        let answer = self.send("POST", "/loki/api/v1/push", &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""));
        stamps
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Form encoding.
pub(crate) fn form(params: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    };
    params.iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect::<Vec<_>>().join("&")
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(raw: &[u8]) -> Self {
        let end = raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {raw:?}"));
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
            .collect();
        Self { status, headers, body: raw[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts a plain-text failure.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, text: &str) {
        assert_eq!((self.status, self.text().as_str()), (status, text));
        assert_eq!(self.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(self.header("content-encoding"), None);
    }
}

/// A tail's socket.
pub(crate) struct Tail {
    pub(crate) tcp: TcpStream,
}

/// A frame of a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    Text(Value),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
    /// The connection ended.
    Eof,
}

impl Tail {
    /// Opens a tail; the answer to the handshake if it is not 101.
    pub(crate) async fn open(world: &World, target: &str, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let mut tcp = world.connect().await;
        let mut head = format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            raw.push(tcp.read_u8().await.unwrap());
        }
        let mut answer = Answer::parse(&raw);
        if answer.status == 101 {
            assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            return Ok(Self { tcp });
        }
        let length = answer.header("content-length").unwrap().parse().unwrap();
        answer.body = vec![0; length];
        tcp.read_exact(&mut answer.body).await.unwrap();
        Err(answer)
    }

    pub(crate) async fn query(world: &World, query: &str) -> Self {
        let target = format!("/loki/api/v1/tail?{}", form(&[("query", query)]));
        Self::open(world, &target, &[]).await.unwrap()
    }

    pub(crate) async fn next(&mut self) -> Frame {
        tokio::time::timeout(Duration::from_secs(20), self.read()).await.unwrap()
    }

    async fn read(&mut self) -> Frame {
        let Ok(first) = self.tcp.read_u8().await else { return Frame::Eof };
        let len = match self.tcp.read_u8().await.unwrap() {
            126 => u64::from(self.tcp.read_u16().await.unwrap()),
            127 => self.tcp.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        self.tcp.read_exact(&mut payload).await.unwrap();
        match first {
            0x81 => Frame::Text(serde_json::from_slice(&payload).unwrap()),
            0x89 => {
                assert!(payload.is_empty());
                Frame::Ping
            }
            0x8a => Frame::Pong(payload),
            0x88 => Frame::Close(
                u16::from_be_bytes([payload[0], payload[1]]),
                String::from_utf8(payload[2..].to_vec()).unwrap(),
            ),
            other => panic!("frame {other:#x}"),
        }
    }

    /// The next frame that is no ping.
    pub(crate) async fn next_but_pings(&mut self) -> Frame {
        loop {
            match self.next().await {
                Frame::Ping => {}
                other => return other,
            }
        }
    }

    /// Reads until `n` lines came; answers them in order.
    pub(crate) async fn lines(&mut self, n: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < n {
            let Frame::Text(frame) = self.next_but_pings().await else { panic!("after {lines:?}") };
            for stream in frame["streams"].as_array().unwrap() {
                let values = stream["values"].as_array().unwrap();
                lines.extend(values.iter().map(|value| value[1].as_str().unwrap().to_owned()));
            }
        }
        lines
    }

    /// Sends a frame, masked with zeros.
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.tcp.write_all(&frame).await.unwrap();
    }
}
