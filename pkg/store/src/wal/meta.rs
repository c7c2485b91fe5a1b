//! The file `meta`: which log this is, under which start of the machine it was last written, and whether it was closed.
//!
//! Text, so that an operator can read it; the last line is the checksum of those before. It is replaced as a whole. Without it, or if it
//! is corrupt, the log is opened from its segments and taken for one that lost power.

use std::io::{self, IoSlice};
use std::path::Path;

use tailwater_model::LogId;

use super::disk::{Disk, append_all, read_full};

const NAME: &str = "meta";

/// Its first line.
const TITLE: &str = "tailwater wal 1";

/// Longest file that is taken for one, in bytes.
const MAX_BYTES: usize = 4096;

/// See the module's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) log: LogId,
    /// Under which start of the machine the log is, or was, open.
    pub(super) boot: Option<String>,
    /// Whether it was closed, with everything on disk.
    pub(super) clean: bool,
    /// When this was written, the number that the next record was to get.
    pub(super) next: u64,
}

impl Meta {
    /// What the folder has; `None` if there is none or if it is corrupt.
    pub(super) fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Self>> {
        let file = match disk.open(&dir.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; MAX_BYTES];
        let read = read_full(&*file, &mut bytes, 0)?;
        bytes.truncate(read);
        let meta = std::str::from_utf8(&bytes).ok().and_then(Self::parse);
        if meta.is_none() {
            tracing::error!(dir = %dir.display(), "the write-ahead log's file meta is corrupt; the log is taken for one that lost power");
        }
        Ok(meta)
    }

    /// Replaces what the folder has, durably.
    pub(super) fn save(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let new = dir.join("meta.tmp");
        let file = disk.create(&new).or_else(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            disk.remove(&new)?;
            disk.create(&new)
        })?;
        append_all(&*file, &mut [IoSlice::new(self.print().as_bytes())])?;
        file.sync()?;
        disk.rename(&new, &dir.join(NAME))?;
        disk.sync_dir(dir)
    }

    fn print(&self) -> String {
        let Self { log, boot, clean, next } = self;
        let boot = boot.as_deref().unwrap_or_default();
        let text = format!("{TITLE}\nlog {log}\nboot {boot}\nclean {clean}\nnext {next}\n");
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc {crc:08x}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let end = text.rfind("crc ")?;
        let (text, crc) = text.split_at_checked(end)?;
        let crc = crc.strip_prefix("crc ")?.strip_suffix('\n')?;
        (crc == format!("{:08x}", crc32c::crc32c(text.as_bytes()))).then_some(())?;
        let mut lines = text.lines();
        (lines.next()? == TITLE).then_some(())?;
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let log = field("log")?.parse().ok()?;
        let boot = Some(field("boot")?).filter(|boot| !boot.is_empty()).map(str::to_owned);
        let clean = field("clean")?.parse().ok()?;
        let next = field("next")?.parse().ok()?;
        Some(Self { log, boot, clean, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        for boot in [None, Some("76fc6ecd-461f".to_owned())] {
            let meta = Meta { log: LogId::generate(), boot, clean: true, next: 42 };
            let text = meta.print();
            assert_eq!(Meta::parse(&text), Some(meta));
            for len in 0..text.len() {
                assert_eq!(Meta::parse(&text[..len]), None, "{len}");
            }
            for at in 0..text.len() {
                let mut wrong = text.clone().into_bytes();
                wrong[at] ^= 1;
                assert_eq!(Meta::parse(&String::from_utf8(wrong).unwrap()), None, "{at}");
            }
        }
    }
}
