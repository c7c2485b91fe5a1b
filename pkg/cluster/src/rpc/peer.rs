//! Other nodes, and the connection to each.
//!
//! Invariants: see the module above. An attempt to connect is a task of its own, so that who asked may give up without others having to
//! begin anew.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hashbrown::HashMap;
use http::{HeaderValue, Uri};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tailwater_model::LogId;
use tailwater_wire::host::{CopyBegin, ForwardedPush, PushAnswer};
use tailwater_wire::node::{Answer, Node, NodeError};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tower_service::Service;

use super::copy::CopyStream;
use super::counted::Counted;
use super::far::Far;
use super::proto::host_client::HostClient;
use super::proto::node_client::NodeClient;
use super::requests::log_of;
use super::{
    CLUSTER, CONNECT_TIMEOUT, CONNECTION_WINDOW, Connect, FRAME_BYTES, KEEPALIVE, MAX_DROPPED_STREAMS, MAX_FOLLOWS,
    MAX_MESSAGE_BYTES, MAX_PUSH_BYTES, OWNER, RETRY_AFTER, RpcMetrics, SEND_BUFFER_BYTES, STREAM_WINDOW,
    cluster_header, errors, proto,
};

/// Every node that was asked for, by its address. As many as the cluster has had members since they were last forgotten.
pub struct Peers {
    connect: Arc<dyn Connect>,
    cluster: HeaderValue,
    metrics: RpcMetrics,
    peers: Mutex<HashMap<SocketAddr, Arc<Peer>>>,
}

impl Peers {
    /// Nobody yet.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "who makes it has no other use for the id")]
    pub fn new(connect: Arc<dyn Connect>, cluster_id: String, metrics: RpcMetrics) -> Arc<Self> {
        Arc::new(Self { connect, cluster: cluster_header(&cluster_id), metrics, peers: Mutex::default() })
    }

    /// The node at an address. Nothing is connected before something is asked of it.
    pub fn peer(&self, grpc: SocketAddr) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        let peer = peers.entry(grpc).or_insert_with(|| {
            Arc::new(Peer {
                address: grpc,
                connect: Arc::clone(&self.connect),
                cluster: self.cluster.clone(),
                metrics: self.metrics.clone(),
                link: Arc::new(Mutex::new(Link::None)),
                follows: Arc::new(Semaphore::new(MAX_FOLLOWS)),
            })
        });
        Arc::clone(peer)
    }

    /// Forgets who is at other addresses than these. What is under way goes on; the connection is closed when that has ended.
    pub fn keep(&self, is_known: impl Fn(SocketAddr) -> bool) {
        self.peers.lock().retain(|at, _| is_known(*at));
    }
}

/// Another node.
pub struct Peer {
    address: SocketAddr,
    connect: Arc<dyn Connect>,
    cluster: HeaderValue,
    pub(super) metrics: RpcMetrics,
    link: Arc<Mutex<Link>>,
    pub(super) follows: Arc<Semaphore>,
}

/// How an attempt to connect ended; nothing while it is under way.
type Attempt = Option<Result<SendRequest<Body>, Arc<str>>>;

enum Link {
    None,
    Connecting(watch::Receiver<Attempt>),
    Up { sender: SendRequest<Body>, since: Instant },
    Failed { reason: Arc<str>, at: Instant },
}

/// Who a node is, as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// Its name; may be empty.
    pub name: String,
    /// Every log that it can answer for, its own first.
    pub logs: Vec<LogId>,
}

impl Peer {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A log as this node has it; `name` is the node's, for messages. Every call is one attempt; a follow ends, with the reason, when its
    /// stream breaks.
    #[must_use]
    pub fn node(self: &Arc<Self>, log: LogId, name: &str) -> Arc<dyn Node> {
        Arc::new(Far::new(Arc::clone(self), log, name, false))
    }

    /// The same of a node that is taken for the owner of the log. If it is not, it does not answer.
    #[must_use]
    pub fn owner(self: &Arc<Self>, log: LogId, name: &str) -> Arc<dyn Node> {
        Arc::new(Far::new(Arc::clone(self), log, name, true))
    }

    /// Connects, unless that is done already.
    ///
    /// # Errors
    /// The node cannot be reached: nothing has been sent.
    pub fn reach(self: &Arc<Self>) -> Answer<()> {
        let peer = Arc::clone(self);
        Box::pin(async move {
            let reached = peer.host().await.map(drop);
            reached.map_err(|reason| peer.failed(&peer.who(), NO_LOG, &reason))
        })
    }

    /// Hands a push over to be stored there.
    ///
    /// # Errors
    /// It is not known whether it was stored; or it is larger than [`MAX_PUSH_BYTES`], then it was not.
    pub fn push(self: &Arc<Self>, push: ForwardedPush) -> Answer<PushAnswer> {
        let peer = Arc::clone(self);
        Box::pin(async move {
            let who = peer.who();
            if push.body.len() > MAX_PUSH_BYTES {
                let reason = format!("{who}: a push of {} bytes is too large to forward", push.body.len());
                return Err(NodeError::Unavailable { log: NO_LOG, reason });
            }
            let mut client = peer.host().await.map_err(|reason| peer.failed(&who, NO_LOG, &reason))?;
            let push = proto::ForwardedPush { tenant: push.tenant.to_string(), body: push.body };
            let answer = client.push(push).await.map_err(|status| peer.error(&status, NO_LOG, &who))?.into_inner();
            let status = u16::try_from(answer.status).unwrap_or(500);
            Ok(PushAnswer { status, message: answer.message })
        })
    }

    /// Begins, or goes on with, the copy of a log there.
    ///
    /// # Errors
    /// The node cannot be reached, or keeps no copies.
    pub fn copy(self: &Arc<Self>, begin: CopyBegin) -> Answer<CopyStream> {
        CopyStream::begin(Arc::clone(self), begin)
    }

    /// Asks who it is.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn info(self: &Arc<Self>) -> Answer<HostInfo> {
        let peer = Arc::clone(self);
        Box::pin(async move {
            let who = peer.who();
            let mut client = peer.host().await.map_err(|reason| peer.failed(&who, NO_LOG, &reason))?;
            let answer = client.info(proto::InfoRequest {}).await;
            let answer = answer.map_err(|status| peer.error(&status, NO_LOG, &who))?.into_inner();
            Ok(HostInfo { name: answer.name, logs: answer.logs.iter().filter_map(|log| log_of(log)).collect() })
        })
    }

    /// The node, for messages that are not about one of its logs.
    pub(super) fn who(&self) -> String {
        format!("node at {}", self.address)
    }

    /// A call has failed.
    pub(super) fn failed(&self, who: &str, log: LogId, reason: &str) -> NodeError {
        self.metrics.errors.inc();
        NodeError::Unavailable { log, reason: format!("{who}: {reason}") }
    }

    /// A call has failed with a status.
    pub(super) fn error(&self, status: &tonic::Status, log: LogId, who: &str) -> NodeError {
        self.metrics.errors.inc();
        errors::error(status, log, who)
    }

    pub(super) async fn host(&self) -> Result<HostClient<Line>, Arc<str>> {
        let client = HostClient::with_origin(self.line().await?, self.origin());
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// `owner`: the log whose owner it is taken for.
    pub(super) async fn client(&self, owner: Option<HeaderValue>) -> Result<NodeClient<Line>, Arc<str>> {
        let line = Line { owner, ..self.line().await? };
        let client = NodeClient::with_origin(line, self.origin());
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    fn origin(&self) -> Uri {
        let uri = Uri::builder().scheme("http").authority(self.address.to_string()).path_and_query("/").build();
        uri.unwrap_or_default()
    }

    /// The connection: the one that is there, or a new one.
    async fn line(&self) -> Result<Line, Arc<str>> {
        self.metrics.calls.inc();
        let mut attempt = match self.link_or_attempt()? {
            Ok(line) => return Ok(line),
            Err(attempt) => attempt,
        };
        let made = match attempt.wait_for(Option::is_some).await.map(|ended| (*ended).clone()) {
            Ok(Some(made)) => made,
            _ => {
                let mut link = self.link.lock();
                if matches!(&*link, Link::Connecting(open) if open.same_channel(&attempt)) {
                    *link = Link::None;
                }
                Err("the attempt to connect was given up".into())
            }
        };
        Ok(Line { sender: made?, cluster: self.cluster.clone(), owner: None })
    }

    /// The connection, or the attempt to make it that is under way, or why there is none.
    fn link_or_attempt(&self) -> Result<Result<Line, watch::Receiver<Attempt>>, Arc<str>> {
        let mut link = self.link.lock();
        match &*link {
            Link::Up { sender, .. } if !sender.is_closed() => {
                return Ok(Ok(Line { sender: sender.clone(), cluster: self.cluster.clone(), owner: None }));
            }
            Link::Up { since, .. } if since.elapsed() < RETRY_AFTER => return Err("the connection was closed".into()),
            Link::Failed { reason, at } if at.elapsed() < RETRY_AFTER => return Err(Arc::clone(reason)),
            Link::Connecting(attempt) => return Ok(Err(attempt.clone())),
            Link::None | Link::Up { .. } | Link::Failed { .. } => {}
        }
        self.metrics.connections.inc();
        let (ended, attempt) = watch::channel(None);
        *link = Link::Connecting(attempt.clone());
        let (connect, address) = (Arc::clone(&self.connect), self.address);
        let (received, sent) = (self.metrics.received.clone(), self.metrics.sent.clone());
        let noted = Arc::downgrade(&self.link);
        tokio::spawn(async move {
            let made = match timeout(CONNECT_TIMEOUT, open(&*connect, address, received, sent)).await {
                Ok(made) => made.map_err(Arc::from),
                Err(_) => Err(format!("no connection within {CONNECT_TIMEOUT:?}").into()),
            };
            // Nobody may be waiting any more, or interested at all.
            if let Some(link) = noted.upgrade() {
                *link.lock() = match &made {
                    Ok(sender) => Link::Up { sender: sender.clone(), since: Instant::now() },
                    Err(reason) => Link::Failed { reason: Arc::clone(reason), at: Instant::now() },
                };
            }
            let _ = ended.send(Some(made));
        });
        Ok(Err(attempt))
    }
}

/// What errors about no log name as one.
const NO_LOG: LogId = LogId::from_u128(0);

async fn open(
    connect: &dyn Connect,
    to: SocketAddr,
    received: Counter,
    sent: Counter,
) -> Result<SendRequest<Body>, String> {
    let io = connect.connect(to).await.map_err(|error| error.to_string())?;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(MAX_DROPPED_STREAMS)
        // Frames of streams that were dropped are nobody's fault.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let io = TokioIo::new(Counted { io, received, sent });
    let (sender, connection) = builder.handshake(io).await.map_err(|error| error.to_string())?;
    // It ends when the peer is gone, or nobody has anything to do with it any more.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%to, %error, "a connection to another node broke");
        }
    });
    Ok(sender)
}

/// The connection as tonic's clients want it.
#[derive(Clone)]
pub(super) struct Line {
    sender: SendRequest<Body>,
    cluster: HeaderValue,
    owner: Option<HeaderValue>,
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        request.headers_mut().insert(CLUSTER, self.cluster.clone());
        if let Some(owner) = &self.owner {
            request.headers_mut().insert(OWNER, owner.clone());
        }
        Box::pin(self.sender.send_request(request))
    }
}
