//! The real binary as a child process on a free port.
//!
//! Invariants: the child is killed when the [`Server`] is dropped, and its folder is removed with the last [`Home`] that names it;
//! the log of a server is kept and shown when a test fails while the server is alive.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::{Client, binary, within};

/// Limits wide enough that a test about something else never meets them.
pub const WIDE_LIMITS: &str = "\
limits_config:
  ingestion_rate_mb: 4096
  ingestion_burst_size_mb: 4096
  per_stream_rate_limit: 4GB
  per_stream_rate_limit_burst: 4GB
  max_concurrent_tail_requests: 1000
";

/// What outlives a server process: its folder, its configuration, its arguments and its environment.
#[derive(Clone)]
pub struct Home {
    folder: Arc<tempfile::TempDir>,
    data: PathBuf,
    http: String,
    runner: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
}

impl Home {
    /// A new folder, with this YAML as the configuration file of its servers; no file if empty.
    ///
    /// # Panics
    /// If there is no room for it.
    #[must_use]
    pub fn new(yaml: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let data = folder.path().join("data");
        let http = "127.0.0.1:0".to_owned();
        let home = Self { folder, data, http, runner: Vec::new(), args: Vec::new(), env: Vec::new() };
        if yaml.is_empty() {
            return home;
        }
        let file = home.folder.path().join("config.yaml");
        std::fs::write(&file, yaml).expect("the folder is writable");
        home.arg("--config").arg(file)
    }

    /// The same with one more argument of `serve`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The same with one more variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, but its servers listen here and not on a free port of 127.0.0.1.
    #[must_use]
    pub fn http_on(mut self, addr: SocketAddr) -> Self {
        self.http = addr.to_string();
        self
    }

    /// The same with another data folder.
    #[must_use]
    pub fn data_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data = folder.into();
        self
    }

    /// The same, but the binary is run by this command, which must become the binary.
    #[must_use]
    pub fn run_by<S: Into<OsString>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.runner = command.into_iter().map(Into::into).collect();
        self
    }

    /// The folder of everything; removed with the last copy of this.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder, as the server names it.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Runs the binary; it may not listen yet.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn spawn(&self) -> Starting {
        let (program, runner) = match self.runner.split_first() {
            Some((first, rest)) => (first.as_os_str(), [rest, &[binary::path().into()]].concat()),
            None => (binary::path().as_os_str(), Vec::new()),
        };
        let mut command = Command::new(program);
        command.args(runner).args(["serve", "--http-listen", &self.http, "--data-dir"]).arg(&self.data);
        command.args(&self.args);
        clean_environment(&mut command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let mut child = command.kill_on_drop(true).spawn().expect("the binary can be run");
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let (bound, listening) = oneshot::channel();
        let keep = log.clone();
        tokio::spawn(async move {
            let mut bound = Some(bound);
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(listening) = Listening::parse(&line)
                    && let Some(bound) = bound.take()
                {
                    // The receiver is gone only when the test is.
                    let _ = bound.send(listening);
                }
                let mut log = keep.lock();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Starting { child, log, listening, home: self.clone() }
    }

    /// Runs the binary and waits until it listens; it may not be ready yet.
    ///
    /// # Panics
    /// If it ends first, with what it said.
    pub async fn launch(&self) -> Server {
        self.spawn().listening().await
    }

    /// Runs the binary and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start, with what it said.
    pub async fn start(&self) -> Server {
        let server = self.launch().await;
        server.ready().await;
        server
    }
}

/// Where a server says that it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For clients.
    pub http: SocketAddr,
    /// For other nodes of its cluster.
    pub grpc: Option<SocketAddr>,
    /// For the gossip of its cluster.
    pub gossip: Option<SocketAddr>,
}

impl Listening {
    /// What `listening http=ADDR grpc=ADDR gossip=ADDR` says; the latter two are for members of a cluster.
    fn parse(line: &str) -> Option<Self> {
        let rest = line.split_once("listening ")?.1;
        let named = |name: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(name))?.parse().ok();
        Some(Self { http: named("http=")?, grpc: named("grpc="), gossip: named("gossip=") })
    }
}

/// A `tailwater serve` that has not said yet where it listens.
pub struct Starting {
    child: Child,
    log: Arc<Mutex<String>>,
    listening: oneshot::Receiver<Listening>,
    home: Home,
}

impl Starting {
    /// Waits until it listens.
    ///
    /// # Panics
    /// If it ends first, with what it said.
    pub async fn listening(self) -> Server {
        let Self { child, log, listening, home } = self;
        let Ok(listening) = within("the server to say where it listens", listening).await else {
            panic!("tailwater serve ended without listening; it said:\n{}", log.lock());
        };
        Server { child, listening, log, home }
    }

    /// Kills it with SIGKILL, wherever it is; answers what it had said.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub async fn kill(mut self) -> String {
        self.child.kill().await.expect("the child can be waited for");
        self.log.lock().clone()
    }
}

/// A running `tailwater serve`.
pub struct Server {
    child: Child,
    listening: Listening,
    log: Arc<Mutex<String>>,
    home: Home,
}

impl Server {
    /// Starts a server with the configuration that a newcomer has: none.
    pub async fn start() -> Self {
        Self::with_config("").await
    }

    /// Starts a server whose limits no test meets by accident.
    pub async fn start_wide() -> Self {
        Self::with_config(WIDE_LIMITS).await
    }

    /// Starts a server with this YAML as its configuration file; no file if empty.
    ///
    /// # Panics
    /// If it does not start, with what it said.
    pub async fn with_config(yaml: &str) -> Self {
        Home::new(yaml).start().await
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready, with what it said.
    pub async fn ready(&self) {
        let client = self.client();
        crate::eventually("the server to be ready", async || client.get("/ready").await.status == 200).await;
    }

    /// Where it listens for clients.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.listening.http
    }

    /// Where it listens for everything.
    #[must_use]
    pub const fn listening(&self) -> Listening {
        self.listening
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// A client without a tenant header.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.addr())
    }

    /// A client of one tenant, or of several (`a|b`).
    #[must_use]
    pub fn tenant(&self, tenant: &str) -> Client {
        Client::new(self.addr()).header("X-Scope-OrgID", tenant)
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// A folder that lives as long as the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.folder()
    }

    /// What outlives it.
    #[must_use]
    pub const fn home(&self) -> &Home {
        &self.home
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// If the server has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("the server runs");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("statm has a second number") * 4096
    }

    /// Fails if the server has ended or has panicked.
    ///
    /// # Panics
    /// Then, with its log.
    pub fn assert_well(&mut self) {
        let ended = self.child.try_wait().expect("the child can be asked");
        let log = self.log();
        assert!(ended.is_none(), "the server ended with {ended:?}; it said:\n{log}");
        assert!(!log.contains("panicked at"), "the server panicked:\n{log}");
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn terminate(mut self) -> (ExitStatus, String) {
        signal(self.pid(), "TERM").await;
        let status = within("the server to drain", self.child.wait()).await.expect("the child can be waited for");
        (status, self.log())
    }

    /// Kills it with SIGKILL and answers what it had said.
    ///
    /// # Panics
    /// If it had ended before, or had panicked.
    pub async fn kill(mut self) -> String {
        self.assert_well();
        self.child.kill().await.expect("the child can be waited for");
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            use std::io::Write as _;
            // Shown by the test harness beside the assertion that failed; nothing can be done if that fails too.
            let _ = writeln!(std::io::stderr(), "--- log of the server ---\n{}--- end ---", self.log.lock());
        }
    }
}

/// Sends a signal to one process.
///
/// # Panics
/// If it cannot be sent.
pub async fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().await;
    assert!(status.expect("kill can be run").success(), "no process {pid}");
}

/// A command of the binary that starts from a clean environment.
pub fn command<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Command {
    let mut command = Command::new(binary::path());
    command.args(args).kill_on_drop(true);
    clean_environment(&mut command);
    command
}

/// Removes what would configure the binary from outside.
fn clean_environment(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["TAILWATER_", "LOKI_", "AWS_"].iter().any(|prefix| text.starts_with(prefix));
        if foreign || text == "RUST_LOG" || text == "NO_COLOR" {
            command.env_remove(&name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_where_it_listens() {
        let addr = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let one = Listening { http: addr(41), grpc: None, gossip: None };
        assert_eq!(Listening::parse("listening http=127.0.0.1:41"), Some(one));
        let member = Listening { grpc: Some(addr(42)), gossip: Some(addr(43)), ..one };
        let line = "listening http=127.0.0.1:41 grpc=127.0.0.1:42 gossip=127.0.0.1:43";
        assert_eq!(Listening::parse(line), Some(member));
        assert_eq!(Listening::parse("not listening"), None);
    }
}
