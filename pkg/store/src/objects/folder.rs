//! The local folder as an object store: who may write to it, and compare-and-swap, which files do not have.
//!
//! Invariants: one process writes to the folder. It holds a lock on the file `.lock` in it, which the system lets go when the process ends,
//! however it ends. So a comparison and the replacement after it need only be one step within the process: they run in a task of their own,
//! one at a time, and go on to their end even if nobody waits for them any more. An object is replaced by a rename after its content is on
//! disk, so a crash leaves the old or the new one; what it leaves besides, `name#1` and the like, is removed when the folder is opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error as Source, ObjectStoreExt, PutPayload, PutResult, UpdateVersion};
use tokio::sync::Mutex;

use crate::Error;

/// Held by the process that writes.
const LOCK: &str = ".lock";

/// How deep below the folder objects lie: tenant, day, object.
const DEPTH_MAX: usize = 3;

/// A folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    store: Arc<LocalFileSystem>,
    /// Whoever replaces an object on a condition.
    turn: Arc<Mutex<()>>,
    /// The lock, of a folder that is written to.
    lock: Option<File>,
}

impl Folder {
    /// Opens a folder; to write to it, it is made if need be, and locked.
    ///
    /// # Errors
    /// [`Error::Config`]: it is another process's, or is not there to be read. [`Error::Io`]: it cannot be made.
    pub(super) fn open(root: &FilePath, write: bool) -> Result<Self, Error> {
        let io = |what: &str, source| Error::Io { what: format!("{what} {}", root.display()), source };
        let lock = if write {
            make_durably(root).map_err(|source| io("make folder", source))?;
            let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join(LOCK));
            let lock = lock.map_err(|source| io("lock folder", source))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let reason = format!("the storage folder {} is in use by another process", root.display());
                    return Err(Error::Config { reason });
                }
                Err(TryLockError::Error(source)) => return Err(io("lock folder", source)),
            }
            remove_leftovers(root, DEPTH_MAX);
            Some(lock)
        } else {
            if !root.is_dir() {
                return Err(Error::Config { reason: format!("there is no storage folder {}", root.display()) });
            }
            None
        };
        let store = LocalFileSystem::new_with_prefix(root)
            .map_err(|source| Error::Config { reason: format!("storage folder {}: {source}", root.display()) })?;
        Ok(Self {
            root: root.to_owned(),
            store: Arc::new(store.with_fsync(true).with_automatic_cleanup(true)),
            turn: Arc::default(),
            lock,
        })
    }

    /// The folder as the crate below sees it.
    pub(super) fn store(&self) -> Arc<LocalFileSystem> {
        Arc::clone(&self.store)
    }

    /// Whether the folder itself is there: what is missing in a folder that is not mounted is not missing.
    pub(super) fn is_there(&self) -> bool {
        if self.lock.is_some() { self.root.join(LOCK).exists() } else { self.root.is_dir() }
    }

    /// Whether a path in a listing is the folder's own.
    pub(super) fn owns(&self, path: &str) -> bool {
        path == LOCK
    }

    /// Replaces an object if it is still the one expected.
    pub(super) async fn put_if(
        &self,
        path: Path,
        payload: PutPayload,
        expected: Option<UpdateVersion>,
    ) -> object_store::Result<PutResult> {
        let (store, turn) = (self.store(), Arc::clone(&self.turn));
        let step = tokio::spawn(async move {
            let _turn = turn.lock().await;
            let found = match store.head(&path).await {
                Ok(meta) => meta.e_tag,
                Err(Source::NotFound { .. }) => None,
                Err(other) => return Err(other),
            };
            if found == expected.and_then(|version| version.e_tag) {
                return store.put(&path, payload).await;
            }
            let source = "it has changed".into();
            Err(Source::Precondition { path: path.to_string(), source })
        });
        step.await.map_err(|source| Source::JoinError { source })?
    }
}

/// Makes a folder and those above it, if need be, so that they are there after a loss of power.
fn make_durably(folder: &FilePath) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let missing: Vec<_> = folder.ancestors().take_while(|above| !above.exists()).collect();
    std::fs::create_dir_all(&folder)?;
    for made in missing {
        if let Some(above) = made.parent() {
            File::open(above)?.sync_all()?;
        }
    }
    Ok(())
}

/// Removes what a crash left of objects that were being written. What cannot be removed stays; it is in nobody's way.
fn remove_leftovers(folder: &FilePath, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 1 {
            remove_leftovers(&entry.path(), depth - 1);
        } else if kind.is_file() && is_leftover(&entry.file_name().to_string_lossy()) {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => tracing::info!(file = %entry.path().display(), "removed what a crash left of an object"),
                Err(error) => tracing::warn!(file = %entry.path().display(), %error, "cannot remove what a crash left"),
            }
        }
    }
}

/// Whether a file is an object that was being written: `name#1`.
fn is_leftover(name: &str) -> bool {
    let Some((name, number)) = name.rsplit_once('#') else { return false };
    let ours = name.ends_with(".blk") || name.ends_with(".json");
    ours && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_writer_and_any_readers() {
        let root = tempfile::tempdir().unwrap();
        let writer = Folder::open(root.path(), true).unwrap();
        let second = Folder::open(root.path(), true).unwrap_err();
        assert!(second.to_string().contains("in use by another process"), "{second}");
        Folder::open(root.path(), false).unwrap();
        drop(writer);
        Folder::open(root.path(), true).unwrap();
        assert!(Folder::open(&root.path().join("missing"), false).is_err());
    }

    #[test]
    fn what_a_crash_left_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let day = root.path().join("t/2024-01-01");
        std::fs::create_dir_all(&day).unwrap();
        for name in ["1-2-x.blk#1", "manifest.json#12", "1-2-x.blk", "notes#1", "a.blk#b"] {
            std::fs::write(day.join(name), "x").unwrap();
        }
        drop(Folder::open(root.path(), true).unwrap());
        let mut left: Vec<_> = std::fs::read_dir(&day).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["1-2-x.blk", "a.blk#b", "notes#1"]);
    }
}
