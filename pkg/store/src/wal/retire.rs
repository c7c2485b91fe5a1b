//! Giving up a log that may lack its last records: it is moved as a whole, and its numbers do not go on.
//!
//! Invariants:
//! * Until it is moved nothing is changed of what the doubt comes from. So an attempt that is interrupted finds the same again, or a folder
//!   that was moved.
//! * Nobody else opens the log before the move survives a loss of power, or was taken back.
//! * What is in the way is never replaced.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_model::LogId;

use super::disk::{Disk, Guard};
use super::open::Survey;
use super::{Config, Metrics, Opened, Wal};
use crate::Error;

/// A log as it was found.
#[derive(Debug)]
pub enum Begun {
    /// It was opened, and goes on.
    Sound(Box<Opened>),
    /// Records that somebody has seen may be missing at its end. It is locked, and not open.
    Doubtful(Doubtful),
}

/// A log that may lack its last records. Dropped, it is as it was.
pub struct Doubtful {
    log: LogId,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// Held until it is moved.
    _guard: Box<dyn Guard>,
}

impl Wal {
    /// Opens the log of a folder, or makes one, as [`Wal::open`] does, but not if numbers would have to be skipped because records may be
    /// gone that somebody has seen. A folder that does not say which log it holds is opened in any case.
    ///
    /// # Errors
    /// Those of [`Wal::open`].
    pub fn begin(config: Config, disk: Arc<dyn Disk>, metrics: Metrics) -> Result<Begun, Error> {
        let dir = config.dir.clone();
        let survey = Survey::take(config, Arc::clone(&disk), metrics, None)?;
        if survey.is_doubtful() && survey.is_known {
            return Ok(Begun::Doubtful(Doubtful { log: survey.log, dir, disk, _guard: survey.guard }));
        }
        survey.open().map(|opened| Begun::Sound(Box::new(opened)))
    }
}

impl Doubtful {
    /// Which log it is.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.log
    }

    /// Gives its folder another name, on the same file system. When this has returned it survives a loss of power, and the log can be
    /// opened there.
    ///
    /// # Errors
    /// There is something of that name, or the disk does not do it. The log is where it was then, and as it was.
    pub fn move_to(self, to: &Path) -> Result<(), Error> {
        let what = || format!("move the write-ahead log {} to {}", self.dir.display(), to.display());
        self.rename(to).map_err(|error| Error::io(what(), error))
    }

    fn rename(&self, to: &Path) -> io::Result<()> {
        let (from_parent, to_parent) = (parent(&self.dir), parent(to));
        // The folder that it goes to must not be lost with it.
        self.disk.create_dir(to_parent)?;
        self.disk.sync_dir(parent(to_parent))?;
        match self.disk.list(to) {
            Ok(names) if names.is_empty() => {}
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.disk.rename(&self.dir, to)?;
        let synced = self.disk.sync_dir(to_parent).and_then(|()| self.disk.sync_dir(from_parent));
        let Err(error) = synced else { return Ok(()) };
        if let Err(stays) = self.disk.rename(to, &self.dir) {
            // It is there now, and whoever begins a log here makes its name durable together with this one.
            tracing::warn!(%error, %stays, log = %self.log, "a write-ahead log was moved, but perhaps not for good");
            return Ok(());
        }
        // As far as that can be done; a loss of power finds it in one of the two places.
        let _back = self.disk.sync_dir(from_parent).and_then(|()| self.disk.sync_dir(to_parent));
        Err(error)
    }
}

/// The folder that a path is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

impl fmt::Debug for Doubtful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubtful").field("log", &self.log).field("dir", &self.dir).finish_non_exhaustive()
    }
}
