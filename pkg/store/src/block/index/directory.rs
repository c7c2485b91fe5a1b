//! tantivy's view of the files in a section: read-only, in memory, nothing copied.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::directory::error::{DeleteError, OpenReadError, OpenWriteError};
use tantivy::directory::{FileHandle, OwnedBytes, WatchCallback, WatchHandle, WritePtr};

use crate::block::varint::{Broken, Input, put, put_bytes};

/// Most files of an index. tantivy makes eight.
const FILES_MAX: usize = 64;

/// The files, by name.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<HashMap<PathBuf, OwnedBytes>>);

/// The bytes of a section: how many files, name and length of each, and their contents in the same order.
pub(super) fn pack(files: &[(String, OwnedBytes)]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, files.len() as u64);
    for (name, content) in files {
        put_bytes(&mut out, name.as_bytes());
        put(&mut out, content.len() as u64);
    }
    files.iter().for_each(|(_, content)| out.extend_from_slice(content));
    out
}

impl Directory {
    /// The inverse of [`pack`].
    pub(super) fn unpack(section: Vec<u8>) -> Result<Self, Broken> {
        let mut input = Input::new(&section);
        let count = input.count()?;
        if count > FILES_MAX {
            return Err(Broken("it has too many files"));
        }
        let mut table = Vec::with_capacity(count);
        for _ in 0..count {
            table.push((PathBuf::from(input.text()?), input.number()?));
        }
        let mut start = section.len() - input.left();
        let bytes = OwnedBytes::new(section);
        let mut files = HashMap::with_capacity(count);
        for (name, len) in table {
            let end =
                usize::try_from(len).ok().and_then(|len| start.checked_add(len)).filter(|end| *end <= bytes.len());
            let end = end.ok_or(Broken("a file ends early"))?;
            files.insert(name, bytes.slice(start..end));
            start = end;
        }
        if start != bytes.len() {
            return Err(Broken("bytes are left over"));
        }
        Ok(Self(Arc::new(files)))
    }

    fn file(&self, path: &Path) -> Result<OwnedBytes, OpenReadError> {
        self.0.get(path).cloned().ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))
    }
}

fn read_only() -> Arc<io::Error> {
    Arc::new(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
}

impl tantivy::Directory for Directory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        Ok(Arc::new(self.file(path)?))
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::IoError { io_error: read_only(), filepath: path.to_owned() })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.0.contains_key(path))
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::IoError { io_error: read_only(), filepath: path.to_owned() })
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.file(path).map(|bytes| bytes.to_vec())
    }

    fn atomic_write(&self, _path: &Path, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

#[cfg(test)]
mod tests {
    use tantivy::Directory as _;

    use super::*;

    #[test]
    fn files_are_unpacked_as_they_were_packed() {
        let file = |name: &str, content: &[u8]| (name.to_owned(), OwnedBytes::new(content.to_vec()));
        let section = pack(&[file("a.idx", b"postings"), file("empty", b""), file("meta.json", b"{}")]);
        let directory = Directory::unpack(section.clone()).unwrap();
        let content = |name: &str| directory.atomic_read(Path::new(name)).unwrap();
        assert_eq!(
            (content("a.idx"), content("empty"), content("meta.json")),
            (b"postings".into(), vec![], b"{}".into())
        );
        assert!(directory.open_read(Path::new("b")).is_err());
        for cut in 0..section.len() {
            assert!(Directory::unpack(section[..cut].to_vec()).is_err());
        }
    }
}
