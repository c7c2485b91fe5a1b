//! Label sets by what they were made of, so that lines with the same labels share one set.
//!
//! Invariants: at most [`MAX_SETS`] sets and about [`MAX_SET_BYTES`] are held; when there would be more, all are forgotten and
//! filling begins anew. Sets that are in use elsewhere live on there.

use hashbrown::HashMap;
use tailwater_model::LabelSet;

/// Most label sets that are remembered.
const MAX_SETS: usize = 16_384;
/// Most bytes of what label sets are remembered by.
const MAX_SET_BYTES: usize = 4 << 20;

/// The sets.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    by_key: HashMap<Box<[u8]>, LabelSet>,
    bytes: usize,
}

impl Sets {
    /// The set that was made of this.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&LabelSet> {
        self.by_key.get(key)
    }

    /// Remembers a set.
    pub(crate) fn insert(&mut self, key: &[u8], set: &LabelSet) {
        if self.by_key.len() >= MAX_SETS || self.bytes > MAX_SET_BYTES {
            self.clear();
        }
        self.bytes += key.len() + set.heap_bytes();
        self.by_key.insert(key.into(), set.clone());
    }

    /// Forgets all sets.
    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut sets = Sets::default();
        for n in 0..3 * MAX_SETS {
            sets.insert(&n.to_ne_bytes(), &LabelSet::default());
            assert!(sets.by_key.len() <= MAX_SETS);
        }
        for n in 0..200_usize {
            sets.insert(&[n.to_ne_bytes().as_slice(), &vec![0; MAX_SET_BYTES / 10]].concat(), &LabelSet::default());
            assert!(sets.by_key.len() <= 12 || n == 0, "{}", sets.by_key.len());
        }
    }
}
