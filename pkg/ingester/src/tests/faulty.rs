//! A disk that fails when it is told to.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tailwater_store::wal::{Disk, DiskFile, Guard, LocalDisk};

/// This machine's disk, with faults.
#[derive(Default)]
pub(super) struct Faulty(Arc<Faults>);

#[derive(Default)]
pub(super) struct Faults {
    /// There is no room.
    pub(super) full: AtomicBool,
    /// Nothing can be synced.
    pub(super) unsynced: AtomicBool,
    /// Nothing can be read.
    pub(super) unreadable: AtomicBool,
    /// Syncs that were begun.
    pub(super) syncs: AtomicU64,
    /// How often the machine was started anew.
    pub(super) boots: AtomicU64,
    /// Syncs wait while this is set.
    held: Mutex<bool>,
    let_go: Condvar,
}

impl std::ops::Deref for Faulty {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.0
    }
}

impl Faults {
    pub(super) fn hold_syncs(&self, held: bool) {
        *self.held.lock() = held;
        self.let_go.notify_all();
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let mut held = self.held.lock();
        while *held {
            if self.let_go.wait_for(&mut held, Duration::from_secs(60)).timed_out() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        if self.unsynced.load(Ordering::SeqCst) { Err(io::Error::other("sync failed")) } else { Ok(()) }
    }
}

struct FaultyFile(Arc<dyn DiskFile>, Arc<Faults>);

impl Disk for Faulty {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        LocalDisk.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(LocalDisk.create(path)?, Arc::clone(&self.0))))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(LocalDisk.open(path)?, Arc::clone(&self.0))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Guard>>> {
        LocalDisk.lock(path)
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.boots.load(Ordering::SeqCst).to_string())
    }
}

impl DiskFile for FaultyFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.1.full.load(Ordering::SeqCst) {
            return self.0.append(parts);
        }
        // A part of it still fits.
        let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| &part[..part.len() / 2]);
        match first {
            [] => Err(io::ErrorKind::StorageFull.into()),
            first => self.0.append(&[IoSlice::new(first)]).and_then(|_| Err(io::ErrorKind::StorageFull.into())),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.1.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::other("read failed"));
        }
        self.0.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.sync()?;
        self.0.sync()
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.0.cut(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}
