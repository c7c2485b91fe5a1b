//! One HTTP/1.1 connection that is opened when needed and opened again after it broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{ClientError, Endpoint};

/// Sent with every request.
pub(crate) const AGENT: &str = concat!("tailwater/", env!("CARGO_PKG_VERSION"));
/// How long an answer may take: a server's query timeout (default one minute) and some more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// What the server answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's text for anything but 2xx.
    pub(crate) fn success(self) -> Result<Bytes, ClientError> {
        if self.status.is_success() {
            Ok(self.body)
        } else {
            Err(ClientError::Refused { status: self.status, text: self.text() })
        }
    }

    /// The body as a text without white space at the end.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }
}

/// A client with one connection: requests go one after the other.
pub(crate) struct Http {
    endpoint: Arc<Endpoint>,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    /// A client of `endpoint`; nothing is opened yet.
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, open: None }
    }

    /// The server.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// `GET` of a path with parameters, with the flag that makes Loki tell structured metadata from labels.
    ///
    /// # Errors
    /// [`ClientError`]; a refusal is an error.
    pub(crate) async fn get(&mut self, path: &str, parameters: &[(&str, &str)]) -> Result<Bytes, ClientError> {
        let target = self.endpoint.target(path, parameters);
        let request = self.request(Method::GET, &target, Bytes::new(), |r| {
            r.header("x-loki-response-encoding-flags", "categorize-labels")
        })?;
        self.send(request).await?.success()
    }

    /// `POST` of a body to a path. A refusal is an answer, not an error.
    ///
    /// # Errors
    /// [`ClientError::Connect`] and [`ClientError::Transport`]: what became of the request is then unknown.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let target = self.endpoint.target(path, &[]);
        let content_type = HeaderValue::from_static(content_type);
        let request = self.request(Method::POST, &target, body, |r| r.header(CONTENT_TYPE, content_type))?;
        self.send(request).await
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        more: impl FnOnce(hyper::http::request::Builder) -> hyper::http::request::Builder,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let builder = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, self.endpoint.address())
            .header(USER_AGENT, AGENT);
        let mut request = more(builder).body(Full::new(body)).map_err(|e| self.broken(e.to_string()))?;
        for (name, value) in self.endpoint.headers() {
            request.headers_mut().append(name.clone(), value.clone());
        }
        Ok(request)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let mut sender = self.sender().await?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| self.broken(reason(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|e| {
                if e.is::<LengthLimitError>() {
                    self.broken(format!("the answer is larger than {} MiB", MAX_ANSWER_BYTES >> 20))
                } else {
                    self.broken(e.to_string())
                }
            })?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        let answer = timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| self.broken(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))??;
        self.open = Some(sender);
        Ok(answer)
    }

    /// The open connection if it still is, else a new one.
    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        if let Some(mut sender) = self.open.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = self.endpoint.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(reason(&e)))?;
        tokio::spawn(async move {
            // What goes wrong here also fails the request that waits for it.
            let _ended = connection.await;
        });
        sender.ready().await.map_err(|e| self.broken(reason(&e)))?;
        Ok(sender)
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Transport { address: self.endpoint.address(), reason }
    }
}

/// An error with the errors that caused it, as far as it does not name them itself.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let cause_text = inner.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        cause = inner.source();
    }
    text
}
