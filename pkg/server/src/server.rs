//! The process: its parts put together, its listener, its connections, its end.
//!
//! Going down: `/ready` says so, the ingester takes nothing more in, tails deliver what there is and end, requests that are being
//! answered are finished. All of it takes at most `server.graceful_shutdown_timeout`. In a cluster the other members are told before anything
//! else, pushes go on to them, tails are told where to go, and the process leaves the cluster last.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tailwater_model::{Clock, SystemClock};
use tailwater_querier::Querier;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::cluster::care::Care;
use crate::cluster::forward::Forward;
use crate::cluster::host::OwnHost;
use crate::cluster::{self, Cluster, Join, Plan};
use crate::conn::{Answering, Connection, MAX_HEAD_BYTES, Timeouts};
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::resume_secret;
use crate::routes::router;
use crate::storage::Storage;
use crate::stream::Stream;
use crate::tenancy::Tenancy;
use crate::tls::{self, Certificates, Renewed};
use crate::{Config, ConfigError, Error};

/// How long tails may take to deliver what they have when the process goes down.
const TAILS_DRAIN: Duration = Duration::from_secs(6);

/// How long they may take to say goodbye after that.
const TAILS_GOODBYE: Duration = Duration::from_secs(2);

/// How long a handshake of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The end of all waiting for blocks that are made when the process goes down.
const FLUSH: Duration = Duration::from_secs(24 * 3600);

/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Failures to accept are logged, but not each of a flood.
static NOT_ACCEPTED: Quiet = Quiet::new();

/// Where a server listens. Its text is `http=… grpc=… gossip=…`, the latter two only in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addrs {
    /// HTTP and WebSocket.
    pub http: SocketAddr,
    /// Calls of other members.
    pub grpc: Option<SocketAddr>,
    /// Gossip, UDP.
    pub gossip: Option<SocketAddr>,
}

impl fmt::Display for Addrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http={}", self.http)?;
        let rest = [("grpc", self.grpc), ("gossip", self.gossip)];
        rest.into_iter().filter_map(|(name, at)| Some((name, at?))).try_for_each(|(name, at)| write!(f, " {name}={at}"))
    }
}

/// A server that listens. It answers from [`Server::run_until`] on.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<Arc<Renewed<ServerConfig>>>,
    certificates: Certificates,
    addrs: Addrs,
}

/// Binds an address; empty is all of them, port 0 one that is free.
///
/// # Errors
/// It cannot be had.
pub(crate) async fn bind(host: &str, port: u16) -> Result<TcpListener, Error> {
    let host = match host {
        "" => "0.0.0.0",
        host => host.trim_start_matches('[').trim_end_matches(']'),
    };
    let bound = TcpListener::bind((host, port)).await;
    bound.map_err(|source| Error::Bind { address: format!("{host}:{port}"), source })
}

impl Server {
    /// Puts the parts together, binds the addresses (port 0 finds a free one), and joins the cluster if there is one.
    ///
    /// # Errors
    /// An address cannot be had, or the configuration contradicts itself.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_in(config, Box::new(|plan, host| Box::pin(cluster::join(plan, host)))).await
    }

    /// As [`Server::start`], in a cluster of the caller's.
    pub(crate) async fn start_in(config: Config, join: Join) -> Result<Self, Error> {
        let listener = bind(&config.server.http_listen_address, config.server.http_listen_port).await?;
        let http = listener.local_addr().map_err(|source| Error::Bind { address: "http".to_owned(), source })?;
        let certificates = Certificates::default();
        let tls = tls::listener("HTTP", &config.server.http_tls, tls::HTTP).map_err(Error::tls)?;
        certificates.add(tls.as_ref());

        let tenancy = Tenancy::new(&config)
            .map_err(|error| ConfigError { at: "no_auth_tenant".to_owned(), what: error.to_string() })?;
        let limits = config.tenant_limits();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let care = Care::new();
        let storage = Storage::open(&config, &limits, &clock, &care).await?;
        let intake = Intake::new(&config, storage.ingester.clone());
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        storage.register_metrics(&mut registry);
        let mut secret = None;
        let (cluster, nodes) = if config.is_clustered() {
            let (ingester, history) = (storage.ingester.clone(), storage.history.clone());
            let (plan, about) = Plan::make(&config, http, &certificates, ingester, history).await?;
            secret = plan.secret.as_ref().map(|secret| secret.reveal().to_owned());
            let host = OwnHost::new(Arc::clone(&intake), storage.copies.clone());
            let (cluster, nodes, pick) = Cluster::new(about, join(plan, host).await?, &mut registry);
            intake.join(Forward::new(pick, metrics.clone()));
            let orphans = storage.orphans(config.ingester.orphan_after);
            care.begin(cluster.members.clone(), cluster.about.me.clone(), Arc::clone(&nodes), orphans);
            (Some(cluster), nodes)
        } else {
            (None, storage.nodes())
        };
        let resume_secret = resume_secret::find(&config, secret.as_deref(), storage.objects()).await;
        let querier =
            Querier::new(querier_config(&config, resume_secret), nodes, Arc::clone(&limits), Arc::clone(&clock));
        querier.register_metrics(&mut registry);
        let about = cluster.as_ref().map(|cluster| &cluster.about);
        let addrs = Addrs { http, grpc: about.map(|about| about.grpc), gossip: about.map(|about| about.gossip) };
        let app = App::new(config, tenancy, limits, clock, intake, cluster, storage, querier, metrics, registry);
        Ok(Self { app: Arc::new(app), listener, tls, certificates, addrs })
    }

    /// The certificates that it uses.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn addrs(&self) -> Addrs {
        self.addrs
    }

    /// Answers requests until `shutdown`, then goes down in good order.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { app, listener, tls, certificates, addrs } = self;
        tracing::info!(%addrs, "listening");
        let recovered = Arc::clone(&app);
        app.storage.recover(move || recovered.activate());
        let watching = tokio::spawn(async move { certificates.watch().await });
        // Holds `true` when connections shall finish; knows no receiver any more when the last is gone.
        let (finish, _) = watch::channel(false);
        let deadline = {
            let accept = accept(&app, &listener, tls.as_ref(), &finish);
            tokio::pin!(accept);
            tokio::select! {
                () = shutdown => {}
                () = &mut accept => {}
            }
            let deadline = Instant::now() + app.config.server.graceful_shutdown_timeout;
            tracing::info!("going down");
            app.stop();
            // `/ready` is answered all the while: who asks is told not to come here any more.
            tokio::select! {
                () = drain_tails(&app, deadline) => {}
                () = &mut accept => {}
            }
            deadline
        };
        watching.abort();
        drop(listener);
        finish.send_replace(true);
        if tokio::time::timeout_at(deadline, finish.closed()).await.is_err() {
            tracing::warn!("requests are still being answered; they are cut off");
        }
        // Alone nobody else has the lines: the process waits for them however long that takes.
        let patience = if app.cluster.is_some() { deadline - cluster::LEAVE } else { Instant::now() + FLUSH };
        app.storage.close(app.config.ingester.wal.flush_on_shutdown.then_some(patience)).await;
        if let Some(cluster) = &app.cluster {
            cluster.leave().await;
        }
    }
}

fn querier_config(config: &Config, resume_secret: Option<Vec<u8>>) -> tailwater_querier::Config {
    let mebibytes = |n: u32| (n as usize).saturating_mul(1 << 20);
    tailwater_querier::Config {
        tail_max_duration: config.querier.tail_max_duration,
        feed_ring_bytes: mebibytes(config.querier.feed_ring_mb),
        feed_merge_bytes: mebibytes(config.querier.feed_merge_mb),
        query_memory_bytes: mebibytes(config.querier.query_memory_mb),
        allow_partial: config.querier.allow_partial,
        resume_secret,
    }
}

async fn drain_tails(app: &App, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    app.tails.drain(left.min(TAILS_DRAIN), TAILS_GOODBYE).await;
}

async fn accept(
    app: &Arc<App>,
    listener: &TcpListener,
    tls: Option<&Arc<Renewed<ServerConfig>>>,
    finish: &watch::Sender<bool>,
) {
    let router = router(Arc::clone(app));
    let limit = app.config.server.http_listen_conn_limit;
    let slots = Arc::new(Semaphore::new(if limit == 0 { Semaphore::MAX_PERMITS } else { limit }));
    let timeouts = Timeouts {
        read: app.config.server.http_server_read_timeout,
        write: app.config.server.http_server_write_timeout,
        idle: app.config.server.http_server_idle_timeout,
    };
    let mut http = http1::Builder::new();
    // Deadlines are the connection's own business.
    http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                if let Some(unheard) = NOT_ACCEPTED.speak() {
                    tracing::warn!(%error, unheard, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers and frames are written whole: waiting for more only adds delay.
        let _supported = tcp.set_nodelay(true);
        let seat = Arc::new(Seat::new(slot, app.metrics.connections.clone()));
        let serving =
            Serving { http: http.clone(), router: router.clone(), timeouts, seat, finish: finish.subscribe() };
        match tls {
            None => drop(tokio::spawn(serving.run(tcp.into()))),
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls.now()).accept(tcp);
                let mut finish = finish.subscribe();
                tokio::spawn(async move {
                    let shaken = tokio::select! {
                        shaken = tokio::time::timeout(HANDSHAKE, handshake) => shaken,
                        _said = finish.changed() => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => serving.run(stream.into()).await,
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
                    }
                });
            }
        }
    }
}

/// A connection that is answered.
struct Serving {
    http: http1::Builder,
    router: axum::Router,
    timeouts: Timeouts,
    seat: Arc<Seat>,
    finish: watch::Receiver<bool>,
}

impl Serving {
    async fn run(self, stream: Stream) {
        let Self { http, router, timeouts, seat, mut finish } = self;
        let answering = Arc::<Answering>::default();
        let connection = Connection::new(stream, timeouts, Arc::clone(&answering));
        let service = TowerToHyperService::new(router);
        let _kept = Arc::clone(&seat);
        let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
            answering.begin();
            // A tail outlives the HTTP connection that it was, and still takes its place.
            request.extensions_mut().insert(Arc::clone(&seat));
            hyper::service::Service::call(&service, request)
        });
        let serving = http.serve_connection(TokioIo::new(connection), service).with_upgrades();
        tokio::pin!(serving);
        let done = tokio::select! {
            done = serving.as_mut() => Some(done),
            // Whatever is said here, it is said once: it is time to finish.
            _said = finish.changed() => None,
        };
        let done = match done {
            Some(done) => done,
            None => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "connection failed");
        }
    }
}

/// A connection's place among those that are open.
pub(crate) struct Seat {
    _slot: OwnedSemaphorePermit,
    open: Gauge,
}

impl Seat {
    fn new(slot: OwnedSemaphorePermit, open: Gauge) -> Self {
        open.inc();
        Self { _slot: slot, open }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.dec();
    }
}
