//! A small HTTP client: one connection per request, the whole answer in memory.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{Batch, Tail, within};

/// Names and values of headers or parameters.
pub type Pairs<'a> = &'a [(&'a str, &'a str)];

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON, or if the status is not 200.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// A header; empty if absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

/// A line of a query's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The labels it came under, as `{a="b", c="d"}` sorted by name.
    pub labels: String,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    /// The text.
    pub line: String,
}

/// Where to send requests and which headers they bear.
#[derive(Clone, Debug)]
pub struct Client {
    addr: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    /// A client without headers.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self { addr, headers: Vec::new() }
    }

    /// The same client with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where it sends to.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The headers of every request.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        match within("an HTTP answer", self.try_send(method, target, headers, body.into())).await {
            Ok(reply) => reply,
            Err(e) => panic!("{method} {target}: {e}"),
        }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks before the answer is complete.
    pub async fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        self.try_send_over(TcpStream::connect(self.addr).await?, method, target, headers, body).await
    }

    /// Sends a request on a connection of its own and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks before the answer is complete.
    pub async fn try_send_over(
        &self,
        stream: TcpStream,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target).header("Host", self.addr.to_string());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Ok(Reply { status, headers, body: answer.into_body().collect().await?.to_bytes() })
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], Bytes::new()).await
    }

    /// GET with parameters, percent-encoded here.
    pub async fn get_with(&self, path: &str, params: &[(&str, &str)]) -> Reply {
        self.get(&target(path, params)).await
    }

    /// Pushes a batch as snappy-compressed protobuf.
    pub async fn push(&self, batch: &Batch) -> Reply {
        let headers = [("Content-Type", "application/x-protobuf")];
        self.send("POST", "/loki/api/v1/push", &headers, batch.snappy()).await
    }

    /// Pushes a batch that must be accepted.
    ///
    /// # Panics
    /// If it is not.
    pub async fn push_ok(&self, batch: &Batch) {
        let reply = self.push(batch).await;
        assert_eq!(reply.status, 204, "{}", reply.text());
    }

    /// `query_range` over the last hour and the next ten minutes, oldest first, up to 5,000 lines.
    ///
    /// # Panics
    /// If it fails.
    pub async fn lines(&self, query: &str) -> Vec<Line> {
        let (start, end) = (crate::now_ns() - 3_600_000_000_000, crate::now_ns() + 600_000_000_000);
        let (start, end) = (start.to_string(), end.to_string());
        let params = [("query", query), ("start", &start), ("end", &end), ("limit", "5000"), ("direction", "forward")];
        lines(&self.get_with("/loki/api/v1/query_range", &params).await.json())
    }

    /// Waits until the tenant has so many tails: a handshake is answered before its tail is counted.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn tails_open(&self, count: usize) {
        crate::eventually("the tails to be open", async || {
            self.get("/api/v1/tails").await.json()["tails"].as_array().is_some_and(|tails| tails.len() == count)
        })
        .await;
    }

    /// Opens a tail with these parameters.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn tail(&self, params: &[(&str, &str)]) -> Tail {
        match self.try_tail(params).await {
            Ok(tail) => tail,
            Err(reply) => panic!("tail refused: {} {}", reply.status, reply.text()),
        }
    }

    /// Opens a tail with these parameters.
    ///
    /// # Errors
    /// The HTTP answer, if the server refuses the handshake.
    pub async fn try_tail(&self, params: &[(&str, &str)]) -> Result<Tail, Reply> {
        Tail::open(self, &target("/loki/api/v1/tail", params)).await
    }
}

/// The lines of a `streams` answer in (timestamp, answer) order.
///
/// # Panics
/// If the answer has another shape.
#[must_use]
pub fn lines(answer: &Value) -> Vec<Line> {
    assert_eq!(answer["data"]["resultType"], "streams", "{answer}");
    let mut all = Vec::new();
    for stream in answer["data"]["result"].as_array().expect("result is a list") {
        let labels = labels(&stream["stream"]);
        for value in stream["values"].as_array().expect("values is a list") {
            all.push(Line { labels: labels.clone(), timestamp: nanoseconds(&value[0]), line: text(&value[1]) });
        }
    }
    all.sort_by_key(|line| line.timestamp);
    all
}

/// A label object as `{a="b", c="d"}`, sorted by name.
///
/// # Panics
/// If it is no object of strings.
#[must_use]
pub fn labels(object: &Value) -> String {
    let mut pairs: Vec<_> = object.as_object().expect("labels are an object").iter().collect();
    pairs.sort_by_key(|(name, _)| *name);
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={:?}", text(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A string of JSON.
///
/// # Panics
/// If it is something else.
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

/// A timestamp of JSON: nanoseconds in a string.
///
/// # Panics
/// If it is something else.
#[must_use]
pub fn nanoseconds(value: &Value) -> i64 {
    text(value).parse().unwrap_or_else(|_| panic!("not nanoseconds: {value}"))
}

/// A path with percent-encoded parameters.
#[must_use]
pub fn target(path: &str, params: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (i, (name, value)) in params.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(&encode(name));
        out.push('=');
        out.push_str(&encode(value));
    }
    out
}

/// Percent-encoding of everything but letters, digits and `-_.~`.
#[must_use]
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    out
}
