//! The process: its parts put together, its listener, its connections, its end.
//!
//! Going down: `/ready` says so, the ingester takes nothing more in, tails deliver what there is and end, requests that are being
//! answered are finished. All of it takes at most `server.graceful_shutdown_timeout`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tailwater_model::{Clock, SystemClock};
use tailwater_querier::Querier;
use tailwater_wire::node::Node;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::app::App;
use crate::conn::{Answering, Connection, MAX_HEAD_BYTES, Timeouts};
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::routes::router;
use crate::storage::Storage;
use crate::tenancy::Tenancy;
use crate::{Config, ConfigError, Error};

/// How long tails may take to deliver what they have when the process goes down.
const TAILS_DRAIN: Duration = Duration::from_secs(6);

/// How long they may take to say goodbye after that.
const TAILS_GOODBYE: Duration = Duration::from_secs(2);

/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Failures to accept are logged, but not each of a flood.
static NOT_ACCEPTED: Quiet = Quiet::new();

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addrs {
    /// HTTP and WebSocket.
    pub http: SocketAddr,
}

/// A server that listens. It answers from [`Server::run_until`] on.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    addrs: Addrs,
}

impl Server {
    /// Puts the parts together and binds the address; port 0 finds a free one.
    ///
    /// # Errors
    /// The address cannot be had, or the configuration contradicts itself.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let host = match config.server.http_listen_address.as_str() {
            "" => "0.0.0.0",
            host => host.trim_start_matches('[').trim_end_matches(']'),
        };
        let port = config.server.http_listen_port;
        let unusable = |source: io::Error| Error::Bind { address: format!("{host}:{port}"), source };
        let listener = TcpListener::bind((host, port)).await.map_err(unusable)?;
        let http = listener.local_addr().map_err(unusable)?;

        let tenancy = Tenancy::new(&config)
            .map_err(|error| ConfigError { at: "no_auth_tenant".to_owned(), what: error.to_string() })?;
        let limits = config.tenant_limits();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mebibytes = |n: u32| (n as usize).saturating_mul(1 << 20);
        let storage = Storage::open(&config, &limits, &clock).await?;
        let ingester = Arc::clone(&storage.ingester);
        let node: Arc<dyn Node> = Arc::clone(&ingester) as Arc<dyn Node>;
        let querier = Querier::new(
            tailwater_querier::Config {
                tail_max_duration: config.querier.tail_max_duration,
                feed_ring_bytes: mebibytes(config.querier.feed_ring_mb),
                feed_merge_bytes: mebibytes(config.querier.feed_merge_mb),
                query_memory_bytes: mebibytes(config.querier.query_memory_mb),
                resume_secret: None,
            },
            tailwater_querier::Fixed::new(vec![node]),
            Arc::clone(&limits),
            Arc::clone(&clock),
        );
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        ingester.register_metrics(&mut registry);
        storage.register_metrics(&mut registry);
        querier.register_metrics(&mut registry);
        let app = App::new(config, tenancy, limits, clock, storage, querier, metrics, registry);
        Ok(Self { app: Arc::new(app), listener, addrs: Addrs { http } })
    }

    /// Where it listens.
    #[must_use]
    pub fn addrs(&self) -> Addrs {
        self.addrs
    }

    /// Answers requests until `shutdown`, then goes down in good order.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { app, listener, addrs } = self;
        tracing::info!(http = %addrs.http, "listening");
        app.storage.recover();
        // Holds `true` when connections shall finish; knows no receiver any more when the last is gone.
        let (finish, _) = watch::channel(false);
        let deadline = {
            let accept = accept(&app, &listener, &finish);
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
        drop(listener);
        finish.send_replace(true);
        if tokio::time::timeout_at(deadline, finish.closed()).await.is_err() {
            tracing::warn!("requests are still being answered; they are cut off");
        }
        app.storage.close(app.config.ingester.wal.flush_on_shutdown).await;
    }
}

async fn drain_tails(app: &App, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    app.tails.drain(left.min(TAILS_DRAIN), TAILS_GOODBYE).await;
}

async fn accept(app: &Arc<App>, listener: &TcpListener, finish: &watch::Sender<bool>) {
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
        let (connection, answering) = prepare(tcp, timeouts);
        let service = TowerToHyperService::new(router.clone());
        let seat = Arc::new(Seat::new(slot, app.metrics.connections.clone()));
        let kept = Arc::clone(&seat);
        let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
            answering.begin();
            // A tail outlives the HTTP connection that it was, and still takes its place.
            request.extensions_mut().insert(Arc::clone(&seat));
            hyper::service::Service::call(&service, request)
        });
        let serving = http.serve_connection(TokioIo::new(connection), service).with_upgrades();
        let mut finish = finish.subscribe();
        tokio::spawn(async move {
            let _kept = kept;
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
        });
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

fn prepare(tcp: TcpStream, timeouts: Timeouts) -> (Connection, Arc<Answering>) {
    // Answers and frames are written whole: waiting for more only adds delay.
    let _supported = tcp.set_nodelay(true);
    let answering = Arc::<Answering>::default();
    (Connection::new(tcp, timeouts, Arc::clone(&answering)), answering)
}
