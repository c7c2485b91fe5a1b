//! The real binary as a child process on a free port.
//!
//! Invariants: the child is killed and its folder removed when the [`Server`] is dropped; its log is kept and shown when a test
//! fails while the server is alive.

use std::net::SocketAddr;
use std::path::Path;
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

/// A running `tailwater serve`.
pub struct Server {
    child: Child,
    addr: SocketAddr,
    log: Arc<Mutex<String>>,
    folder: tempfile::TempDir,
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
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(binary::path());
        command.args(["serve", "--http-listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
        if !yaml.is_empty() {
            let file = folder.path().join("config.yaml");
            std::fs::write(&file, yaml).expect("the folder is writable");
            command.arg("--config").arg(file);
        }
        clean_environment(&mut command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("the binary can be run");
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let (bound, listening) = oneshot::channel();
        let keep = log.clone();
        tokio::spawn(async move {
            let mut bound = Some(bound);
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(addr) = listening_on(&line)
                    && let Some(bound) = bound.take()
                {
                    // The receiver is gone only when the test is.
                    let _ = bound.send(addr);
                }
                let mut log = keep.lock();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let Ok(addr) = within("the server to say where it listens", listening).await else {
            panic!("tailwater serve ended without listening; it said:\n{}", log.lock());
        };
        let server = Self { child, addr, log, folder };
        let client = server.client();
        crate::eventually("the server to be ready", async || client.get("/ready").await.status == 200).await;
        server
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A client without a tenant header.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.addr)
    }

    /// A client of one tenant, or of several (`a|b`).
    #[must_use]
    pub fn tenant(&self, tenant: &str) -> Client {
        Client::new(self.addr).header("X-Scope-OrgID", tenant)
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// A folder that lives as long as the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
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
        if text.starts_with("TAILWATER_") || text.starts_with("LOKI_") || text == "RUST_LOG" || text == "NO_COLOR" {
            command.env_remove(&name);
        }
    }
    command
}

/// The address in `listening http=ADDR ...`.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let rest = line.split_once("listening ")?.1;
    rest.split_whitespace().find_map(|word| word.strip_prefix("http="))?.parse().ok()
}
