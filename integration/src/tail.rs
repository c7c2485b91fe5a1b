//! A WebSocket client of `/tail`.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};

use crate::client::{self, Client, Reply};
use crate::within;

/// What the socket of a narrow client takes unread, in bytes.
const NARROW_BYTES: u32 = 64 << 10;

/// A line that a tail delivered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivered {
    /// The labels it came under, as `{a="b", c="d"}` sorted by name.
    pub labels: String,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    /// The text.
    pub line: String,
}

/// What a tail says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A JSON document.
    Frame(Value),
    /// A ping, with its payload.
    Ping(Vec<u8>),
    /// A close frame: code and reason.
    Closed(u16, String),
    /// The connection ended without a close frame.
    Gone,
}

/// Why a tail did not open.
#[derive(Debug)]
pub enum Unopened {
    /// The server answered so.
    Refused(Reply),
    /// There is no server, or the connection broke.
    Broken(String),
}

/// An open tail.
pub struct Tail {
    socket: WebSocketStream<TcpStream>,
}

impl Tail {
    /// Opens `target`, with the client's headers.
    ///
    /// # Errors
    /// The HTTP answer, if the server refuses the handshake.
    ///
    /// # Panics
    /// If the connection breaks.
    pub async fn open(client: &Client, target: &str) -> Result<Self, Reply> {
        let stream = TcpStream::connect(client.addr()).await.expect("the server listens");
        Self::over(stream, client, target).await
    }

    /// Opens `target` on a connection whose client takes little that it does not read.
    ///
    /// # Errors
    /// The HTTP answer, if the server refuses the handshake.
    ///
    /// # Panics
    /// If the connection breaks.
    pub async fn open_narrow(client: &Client, target: &str) -> Result<Self, Reply> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(NARROW_BYTES).expect("the socket is open");
        let stream = socket.connect(client.addr()).await.expect("the server listens");
        Self::over(stream, client, target).await
    }

    async fn over(stream: TcpStream, client: &Client, target: &str) -> Result<Self, Reply> {
        match within("the handshake", Self::handshake(stream, client, target)).await {
            Ok(tail) => Ok(tail),
            Err(Unopened::Refused(reply)) => Err(reply),
            Err(Unopened::Broken(why)) => panic!("{target}: {why}"),
        }
    }

    /// Opens `target` at a server that may be away or go away meanwhile; waits as long as it takes.
    ///
    /// # Errors
    /// Why it did not open.
    pub async fn attempt(client: &Client, target: &str) -> Result<Self, Unopened> {
        let stream = TcpStream::connect(client.addr()).await.map_err(|e| Unopened::Broken(e.to_string()))?;
        Self::handshake(stream, client, target).await
    }

    async fn handshake(stream: TcpStream, client: &Client, target: &str) -> Result<Self, Unopened> {
        let mut request = format!("ws://{}{target}", client.addr()).into_client_request().expect("a valid URL");
        for (name, value) in client.headers() {
            let name = tungstenite::http::HeaderName::try_from(name).expect("a valid header name");
            request.headers_mut().append(name, value.parse().expect("a valid header value"));
        }
        stream.set_nodelay(true).map_err(|e| Unopened::Broken(e.to_string()))?;
        let config = tungstenite::protocol::WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(tungstenite::Error::Http(answer)) => {
                let (parts, body) = answer.into_parts();
                let headers = parts.headers.iter();
                let headers = headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
                let body = body.unwrap_or_default().into();
                Err(Unopened::Refused(Reply { status: parts.status.as_u16(), headers: headers.collect(), body }))
            }
            Err(e) => Err(Unopened::Broken(e.to_string())),
        }
    }

    /// What comes next; pings are answered by the library.
    ///
    /// # Panics
    /// If nothing comes for a minute, if a frame is no JSON text, or if the protocol is violated.
    pub async fn event(&mut self) -> Event {
        loop {
            match within("an event of the tail", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text);
                    return Event::Frame(frame.unwrap_or_else(|e| panic!("a frame that is not JSON ({e}): {text}")));
                }
                Some(Ok(Message::Ping(payload))) => return Event::Ping(payload.to_vec()),
                Some(Ok(Message::Close(Some(close)))) => {
                    return Event::Closed(close.code.into(), close.reason.to_string());
                }
                Some(Ok(Message::Close(None))) => return Event::Closed(1005, String::new()),
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(bytes))) => panic!("a binary frame: {bytes:?}"),
                None
                | Some(Err(
                    tungstenite::Error::ConnectionClosed
                    | tungstenite::Error::AlreadyClosed
                    | tungstenite::Error::Io(_)
                    | tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake),
                )) => return Event::Gone,
                Some(Err(e)) => panic!("the tail broke the protocol: {e}"),
            }
        }
    }

    /// The next frame that holds lines.
    ///
    /// # Panics
    /// If there is none, or the tail ends first.
    pub async fn frame(&mut self) -> Value {
        let next = async {
            loop {
                match self.event().await {
                    Event::Frame(frame) if !lines(&frame).is_empty() => return frame,
                    Event::Frame(_) | Event::Ping(_) => {}
                    end => panic!("the tail ended: {end:?}"),
                }
            }
        };
        within("a line", next).await
    }

    /// Lines until there are `count` of them. Whoever expects exactly that many asks [`Self::silent`] next.
    ///
    /// # Panics
    /// If the tail ends first or reports lines as dropped.
    pub async fn lines(&mut self, count: usize) -> Vec<Delivered> {
        let mut all = Vec::new();
        while all.len() < count {
            let frame = self.frame().await;
            assert!(frame.get("dropped_entries").is_none_or(Value::is_null), "lines were dropped: {frame}");
            all.extend(lines(&frame));
        }
        all
    }

    /// Lines up to and including the first whose text is `last`.
    ///
    /// # Panics
    /// If the tail ends first or reports lines as dropped.
    pub async fn lines_until(&mut self, last: &str) -> Vec<Delivered> {
        let mut all = Vec::new();
        while !all.iter().any(|delivered: &Delivered| delivered.line == last) {
            all.extend(self.lines(1).await);
        }
        all
    }

    /// Whatever lines come until the tail ends, and how it ended.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn until_end(&mut self) -> (Vec<Delivered>, Event) {
        let mut all = Vec::new();
        let ended = async {
            loop {
                match self.event().await {
                    Event::Frame(frame) => all.extend(lines(&frame)),
                    Event::Ping(_) => {}
                    end => return end,
                }
            }
        };
        let end = within("the tail to end", ended).await;
        (all, end)
    }

    /// Whatever lines come within `window`; for "nothing more may come", where no event can say so.
    pub async fn silent(&mut self, window: Duration) -> Vec<Delivered> {
        let mut all = Vec::new();
        let end = tokio::time::Instant::now() + window;
        while let Ok(event) = tokio::time::timeout_at(end, self.event()).await {
            match event {
                Event::Frame(frame) => all.extend(lines(&frame)),
                Event::Ping(_) => {}
                Event::Closed(..) | Event::Gone => break,
            }
        }
        all
    }

    /// Sends a close frame and reads on to the end.
    ///
    /// # Panics
    /// If the frame cannot be sent.
    pub async fn close(&mut self, code: u16) -> Event {
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() };
        self.socket.send(Message::Close(Some(frame))).await.expect("the tail is open");
        self.until_end().await.1
    }

    /// Sends a text frame, which the server must ignore.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the tail is open");
    }

    /// The socket below, mid-protocol: for clients that misbehave.
    #[must_use]
    pub fn into_tcp(self) -> TcpStream {
        self.socket.into_inner()
    }
}

/// The lines of a frame, in order.
///
/// # Panics
/// If the frame has another shape.
#[must_use]
pub fn lines(frame: &Value) -> Vec<Delivered> {
    let mut all = Vec::new();
    for stream in frame["streams"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let labels = client::labels(&stream["stream"]);
        for value in stream["values"].as_array().expect("values is a list") {
            let (timestamp, line) = (client::nanoseconds(&value[0]), client::text(&value[1]));
            all.push(Delivered { labels: labels.clone(), timestamp, line });
        }
    }
    all
}
