//! The edge: HTTP and WebSocket, tenancy, limits of requests, configuration, metrics, readiness and drain. It puts the parts of
//! the process together and is the only crate that speaks to clients.
//!
//! With other processes it is a cluster: [`cluster`] says what a member brings along and gets.
//!
//! A request's way: [`conn`] (deadlines) → `routes` → `push`, `read`, `tail` or `admin`; what goes wrong anywhere becomes an
//! answer in `errors`, the one table.

mod admin;
mod answer;
mod app;
mod body;
mod cluster;
mod config;
mod conn;
mod delete;
mod drain;
mod errors;
mod form;
mod intake;
pub mod logging;
mod metrics;
mod params;
mod push;
mod quiet;
mod read;
mod resume_secret;
mod routes;
mod server;
mod storage;
mod stream;
mod tail;
mod tenancy;
mod tls;

pub use config::{
    ClientAuth, ClientTlsConfig, ClusterConfig, CommonConfig, CompactorConfig, Config, ConfigError, DistributorConfig,
    FrontendConfig, IngesterConfig, Loaded, MemberlistConfig, QuerierConfig, S3Config, Secret, ServerConfig,
    ServerTlsConfig, StorageConfig, Target, WalConfig, WalSync,
};
pub use server::{Addrs, Server};
pub use storage::open_storage_read_only;
pub use tls::Certificates;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address as configured.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// What survives a restart cannot be opened.
    #[error("{0}")]
    Storage(String),
    /// A certificate, or its key, cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The cluster cannot be joined.
    #[error("the cluster cannot be joined: {0}")]
    Cluster(String),
    /// The store or the write-ahead log says why.
    #[error(transparent)]
    Store(#[from] tailwater_store::Error),
}

/// What an [`Error`] is, for exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bad usage or configuration.
    Usage,
    /// The machine does not allow it.
    Failed,
}

impl Error {
    pub(crate) fn tls(error: impl std::fmt::Display) -> Self {
        Self::Tls(error.to_string())
    }

    /// What the error is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config(_) | Self::Tls(_) => Kind::Usage,
            Self::Store(error) if error.kind() == tailwater_store::Kind::Config => Kind::Usage,
            Self::Bind { .. } | Self::Storage(_) | Self::Cluster(_) | Self::Store(_) => Kind::Failed,
        }
    }
}
