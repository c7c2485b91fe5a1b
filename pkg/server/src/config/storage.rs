//! What survives a restart: the log on disk, where blocks are, and what is done with them later.
//!
//! Invariants: secrets are neither printed nor logged.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::Config;
use super::tree::Node;
use super::units::{Named, Unit, scalar};

/// Shown instead of a secret.
const HIDDEN: &str = "********";

/// `ingester.wal.*`
#[derive(Clone, Debug, PartialEq)]
pub struct WalConfig {
    /// Write what is accepted to disk. Without it lines are in memory only, and there are no blocks.
    pub enabled: bool,
    /// Its folder; empty = `wal` in [`Config::data_dir`]. See [`Config::wal_dir`].
    pub dir: PathBuf,
    /// When what is written is made to survive a loss of power.
    pub sync: WalSync,
    /// See [`WalSync::Interval`].
    pub sync_interval: Duration,
    /// Size of a file of the log in MiB.
    pub segment_mb: u32,
    /// The newest MiB of the log that are kept although they are in blocks, for readers that are late.
    pub keep_mb: u32,
    /// Most MiB of the log on disk; 0 = as much as the disk holds.
    pub max_mb: u32,
    /// Make blocks of what is in none when the server ends.
    pub flush_on_shutdown: bool,
}

/// When what is written is made to survive a loss of power. The death of the process it survives always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// When the operating system likes.
    Os,
    /// Every [`WalConfig::sync_interval`].
    Interval,
    /// Before a push is answered.
    Always,
}

/// `storage.*`
#[derive(Clone, Debug, PartialEq)]
pub struct StorageConfig {
    /// Where blocks are: a folder, `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; empty =
    /// `store` in [`Config::data_dir`]. See [`Config::storage_url`].
    pub url: String,
    /// Most bytes of blocks, all tenants together: the oldest are deleted; 0 = any number.
    pub max_bytes: u64,
    /// What queries keep of blocks in memory, in MiB.
    pub cache_mb: u32,
    /// Longest time of a request to the storage.
    pub request_timeout: Duration,
    /// For `s3://`.
    pub s3: S3Config,
}

/// `storage.s3.*`. What is empty or not set comes from the environment (`AWS_*`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct S3Config {
    /// Where the service is, such as `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// The region of the bucket.
    pub region: String,
    /// The bucket stands in the path of urls, not in the name of the host.
    pub force_path_style: Option<bool>,
    /// An endpoint without TLS is meant.
    pub allow_http: Option<bool>,
    /// Who asks.
    pub access_key_id: String,
    /// What belongs to it.
    pub secret_access_key: Secret,
}

/// `compactor.*`
#[derive(Clone, Debug, PartialEq)]
pub struct CompactorConfig {
    /// Delete lines when their time is over, and those that somebody asks to be deleted.
    pub retention_enabled: bool,
    /// How often blocks are looked after.
    pub compaction_interval: Duration,
    /// How long a block that nothing needs any more is kept, for queries that have begun.
    pub retention_delete_delay: Duration,
    /// How long a request to delete lines can be taken back before they are deleted.
    pub delete_request_cancel_period: Duration,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            dir: PathBuf::new(),
            sync: WalSync::Interval,
            sync_interval: Duration::from_millis(100),
            segment_mb: 64,
            keep_mb: 512,
            max_mb: 0,
            flush_on_shutdown: false,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            max_bytes: 0,
            cache_mb: 64,
            request_timeout: Duration::from_secs(30),
            s3: S3Config::default(),
        }
    }
}

impl Default for CompactorConfig {
    fn default() -> Self {
        Self {
            retention_enabled: false,
            compaction_interval: Duration::from_secs(10 * 60),
            retention_delete_delay: Duration::from_secs(2 * 3600),
            delete_request_cancel_period: Duration::from_secs(24 * 3600),
        }
    }
}

impl Config {
    /// The folder of the log.
    #[must_use]
    pub fn wal_dir(&self) -> PathBuf {
        let dir = &self.ingester.wal.dir;
        if dir.as_os_str().is_empty() { self.data_dir.join("wal") } else { dir.clone() }
    }

    /// Where blocks are: a url, or the path of a folder.
    #[must_use]
    pub fn storage_url(&self) -> String {
        if self.storage.url.is_empty() {
            // It came from a text.
            self.data_dir.join("store").to_string_lossy().into_owned()
        } else {
            self.storage.url.clone()
        }
    }
}

impl Config {
    /// Whether blocks are in a folder.
    pub(crate) fn is_storage_local(&self) -> bool {
        let url = self.storage_url();
        url.starts_with("file://") || !url.contains("://")
    }
}

impl StorageConfig {
    /// Whether the url looks like one; whether there is anything is found out when it is opened.
    pub(super) fn check_url(&self) -> Result<(), String> {
        const ALLOWED: &str =
            "a folder, file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX";
        let Some((scheme, rest)) = self.url.split_once("://") else {
            let forgotten = ["file:", "s3:", "gs:", "az:"].iter().any(|scheme| self.url.starts_with(scheme));
            return if forgotten { Err(format!("{:?} is no place; allowed: {ALLOWED}", self.url)) } else { Ok(()) };
        };
        // What stands before an `@` may be a secret, so it is not repeated.
        let root = rest.split('/').next().unwrap_or_default();
        if root.contains('@') && scheme != "az" {
            let what = "it holds credentials, and would be printed; set storage.s3.access_key_id and secret_access_key, or AWS_* \
                        in the environment";
            return Err(what.to_owned());
        }
        match scheme {
            "file" if rest.starts_with('/') => Ok(()),
            "s3" | "gs" | "az" if !root.is_empty() => Ok(()),
            _ => Err(format!("{:?} is no place; allowed: {ALLOWED}", self.url)),
        }
    }
}

impl Named for WalSync {
    const ALL: &[(&str, Self)] = &[("os", Self::Os), ("interval", Self::Interval), ("always", Self::Always)];
}

/// A text that is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A text not to be shown.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { HIDDEN })
    }
}

impl Unit for Secret {
    type Value = Self;

    fn read(node: &Node) -> Result<Self, String> {
        if *node == Node::Null {
            return Ok(Self::default());
        }
        match scalar(node, "a text")? {
            HIDDEN => Err(format!("{HIDDEN} is what /config shows instead of it; put the secret itself here")),
            text => Ok(Self(text.to_owned())),
        }
    }

    fn show(value: &Self) -> Value {
        Value::from(if value.is_empty() { "" } else { HIDDEN })
    }
}
