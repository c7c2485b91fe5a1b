//! Who is in the cluster: gossip over UDP, seen as a [`Members`] that changes.
//!
//! Invariants:
//! * A node is shown when everything about it has arrived, never in part. What makes no sense is not shown; nothing of it panics.
//! * This node is always shown, alive, as it last said it is. Of others of one name the one that started last is shown.
//! * Liveness is a hint: a node that is starved of CPU may look dead for a moment and dead nodes look alive for about a second. What
//!   matters is decided by calls and streams; here it is only decided whom to try.
//! * A node that has fallen silent is shown as not alive for [`SILENT_GRACE`], then forgotten. It is found again whenever it comes back.

mod guard;
mod keys;
mod metrics;
mod seal;
mod seeds;
mod udp;
mod view;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chitchat::transport::{Socket, Transport, UdpTransport};
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat,
};
use parking_lot::Mutex;
use tailwater_model::{Backoff, LogId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

pub use self::metrics::MembershipMetrics;
pub use self::seal::Secret;
use crate::error::Error;
use crate::member::{Member, Members, Role, State};

/// How long a silent node is shown. From half of that on it is no longer passed on to others.
pub const SILENT_GRACE: Duration = Duration::from_secs(300);

/// How often gossip is looked at when it does not report anything.
const REFRESH: Duration = Duration::from_secs(1);

/// What a node says of itself is sent at once to so many others; the rest hears it from them.
const MAX_TOLD: usize = 64;

/// Intervals of gossip for the word that a node is leaving to spread before it is silent.
const LEAVE_INTERVALS: u32 = 3;

/// Two running nodes of one name are reported when they have been there for so long: after a restart at another address it takes a moment
/// until the old one is known to be dead.
const CONFLICT_AFTER: Duration = Duration::from_secs(10);

/// Phi at which a node is taken for dead: as many times the usual interval between signs of life.
const PHI: f64 = 8.0;

/// How this node gossips, and what it says of itself.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// Nodes of other clusters are not spoken with.
    pub cluster_id: String,
    /// Its name, unique in the cluster, the same after a restart: 1 to 253 bytes without white space.
    pub name: String,
    /// Grows with every start: see [`generation`].
    pub generation: u64,
    /// What it does.
    pub role: Role,
    /// Where it is.
    pub zone: Option<String>,
    /// The version of the program.
    pub version: String,
    /// Where it answers HTTP, as others reach it: `http://10.0.0.7:3100`.
    pub http: String,
    /// Where it answers gRPC, as others reach it.
    pub grpc: SocketAddr,
    /// Where it listens for gossip. Port 0 takes a free one.
    pub gossip_listen: SocketAddr,
    /// Where others reach it for gossip, if that is not where it listens. Port 0 is the port that it listens on.
    pub gossip_advertise: Option<SocketAddr>,
    /// Whom it asks first, `host:port` each. Names are looked up again and again and may stand for several nodes; itself does no harm.
    pub seeds: Vec<String>,
    /// What all nodes of the cluster know. None: whoever reaches the port can join.
    pub secret: Option<Secret>,
    /// How often it gossips: 200 ms.
    pub gossip_interval: Duration,
}

/// The number of a start of a node that begins now: nanoseconds since 1970.
#[must_use]
pub fn generation() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
}

/// See the module. Dropped, the node falls silent without a word.
pub struct Membership {
    me: watch::Sender<Member>,
    members: watch::Receiver<Arc<Members>>,
    gossip_addr: SocketAddr,
    interval: Duration,
    stop: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Membership {
    /// Begins to gossip over UDP. The node is [`State::Joining`] and has no logs until it says otherwise.
    ///
    /// # Errors
    /// The address cannot be listened on, or the name or the address for others make no sense.
    pub async fn start(config: MembershipConfig, metrics: MembershipMetrics) -> Result<Arc<Self>, Error> {
        match config.secret.clone() {
            Some(secret) => {
                let (cluster, metrics_of_socket) = (config.cluster_id.clone(), metrics.clone());
                let transport = udp::SealedUdp { secret, cluster, metrics: metrics_of_socket };
                Self::start_over(config, Arc::new(transport), metrics).await
            }
            None => Self::start_over(config, Arc::new(UdpTransport), metrics).await,
        }
    }

    /// Begins to gossip over anything. Whether what is sent there is sealed with the secret is up to it.
    ///
    /// # Errors
    /// As [`Membership::start`].
    pub async fn start_over(
        config: MembershipConfig,
        transport: Arc<dyn Transport>,
        metrics: MembershipMetrics,
    ) -> Result<Arc<Self>, Error> {
        if !keys::is_name(&config.name) {
            return Err(Error::Name { name: config.name });
        }
        let listen = config.gossip_listen;
        let failed = |error: anyhow::Error| Error::Gossip { listen, reason: format!("{error:#}") };
        let socket = transport.open(listen).await.map_err(failed)?;
        let gossip_addr = socket.local_addr().map_err(failed)?;
        let mut advertised = config.gossip_advertise.unwrap_or(gossip_addr);
        if advertised.port() == 0 {
            advertised.set_port(gossip_addr.port());
        }
        if advertised.ip().is_unspecified() {
            return Err(Error::Advertise { listen: advertised });
        }
        let me = Member {
            name: config.name.clone(),
            generation: config.generation,
            role: config.role,
            state: State::Joining,
            zone: config.zone.clone(),
            version: config.version.clone(),
            http: config.http.clone(),
            grpc: config.grpc,
            gossip: advertised,
            logs: Vec::new(),
            alive: true,
        };
        let (shown, members) = watch::channel(Arc::new(Members { members: vec![me.clone()] }));
        let me = watch::Sender::new(me);
        let stop = Arc::new(Notify::new());
        let interval = config.gossip_interval;
        let mut gossip = Gossip {
            me: me.clone(),
            config: Arc::new(config),
            transport,
            gossip_addr,
            shown,
            metrics,
            stop: Arc::clone(&stop),
            conflicts: Vec::new(),
            reported: HashSet::new(),
        };
        let handle = gossip.open(socket).await.map_err(failed)?;
        let task = tokio::spawn(async move { gossip.run(handle).await });
        Ok(Arc::new(Self { me, members, gossip_addr, interval, stop, task: Mutex::new(Some(task)) }))
    }

    /// Everybody there is, and word of changes.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// This node, as it says of itself now.
    #[must_use]
    pub fn me(&self) -> Member {
        self.me.borrow().clone()
    }

    /// Says so. Who is reached hears it at once, everybody within a few intervals.
    pub fn set_state(&self, state: State) {
        self.me.send_if_modified(|me| std::mem::replace(&mut me.state, state) != state);
    }

    /// Says that this node can answer for these logs, its own first. Of more than 1024 the first ones.
    pub fn set_logs(&self, mut logs: Vec<LogId>) {
        logs.truncate(keys::MAX_LOGS);
        self.me.send_if_modified(|me| {
            let changed = me.logs != logs;
            me.logs = logs;
            changed
        });
    }

    /// Where it listens.
    #[must_use]
    pub fn gossip_addr(&self) -> SocketAddr {
        self.gossip_addr
    }

    /// Says that the node is leaving, waits until that has spread, and falls silent.
    pub async fn leave(&self) {
        self.set_state(State::Leaving);
        sleep(self.interval * LEAVE_INTERVALS).await;
        self.stop.notify_one();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It ends by itself; that it was aborted or has panicked changes nothing now.
            let _ = task.await;
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

/// What the task of a [`Membership`] works with.
struct Gossip {
    config: Arc<MembershipConfig>,
    transport: Arc<dyn Transport>,
    gossip_addr: SocketAddr,
    me: watch::Sender<Member>,
    shown: watch::Sender<Arc<Members>>,
    metrics: MembershipMetrics,
    stop: Arc<Notify>,
    /// Names that more than one node bears, since when.
    conflicts: Vec<((String, String, String), Instant)>,
    /// Those that were reported.
    reported: HashSet<(String, String, String)>,
}

impl Gossip {
    async fn open(&self, socket: Box<dyn Socket>) -> anyhow::Result<ChitchatHandle> {
        let me = self.me.borrow().clone();
        let interval = self.config.gossip_interval;
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(me.name.as_str(), me.generation, me.gossip),
            cluster_id: self.config.cluster_id.clone(),
            gossip_interval: interval,
            listen_addr: self.gossip_addr,
            // Names have to be looked up more often than the library does.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: PHI,
                initial_interval: interval,
                dead_node_grace_period: SILENT_GRACE,
                ..FailureDetectorConfig::default()
            },
            // Nothing is ever deleted.
            marked_for_deletion_grace_period: SILENT_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let transport = guard::Opened::new(socket, self.config.cluster_id.clone(), self.metrics.clone());
        spawn_chitchat(config, keys::write(&me), &transport).await
    }

    /// Gossips until it is told to stop. What breaks is begun again under a newer generation.
    async fn run(&mut self, mut handle: ChitchatHandle) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let begun = Instant::now();
            if self.serve(&handle).await {
                // It has no more to say; an error while it ends has been told when it happened.
                let _ = handle.shutdown().await;
                return;
            }
            drop(handle);
            if begun.elapsed() > Duration::from_secs(60) {
                backoff.reset();
            }
            self.metrics.restarts.inc();
            handle = loop {
                sleep(backoff.pause()).await;
                self.me.send_modify(|me| me.generation = generation().max(me.generation + 1));
                let opened = match self.transport.open(self.gossip_addr).await {
                    Ok(socket) => self.open(socket).await,
                    Err(error) => Err(error),
                };
                match opened {
                    Ok(handle) => break handle,
                    Err(error) => tracing::error!(reason = format!("{error:#}"), "gossip cannot go on; trying again"),
                }
            };
        }
    }

    /// Answers whether it was told to stop; otherwise gossip has broken down.
    async fn serve(&mut self, handle: &ChitchatHandle) -> bool {
        let mut live = handle.with_chitchat(|gossip| gossip.live_nodes_watcher()).await;
        let mut me = self.me.subscribe();
        let (alone, is_alone) = watch::channel(true);
        let (ask, mut asked) = mpsc::channel(1);
        let seeds = seeds::run(self.config.seeds.clone(), is_alone, ask);
        tokio::pin!(seeds);
        let mut looking = !self.config.seeds.is_empty();
        let ended = handle.termination_watcher();
        tokio::pin!(ended);
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = Arc::clone(&self.stop);
        // After a restart what is said may be newer than what gossip began with.
        me.mark_changed();
        loop {
            let told = tokio::select! {
                () = stop.notified() => return true,
                ended = &mut ended => {
                    let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
                    tracing::error!(%reason, "gossip has broken down; beginning again");
                    return false;
                }
                // The sender lives as long as `self`.
                _ = me.changed() => {
                    let me = me.borrow_and_update().clone();
                    self.say(handle, &me).await
                }
                // If gossip is gone `ended` says so.
                Ok(()) = live.changed() => Vec::new(),
                () = &mut seeds, if looking => {
                    looking = false;
                    Vec::new()
                }
                Some(found) = asked.recv() => found,
                _ = refresh.tick() => Vec::new(),
            };
            let own = self.me.borrow().gossip;
            for to in told.into_iter().filter(|to| *to != own) {
                // If gossip is gone `ended` says so.
                let _ = handle.gossip(to);
            }
            live.mark_unchanged();
            let members = self.look(handle).await;
            alone.send_replace(members < 2);
        }
    }

    /// Puts down what this node says of itself. Answers who is to hear it at once.
    async fn say(&self, handle: &ChitchatHandle, me: &Member) -> Vec<SocketAddr> {
        let told = |gossip: &mut Chitchat| {
            gossip.self_node_state().set(keys::LOGS, keys::logs(&me.logs));
            gossip.self_node_state().set(keys::STATE, me.state);
            let own = gossip.self_chitchat_id();
            gossip.live_nodes().filter(|id| *id != own).map(|id| id.gossip_advertise_addr).collect::<Vec<_>>()
        };
        let mut told = handle.with_chitchat(told).await;
        fastrand::shuffle(&mut told);
        told.truncate(MAX_TOLD);
        told
    }

    /// Shows what gossip knows. Answers how many are alive.
    async fn look(&mut self, handle: &ChitchatHandle) -> usize {
        let me = self.me.borrow().clone();
        let view = handle
            .with_chitchat(|gossip| {
                let live: HashSet<_> = gossip.live_nodes().collect();
                view::view(gossip.node_states().iter(), &live, &me)
            })
            .await;
        let alive = view.members.members.iter().filter(|member| member.alive).count();
        self.metrics.alive.set(alive as i64);
        self.metrics.silent.set((view.members.members.len() - alive) as i64);
        self.metrics.unready.set(view.unready as i64);
        self.report(view.conflicts);
        let changed = self.shown.send_if_modified(|shown| {
            let changed = **shown != view.members;
            if changed {
                *shown = Arc::new(view.members);
            }
            changed
        });
        if changed {
            self.metrics.changes.inc();
        }
        alive
    }

    fn report(&mut self, conflicts: Vec<(String, String, String)>) {
        let now = Instant::now();
        self.conflicts.retain(|(known, _)| conflicts.contains(known));
        for conflict in conflicts {
            if !self.conflicts.iter().any(|(known, _)| *known == conflict) {
                self.conflicts.push((conflict, now));
            }
        }
        self.reported.retain(|known| self.conflicts.iter().any(|(conflict, _)| conflict == known));
        for (conflict, since) in &self.conflicts {
            if *since + CONFLICT_AFTER <= now && self.reported.insert(conflict.clone()) {
                let (name, used, ignored) = conflict;
                tracing::error!(%name, %used, %ignored, "two running nodes have the same name; the one that started last is used");
            }
        }
        self.metrics.conflicts.set(self.reported.len() as i64);
    }
}
