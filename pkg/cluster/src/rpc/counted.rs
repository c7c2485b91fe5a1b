//! Connections and calls that are counted.
//!
//! Invariant: there are as many names of methods as the protocol has, whatever a peer asks for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service;

use super::Io;
use super::metrics::{Method, ServeMetrics};

/// A connection that counts what it carries, in bytes.
pub(super) struct Counted {
    pub(super) io: Io,
    pub(super) received: Counter,
    pub(super) sent: Counter,
}

impl Counted {
    fn count_sent(&self, polled: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        let written = ready!(polled)?;
        self.sent.inc_by(written as u64);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.received.inc_by((buf.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count_sent(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count_sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The methods of the protocol.
const METHODS: [&str; 13] = [
    "State", "Follow", "Read", "Select", "Samples", "Labels", "Series", "Stats", "Volume", "Patterns", "Push", "Copy",
    "Info",
];

/// Which of them a path names: `/tailwater.v1.Node/Follow`.
fn method(path: &str) -> Method {
    let name = path.rsplit('/').next().unwrap_or_default();
    Method { method: METHODS.into_iter().find(|method| *method == name).unwrap_or("unknown") }
}

/// Calls that are answered, counted by method.
#[derive(Clone)]
pub(super) struct CountedRoutes {
    pub(super) routes: Routes,
    pub(super) metrics: ServeMetrics,
}

impl Service<http::Request<Incoming>> for CountedRoutes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Incoming>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let method = method(request.uri().path());
        self.metrics.calls.get_or_create(&method).inc();
        let (answered, refused) = (self.routes.call(request), self.metrics.refused.clone());
        Box::pin(async move {
            let answer = answered.await?;
            // What fails before it begins has its status among the headers.
            if answer.headers().get("grpc-status").is_some_and(|status| status != "0") {
                refused.get_or_create(&method).inc();
            }
            Ok(answer)
        })
    }
}

/// A connection of a peer that is open.
pub(super) struct CountedConnection(ServeMetrics);

impl CountedConnection {
    pub(super) fn new(metrics: ServeMetrics) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
