//! This process as a member of a cluster: what it is told, what it tells others, and where pushes go that it does not keep.
//!
//! [`Plan`] is what the process brings along, [`Joined`] what the cluster gives it; [`parts`] makes one of the other. Nothing else here knows
//! how members find and call each other.

mod addresses;
pub(crate) mod care;
pub(crate) mod forward;
pub(crate) mod host;
mod listen;
pub(crate) mod pages;
mod parts;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::Value;
use tailwater_cluster::{Member, Members, Role, State};
use tailwater_ingester::Ingester;
use tailwater_model::LogId;
use tailwater_querier::Nodes;
use tailwater_store::history::History;
use tailwater_wire::host::Host;
use tailwater_wire::node::Node as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use self::listen::{Dial, Incoming};
pub(crate) use self::parts::join;
use crate::config::{Secret, Target};
use crate::server::bind;
use crate::tls::{self, Certificates};
use crate::{Config, Error};

/// How long going from the cluster may take.
pub(crate) const LEAVE: Duration = Duration::from_secs(3);

/// Most other nodes that a client is told of.
const MAX_OTHERS: usize = 16;

/// Something that is done later.
pub(crate) type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a process joins: [`parts::join`], or a test's.
pub(crate) type Join = Box<dyn FnOnce(Plan, Arc<dyn Host>) -> Later<Result<Joined, Error>> + Send>;

/// What a process brings along.
pub(crate) struct Plan {
    /// The name of the cluster.
    pub(crate) cluster_id: String,
    /// Its own name.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) zone: Option<String>,
    /// Where others reach its HTTP.
    pub(crate) http: String,
    /// Where others reach its gRPC.
    pub(crate) grpc: SocketAddr,
    /// Where it gossips; the port is never 0.
    pub(crate) gossip_listen: SocketAddr,
    /// Where others reach that.
    pub(crate) gossip_advertise: SocketAddr,
    /// `host:port` of members to begin with.
    pub(crate) seeds: Vec<String>,
    /// What gossip is proved with.
    pub(crate) secret: Option<Secret>,
    pub(crate) gossip_interval: Duration,
    /// Copies of a log in all.
    pub(crate) replication_factor: usize,
    /// Whether answers may lack something, if they say so.
    pub(crate) allow_partial: bool,
    /// The own ingester, if it keeps a log.
    pub(crate) ingester: Option<Arc<Ingester>>,
    /// The blocks that there are.
    pub(crate) history: Option<History>,
    /// Calls that come in.
    pub(crate) incoming: Incoming,
    /// How others are called.
    pub(crate) dial: Dial,
}

/// What the cluster gives a process.
pub(crate) struct Joined {
    /// Everybody, as far as this process knows.
    pub(crate) members: watch::Receiver<Arc<Members>>,
    /// Every log there is.
    pub(crate) nodes: Arc<dyn Nodes>,
    /// Where a push may go.
    pub(crate) pick: forward::Pick,
    /// Tells others how it stands.
    pub(crate) set_state: Box<dyn Fn(State) + Send + Sync>,
    /// Says goodbye, then stops answering others. What was not said within [`LEAVE`] is not said.
    pub(crate) leave: Box<dyn Fn() -> Later<()> + Send + Sync>,
    /// How far copies are, for operators.
    pub(crate) replication: Option<Box<dyn Fn() -> Value + Send + Sync>>,
    /// Adds the metrics of all of that.
    pub(crate) register: Box<dyn FnOnce(&mut Registry) + Send>,
}

/// What a process knows of itself in a cluster.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The name of the cluster.
    pub(crate) cluster_id: String,
    /// Its own name.
    pub(crate) me: String,
    /// Copies of a log in all.
    pub(crate) replication_factor: usize,
    /// Where it listens for calls.
    pub(crate) grpc: SocketAddr,
    /// Where it gossips.
    pub(crate) gossip: SocketAddr,
}

/// The cluster as the rest of the process uses it.
pub(crate) struct Cluster {
    pub(crate) about: About,
    pub(crate) members: watch::Receiver<Arc<Members>>,
    pub(crate) replication: Option<Box<dyn Fn() -> Value + Send + Sync>>,
    set_state: Box<dyn Fn(State) + Send + Sync>,
    leave: Box<dyn Fn() -> Later<()> + Send + Sync>,
}

impl Plan {
    /// Binds what others call, and finds out how they reach it. `http`: where HTTP listens.
    ///
    /// # Errors
    /// An address cannot be had or found, a secret or a certificate cannot be read.
    pub(crate) async fn make(
        config: &Config,
        http: SocketAddr,
        certificates: &Certificates,
        ingester: Option<Arc<Ingester>>,
        history: Option<History>,
    ) -> Result<(Self, About), Error> {
        let host = match config.server.grpc_listen_address.as_str() {
            "" => &config.server.http_listen_address,
            host => host,
        };
        let listener: TcpListener = bind(host, config.server.grpc_listen_port).await?;
        let grpc = listener.local_addr().map_err(|error| Error::Cluster(error.to_string()))?;
        let tls = tls::listener("gRPC", &config.server.grpc_tls, tls::GRPC).map_err(Error::tls)?;
        let calls = tls::caller("calls to other members", &config.cluster.tls, tls::GRPC).map_err(Error::tls)?;
        certificates.add(tls.as_ref());
        certificates.add(calls.as_ref());
        let dial = Dial::new(calls, &config.cluster.tls.server_name).map_err(Error::tls)?;
        let own_log = ingester.as_ref().map(|ingester| ingester.log_id());
        let reached = addresses::Reached::find(config, http, grpc).await?;
        let plan = Self {
            cluster_id: config.memberlist.cluster_label.clone(),
            name: addresses::node_name(config, own_log, http.port()),
            role: match config.target {
                Target::All => Role::All,
                Target::Ingester => Role::Ingester,
                Target::Querier => Role::Querier,
            },
            zone: Some(config.common.instance_availability_zone.clone()).filter(|zone| !zone.is_empty()),
            http: reached.http,
            grpc: reached.grpc,
            gossip_listen: reached.gossip_listen,
            gossip_advertise: reached.gossip_advertise,
            seeds: config.memberlist.join_members.clone(),
            secret: addresses::secret(config)?,
            gossip_interval: config.cluster.gossip_interval,
            replication_factor: config.common.replication_factor,
            allow_partial: config.querier.allow_partial,
            ingester,
            history,
            incoming: Incoming::new(listener, tls),
            dial,
        };
        let about = About {
            cluster_id: plan.cluster_id.clone(),
            me: plan.name.clone(),
            replication_factor: plan.replication_factor,
            grpc,
            gossip: plan.gossip_listen,
        };
        Ok((plan, about))
    }

    /// The own log.
    pub(crate) fn own_log(&self) -> Option<LogId> {
        self.ingester.as_ref().map(|ingester| ingester.log_id())
    }

    /// The process as it tells others of itself, at first. `generation` grows with every start.
    pub(crate) fn member(&self, generation: u64) -> Member {
        Member {
            name: self.name.clone(),
            generation,
            role: self.role,
            state: State::Joining,
            zone: self.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            http: self.http.clone(),
            grpc: self.grpc,
            gossip: self.gossip_advertise,
            logs: self.own_log().into_iter().collect(),
            alive: true,
        }
    }
}

impl Cluster {
    /// `joined`, taken apart: what the querier reads, where pushes go, and the rest.
    pub(crate) fn new(about: About, joined: Joined, registry: &mut Registry) -> (Self, Arc<dyn Nodes>, forward::Pick) {
        let Joined { members, nodes, pick, set_state, leave, replication, register } = joined;
        register(registry);
        (Self { about, members, replication, set_state, leave }, nodes, pick)
    }

    /// Tells others how this process stands.
    pub(crate) fn set_state(&self, state: State) {
        (self.set_state)(state);
    }

    /// Says goodbye.
    pub(crate) async fn leave(&self) {
        if tokio::time::timeout(LEAVE, (self.leave)()).await.is_err() {
            tracing::warn!("the cluster was left without a goodbye; others find out by themselves");
        }
    }

    /// Where clients may go instead: the URLs of other nodes that are there.
    pub(crate) fn others(&self) -> Vec<String> {
        let members = self.members.borrow();
        let there = |m: &&Member| m.alive && m.state == State::Active && m.name != self.about.me;
        members.members.iter().filter(there).map(|member| member.http.clone()).take(MAX_OTHERS).collect()
    }
}
