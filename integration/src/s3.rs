//! An object store as a process beside the server under test, which fails on command.
//!
//! It is `s3-server` of this crate; its commands are described there. It ends when its [`S3`] is dropped.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;

use crate::{Home, within};

const BUCKET: &str = "logs";
const ACCESS_KEY: &str = "tailwater-test";
const SECRET_KEY: &str = "tailwater-test-secret";

/// Most lines of the store that wait to be looked at; the oldest are forgotten.
const SAID_MAX: usize = 10_000;

#[derive(Default)]
struct Said {
    lines: Mutex<VecDeque<String>>,
    more: Notify,
}

/// A running object store.
pub struct S3 {
    // Ends the process when it is dropped.
    _child: Child,
    commands: ChildStdin,
    said: Arc<Said>,
    url: String,
    folder: tempfile::TempDir,
}

impl S3 {
    /// Starts the store; `program` is `env!("CARGO_BIN_EXE_s3-server")`. Requests must be signed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(program: &str) -> Self {
        Self::run(Command::new(program).env("S3_ACCESS_KEY", ACCESS_KEY).env("S3_SECRET_KEY", SECRET_KEY)).await
    }

    /// Starts the store where nodes in other network namespaces reach it.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_on(program: &str, ip: std::net::IpAddr) -> Self {
        let mut command = Command::new(program);
        command.env("S3_ACCESS_KEY", ACCESS_KEY).env("S3_SECRET_KEY", SECRET_KEY).env("S3_LISTEN_IP", ip.to_string());
        Self::run(&mut command).await
    }

    /// Starts a store that takes requests without a signature.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_open(program: &str) -> Self {
        Self::run(Command::new(program).env_remove("S3_ACCESS_KEY")).await
    }

    async fn run(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("the folder is writable");
        command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the store can be run");
        let said = Arc::new(Said::default());
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let keep = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut lines = keep.lines.lock();
                lines.push_back(line);
                if lines.len() > SAID_MAX {
                    lines.pop_front();
                }
                drop(lines);
                keep.more.notify_one();
            }
        });
        let commands = child.stdin.take().expect("stdin is piped");
        let mut store = Self { _child: child, commands, said, url: String::new(), folder };
        store.url = store.said("listening ").await;
        store
    }

    /// Commands a fault, for example `slow 400 PUT .blk` or `ok`; it is in force when this returns.
    ///
    /// # Panics
    /// If the store has ended.
    pub async fn command(&mut self, command: &str) {
        let line = format!("{command}\n");
        self.commands.write_all(line.as_bytes()).await.expect("the store runs");
        let set = self.said("set ").await;
        assert_eq!(set, command);
    }

    /// Waits for a request that a fault meets, since the last command or the last one waited for: `METHOD PATH`.
    ///
    /// # Panics
    /// If none comes.
    pub async fn hit(&mut self) -> String {
        self.said("! ").await
    }

    /// The rest of the next line that begins so; what comes before it is dropped.
    async fn said(&self, prefix: &str) -> String {
        let line = async {
            loop {
                while let Some(line) = self.said.lines.lock().pop_front() {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return rest.to_owned();
                    }
                }
                self.said.more.notified().await;
            }
        };
        within(&format!("the store to say {prefix:?}"), line).await
    }

    /// `http://ADDR`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.url
    }

    /// The path of the bucket on [`Self::endpoint`], with a slash before and after.
    #[must_use]
    pub fn bucket(&self) -> String {
        format!("/{BUCKET}/")
    }

    /// A home whose servers keep their blocks here, below the prefix `here`.
    #[must_use]
    pub fn home(&self, yaml: &str) -> Home {
        Home::new(yaml)
            .arg("--storage-url")
            .arg(format!("s3://{BUCKET}/here"))
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_ALLOW_HTTP", "true")
    }

    /// The objects whose names end so, as files.
    #[must_use]
    pub fn objects(&self, ends: &str) -> Vec<PathBuf> {
        files(&self.folder.path().join(BUCKET), ends)
    }
}

/// The files below a folder whose names end so, sorted; none if the folder is not there.
#[must_use]
pub fn files(folder: &Path, ends: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder or a file may go while this looks.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) if entry.file_name().to_string_lossy().ends_with(ends) => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
