//! What makes several processes one: roles, gossip, addresses, copies, and TLS between and in front of them.
//!
//! Invariants: secrets are neither printed nor logged. A cluster is on exactly if something asks for it: see [`Config::is_clustered`].

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::storage::Secret;
use super::units::Named;

/// The port that gossip listens on, as Loki's.
pub(super) const GOSSIP_PORT: u16 = 7946;

/// The largest `common.replication_factor`.
const MAX_REPLICATION: usize = 9;

/// Which parts run in a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Everything.
    #[default]
    All,
    /// It takes pushes and keeps a log; it answers queries as well, but balancers are not meant to send it any.
    Ingester,
    /// It answers queries; pushes that reach it go on to an ingester.
    Querier,
}

impl Target {
    /// Whether a log is kept.
    #[must_use]
    pub const fn ingests(self) -> bool {
        matches!(self, Self::All | Self::Ingester)
    }
}

impl Named for Target {
    const ALL: &[(&str, Self)] = &[("all", Self::All), ("ingester", Self::Ingester), ("querier", Self::Querier)];
}

/// `common.*`, and the same under `common.ring.*` where Loki has it there as well.
#[derive(Clone, Debug, PartialEq)]
pub struct CommonConfig {
    /// Copies of a log in all, the owner's included.
    pub replication_factor: usize,
    /// The address by which others reach this process, without a port; empty = found out.
    pub instance_addr: String,
    /// Where it is: processes of one zone fail together; empty = nothing is known.
    pub instance_availability_zone: String,
}

/// `memberlist.*`
#[derive(Clone, Debug, PartialEq)]
pub struct MemberlistConfig {
    /// The name of the cluster: others are not listened to.
    pub cluster_label: String,
    /// Address to gossip on, at most one; none = that of gRPC.
    pub bind_addr: Vec<String>,
    /// UDP port to gossip on; 0 = any that is free.
    pub bind_port: u16,
    /// Members to begin with: `host:port`; names are looked up again and again.
    pub join_members: Vec<String>,
    /// The address by which others reach the gossip of this process; empty = `common.instance_addr`, or found out.
    pub advertise_addr: String,
    /// The port of it; 0 = the one that is listened on.
    pub advertise_port: u16,
    /// The name of this process, unique in the cluster, the same after a restart; empty = made of the name of the machine.
    pub node_name: String,
}

/// `cluster.*`
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// What proves that gossip comes from a member; empty = anybody who can send is believed.
    pub secret: Secret,
    /// A file that holds it.
    pub secret_file: PathBuf,
    /// How often is gossiped.
    pub gossip_interval: Duration,
    /// The URL by which others reach HTTP here; empty = made of the address.
    pub http_advertise_url: String,
    /// `host:port` by which others reach gRPC here; empty = made of the address.
    pub grpc_advertise_addr: String,
    /// TLS of calls to others.
    pub tls: ClientTlsConfig,
}

/// TLS of a listener: `server.http_tls_config.*`, `server.grpc_tls_config.*`. Without a certificate there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerTlsConfig {
    /// The certificate and what it is signed with (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
    /// Who signs the certificates of clients (PEM).
    pub client_ca_file: PathBuf,
    /// Whether clients need one.
    pub client_auth_type: ClientAuth,
}

/// Whether clients need a certificate. The names are Go's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    NoClientCert,
    /// One that is given has to be right.
    VerifyClientCertIfGiven,
    /// Without one that is right nobody gets in.
    RequireAndVerifyClientCert,
}

impl Named for ClientAuth {
    const ALL: &[(&str, Self)] = &[
        ("NoClientCert", Self::NoClientCert),
        ("VerifyClientCertIfGiven", Self::VerifyClientCertIfGiven),
        ("RequireAndVerifyClientCert", Self::RequireAndVerifyClientCert),
    ];
}

/// `cluster.tls.*`: calls to other members use TLS if there is a CA.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTlsConfig {
    /// Who signs the certificates of the members (PEM).
    pub ca_file: PathBuf,
    /// The certificate to show (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
    /// The name that the certificates of the members bear; empty = the address that is called.
    pub server_name: String,
}

impl Default for CommonConfig {
    fn default() -> Self {
        Self { replication_factor: 1, instance_addr: String::new(), instance_availability_zone: String::new() }
    }
}

impl Default for MemberlistConfig {
    fn default() -> Self {
        Self {
            cluster_label: "tailwater".to_owned(),
            bind_addr: Vec::new(),
            bind_port: GOSSIP_PORT,
            join_members: Vec::new(),
            advertise_addr: String::new(),
            advertise_port: 0,
            node_name: String::new(),
        }
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            secret_file: PathBuf::new(),
            gossip_interval: Duration::from_millis(200),
            http_advertise_url: String::new(),
            grpc_advertise_addr: String::new(),
            tls: ClientTlsConfig::default(),
        }
    }
}

impl ServerTlsConfig {
    /// Whether the listener speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }
}

impl ClientTlsConfig {
    /// Whether calls use TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.ca_file.as_os_str().is_empty()
    }
}

impl Config {
    /// Whether this process is a member of a cluster: it is told of others, told to gossip, or has only a part to play.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.target != Target::All || !self.memberlist.join_members.is_empty() || !self.memberlist.bind_addr.is_empty()
    }
}

/// What a setting must be for itself.
pub(super) fn alone(config: &Config, path: &str) -> Result<(), String> {
    let (common, memberlist, cluster) = (&config.common, &config.memberlist, &config.cluster);
    let host_port = |text: &str| {
        let fine = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0));
        if fine { Ok(()) } else { Err(format!("{text:?} is no address; allowed: HOST:PORT")) }
    };
    match path {
        "common.replication_factor" if !(1..=MAX_REPLICATION).contains(&common.replication_factor) => {
            Err(format!("{} is out of range; allowed: 1 to {MAX_REPLICATION}", common.replication_factor))
        }
        "memberlist.cluster_label" if memberlist.cluster_label.is_empty() => {
            Err("it is empty; allowed: a name for the cluster".to_owned())
        }
        "memberlist.bind_addr" if memberlist.bind_addr.len() > 1 => {
            Err("there are several; allowed: one address, 0.0.0.0 for all".to_owned())
        }
        "memberlist.join_members" => memberlist.join_members.iter().try_for_each(|member| host_port(member)),
        "cluster.gossip_interval" if !(10..=60_000).contains(&cluster.gossip_interval.as_millis()) => {
            Err("it is out of range; allowed: 10ms to 1m".to_owned())
        }
        "cluster.http_advertise_url" if !cluster.http_advertise_url.is_empty() => {
            let url = &cluster.http_advertise_url;
            let fine = ["http://", "https://"].iter().any(|s| url.strip_prefix(s).is_some_and(|rest| !rest.is_empty()));
            if fine {
                Ok(())
            } else {
                Err(format!("{url:?} is no URL; allowed: http://HOST:PORT or https://HOST:PORT"))
            }
        }
        "cluster.grpc_advertise_addr" if !cluster.grpc_advertise_addr.is_empty() => {
            host_port(&cluster.grpc_advertise_addr)
        }
        "ingester.replication_timeout" if config.ingester.replication_timeout.is_zero() => {
            Err("0 is too little; allowed: more than 0s".to_owned())
        }
        _ => Ok(()),
    }
}

/// What settings must be together. The error names the setting that is to blame.
pub(super) fn together(config: &Config) -> Result<(), (&'static str, String)> {
    let wrong = |path, what: &str| Err((path, what.to_owned()));
    let copies = config.common.replication_factor > 1;
    if copies && !config.ingester.wal.enabled {
        return wrong(
            "common.replication_factor",
            "copies are copies of the write-ahead log, and ingester.wal.enabled is false; leave one of them out",
        );
    }
    if copies && !config.is_clustered() {
        return wrong(
            "common.replication_factor",
            "there is nobody to keep copies; name other members with memberlist.join_members (--join), or leave it out",
        );
    }
    if config.target == Target::Querier && !config.ingester.wal.enabled {
        return wrong(
            "target",
            "a querier reads lines from blocks, and with ingester.wal.enabled: false there are none; leave one of them out",
        );
    }
    if !config.cluster.secret.is_empty() && !config.cluster.secret_file.as_os_str().is_empty() {
        return wrong("cluster.secret_file", "there is cluster.secret as well; give one of them");
    }
    for (tls, cert, key, ca, auth) in [
        (
            &config.server.http_tls,
            "server.http_tls_config.cert_file",
            "server.http_tls_config.key_file",
            "server.http_tls_config.client_ca_file",
            "server.http_tls_config.client_auth_type",
        ),
        (
            &config.server.grpc_tls,
            "server.grpc_tls_config.cert_file",
            "server.grpc_tls_config.key_file",
            "server.grpc_tls_config.client_ca_file",
            "server.grpc_tls_config.client_auth_type",
        ),
    ] {
        let given = |file: &PathBuf| !file.as_os_str().is_empty();
        match (given(&tls.cert_file), given(&tls.key_file)) {
            (true, false) => return Err((cert, format!("it has no {key}; set both"))),
            (false, true) => return Err((key, format!("it has no {cert}; set both"))),
            _ => {}
        }
        let asks = tls.client_auth_type != ClientAuth::NoClientCert;
        if asks && !given(&tls.client_ca_file) {
            return Err((auth, format!("nobody says whose certificates are right; set {ca}")));
        }
        if given(&tls.client_ca_file) && !asks {
            let what =
                format!("nobody is asked for a certificate; set {auth}: RequireAndVerifyClientCert, or leave it out");
            return Err((ca, what));
        }
        if asks && !tls.is_on() {
            return Err((auth, format!("there is no TLS without a certificate; set {cert} and {key}")));
        }
    }
    let tls = &config.cluster.tls;
    let given = |file: &PathBuf| !file.as_os_str().is_empty();
    match (given(&tls.cert_file), given(&tls.key_file)) {
        (true, false) => return wrong("cluster.tls.cert_file", "it has no cluster.tls.key_file; set both"),
        (false, true) => return wrong("cluster.tls.key_file", "it has no cluster.tls.cert_file; set both"),
        _ => {}
    }
    if !tls.is_on() && (given(&tls.cert_file) || !tls.server_name.is_empty()) {
        let path = if given(&tls.cert_file) { "cluster.tls.cert_file" } else { "cluster.tls.server_name" };
        return wrong(path, "calls use TLS only with cluster.tls.ca_file; set that, too");
    }
    if config.is_clustered() && tls.is_on() != config.server.grpc_tls.is_on() {
        let (path, what) = if tls.is_on() {
            (
                "cluster.tls.ca_file",
                "members call each other with TLS, but this one answers without; set server.grpc_tls_config.cert_file",
            )
        } else {
            (
                "server.grpc_tls_config.cert_file",
                "members answer with TLS, but this one calls without; set cluster.tls.ca_file",
            )
        };
        return wrong(path, what);
    }
    Ok(())
}

/// What its author should know, although it may be meant: with the setting that is about it.
pub(super) fn doubtful(config: &Config) -> Option<(&'static str, &'static str)> {
    if !config.is_clustered() {
        return None;
    }
    (config.is_storage_local() && config.ingester.wal.enabled).then_some((
        "storage.url",
        "blocks are in a folder, and only one process may write to it: members that have another one do not find what is in it; \
         use s3://, gs:// or az://",
    ))
}

/// Whether a setting has no effect outside of a cluster.
pub(super) fn is_of_cluster(path: &str) -> bool {
    ["common.", "memberlist.", "cluster.", "server.grpc_"].iter().any(|section| path.starts_with(section))
        || matches!(path, "ingester.replication_timeout" | "ingester.copies_max_mb" | "ingester.orphan_after")
}
