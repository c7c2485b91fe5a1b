//! The file of `--resume-file`: where a tail goes on that has printed everything so far.
//!
//! Invariants:
//! * What the file holds has been printed, and flushed, before it is written.
//! * It is written beside its place and then renamed: a crash leaves the old one or the new one.
//! * It is written at most every [`PAUSE`], and once more at the end.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::Error;

/// Time between two writes.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest file that is read: tokens are shorter.
const MAX_BYTES: u64 = 64 << 10;

/// See the module. Without a path nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    path: Option<PathBuf>,
    written: Option<Instant>,
    pending: bool,
}

impl Keep {
    /// The file, and the token that it holds.
    ///
    /// # Errors
    /// A file that cannot be read; that there is none yet is fine.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<(Self, Option<String>), Error> {
        let Some(at) = &path else { return Ok((Self::default(), None)) };
        let unusable = |why: String| Error::Failed(format!("--resume-file {}: {why}", at.display()));
        let token = match std::fs::metadata(at) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Ok(file) if file.len() > MAX_BYTES => return Err(unusable("this is no file of a tail".to_owned())),
            _ => Some(std::fs::read_to_string(at).map_err(|e| unusable(e.to_string()))?),
        };
        let token = token.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Ok((Self { path, ..Self::default() }, token))
    }

    /// Something more has been printed.
    pub(crate) fn printed(&mut self) {
        self.pending = self.path.is_some();
    }

    /// When it should be written; none if there is nothing new.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pending.then(|| self.written.map_or_else(Instant::now, |written| written + PAUSE))
    }

    /// Writes what is new. The output has been flushed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&mut self, token: Option<&str>) -> Result<(), Error> {
        let (Some(path), Some(token), true) = (&self.path, token, self.pending) else { return Ok(()) };
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let written = std::fs::File::create(&beside).and_then(|mut file| {
            file.write_all(token.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_data()?;
            drop(file);
            std::fs::rename(&beside, path)
        });
        written.map_err(|e| Error::Failed(format!("--resume-file {}: {e}", path.display())))?;
        (self.pending, self.written) = (false, Some(Instant::now()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pos");
        let (mut keep, token) = Keep::open(Some(path.clone())).unwrap();
        assert_eq!((token, keep.due()), (None, None));
        keep.write(Some("unwanted")).unwrap();
        assert!(!path.exists());
        keep.printed();
        assert!(keep.due().is_some_and(|due| due <= Instant::now()));
        keep.write(Some("one")).unwrap();
        keep.printed();
        assert!(keep.due().is_some_and(|due| due > Instant::now() - PAUSE), "not at once again");
        keep.write(Some("two")).unwrap();
        assert_eq!(Keep::open(Some(path.clone())).unwrap().1.as_deref(), Some("two"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(Keep::open(Some(path)).unwrap().1, None);
        assert!(Keep::open(Some(folder.path().to_owned())).is_err());
    }
}
