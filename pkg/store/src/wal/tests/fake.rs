//! A disk in memory that can lose power, refuse to write, sync or cut, and forget what a failed sync has not written.
//!
//! A file is an inode: its content as processes see it, its content as the platter has it, and the operations between the two. Names are
//! kept likewise. Loss of power applies some beginning of what is outstanding, the last write perhaps in part; what a failed sync was to
//! write is never written by a later one, but can be read until then.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::disk::{Disk, DiskFile, Guard};

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
}

#[derive(Clone, Debug)]
enum Naming {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// What is to fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Bytes that can still be written; `None`: any.
    pub(super) room: Option<u64>,
    /// Appends that fail, after half of the bytes.
    pub(super) writes: u32,
    pub(super) syncs: u32,
    pub(super) cuts: u32,
    pub(super) creates: u32,
    pub(super) renames: u32,
    /// Bytes that cannot be read, of any file.
    pub(super) unreadable: Option<(PathBuf, u64, u64)>,
    /// An append takes no more than this at once.
    pub(super) short: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    namings: Vec<Naming>,
    locks: HashMap<PathBuf, u64>,
    boot: u64,
    faults: Faults,
    syncs: u64,
    appends: u64,
    reads: u64,
}

/// See the module's words. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeDisk(Arc<Mutex<State>>);

struct FakeFile {
    disk: FakeDisk,
    inode: usize,
}

#[derive(Debug)]
struct FakeGuard(FakeDisk, PathBuf, u64);

impl Guard for FakeGuard {}

impl Drop for FakeGuard {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if state.boot == self.2 {
            state.locks.remove(&self.1);
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => {
            let end = *offset as usize + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset as usize..end].copy_from_slice(bytes);
        }
        Change::Cut(len) => content.resize(*len as usize, 0),
    }
}

fn name(names: &mut BTreeMap<PathBuf, usize>, naming: &Naming) {
    match naming {
        Naming::Create(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Naming::Rename(from, to) => {
            // A folder is what the names of its files begin with.
            let moved: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                if let (Some(inode), Ok(rest)) = (names.remove(&path), path.strip_prefix(from)) {
                    let to = if rest == Path::new("") { to.clone() } else { to.join(rest) };
                    names.insert(to, inode);
                }
            }
        }
        Naming::Remove(path) => {
            names.remove(path);
        }
    }
}

impl FakeDisk {
    pub(super) fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.0.lock().faults)
    }

    /// Everything works again.
    pub(super) fn heal(&self) {
        self.0.lock().faults = Faults::default();
    }

    /// `pick` chooses a number up to and including the one given: how much of what is outstanding has been written.
    pub(super) fn lose_power(&self, mut pick: impl FnMut(usize) -> usize) {
        let state = &mut *self.0.lock();
        state.boot += 1;
        state.locks.clear();
        let namings = std::mem::take(&mut state.namings);
        let written = pick(namings.len());
        for naming in namings.iter().take(written) {
            name(&mut state.durable_names, naming);
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            let pending = std::mem::take(&mut inode.pending);
            let written = pick(pending.len());
            for change in pending.iter().take(written) {
                apply(&mut inode.durable, change);
            }
            if let Some(Change::Write(offset, bytes)) = pending.get(written) {
                let torn = pick(bytes.len());
                apply(&mut inode.durable, &Change::Write(*offset, bytes[..torn].to_vec()));
            }
            inode.content = inode.durable.clone();
        }
    }

    /// Names of all files.
    pub(super) fn names(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// Changes a file behind everybody's back, for good.
    pub(super) fn edit<T>(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let state = &mut *self.0.lock();
        let inode = *state.names.get(path).expect("the file is there");
        let inode = &mut state.inodes[inode];
        let result = change(&mut inode.content);
        inode.durable = inode.content.clone();
        inode.pending.clear();
        result
    }

    /// Puts a file there.
    pub(super) fn put(&self, path: &Path, content: &[u8]) {
        let state = &mut *self.0.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { content: content.to_vec(), durable: content.to_vec(), pending: Vec::new() });
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    pub(super) fn appends(&self) -> u64 {
        self.0.lock().appends
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.0.lock().reads
    }

    fn file(&self, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(FakeFile { disk: self.clone(), inode })
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn once(faults: &mut u32) -> io::Result<()> {
    if *faults == 0 {
        return Ok(());
    }
    *faults -= 1;
    Err(broken())
}

impl Disk for FakeDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = &mut *self.0.lock();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        once(&mut state.faults.creates)?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        let naming = Naming::Create(path.to_owned(), inode);
        name(&mut state.names, &naming);
        state.namings.push(naming);
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.0.lock().names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        once(&mut state.faults.renames)?;
        let naming = Naming::Rename(from.to_owned(), to.to_owned());
        name(&mut state.names, &naming);
        state.namings.push(naming);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let naming = Naming::Remove(path.to_owned());
        name(&mut state.names, &naming);
        state.namings.push(naming);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        once(&mut state.faults.syncs)?;
        for naming in std::mem::take(&mut state.namings) {
            name(&mut state.durable_names, &naming);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Guard>>> {
        let state = &mut *self.0.lock();
        if state.locks.contains_key(path) {
            return Ok(None);
        }
        state.locks.insert(path.to_owned(), state.boot);
        Ok(Some(Box::new(FakeGuard(self.clone(), path.to_owned(), state.boot))))
    }

    fn boot_id(&self) -> Option<String> {
        Some(format!("boot-{}", self.0.lock().boot))
    }
}

impl DiskFile for FakeFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.disk.0.lock();
        state.appends += 1;
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        bytes.truncate(state.faults.short.unwrap_or(usize::MAX).max(1));
        let mut result = Ok(());
        if let Some(room) = &mut state.faults.room {
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.truncate(usize::try_from(*room).unwrap());
            *room -= bytes.len() as u64;
        }
        if state.faults.writes > 0 {
            state.faults.writes -= 1;
            bytes.truncate(bytes.len() / 2);
            result = Err(broken());
        }
        let inode = &mut state.inodes[self.inode];
        let change = Change::Write(inode.content.len() as u64, bytes);
        apply(&mut inode.content, &change);
        let Change::Write(_, bytes) = &change else { unreachable!() };
        let written = bytes.len();
        inode.pending.push(change);
        result.map(|()| written)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = &mut *self.disk.0.lock();
        if let Some((path, from, to)) = &state.faults.unreadable
            && state.names.get(path) == Some(&self.inode)
            && offset < *to
            && offset + buffer.len() as u64 > *from
        {
            return Err(broken());
        }
        let content = &state.inodes[self.inode].content;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        state.reads += n as u64;
        Ok(n)
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        state.syncs += 1;
        let inode = &mut state.inodes[self.inode];
        let pending = std::mem::take(&mut inode.pending);
        // After a failure the pages count as clean: nobody will write them any more.
        once(&mut state.faults.syncs)?;
        for change in &pending {
            apply(&mut inode.durable, change);
        }
        Ok(())
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        once(&mut state.faults.cuts)?;
        let inode = &mut state.inodes[self.inode];
        apply(&mut inode.content, &Change::Cut(len));
        inode.pending.push(Change::Cut(len));
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inodes[self.inode].content.len() as u64)
    }
}
