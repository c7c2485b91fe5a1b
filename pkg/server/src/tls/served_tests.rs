//! A server with TLS as clients meet it: pushes, queries and tails, with certificates of both sides, and while they are replaced.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tailwater_model::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::testing::Authority;
use crate::{Certificates, Config, Server};

const PATIENCE: Duration = Duration::from_secs(30);

struct Safe {
    port: u16,
    certificates: Certificates,
    _stop: oneshot::Sender<()>,
}

async fn start(more: &str) -> Safe {
    let mut config =
        Config::parse(&format!("server: {{http_listen_port: 0, http_tls_config: {{{more}}}}}"), "test").unwrap().config;
    config.ingester.wal.enabled = false;
    let server = Box::pin(Server::start(config)).await.unwrap();
    let (port, certificates) = (server.addrs().http.port(), server.certificates());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run_until(async move {
        let _told = stopped.await;
    }));
    Safe { port, certificates, _stop: stop }
}

fn files(dir: &tempfile::TempDir, authority: &Authority) -> String {
    let (cert, key, _) = authority.write(dir.path());
    format!("cert_file: {}, key_file: {}", cert.display(), key.display())
}

impl Safe {
    async fn connect(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), tcp).await
    }

    async fn ask(&self, config: Arc<ClientConfig>, request: &str) -> std::io::Result<String> {
        let mut stream = self.connect(config).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        match tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap() {
            // The end of the answer is known by its length, so TLS need not say goodbye.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(answer),
        }
    }
}

const READY: &str = "GET /ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

fn push(lines: &[String]) -> String {
    let now = Timestamp::now().nanos();
    let values: Vec<_> = (now..).zip(lines).map(|(at, line)| json!([at.to_string(), line])).collect();
    let body = json!({"streams": [{"stream": {"app": "a"}, "values": values}]}).to_string();
    let head = "POST /loki/api/v1/push HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn pushes_queries_and_tails_go_through_tls() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let server = start(&files(&dir, &authority)).await;
    let client = authority.client();
    let mut tail = server.connect(Arc::clone(&client)).await.unwrap();
    let open = "GET /loki/api/v1/tail?query=%7Bapp%3D%22a%22%7D HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tail.write_all(open.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tail.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));

    let lines: Vec<String> = (0..3000).map(|i| format!("line {i} {}", "x".repeat(500))).collect();
    let answer = server.ask(Arc::clone(&client), &push(&lines)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let query = "GET /loki/api/v1/query_range?query=%7Bapp%3D%22a%22%7D&limit=5000 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let answer = server.ask(Arc::clone(&client), query).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("line 2999 x"));

    // Every line once and in order, whatever the frames; a ping has an answer meanwhile.
    tail.write_all(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    let (mut seen, mut pong) = (0, false);
    while seen < lines.len() || !pong {
        let frame = async {
            let first = tail.read_u8().await.unwrap();
            let length = match tail.read_u8().await.unwrap() {
                126 => u64::from(tail.read_u16().await.unwrap()),
                127 => tail.read_u64().await.unwrap(),
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            tail.read_exact(&mut payload).await.unwrap();
            (first, payload)
        };
        let (first, payload) = tokio::time::timeout(PATIENCE, frame).await.unwrap();
        match first {
            0x8a => pong |= payload == b"hi",
            0x81 => {
                let frame: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                for stream in frame["streams"].as_array().unwrap() {
                    for value in stream["values"].as_array().unwrap() {
                        assert_eq!(value[1], lines[seen].as_str());
                        seen += 1;
                    }
                }
            }
            0x89 => {}
            other => panic!("{other:#x}"),
        }
    }
    // What does not speak TLS gets nothing, and is in nobody's way.
    let mut plain = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    plain.write_all(READY.as_bytes()).await.unwrap();
    let mut nothing = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut nothing)).await.unwrap();
    assert!(!nothing.starts_with(b"HTTP"));
}

#[tokio::test]
async fn who_must_show_a_certificate_and_does_not_is_refused() {
    let (dir, authority, stranger) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let ca = dir.path().join("ca.pem");
    let with =
        |auth: &str| format!("{}, client_ca_file: {}, client_auth_type: {auth}", files(&dir, &authority), ca.display());
    let server = start(&with("RequireAndVerifyClientCert")).await;
    assert!(server.ask(authority.client(), READY).await.is_err());
    assert!(server.ask(authority.client_of(&stranger), READY).await.is_err());
    assert!(server.ask(stranger.client(), READY).await.is_err());
    let answer = server.ask(authority.client_of(&authority), READY).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let server = start(&with("VerifyClientCertIfGiven")).await;
    assert!(server.ask(authority.client(), READY).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(server.ask(authority.client_of(&stranger), READY).await.is_err());
}

#[tokio::test]
async fn certificates_are_replaced_under_open_connections() {
    let (dir, before, after) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let server = start(&files(&dir, &before)).await;
    let mut open = server.connect(before.client()).await.unwrap();
    std::fs::write(dir.path().join("cert.pem"), "broken").unwrap();
    server.certificates.reload().await;
    assert!(server.ask(before.client(), READY).await.is_ok(), "the old one stays in force");
    after.write(dir.path());
    server.certificates.reload().await;
    assert!(server.ask(before.client(), READY).await.is_err());
    assert!(server.ask(after.client(), READY).await.unwrap().starts_with("HTTP/1.1 200"));
    open.write_all(READY.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    tokio::time::timeout(PATIENCE, open.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
}
