//! What a copy of a log has lost by itself, such as to a loss of power that took a part in the middle.
//!
//! Others may have it. So readers that can choose do not choose a copy for what comes behind such a part, as long as another one is whole up
//! to there.

use parking_lot::Mutex;

/// Most parts that are told apart; further ones are taken together with the last.
const MAX_PARTS: usize = 64;

/// Stretches of numbers whose records cannot be read, in order.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<Vec<(u64, u64)>>);

impl Losses {
    /// The numbers from `first` to `last` are lost, which come after all that were lost before.
    pub(super) fn add(&self, first: u64, last: u64) {
        let mut parts = self.0.lock();
        let is_full = parts.len() >= MAX_PARTS;
        match parts.last_mut() {
            Some((_, end)) if is_full || *end + 1 >= first => *end = last.max(*end),
            _ => parts.push((first, last)),
        }
    }

    /// Up to where a log that ends at `head` has everything, but for what is in blocks.
    pub(super) fn whole(&self, in_blocks: u64, head: u64) -> u64 {
        let parts = self.0.lock();
        let first = parts.iter().find(|(_, last)| *last > in_blocks);
        first.map_or(head, |(first, _)| first.saturating_sub(1).max(in_blocks).min(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_up_to_the_first_loss_that_is_in_no_block() {
        let losses = Losses::default();
        assert_eq!(losses.whole(0, 9), 9);
        losses.add(3, 4);
        losses.add(5, 5);
        losses.add(8, 8);
        assert_eq!([0, 2, 3, 4, 5, 7, 8].map(|in_blocks| losses.whole(in_blocks, 9)), [2, 2, 3, 4, 7, 7, 9]);
        for first in 10..1000 {
            losses.add(first * 10, first * 10);
        }
        assert_eq!(losses.0.lock().len(), MAX_PARTS);
        assert_eq!(losses.whole(9_989, 20_000), 9_989, "what is not told apart is lost together");
        assert_eq!(losses.whole(9_990, 20_000), 20_000);
    }
}
