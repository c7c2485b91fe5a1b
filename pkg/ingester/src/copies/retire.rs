//! A node's own log that may lack its last records, because the machine lost power, becomes a copy like any other, and a new log begins.
//!
//! Whoever has copies of it may have what is missing here, and nobody would ask them as long as the log went on. A copy does not speak for its
//! log: readers go to the one that has most.
//!
//! Invariants: the log is in one of two places, as a whole, whenever the process or the machine goes down, and the next start finds it there.
//! Where it cannot be moved it goes on, with numbers that nobody has seen, as a log without copies does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_model::LogId;
use tailwater_store::Error;
use tailwater_store::wal::{self, Begun, Doubtful, Opened, Wal};

use super::{Copies, MAX_COPIES};

/// The name of the folder in that of all data.
const FOLDER: &str = "copies";

impl Copies {
    /// The folder of copies within a process's folder.
    #[must_use]
    pub fn folder(data_dir: &Path) -> PathBuf {
        data_dir.join(FOLDER)
    }
}

/// The place of a log's copy among others.
pub(super) fn place(copies: &Path, log: LogId) -> PathBuf {
    copies.join(log.to_string())
}

/// Opens a node's own log, or a new one if it may lack records that copies elsewhere have; the old one then is in `copies`.
///
/// # Errors
/// Those of [`Wal::open`].
pub(crate) fn open(
    config: wal::Config,
    copies: &Path,
    disk: &Arc<dyn wal::Disk>,
    metrics: &wal::Metrics,
) -> Result<Opened, Error> {
    let doubtful = match Wal::begin(config.clone(), Arc::clone(disk), metrics.clone())? {
        Begun::Sound(opened) => return Ok(*opened),
        Begun::Doubtful(doubtful) => doubtful,
    };
    let log = doubtful.log();
    match retire(doubtful, copies) {
        Ok(()) => tracing::warn!(
            %log,
            "the log may lack its last records, since the machine lost power or its end cannot be read: it is a copy from now on, and a \
             new log begins"
        ),
        Err(error) => tracing::warn!(
            %log,
            %error,
            "the log may lack its last records, and cannot be made a copy: it goes on, and what copies of it have beyond is not read"
        ),
    }
    Wal::open(config, Arc::clone(disk), metrics.clone())
}

fn retire(doubtful: Doubtful, copies: &Path) -> Result<(), Error> {
    let count = count(copies).map_err(|source| Error::Io { what: "count the copies of logs".into(), source })?;
    if count >= MAX_COPIES {
        return Err(Error::Full { what: format!("the folder of copies, which has {MAX_COPIES} already") });
    }
    let to = place(copies, doubtful.log());
    doubtful.move_to(&to)
}

/// How many copies a folder has, also if there is no such folder.
fn count(copies: &Path) -> io::Result<usize> {
    let entries = match std::fs::read_dir(copies) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let is_copy = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<LogId>().is_ok());
    entries.map(|entry| Ok(usize::from(is_copy(&entry?.file_name())))).sum()
}
