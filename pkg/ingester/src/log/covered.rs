//! Up to where everything is in blocks, remembered across restarts in a small file beside the write-ahead log.
//!
//! The file is text: a title, the log's id, the number, a checksum. It is replaced as a whole. Losing it is harmless: the manifests of the
//! catalog know too, and whoever cuts blocks asks them. So it is not synced, and what is not all right about it counts as not there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tailwater_model::LogId;

const NAME: &str = "covered";

const TITLE: &str = "tailwater covered 1";

/// See the module's words.
#[derive(Debug)]
pub(super) struct Covered {
    dir: PathBuf,
    log: LogId,
    seq: AtomicU64,
    writing: Mutex<()>,
}

impl Covered {
    /// What is remembered of a log whose numbers between two are known to be used.
    pub(super) fn open(dir: PathBuf, log: LogId, (least, most): (u64, u64)) -> Self {
        let text = std::fs::read_to_string(dir.join(NAME)).unwrap_or_default();
        let seq = parse(&text, log).filter(|seq| *seq <= most).unwrap_or(0).max(least);
        Self { dir, log, seq: AtomicU64::new(seq), writing: Mutex::default() }
    }

    pub(super) fn get(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// Moves on; never back.
    pub(super) fn set(&self, seq: u64) {
        let _one_at_a_time = self.writing.lock();
        if self.seq.fetch_max(seq, Ordering::AcqRel) >= seq {
            return;
        }
        let new = self.dir.join("covered.tmp");
        let written =
            std::fs::write(&new, print(seq, self.log)).and_then(|()| std::fs::rename(&new, self.dir.join(NAME)));
        if let Err(error) = written {
            tracing::debug!(%error, "cannot remember up to where the log is in blocks");
        }
    }
}

/// Up to where a log is in blocks, as is remembered in its folder; 0 if nothing is.
pub(crate) fn remembered_in_blocks(dir: &Path, log: LogId) -> u64 {
    Covered::open(dir.to_owned(), log, (0, u64::MAX)).get()
}

fn print(seq: u64, log: LogId) -> String {
    let text = format!("{TITLE}\nlog {log}\nseq {seq}\n");
    let sum = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    format!("{text}xxh3 {sum:016x}\n")
}

fn parse(text: &str, log: LogId) -> Option<u64> {
    let seq = text.lines().nth(2)?.strip_prefix("seq ")?.parse().ok()?;
    (text == print(seq, log)).then_some(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_and_nothing_else_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogId::generate();
        let open = |log, most| Covered::open(dir.path().to_owned(), log, (2, most)).get();
        assert_eq!(open(log, 100), 2);
        let covered = Covered::open(dir.path().to_owned(), log, (2, 100));
        covered.set(50);
        covered.set(40);
        assert_eq!(covered.get(), 50);
        assert_eq!(open(log, 100), 50);
        assert_eq!(open(log, 49), 2, "numbers that were never given out");
        assert_eq!(open(LogId::generate(), 100), 2, "another log");
        let file = dir.path().join(NAME);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("50", "51")).unwrap();
        assert_eq!(open(log, 100), 2);
    }
}
