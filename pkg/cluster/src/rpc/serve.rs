//! Answers other nodes' calls.
//!
//! Invariants: at most [`MAX_CONNECTIONS`] connections; calls that are meant for another cluster are refused before they are looked at; when
//! the node goes down follows and copies end, other calls have [`GRACE`] to be answered.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt as _;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tailwater_wire::host::Host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

use super::counted::{Counted, CountedConnection, CountedRoutes};
use super::metrics::ServeMetrics;
use super::proto::host_server::HostServer;
use super::proto::node_server::NodeServer;
use super::queries::Queries;
use super::service::{Services, closed};
use super::{
    CLUSTER, FRAME_BYTES, Io, KEEPALIVE, MAX_DROPPED_STREAMS, MAX_MESSAGE_BYTES, MAX_PUSH_BYTES, MAX_STREAMS, OWNER,
    SEND_BUFFER_BYTES, SERVER_CONNECTION_WINDOW, STREAM_WINDOW, cluster_header,
};

/// Most connections at a time; more are closed.
const MAX_CONNECTIONS: usize = 1024;

/// How long calls may take to be answered after the node began to go down.
const GRACE: Duration = Duration::from_secs(5);

/// How long nothing is accepted after accepting has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// What a push has beside its body, in bytes, at most.
const PUSH_HEAD_BYTES: usize = 1024;

/// Answers calls that come in over connections until `shutdown`, and then until those under way are answered.
pub async fn serve(
    incoming: impl Stream<Item = io::Result<Io>> + Send,
    host: Arc<dyn Host>,
    cluster_id: String,
    metrics: ServeMetrics,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (close, closing) = watch::channel(false);
    let services = Services { host, queries: Arc::new(Queries::default()), closing: closing.clone() };
    let routes = CountedRoutes { routes: routes(services, &cluster_id), metrics: metrics.clone() };
    let mut connections = JoinSet::new();
    let (mut incoming, mut shutdown) = (pin!(incoming.fuse()), pin!(shutdown));
    let mut accepts = true;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            next = incoming.next(), if accepts => match next {
                Some(Ok(_)) if connections.len() >= MAX_CONNECTIONS => {
                    metrics.closed.inc();
                    tracing::warn!("a connection of another node was closed: there are {MAX_CONNECTIONS}");
                }
                Some(Ok(io)) => {
                    connections.spawn(connection(io, routes.clone(), closing.clone()));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection of another node could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None => accepts = false,
            },
        }
    }
    let _ = close.send(true);
    let answered = async { while connections.join_next().await.is_some() {} };
    // Whoever is left is cut off when the connections are dropped.
    let _ = tokio::time::timeout(GRACE, answered).await;
}

fn routes(services: Services, cluster_id: &str) -> Routes {
    let ours = cluster_header(cluster_id);
    let check = move |request: Request<()>| {
        let theirs = request.metadata().as_ref().get(CLUSTER).map(http::HeaderValue::as_bytes);
        if theirs == Some(ours.as_bytes()) {
            Ok(request)
        } else {
            Err(Status::failed_precondition("it is of another cluster"))
        }
    };
    let host = Arc::clone(&services.host);
    let check_owner = {
        let check = check.clone();
        move |request: Request<()>| {
            let request = check(request)?;
            let Some(log) = request.metadata().as_ref().get(OWNER) else { return Ok(request) };
            let owns = host.logs().first().is_some_and(|own| own.to_string().as_bytes() == log.as_bytes());
            if owns { Ok(request) } else { Err(Status::not_found("it is not the owner of the log")) }
        }
    };
    let node = NodeServer::new(services.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let host = HostServer::new(services).max_decoding_message_size(MAX_PUSH_BYTES + PUSH_HEAD_BYTES);
    let node = InterceptedService::new(node, check_owner);
    Routes::new(node).add_service(InterceptedService::new(host, check)).prepare()
}

async fn connection(io: Io, routes: CountedRoutes, mut closing: watch::Receiver<bool>) {
    let metrics = routes.metrics.clone();
    let io = Counted { io, received: metrics.received.clone(), sent: metrics.sent.clone() };
    let _open = CountedConnection::new(metrics);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(SERVER_CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        // Many calls may be given up at once; a peer is not an attacker.
        .max_pending_accept_reset_streams(MAX_DROPPED_STREAMS)
        .max_local_error_reset_streams(None)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(routes)));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of another node broke");
    }
}
