//! Who is in the cluster, as one node sees it.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;
use tailwater_model::LogId;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It takes pushes and keeps a log, and answers queries.
    All,
    /// It takes pushes and keeps a log. It answers queries as well; balancers are not meant to send it any.
    Ingester,
    /// It answers queries. Pushes that reach it go on to an ingester.
    Querier,
}

impl Role {
    /// Whether it keeps a log.
    #[must_use]
    pub const fn ingests(self) -> bool {
        matches!(self, Self::All | Self::Ingester)
    }
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is starting: it answers nothing yet.
    Joining,
    /// It is there.
    Active,
    /// It is going down: nothing new is sent to it.
    Leaving,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its name, unique in the cluster, the same after a restart.
    pub name: String,
    /// Grows with every start of the node.
    pub generation: u64,
    /// What it does.
    pub role: Role,
    /// What it says of itself.
    pub state: State,
    /// Where it is: nodes of one zone fail together.
    pub zone: Option<String>,
    /// The version of the program.
    pub version: String,
    /// Where it answers HTTP, as others reach it: `http://10.0.0.7:3100`.
    pub http: String,
    /// Where it answers gRPC, as others reach it.
    pub grpc: SocketAddr,
    /// Where it gossips, as others reach it.
    pub gossip: SocketAddr,
    /// Every log that it can answer for: its own first, then its copies of others'.
    #[serde(serialize_with = "texts")]
    pub logs: Vec<LogId>,
    /// Whether it has been heard of lately. A hint: a node that is silent may be there, and one that is not may be gone.
    pub alive: bool,
}

fn texts<S: serde::Serializer>(logs: &[LogId], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(logs.iter().map(ToString::to_string))
}

impl Member {
    /// Its own log, if it keeps one.
    #[must_use]
    pub fn own_log(&self) -> Option<LogId> {
        self.logs.first().copied().filter(|_| self.role.ingests())
    }

    /// Whether pushes may go there.
    #[must_use]
    pub fn takes_pushes(&self) -> bool {
        self.alive && self.role.ingests() && self.state == State::Active
    }
}

/// Everybody there is, this node included, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Members {
    /// Sorted by name, one of each.
    pub members: Vec<Member>,
}

impl Members {
    /// The node of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.members.binary_search_by(|member| member.name.as_str().cmp(name)).ok().and_then(|at| self.members.get(at))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Ingester => "ingester",
            Self::Querier => "querier",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Leaving => "leaving",
        })
    }
}
