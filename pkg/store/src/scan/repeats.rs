//! Entries that equal others, which count once.

use std::collections::HashSet;

use parking_lot::Mutex;
use tailwater_wire::push::EntrySpan;

use crate::entries::{Entries, Run};

/// Entries of one instant above which it is not looked whether their lengths differ.
const MAX_TIES: usize = 64;

/// Parts of the set of entries that were met, each with a lock of its own.
const SHARDS: usize = 16;

/// The entries that were met and may have an equal.
#[derive(Default)]
pub(super) struct Met([Mutex<HashSet<u128>>; SHARDS]);

impl Met {
    /// Whether this is the first entry of its kind.
    pub(super) fn insert(&self, batch: &Entries, run: &Run, entry: &EntrySpan, seed: u64) -> bool {
        let mut hash = xxhash_rust::xxh3::Xxh3::with_seed(seed);
        hash.update(&run.stream.hash.to_le_bytes());
        hash.update(&entry.timestamp.to_le_bytes());
        hash.update(&batch.content_key(entry, seed).to_le_bytes());
        let key = hash.digest128();
        self.0[key as usize % SHARDS].lock().insert(key)
    }
}

/// The entries of a run that equal one before them in it.
#[derive(Default)]
pub(super) struct Repeats {
    /// Their numbers in the run.
    pub(super) found: Vec<u32>,
    seen: HashSet<(i64, u128)>,
}

impl Repeats {
    /// Finds the entries of a run that equal one before them in it: only entries whose timestamps do not grow may.
    pub(super) fn find(&mut self, batch: &Entries, entries: &[EntrySpan], seed: u64) {
        self.found.clear();
        if entries.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
            return;
        }
        self.seen.clear();
        let sorted = entries.is_sorted_by_key(|entry| entry.timestamp);
        let tied = |i: usize| {
            let same =
                |j: Option<usize>| j.and_then(|j| entries.get(j)).is_some_and(|e| e.timestamp == entries[i].timestamp);
            !sorted || same(i.checked_sub(1)) || same(Some(i + 1))
        };
        for (i, entry) in entries.iter().enumerate().filter(|(i, _)| tied(*i)) {
            if !self.seen.insert((entry.timestamp, batch.content_key(entry, seed))) {
                self.found.push(u32::try_from(i).unwrap_or(u32::MAX));
            }
        }
    }
}

/// Whether two entries may be equal: of the same instant and length. The times do not fall.
pub(super) fn may_repeat(times: &[i64], lengths: &[u32]) -> bool {
    let mut seen: Vec<u32> = Vec::new();
    let mut instant = None;
    times.iter().zip(lengths).any(|(time, len)| {
        if instant != Some(*time) {
            instant = Some(*time);
            seen.clear();
        }
        let again = seen.contains(len) || seen.len() >= MAX_TIES;
        seen.push(*len);
        again
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_instant_and_length_may_be_equal() {
        assert!(!may_repeat(&[], &[]));
        assert!(!may_repeat(&[1, 2, 3], &[7, 7, 7]));
        assert!(!may_repeat(&[1, 1, 2], &[7, 8, 8]));
        assert!(may_repeat(&[1, 1], &[7, 7]));
        assert!(may_repeat(&[0, 1, 1, 1], &[7, 7, 8, 7]));
        let many: Vec<u32> = (0..200).collect();
        assert!(may_repeat(&[5; 200], &many), "so many are not compared");
    }
}
