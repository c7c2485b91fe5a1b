//! `tailwater serve`: the server, until a signal asks it to stop.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tailwater_server::{Config, Kind, Loaded, Server, logging};

use crate::error::Error;
use crate::signals::{Hangup, Stop};
use crate::terminal::tell;

const EXAMPLES: &str = "\
Examples:
  tailwater serve                                on 127.0.0.1:3100, lines in ./data
  tailwater serve --data-dir /var/lib/tailwater  lines there
  tailwater serve --storage-url s3://logs/prod   blocks in a bucket; keys from AWS_*
  tailwater serve --http-listen 0.0.0.0:3100     for other machines too
  tailwater serve --http-listen 127.0.0.1:0      on a free port; standard error says which
  tailwater serve --gossip-listen :7946 --http-listen :3100 --grpc-listen :9095 \\
    --storage-url s3://logs/prod --join other:7946    a member of a cluster
  tailwater serve --target querier --join a:7946,b:7946 --storage-url s3://logs/prod
  tailwater serve --config tailwater.yaml        with a file; a Loki user's largely works
  TAILWATER_LIMITS_CONFIG_INGESTION_RATE_MB=50 tailwater serve
  TAILWATER_INGESTER_WAL_ENABLED=false tailwater serve    lines in memory only

A cluster is on with --join, --gossip-listen or a --target that is not all; its members need a store
that all of them reach.

Order of settings: defaults < file < TAILWATER_* environment < flags. One line on standard error
names the addresses: listening http=ADDRESS, and in a cluster grpc=ADDRESS gossip=ADDRESS. SIGHUP reads
certificates again. SIGTERM or Ctrl-C drains tails and requests and ends; a
second one ends at once. Exit codes: 0 fine, 1 failed, 2 bad usage or configuration.";

/// Run the server
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which parts to run in this process
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// Address for HTTP and WebSocket; port 0 picks a free one [default: 127.0.0.1:3100]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    http_listen: Option<Listen>,
    /// Address for calls of other members; port 0 picks a free one [default: that of HTTP, port 9095]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    grpc_listen: Option<Listen>,
    /// UDP address for gossip with other members; port 0 picks a free one [default: that of gRPC, port 7946]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    gossip_listen: Option<Listen>,
    /// Gossip address of a member to begin with, HOST:PORT; names are looked up again and again (repeatable)
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    join: Vec<String>,
    /// Folder of what survives a restart [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where blocks are: a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX [default: DIR/store]
    #[arg(long, value_name = "URL")]
    storage_url: Option<String>,
    /// How much is logged [default: info]
    #[arg(long, value_enum)]
    log_level: Option<LogLevel>,
    /// How it is logged [default: logfmt]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    /// Everything
    All,
    /// Takes pushes and keeps a log
    Ingester,
    /// Answers queries and tails; pushes go on to an ingester
    Querier,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// One line of text each
    #[value(alias = "text")]
    Logfmt,
    /// One JSON object each
    Json,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// Name or address, an IPv6 one in brackets.
    pub(crate) host: String,
    /// 0 = any that is free.
    pub(crate) port: u16,
}

/// Runs the server until it is asked to stop.
///
/// # Errors
/// A configuration that cannot be used, an address that cannot be listened on.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Error> {
    // What is not text is no setting.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let Loaded { config, warnings } = Config::load(args.config.as_deref(), environment, &args.overrides())
        .map_err(|e| Error::Usage(e.to_string()))?;
    logging::init(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Before the server listens: whoever sees it listen may stop it.
    let mut stop = Stop::listen()?;
    let mut renew = Hangup::listen()?;
    let server = Server::start(config).await?;
    let certificates = server.certificates();
    tokio::spawn(async move {
        while renew.next().await {
            certificates.reload().await;
        }
    });
    tell(&format!("listening {}", server.addrs()));
    server.run_until(async move { stop.wait().await }).await;
    Ok(())
}

impl From<tailwater_server::Error> for Error {
    fn from(error: tailwater_server::Error) -> Self {
        match error.kind() {
            Kind::Usage => Self::Usage(error.to_string()),
            Kind::Failed => Self::Failed(error.to_string()),
        }
    }
}

impl ServeArgs {
    /// The flags as settings.
    fn overrides(&self) -> Vec<(String, String)> {
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_owned());
        let mut settings = Vec::new();
        let mut set = |key: &str, value: Option<String>| settings.extend(value.map(|v| (key.to_owned(), v)));
        set("target", name(self.target.and_then(|t| t.to_possible_value())));
        set("server.http_listen_address", self.http_listen.as_ref().map(|l| l.host.clone()));
        set("server.http_listen_port", self.http_listen.as_ref().map(|l| l.port.to_string()));
        set("server.grpc_listen_address", self.grpc_listen.as_ref().map(|l| l.host.clone()));
        set("server.grpc_listen_port", self.grpc_listen.as_ref().map(|l| l.port.to_string()));
        set("memberlist.bind_addr", self.gossip_listen.as_ref().map(|l| l.host.clone()));
        set("memberlist.bind_port", self.gossip_listen.as_ref().map(|l| l.port.to_string()));
        set("memberlist.join_members", Some(self.join.join(",")).filter(|join| !join.is_empty()));
        set("data_dir", self.data_dir.clone());
        set("storage.url", self.storage_url.clone());
        set("server.log_level", name(self.log_level.and_then(|l| l.to_possible_value())));
        set("server.log_format", name(self.log_format.and_then(|f| f.to_possible_value())));
        settings
    }
}

/// `host:port`, `[v6]:port` or `:port` (all addresses).
pub(crate) fn parse_listen(text: &str) -> Result<Listen, String> {
    let wrong = || format!("{text:?} is no address to listen on; write HOST:PORT, for example 127.0.0.1:3100");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return Err(wrong());
    }
    let port = port.parse().map_err(|_| wrong())?;
    Ok(Listen { host: if host.is_empty() { "0.0.0.0".to_owned() } else { host.to_owned() }, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        let listen = |host: &str, port| Ok(Listen { host: host.to_owned(), port });
        assert_eq!(parse_listen("127.0.0.1:0"), listen("127.0.0.1", 0));
        assert_eq!(parse_listen("[::1]:3100"), listen("[::1]", 3100));
        assert_eq!(parse_listen("localhost:80"), listen("localhost", 80));
        assert_eq!(parse_listen(":3100"), listen("0.0.0.0", 3100));
        for bad in ["3100", "127.0.0.1", "::1:3100", "host:port", "host:70000", ""] {
            assert!(parse_listen(bad).is_err(), "{bad}");
        }
    }
}
