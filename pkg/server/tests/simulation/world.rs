//! The simulated cluster, its pushers and its tail, and the books of both.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tailwater_cluster::rpc::{self, Connect, Io, Peers, RpcMetrics, ServeMetrics};
use tailwater_cluster::{Directory, DirectoryMetrics, Logs, Member, Members, Role, State};
use tailwater_ingester::{Config as IngesterConfig, Ingester};
use tailwater_logql::LogQuery;
use tailwater_model::{Clock, Limits, LogId, TenantId, TenantIds, TenantLimits, Timestamp};
use tailwater_querier::{Config, EndReason, Ledger, Nodes, OnSlow, Querier, Resume, SessionEvent, TailRequest};
use tailwater_store::wal::{self, SyncPolicy};
use tailwater_wire::compress::Caps;
use tailwater_wire::frame::{TailEncoding, decode_tail};
use tailwater_wire::host::{CopyBegin, Copying, ForwardedPush, Host, PushAnswer};
use tailwater_wire::node::{Answer, Node, NodeError};
use tailwater_wire::push::{Kind, Outgoing, encode, read};
use tokio::sync::watch;
use turmoil::net::{TcpListener, TcpStream};

pub(crate) const INGESTERS: [&str; 3] = ["ingester-0", "ingester-1", "ingester-2"];
pub(crate) const QUERIER: &str = "querier";

const PORT: u16 = 9095;
const CLUSTER: &str = "simulated";
const TENANT: &str = "t";

/// When the simulation begins, in nanoseconds.
const BEGIN: i64 = 1_700_000_000_000_000_000;

/// The time of the simulation, off by something.
struct SimClock {
    began: tokio::time::Instant,
    from: i64,
}

impl SimClock {
    /// The clock of a host that starts now.
    fn started(skew: i64) -> Arc<dyn Clock> {
        let since = turmoil::sim_elapsed().unwrap_or_default();
        Arc::new(Self { began: tokio::time::Instant::now(), from: BEGIN + skew + since.as_nanos() as i64 })
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.from + self.began.elapsed().as_nanos() as i64)
    }
}

/// What was pushed and what came, whatever became of the hosts meanwhile.
#[derive(Default)]
struct Books {
    /// Per ingester: which numbers were acknowledged.
    acknowledged: [Vec<u64>; 3],
    /// Numbers that were pushed and not acknowledged before a crash: they may come or not.
    next: [u64; 3],
    delivered: BTreeMap<usize, Vec<u64>>,
    ledger: Ledger,
    ended: Option<EndReason>,
    untold: Vec<String>,
}

pub(crate) struct World<'a> {
    pub(crate) sim: turmoil::Sim<'a>,
    members: Arc<watch::Sender<Arc<Members>>>,
    books: Arc<Mutex<Books>>,
    pushing: Arc<AtomicBool>,
    up: HashMap<&'static str, bool>,
    _folder: tempfile::TempDir,
}

impl World<'_> {
    pub(crate) fn new(seed: u64, skews: [i64; 3]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(600))
            .tick_duration(Duration::from_millis(2))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(Duration::from_millis(5))
            .tcp_capacity(1 << 16)
            .build();
        let members: Arc<watch::Sender<Arc<Members>>> = Arc::new(watch::Sender::new(Arc::default()));
        let books: Arc<Mutex<Books>> = Arc::default();
        let pushing = Arc::new(AtomicBool::new(true));
        for (number, name) in INGESTERS.into_iter().enumerate() {
            let (members, books, pushing) = (Arc::clone(&members), Arc::clone(&books), Arc::clone(&pushing));
            let dir = folder.path().join(name);
            sim.host(name, move || {
                let at = At { number, name, skew: skews[number], dir: dir.clone() };
                run_ingester(at, Arc::clone(&members), Arc::clone(&books), Arc::clone(&pushing))
            });
        }
        let (members_of_querier, books_of_querier) = (members.subscribe(), Arc::clone(&books));
        sim.host(QUERIER, move || run_querier(members_of_querier.clone(), Arc::clone(&books_of_querier)));
        let up = INGESTERS.into_iter().map(|name| (name, true)).collect();
        Self { sim, members, books, pushing, up, _folder: folder }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.sim.step().unwrap();
        }
        assert_eq!(self.books.lock().ended, None, "the tail has ended");
    }

    /// Changes what everybody hears of a member.
    pub(crate) fn gossip(&self, name: &str, change: impl Fn(&mut Member)) {
        gossip(&self.members, name, change);
    }

    pub(crate) fn crash(&mut self, name: &'static str) {
        if self.up.insert(name, false) == Some(true) {
            self.sim.crash(name);
        }
    }

    pub(crate) fn bounce(&mut self, name: &'static str) {
        if self.up.insert(name, true) == Some(false) {
            self.sim.bounce(name);
        }
    }

    /// Everything is as it should be again.
    pub(crate) fn heal(&mut self) {
        for name in INGESTERS {
            self.bounce(name);
            self.sim.repair(QUERIER, name);
            self.sim.repair_oneway(name, QUERIER);
            self.sim.repair_oneway(QUERIER, name);
            self.gossip(name, |member| member.alive = true);
        }
    }

    pub(crate) fn stop_pushing(&self) {
        self.pushing.store(false, Ordering::Relaxed);
    }

    /// Compares what was acknowledged with what came.
    pub(crate) fn check(&self) {
        let books = self.books.lock();
        let mut delivered_lines = 0;
        for (number, acknowledged) in books.acknowledged.iter().enumerate() {
            let delivered = books.delivered.get(&number).map_or(&[][..], Vec::as_slice);
            delivered_lines += delivered.len() as u64;
            assert!(delivered.is_sorted_by(|a, b| a < b), "ingester {number}: twice or out of order: {delivered:?}");
            let missing: Vec<_> = acknowledged.iter().filter(|n| delivered.binary_search(n).is_err()).collect();
            assert!(
                missing.is_empty(),
                "ingester {number}: of {} acknowledged missing {missing:?}",
                acknowledged.len()
            );
            assert!(acknowledged.len() > 50, "ingester {number} took only {}", acknowledged.len());
            assert!(delivered.last().is_none_or(|last| *last < books.next[number]), "nobody pushed that");
        }
        assert!(books.untold.is_empty(), "{:?}", books.untold);
        let Ledger { matched, delivered, dropped, trimmed } = books.ledger;
        assert_eq!((matched, dropped, trimmed), (delivered, 0, 0));
        assert_eq!(delivered, delivered_lines);
    }
}

fn gossip(members: &watch::Sender<Arc<Members>>, name: &str, change: impl Fn(&mut Member)) {
    members.send_modify(|members| {
        let mut all = Members::clone(members);
        all.members.iter_mut().filter(|member| member.name == name).for_each(change);
        *members = Arc::new(all);
    });
}

/// Where an ingester is.
struct At {
    number: usize,
    name: &'static str,
    skew: i64,
    dir: std::path::PathBuf,
}

fn limits() -> Arc<dyn TenantLimits> {
    // Clocks are wrong, and it does not matter here what is refused for that.
    Arc::new(Arc::new(Limits {
        reject_old_samples: false,
        creation_grace_period: Duration::from_secs(86_400),
        max_query_lookback: Duration::ZERO,
        ..Limits::default()
    }))
}

async fn run_ingester(
    at: At,
    members: Arc<watch::Sender<Arc<Members>>>,
    books: Arc<Mutex<Books>>,
    pushing: Arc<AtomicBool>,
) -> turmoil::Result {
    let wal = wal::Config {
        dir: at.dir.clone(),
        sync: SyncPolicy::Os,
        segment_bytes: 1 << 20,
        keep_bytes: 64 << 20,
        max_bytes: 0,
    };
    let config = IngesterConfig { log_memory_bytes: 1 << 20, wal: Some(wal), ..IngesterConfig::default() };
    let clock = SimClock::started(at.skew);
    let ingester = loop {
        // The process before may not have let go of the folder yet.
        match Ingester::open(config.clone(), limits(), Arc::clone(&clock)) {
            Ok(ingester) => break ingester,
            Err(_locked) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    ingester.recover()?;
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (accepted, incoming) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if accepted.send(Ok(Box::new(stream) as Io)).await.is_err() {
                return;
            }
        }
    });
    let incoming = futures_util::stream::unfold(incoming, |mut incoming| async move {
        let next: io::Result<Io> = incoming.recv().await?;
        Some((next, incoming))
    });
    let host: Arc<dyn Host> = Arc::new(OwnHost(Some(Arc::clone(&ingester))));
    tokio::spawn(rpc::serve(incoming, host, CLUSTER.to_owned(), ServeMetrics::default(), std::future::pending()));
    join(&members, &at, ingester.log_id());
    push(&ingester, at.number, &books, &pushing, &clock).await;
    std::future::pending().await
}

/// Gossip, as far as it is needed.
fn join(members: &watch::Sender<Arc<Members>>, at: &At, log: LogId) {
    let grpc = SocketAddr::new(turmoil::lookup(at.name), PORT);
    let me = Member {
        name: at.name.to_owned(),
        generation: 1,
        role: Role::Ingester,
        state: State::Active,
        zone: None,
        version: String::new(),
        http: String::new(),
        grpc,
        gossip: grpc,
        logs: vec![log],
        alive: true,
    };
    members.send_modify(|members| {
        let mut all = Members::clone(members);
        all.members.retain(|member| member.name != me.name);
        all.members.push(me.clone());
        all.members.sort_by(|a, b| a.name.cmp(&b.name));
        *members = Arc::new(all);
    });
}

async fn push(
    ingester: &Arc<Ingester>,
    number: usize,
    books: &Mutex<Books>,
    pushing: &AtomicBool,
    clock: &Arc<dyn Clock>,
) {
    let tenant = TenantId::parse(TENANT).unwrap();
    while pushing.load(Ordering::Relaxed) {
        let count = 1 + clock.now().nanos().unsigned_abs() % 3;
        let numbers: Vec<u64> = {
            let mut books = books.lock();
            let first = books.next[number];
            books.next[number] += count;
            (first..first + count).collect()
        };
        let lines: Vec<String> = numbers.iter().map(|n| format!("{number} {n}")).collect();
        // Equal timestamps: order is that of acceptance.
        let timestamp = clock.now();
        let entries = lines.iter().map(|line| Outgoing { timestamp, line: line.as_bytes(), metadata: &[] });
        let labels = format!("{{app=\"sim\", from=\"{number}\"}}");
        let body = encode([(labels.as_str(), entries)]).unwrap();
        let push = read(Kind::V1, Some("application/x-protobuf"), None, &body, &Caps::default()).unwrap();
        match ingester.push(&tenant, push, Some(&body)).await {
            Ok(_) => books.lock().acknowledged[number].extend(numbers),
            Err(error) => books.lock().untold.push(format!("refused: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(23)).await;
    }
}

async fn run_querier(members: watch::Receiver<Arc<Members>>, books: Arc<Mutex<Books>>) -> turmoil::Result {
    let clock = SimClock::started(0);
    let peers = Peers::new(Arc::new(Wire), CLUSTER.to_owned(), RpcMetrics::default());
    let host: Arc<dyn Host> = Arc::new(OwnHost(None));
    let directory = Directory::new(members, QUERIER.to_owned(), false, host, peers, DirectoryMetrics::default());
    // What was there before the tail is history, and history is what can be had when it is asked for.
    directory.nodes().wait_for(|nodes| nodes.len() == INGESTERS.len()).await?;
    let querier = Querier::new(Config::default(), Arc::new(Listed(directory)), limits(), Arc::clone(&clock));
    let expr = tailwater_logql::parse_log(r#"{app="sim"}"#).unwrap();
    let request = TailRequest {
        tenants: TenantIds::parse(TENANT).unwrap(),
        query: Arc::new(LogQuery::compile(&expr).unwrap()),
        expr,
        limit: 100_000,
        start: Timestamp(BEGIN - 3_600_000_000_000),
        delay_for: Duration::ZERO,
        encoding: TailEncoding::V1 { categorize: false, flags: Vec::new() },
        on_slow: OnSlow::Wait,
        resume: Resume::No,
        notices: true,
    };
    let mut session = loop {
        match querier.tail(request.clone()).await {
            Ok(session) => break session,
            // Nobody is there yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    loop {
        let event = session.next().await;
        let mut books = books.lock();
        books.ledger = session.ledger();
        match event {
            SessionEvent::Frame(frame) => {
                let frame = decode_tail(&frame).unwrap();
                books.untold.extend(frame.dropped.iter().map(|dropped| format!("{dropped:?}")));
                for entry in frame.streams.iter().flat_map(|stream| &stream.entries) {
                    let (from, number) = entry.line.split_once(' ').unwrap();
                    books.delivered.entry(from.parse().unwrap()).or_default().push(number.parse().unwrap());
                }
            }
            SessionEvent::End(reason) => {
                books.ended = Some(reason);
                return Ok(());
            }
        }
    }
}

struct Listed(Arc<Directory>);

impl Nodes for Listed {
    fn nodes(&self) -> watch::Receiver<Logs> {
        self.0.nodes()
    }
}

/// The simulated network.
struct Wire;

impl Connect for Wire {
    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(to).await?) as Io) })
    }
}

/// A node with a log, or without.
struct OwnHost(Option<Arc<Ingester>>);

fn not_here<T: Send + 'static>(log: LogId) -> Answer<T> {
    Box::pin(async move { Err(NodeError::Unavailable { log, reason: "it is not simulated".to_owned() }) })
}

impl Host for OwnHost {
    fn log(&self, log: LogId) -> Option<Arc<dyn Node>> {
        let own = self.0.as_ref().filter(|own| own.log_id() == log)?;
        Some(Arc::clone(own) as Arc<dyn Node>)
    }

    fn logs(&self) -> Vec<LogId> {
        self.0.iter().map(|own| own.log_id()).collect()
    }

    fn push(&self, _: ForwardedPush) -> Answer<PushAnswer> {
        not_here(LogId::from_u128(0))
    }

    fn copy(&self, begin: CopyBegin) -> Answer<Arc<dyn Copying>> {
        not_here(begin.log)
    }
}
