//! The parts of a cluster, put together: gossip, calls between members, the directory of logs, copies.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use tailwater_cluster::rpc::{self, Connect, Io, Peers, RpcMetrics, ServeMetrics};
use tailwater_cluster::{
    Directory, DirectoryMetrics, Logs, Members, Membership, MembershipConfig, MembershipMetrics, Replicator,
    ReplicatorMetrics, Secret, generation,
};
use tailwater_querier::Nodes;
use tailwater_store::history::History;
use tailwater_wire::host::{Copied, Host};
use tailwater_wire::node::Blocks;
use tokio::sync::watch;

use super::forward::{Lost, Taker};
use super::{Dial, Joined, Later, Plan};
use crate::Error;

/// How often it is looked which logs this process answers for: copies come and go.
const LOOK: Duration = Duration::from_millis(500);

/// Joins the cluster. It begins as joining; others hear of the rest with [`Joined::set_state`].
///
/// # Errors
/// What gossip needs cannot be had.
pub(crate) async fn join(plan: Plan, host: Arc<dyn Host>) -> Result<Joined, Error> {
    let unusable = |error: tailwater_cluster::Error| Error::Cluster(error.to_string());
    let me = plan.member(generation());
    let (calls, served) = (RpcMetrics::default(), ServeMetrics::default());
    let (gossip, logs, copies) =
        (MembershipMetrics::default(), DirectoryMetrics::default(), ReplicatorMetrics::default());
    let config = MembershipConfig {
        cluster_id: plan.cluster_id.clone(),
        name: me.name.clone(),
        generation: me.generation,
        role: me.role,
        zone: me.zone.clone(),
        version: me.version.clone(),
        http: me.http.clone(),
        grpc: me.grpc,
        gossip_listen: plan.gossip_listen,
        gossip_advertise: Some(plan.gossip_advertise),
        seeds: plan.seeds,
        secret: plan.secret.as_ref().map(proof).transpose()?,
        gossip_interval: plan.gossip_interval,
    };
    let membership = Membership::start(config, gossip.clone()).await.map_err(unusable)?;
    membership.set_logs(host.logs());
    tokio::spawn(say_logs(Arc::downgrade(&membership), Arc::downgrade(&host)));
    let has_logs = Arc::downgrade(&host);

    let (closing, mut closed) = watch::channel(false);
    let incoming = plan.incoming.map(|stream| stream.map(|stream| Box::new(stream) as Io));
    let shutdown = async move {
        // Whoever would say it being gone says the same.
        let _ = closed.wait_for(|closed| *closed).await;
    };
    tokio::spawn(rpc::serve(incoming, Arc::clone(&host), plan.cluster_id.clone(), served.clone(), shutdown));

    let peers = Peers::new(Arc::new(plan.dial), plan.cluster_id, calls.clone());
    let members = membership.members();
    let (carrier, certain) = (Arc::clone(&peers) as _, !plan.allow_partial);
    let directory = Directory::new(members.clone(), me.name.clone(), certain, host, carrier, logs.clone());
    let replicator = plan.ingester.filter(|_| plan.replication_factor > 1).map(|ingester| {
        let (copied, courier) = (ingester as Arc<dyn Copied>, Arc::clone(&peers) as _);
        let (members, me) = (members.clone(), membership.me());
        Arc::new(Replicator::start(copied, members, me, courier, plan.replication_factor, copies.clone()))
    });

    tokio::spawn(forget_peers(members.clone(), Arc::downgrade(&peers)));

    let nodes: Arc<dyn Nodes> = Arc::new(ClusterNodes { directory: Arc::clone(&directory), history: plan.history });
    let pick = {
        let (directory, peers) = (directory, peers);
        Box::new(move || taker(&directory, &peers))
    };
    let stating = Arc::clone(&membership);
    let replication = replicator.clone().map(|replicator| {
        let told = move || {
            let state = replicator.state();
            let follower = |f: &tailwater_cluster::Follower| json!({"node": f.node, "through": f.through});
            let followers: Vec<_> = state.followers.iter().map(follower).collect();
            json!({"factor": state.factor, "quorum": state.quorum, "followers": followers})
        };
        Box::new(told) as Box<dyn Fn() -> serde_json::Value + Send + Sync>
    });
    Ok(Joined {
        members,
        nodes,
        pick,
        set_state: Box::new(move |state| {
            // Once it is active others believe that it has no other logs than it says.
            if let Some(host) = has_logs.upgrade() {
                stating.set_logs(host.logs());
            }
            stating.set_state(state);
        }),
        leave: Box::new(move || {
            let (membership, closing, replicator) = (Arc::clone(&membership), closing.clone(), replicator.clone());
            Box::pin(async move {
                membership.leave().await;
                closing.send_replace(true);
                drop(replicator);
            })
        }),
        replication,
        register: Box::new(move |registry| {
            gossip.register(registry);
            logs.register(registry);
            copies.register(registry);
            calls.register(registry);
            served.register(registry);
        }),
    })
}

/// What gossip is proved with.
fn proof(secret: &crate::config::Secret) -> Result<Secret, Error> {
    let short = || Error::Cluster(format!("cluster.secret is too short: {} bytes at least", Secret::MIN));
    Secret::new(secret.reveal().as_bytes()).ok_or_else(short)
}

/// Forgets connections to addresses that no member has any more.
async fn forget_peers(mut members: watch::Receiver<Arc<Members>>, peers: Weak<Peers>) {
    while members.changed().await.is_ok() {
        let now = members.borrow_and_update().clone();
        let Some(peers) = peers.upgrade() else { return };
        peers.keep(|at| now.members.iter().any(|member| member.grpc == at));
    }
}

/// Tells others which logs this process answers for.
async fn say_logs(membership: Weak<Membership>, host: Weak<dyn Host>) {
    loop {
        let Some((membership, host)) = membership.upgrade().zip(host.upgrade()) else { return };
        membership.set_logs(host.logs());
        drop((membership, host));
        tokio::time::sleep(LOOK).await;
    }
}

/// Every log of the cluster, and the blocks that this process reads itself.
struct ClusterNodes {
    directory: Arc<Directory>,
    history: Option<History>,
}

impl Nodes for ClusterNodes {
    fn nodes(&self) -> watch::Receiver<Logs> {
        self.directory.nodes()
    }

    fn blocks(&self) -> Option<Arc<dyn Blocks>> {
        self.history.clone().map(|history| Arc::new(history) as Arc<dyn Blocks>)
    }

    fn unanswered(&self) -> Duration {
        self.history.as_ref().map_or(Duration::ZERO, History::unanswered)
    }
}

impl Connect for Dial {
    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        let dial = self.clone();
        Box::pin(async move { dial.connect(to).await })
    }
}

/// A member that takes pushes, and how one gets there.
fn taker(directory: &Directory, peers: &Arc<Peers>) -> Option<Taker> {
    let pick = directory.pick(&[])?;
    let (name, peer) = (pick.member.name.clone(), peers.peer(pick.member.grpc));
    let send = Box::new(move |push| {
        Box::pin(async move {
            // Counts as under way until it is answered.
            let _pick = pick;
            peer.reach().await.map_err(|error| Lost::Before(error.to_string()))?;
            peer.push(push).await.map_err(|error| Lost::After(error.to_string()))
        }) as Later<_>
    });
    Some(Taker { name, send })
}
