//! Configuration: defaults, then the file, then `TAILWATER_*` of the environment, then flags. Keys that mean what a key of Loki
//! means bear its name and stand where it stands; keys of Loki without a meaning here are accepted with a warning; any other key
//! is an error that names it, its place and the nearest known key.

mod check;
mod cluster;
mod foreign;
mod keys;
mod nearest;
mod print;
mod retention;
mod storage;
mod tree;
mod units;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_saphyr::Spanned;
use tailwater_model::{Limits, TenantId, TenantLimits};
use tailwater_wire::otlp::DEFAULT_INDEX_ATTRIBUTES;

pub use cluster::{
    ClientAuth, ClientTlsConfig, ClusterConfig, CommonConfig, MemberlistConfig, ServerTlsConfig, Target,
};
use keys::{CONFIG_KEYS, LIMIT_KEYS};
pub(crate) use print::Mode;
pub use storage::{CompactorConfig, S3Config, Secret, StorageConfig, WalConfig, WalSync};
use tree::Node;

/// Prefix of environment variables that are settings: `server.http_listen_port` is `TAILWATER_SERVER_HTTP_LISTEN_PORT`.
const ENVIRONMENT_PREFIX: &str = "TAILWATER_";

/// The largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Everything that can be set. [`Config::default`] is a server on `127.0.0.1:3100` for anybody who can reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which parts run in this process.
    pub target: Target,
    /// `Some(true)`: a tenant header is required; `Some(false)`: it is ignored; `None`: it is honoured, and whoever sends none is
    /// [`Config::no_auth_tenant`].
    pub auth_enabled: Option<bool>,
    /// The tenant of requests that name none.
    pub no_auth_tenant: String,
    /// Folder of what survives a restart.
    pub data_dir: PathBuf,
    /// The listeners and their connections.
    pub server: ServerConfig,
    /// What members of a cluster have in common.
    pub common: CommonConfig,
    /// Who the other members are, and how they hear of this one.
    pub memberlist: MemberlistConfig,
    /// How members trust and reach each other.
    pub cluster: ClusterConfig,
    /// What pushes may look like.
    pub distributor: DistributorConfig,
    /// The arrival log, and how it becomes blocks.
    pub ingester: IngesterConfig,
    /// Where blocks are.
    pub storage: StorageConfig,
    /// What is done with blocks later.
    pub compactor: CompactorConfig,
    /// Tails and queries.
    pub querier: QuerierConfig,
    /// The read endpoints.
    pub frontend: FrontendConfig,
    /// Limits of every tenant that has none of its own.
    pub limits: Limits,
    /// Limits of single tenants.
    pub overrides: BTreeMap<TenantId, Limits>,
}

/// `server.*`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Address to listen on; empty = all.
    pub http_listen_address: String,
    /// Port to listen on; 0 = any that is free.
    pub http_listen_port: u16,
    /// TLS of it.
    pub http_tls: ServerTlsConfig,
    /// Address for calls of other members; empty = [`ServerConfig::http_listen_address`].
    pub grpc_listen_address: String,
    /// Port for them; 0 = any that is free.
    pub grpc_listen_port: u16,
    /// TLS of it.
    pub grpc_tls: ServerTlsConfig,
    /// Most connections at a time; 0 = any number.
    pub http_listen_conn_limit: usize,
    /// Longest time to receive a request.
    pub http_server_read_timeout: Duration,
    /// Longest time without a byte of the answer being taken.
    pub http_server_write_timeout: Duration,
    /// How long a connection may wait for the next request.
    pub http_server_idle_timeout: Duration,
    /// Longest drain after SIGTERM.
    pub graceful_shutdown_timeout: Duration,
    /// debug, info, warn or error.
    pub log_level: String,
    /// logfmt or json.
    pub log_format: String,
}

/// `distributor.*`
#[derive(Clone, Debug, PartialEq)]
pub struct DistributorConfig {
    /// Largest push body as received, in bytes.
    pub max_recv_msg_size: usize,
    /// Largest push body after decompression, in bytes.
    pub max_decompressed_size: usize,
    /// Resource attributes that become stream labels.
    pub otlp_resource_attributes_as_index_labels: Vec<String>,
}

/// `ingester.*`
#[derive(Clone, Debug, PartialEq)]
pub struct IngesterConfig {
    /// Memory of the arrival log in MiB.
    pub log_memory_mb: u32,
    /// Twice the window within which a stream accepts entries out of order.
    pub max_chunk_age: Duration,
    /// Oldest age of lines that are in no block yet.
    pub max_block_age: Duration,
    /// Lines that make a block, in MiB.
    pub target_block_mb: u32,
    /// The arrival log on disk.
    pub wal: WalConfig,
    /// How long a push waits for its copies.
    pub replication_timeout: Duration,
    /// Bound on copies of others' logs on disk, in MiB; 0: until the disk is full.
    pub copies_max_mb: u32,
    /// How long an owner of a log may be gone before those who have copies put it into blocks.
    pub orphan_after: Duration,
}

/// `querier.*`
#[derive(Clone, Debug, PartialEq)]
pub struct QuerierConfig {
    /// Longest tail.
    pub tail_max_duration: Duration,
    /// Encoded frames that a feed keeps for tails that lag, in MiB.
    pub feed_ring_mb: u32,
    /// Lines that a feed holds back for `delay_for`, in MiB.
    pub feed_merge_mb: u32,
    /// What a metric query may take on its way, in MiB: the partial aggregates of one range aggregation, then the series of all.
    pub query_memory_mb: u32,
    /// Allow `X-Scope-OrgID: a|b` on queries.
    pub multi_tenant_queries_enabled: bool,
    /// Answer what can be had, with a warning, when a log cannot be reached; otherwise such a query fails.
    pub allow_partial: bool,
    /// What resume tokens are sealed with, the same on all members; empty = made anew by every process.
    pub resume_secret: Secret,
}

/// `frontend.*`
#[derive(Clone, Debug, PartialEq)]
pub struct FrontendConfig {
    /// Largest body of a read request, in bytes.
    pub max_body_size: usize,
    /// Most queries of a tenant that wait while others run; 0 = any number.
    pub max_outstanding_per_tenant: usize,
    /// Compress answers for clients that accept gzip.
    pub compress_responses: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target: Target::All,
            auth_enabled: None,
            no_auth_tenant: "fake".to_owned(),
            data_dir: PathBuf::from("./data"),
            server: ServerConfig {
                http_listen_address: "127.0.0.1".to_owned(),
                http_listen_port: 3100,
                http_tls: ServerTlsConfig::default(),
                grpc_listen_address: String::new(),
                grpc_listen_port: 9095,
                grpc_tls: ServerTlsConfig::default(),
                http_listen_conn_limit: 0,
                http_server_read_timeout: Duration::from_secs(30),
                http_server_write_timeout: Duration::from_secs(30),
                http_server_idle_timeout: Duration::from_secs(120),
                graceful_shutdown_timeout: Duration::from_secs(30),
                log_level: "info".to_owned(),
                log_format: "logfmt".to_owned(),
            },
            common: CommonConfig::default(),
            memberlist: MemberlistConfig::default(),
            cluster: ClusterConfig::default(),
            distributor: DistributorConfig {
                max_recv_msg_size: 100 << 20,
                // Loki allows 5000 MiB, and needs them when somebody sends a bomb.
                max_decompressed_size: 256 << 20,
                otlp_resource_attributes_as_index_labels: DEFAULT_INDEX_ATTRIBUTES
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect(),
            },
            ingester: IngesterConfig {
                log_memory_mb: 256,
                max_chunk_age: Duration::from_secs(2 * 3600),
                max_block_age: Duration::from_secs(30 * 60),
                target_block_mb: 128,
                wal: WalConfig::default(),
                replication_timeout: Duration::from_secs(5),
                copies_max_mb: 0,
                orphan_after: Duration::from_secs(60),
            },
            storage: StorageConfig::default(),
            compactor: CompactorConfig::default(),
            querier: QuerierConfig {
                tail_max_duration: Duration::from_secs(3600),
                feed_ring_mb: 8,
                feed_merge_mb: 64,
                query_memory_mb: 256,
                multi_tenant_queries_enabled: false,
                allow_partial: true,
                resume_secret: Secret::default(),
            },
            frontend: FrontendConfig {
                max_body_size: 10 << 20,
                max_outstanding_per_tenant: 2048,
                compress_responses: true,
            },
            limits: Limits::default(),
            overrides: BTreeMap::new(),
        }
    }
}

/// Why a configuration cannot be used. The text names the source, the place and the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct ConfigError {
    /// `file:line:column`, the environment variable or the flag.
    pub at: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

/// A configuration and what its author should know.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Settings without effect, each with its place.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the configuration: defaults, `file`, `TAILWATER_*` of `environment`, then `overrides` (dotted key and value, from
    /// flags).
    ///
    /// # Errors
    /// The first setting that is unknown or bad, or that the file cannot be read.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Loaded, ConfigError> {
        let mut loader = Loader::default();
        if let Some(path) = file {
            let name = path.display().to_string();
            let text = read(path).map_err(|what| ConfigError { at: name.clone(), what })?;
            loader.file(&text, &name)?;
        }
        loader.environment(environment)?;
        for (path, value) in overrides {
            loader.set(path, &Node::Scalar(value.clone()), &format!("flag for {path}"))?;
        }
        loader.finish()
    }

    /// Reads a configuration file's text; `name` is what messages call it.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn parse(text: &str, name: &str) -> Result<Loaded, ConfigError> {
        let mut loader = Loader::default();
        loader.file(text, name)?;
        loader.finish()
    }

    /// Where the limits of tenants come from.
    pub(crate) fn tenant_limits(&self) -> Arc<dyn TenantLimits> {
        Arc::new(ConfiguredLimits {
            common: Arc::new(self.limits.clone()),
            own: self.overrides.iter().map(|(tenant, limits)| (tenant.clone(), Arc::new(limits.clone()))).collect(),
        })
    }
}

struct ConfiguredLimits {
    common: Arc<Limits>,
    own: BTreeMap<TenantId, Arc<Limits>>,
}

impl TenantLimits for ConfiguredLimits {
    fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        Arc::clone(self.own.get(tenant).unwrap_or(&self.common))
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    // What a file says about its size need not be true: a device has none and does not end.
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let size = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)? as u64;
    if size > MAX_FILE_BYTES {
        return Err(format!("is too long; a configuration has at most {MAX_FILE_BYTES} bytes"));
    }
    Ok(text)
}

#[derive(Default)]
struct Loader {
    config: Config,
    /// Settings of `overrides`, applied last: they start from the final common limits.
    own: Vec<(TenantId, &'static keys::Key<Limits>, Node, String)>,
    /// Where each setting was set last.
    places: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Loader {
    fn file(&mut self, text: &str, name: &str) -> Result<(), ConfigError> {
        let document: Option<Spanned<Node>> = serde_saphyr::from_str(text).map_err(|error| {
            let at = error.location().map_or_else(|| name.to_owned(), |l| place(name, l.line(), l.column()));
            ConfigError { at, what: format!("not YAML: {}", error.without_snippet()) }
        })?;
        match document {
            None => Ok(()),
            Some(document) => self.map("", &document.value, name, name),
        }
    }

    fn map(&mut self, above: &str, node: &Node, name: &str, at: &str) -> Result<(), ConfigError> {
        let pairs = match node {
            Node::Null => return Ok(()),
            Node::Map(pairs) => pairs,
            other => {
                let whose = if above.is_empty() { String::new() } else { format!("{above}: ") };
                let what = format!("{whose}found {} where settings are expected", other.kind());
                return Err(ConfigError { at: at.to_owned(), what });
            }
        };
        for (key, value) in pairs {
            let at = place(name, key.referenced.line(), key.referenced.column());
            let key = key.value.text().unwrap_or("~");
            let path = if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") };
            if above == "overrides" {
                self.tenant(key, &value.value, name, &at)?;
            } else if path == "overrides" || is_section(&path) {
                self.map(&path, &value.value, name, &at)?;
            } else {
                let known = paths().any(|known| known == path) && value.referenced.line() > 0;
                let at = if known { place(name, value.referenced.line(), value.referenced.column()) } else { at };
                self.set(&path, &value.value, &at)?;
            }
        }
        Ok(())
    }

    fn tenant(&mut self, tenant: &str, node: &Node, name: &str, at: &str) -> Result<(), ConfigError> {
        let bad = |what: String| ConfigError { at: at.to_owned(), what };
        let id = TenantId::parse(tenant).map_err(|e| bad(format!("overrides: {e}")))?;
        let pairs = match node {
            Node::Null => return Ok(()),
            Node::Map(pairs) => pairs,
            other => return Err(bad(format!("overrides.{tenant}: found {} where limits are expected", other.kind()))),
        };
        for (key, value) in pairs {
            let at = place(name, key.referenced.line(), key.referenced.column());
            let key = key.value.text().unwrap_or("~");
            if let Some(known) = LIMIT_KEYS.iter().find(|known| known.path == key) {
                self.own.push((id.clone(), known, value.value.clone(), at));
            } else if foreign::is_lokis(&format!("limits_config.{key}")) {
                self.warn(&at, &format!("overrides.{tenant}.{key}"));
            } else {
                let nearest = nearest::nearest(key, LIMIT_KEYS.iter().map(|known| known.path));
                return Err(ConfigError { at, what: unknown(&format!("overrides.{tenant}.{key}"), nearest) });
            }
        }
        Ok(())
    }

    fn environment(&mut self, all: impl IntoIterator<Item = (String, String)>) -> Result<(), ConfigError> {
        let mut ours: Vec<_> = all.into_iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
        ours.sort();
        for (name, value) in ours {
            let wanted = &name[ENVIRONMENT_PREFIX.len()..];
            match paths().find(|path| path.replace('.', "_").eq_ignore_ascii_case(wanted)) {
                Some(path) => self.set(&path, &Node::Scalar(value), &name)?,
                None => self.warnings.push(format!("{name}: names no setting and has no effect")),
            }
        }
        Ok(())
    }

    fn set(&mut self, path: &str, value: &Node, at: &str) -> Result<(), ConfigError> {
        let result = if let Some(limit) = path.strip_prefix("limits_config.")
            && let Some(key) = LIMIT_KEYS.iter().find(|key| key.path == limit)
        {
            (key.set)(&mut self.config.limits, value)
        } else if let Some(key) = CONFIG_KEYS.iter().find(|key| key.path == path) {
            (key.set)(&mut self.config, value)
        } else if foreign::is_lokis(path) {
            self.warn(at, path);
            return Ok(());
        } else {
            let known: Vec<_> = paths().collect();
            let nearest = nearest::nearest(path, known.iter().map(String::as_str));
            return Err(ConfigError { at: at.to_owned(), what: unknown(path, nearest) });
        };
        self.places.insert(path.to_owned(), at.to_owned());
        result
            .and_then(|()| check::alone(&self.config, path))
            .map_err(|what| ConfigError { at: at.to_owned(), what: format!("{path}: {what}") })
    }

    fn warn(&mut self, at: &str, path: &str) {
        self.warnings.push(format!("{at}: {path}: a setting of Loki without a meaning here; it has no effect"));
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        self.config.limits.out_of_order_window = self.config.ingester.max_chunk_age / 2;
        for (tenant, key, value, at) in self.own {
            let limits = self.config.overrides.entry(tenant).or_insert_with(|| self.config.limits.clone());
            if let Err(what) = (key.set)(limits, &value).and_then(|()| check::limit(limits, key.path)) {
                return Err(ConfigError { at, what: format!("{}: {what}", key.path) });
            }
            if let Some(why) = check::idle(&self.config, &format!("limits_config.{}", key.path)) {
                self.warnings.push(format!("{at}: {}: has no effect while {why}", key.path));
            }
        }
        check::together(&self.config).map_err(|(path, what)| {
            let at = self.places.get(path).map_or("defaults", String::as_str);
            ConfigError { at: at.to_owned(), what: format!("{path}: {what}") }
        })?;
        for (path, at) in &self.places {
            if is_changed(&self.config, path)
                && let Some(why) = check::idle(&self.config, path)
            {
                self.warnings.push(format!("{at}: {path}: has no effect while {why}"));
            }
        }
        if let Some((path, why)) = cluster::doubtful(&self.config) {
            let at = self.places.get(path).map_or("defaults", String::as_str);
            self.warnings.push(format!("{at}: {path}: {why}"));
        }
        Ok(Loaded { config: self.config, warnings: self.warnings })
    }
}

/// Whether a setting is not as if it were not set.
fn is_changed(config: &Config, path: &str) -> bool {
    let default = Config::default();
    let limit = path.strip_prefix("limits_config.").and_then(|limit| LIMIT_KEYS.iter().find(|key| key.path == limit));
    let key = CONFIG_KEYS.iter().find(|key| key.path == path);
    key.is_some_and(|key| (key.get)(config) != (key.get)(&default))
        || limit.is_some_and(|key| (key.get)(&config.limits) != (key.get)(&default.limits))
}

fn place(name: &str, line: u64, column: u64) -> String {
    format!("{name}:{line}:{column}")
}

fn unknown(path: &str, nearest: Option<&str>) -> String {
    let hint = nearest.map_or(String::new(), |nearest| format!("; the nearest known key is {nearest:?}"));
    format!("unknown key {path:?}{hint}")
}

/// The full paths of all settings.
fn paths() -> impl Iterator<Item = String> {
    let limits = LIMIT_KEYS.iter().map(|key| format!("limits_config.{}", key.path));
    CONFIG_KEYS.iter().map(|key| key.path.to_owned()).chain(limits)
}

fn is_section(path: &str) -> bool {
    paths().any(|known| known.strip_prefix(path).is_some_and(|below| below.starts_with('.')))
}

#[cfg(test)]
mod tests;
