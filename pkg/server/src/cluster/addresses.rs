//! How others reach this process, and what it is called: as configured, or found out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use tailwater_model::LogId;

use crate::config::Secret;
use crate::{Config, ConfigError, Error};

/// How long a name may take to be looked up at the start.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Letters of a log's id that tell apart the nodes of one machine.
const LOG_LETTERS: usize = 6;

/// Where this process is.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) http: String,
    pub(crate) grpc: SocketAddr,
    pub(crate) gossip_listen: SocketAddr,
    pub(crate) gossip_advertise: SocketAddr,
}

impl Reached {
    /// `http`, `grpc`: where it listens.
    ///
    /// # Errors
    /// A name that nobody knows, or no UDP port.
    pub(crate) async fn find(config: &Config, http: SocketAddr, grpc: SocketAddr) -> Result<Self, Error> {
        let memberlist = &config.memberlist;
        let own = match config.common.instance_addr.as_str() {
            "" => None,
            named => Some(look_up("common.instance_addr", named).await?),
        };
        let of = async |listens: IpAddr| match own {
            Some(own) => own,
            None if !listens.is_unspecified() => listens,
            None => outward(&memberlist.join_members).await.unwrap_or_else(|| {
                tracing::warn!("no address is found by which others reach this node; set common.instance_addr");
                loopback(listens)
            }),
        };
        let gossip_ip = match memberlist.bind_addr.first() {
            None => grpc.ip(),
            Some(host) => look_up("memberlist.bind_addr", host).await?,
        };
        let gossip_port = match memberlist.bind_port {
            0 => free_port(gossip_ip)?,
            port => port,
        };
        let gossip_reached = match memberlist.advertise_addr.as_str() {
            "" => of(gossip_ip).await,
            named => look_up("memberlist.advertise_addr", named).await?,
        };
        let gossip_reached_port = match memberlist.advertise_port {
            0 => gossip_port,
            port => port,
        };
        let grpc = match config.cluster.grpc_advertise_addr.as_str() {
            "" => SocketAddr::new(of(grpc.ip()).await, grpc.port()),
            named => {
                let (host, port) = named.rsplit_once(':').unwrap_or((named, ""));
                let port = port.parse().unwrap_or(grpc.port());
                SocketAddr::new(look_up("cluster.grpc_advertise_addr", host).await?, port)
            }
        };
        let http = match config.cluster.http_advertise_url.trim_end_matches('/') {
            "" => {
                let scheme = if config.server.http_tls.is_on() { "https" } else { "http" };
                format!("{scheme}://{}", SocketAddr::new(of(http.ip()).await, http.port()))
            }
            url => url.to_owned(),
        };
        Ok(Self {
            http,
            grpc,
            gossip_listen: SocketAddr::new(gossip_ip, gossip_port),
            gossip_advertise: SocketAddr::new(gossip_reached, gossip_reached_port),
        })
    }
}

/// The address of a host.
async fn look_up(key: &str, host: &str) -> Result<IpAddr, Error> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let wrong = |what: String| Error::Config(ConfigError { at: key.to_owned(), what: format!("{host:?}: {what}") });
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((host, 0))).await;
    let mut found =
        found.map_err(|_| wrong("it cannot be looked up in time".to_owned()))?.map_err(|e| wrong(e.to_string()))?;
    found.next().map(|at| at.ip()).ok_or_else(|| wrong("nobody knows it".to_owned()))
}

/// The own address on the way to the other members, or to anywhere. Nothing is sent.
async fn outward(seeds: &[String]) -> Option<IpAddr> {
    for seed in seeds {
        if let Ok(Ok(mut found)) = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(seed)).await
            && let Some(own) = found.find_map(towards)
        {
            return Some(own);
        }
    }
    // Addresses of documents: nobody has them, everybody has a way there.
    let anywhere = [
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)),
        SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)),
    ];
    anywhere.into_iter().find_map(towards)
}

fn towards(there: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if there.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(there).ok()?;
    socket.local_addr().ok().map(|own| own.ip()).filter(|own| !own.is_unspecified())
}

fn loopback(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// A UDP port that is free: gossip tells it to others before it listens.
fn free_port(ip: IpAddr) -> Result<u16, Error> {
    let socket = UdpSocket::bind((ip, 0)).and_then(|socket| socket.local_addr());
    socket.map(|at| at.port()).map_err(|source| Error::Bind { address: format!("udp {ip}:0"), source })
}

/// What proves that gossip is of this cluster.
///
/// # Errors
/// The file cannot be read, or is empty.
pub(crate) fn secret(config: &Config) -> Result<Option<Secret>, Error> {
    let file = &config.cluster.secret_file;
    if file.as_os_str().is_empty() {
        return Ok(Some(config.cluster.secret.clone()).filter(|secret| !secret.is_empty()));
    }
    let wrong =
        |what: String| Error::Config(ConfigError { at: format!("cluster.secret_file: {}", file.display()), what });
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("it is empty".to_owned())),
        text => Ok(Some(Secret::new(text.to_owned()))),
    }
}

/// The name of this process: as configured, or the machine's and something that no other process there has.
pub(crate) fn node_name(config: &Config, own_log: Option<LogId>, http_port: u16) -> String {
    if !config.memberlist.node_name.is_empty() {
        return config.memberlist.node_name.clone();
    }
    let machine = machine_name();
    match own_log {
        Some(log) => {
            let id = log.to_string().to_ascii_lowercase();
            let letters = id.get(id.len().saturating_sub(LOG_LETTERS)..).unwrap_or(&id);
            format!("{machine}-{letters}")
        }
        None => format!("{machine}-querier-{http_port}"),
    }
}

fn machine_name() -> String {
    let of_kernel = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).ok();
    let name = of_kernel.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "tailwater".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "c.yaml").unwrap().config
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn addresses_are_those_configured_or_those_listened_on() {
        let found =
            Reached::find(&config("memberlist: {bind_port: 0}"), at("127.0.0.1:31"), at("127.0.0.2:95")).await.unwrap();
        assert_eq!((found.http.as_str(), found.grpc), ("http://127.0.0.1:31", at("127.0.0.2:95")));
        assert_eq!(found.gossip_listen, found.gossip_advertise);
        assert!(found.gossip_listen.port() != 0 && found.gossip_listen.ip() == at("127.0.0.2:1").ip());

        let text = "
memberlist: {bind_addr: [0.0.0.0], bind_port: 7, advertise_port: 8}
common: {instance_addr: 10.1.2.3}
server: {http_tls_config: {cert_file: x, key_file: y}}
";
        let found = Reached::find(&config(text), at("0.0.0.0:31"), at("[::]:95")).await.unwrap();
        assert_eq!((found.http.as_str(), found.grpc), ("https://10.1.2.3:31", at("10.1.2.3:95")));
        assert_eq!((found.gossip_listen, found.gossip_advertise), (at("0.0.0.0:7"), at("10.1.2.3:8")));

        let text = "
memberlist: {advertise_addr: localhost}
cluster: {http_advertise_url: 'https://logs.example/', grpc_advertise_addr: '[::1]:1'}
";
        let found = Reached::find(&config(text), at("0.0.0.0:31"), at("127.0.0.1:95")).await.unwrap();
        assert_eq!((found.http.as_str(), found.grpc), ("https://logs.example", at("[::1]:1")));
        assert!(found.gossip_advertise.ip().is_loopback());
        assert!(outward(&["127.0.0.1:9".to_owned()]).await.unwrap().is_loopback());
    }

    #[test]
    fn names_last_and_differ() {
        let (config, named) = (config(""), config("memberlist: {node_name: one}"));
        let log = LogId::generate();
        assert_eq!(node_name(&config, Some(log), 1), node_name(&config, Some(log), 2));
        assert!(node_name(&config, Some(log), 1).ends_with(&log.to_string().to_ascii_lowercase()[20..]));
        assert!(node_name(&config, None, 7).ends_with("-querier-7"));
        assert_eq!(node_name(&named, Some(log), 1), "one");
    }

    #[test]
    fn a_secret_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let config = config(&format!("cluster: {{secret_file: {}}}", file.display()));
        assert!(secret(&config).is_err());
        std::fs::write(&file, " sesame\n").unwrap();
        assert_eq!(secret(&config).unwrap().unwrap().reveal(), "sesame");
        std::fs::write(&file, "\n").unwrap();
        assert!(secret(&config).unwrap_err().to_string().contains("empty"));
    }
}
