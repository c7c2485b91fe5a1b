//! Which blocks of a day to merge.
//!
//! Blocks are in levels by the bytes of their lines: each level is [`FANOUT`] times the size of the one before, up to the target. Invariants:
//! * No merge makes a block of more than the target, and what has reached [`FULL`] of the target is not merged again.
//! * While a day goes on, [`FANOUT`] or more blocks of one level are merged. When it is over, any two or more are, but the largest only
//!   with others that have a [`FANOUT`]th of its size together. So each line is written again a number of times that grows with the
//!   logarithm of the day's size, however late and in however small blocks lines come.
//! * Blocks that are merged lie next to each other in time as far as possible, so that the result is narrow.

/// Blocks of a level that become one of the next.
const FANOUT: u64 = 4;

/// Levels below the target.
const LEVELS: u32 = 5;

/// Most blocks that are merged at a time: each takes memory.
const MAX_INPUTS: usize = 16;

/// A block with this many percent of the target is as large as it gets.
const FULL_PERCENT: u64 = 70;

/// What matters of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its number among the blocks of the day.
    pub(super) number: usize,
    /// Bytes of its lines.
    pub(super) bytes: u64,
    /// Its earliest timestamp.
    pub(super) min: i64,
}

/// Blocks to merge into one, by number; nothing if there is nothing worth it. `over`: few or no lines are added to the day any more.
pub(super) fn choose(mut blocks: Vec<Candidate>, target: u64, over: bool) -> Option<Vec<usize>> {
    blocks.retain(|block| block.bytes < target / 100 * FULL_PERCENT);
    blocks.sort_by_key(|block| (block.min, block.number));
    let of_level = (0..LEVELS).find_map(|level| {
        let alike = blocks.iter().filter(|block| level_of(block.bytes, target) == level);
        let group = fitting(alike, target);
        (group.len() as u64 >= FANOUT).then_some(group)
    });
    let group = of_level.or_else(|| if over { rest(blocks, target) } else { None })?;
    Some(group.into_iter().map(|block| block.number).collect())
}

/// What a day leaves when it is over: the smallest blocks, as many as fit.
fn rest(mut blocks: Vec<Candidate>, target: u64) -> Option<Vec<Candidate>> {
    blocks.sort_by_key(|block| (block.bytes, block.min, block.number));
    let mut group = fitting(blocks.iter(), target);
    // Those that were left out are larger than any in the group.
    while group.len() > 1 {
        let largest = group.last().map_or(0, |block| block.bytes);
        let others: u64 = group.iter().map(|block| block.bytes).sum::<u64>() - largest;
        if others.saturating_mul(FANOUT) >= largest {
            return Some(group);
        }
        group.pop();
    }
    None
}

/// The first of some blocks, as many as can be merged.
fn fitting<'a>(blocks: impl Iterator<Item = &'a Candidate>, target: u64) -> Vec<Candidate> {
    let mut bytes = 0_u64;
    let fits = blocks.take(MAX_INPUTS).take_while(|block| {
        bytes = bytes.saturating_add(block.bytes);
        bytes <= target
    });
    fits.copied().collect()
}

/// Level 0 holds the smallest.
fn level_of(bytes: u64, target: u64) -> u32 {
    let mut above = target / FANOUT;
    let mut level = LEVELS - 1;
    while level > 0 && bytes < above {
        above /= FANOUT;
        level -= 1;
    }
    level
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn blocks(sizes: &[u64]) -> Vec<Candidate> {
        let block = |(number, bytes): (usize, &u64)| Candidate { number, bytes: *bytes, min: number as i64 };
        sizes.iter().enumerate().map(block).collect()
    }

    #[test]
    fn four_of_a_level_become_one() {
        assert_eq!(choose(blocks(&[MIB, MIB, MIB]), TARGET, false), None);
        assert_eq!(choose(blocks(&[MIB, MIB, 300 * MIB, MIB, MIB]), TARGET, false), Some(vec![0, 1, 3, 4]));
        assert_eq!(choose(blocks(&[128 * MIB; 5]), TARGET, false), Some(vec![0, 1, 2, 3, 4]));
    }

    #[test]
    fn no_block_grows_beyond_the_target() {
        let chosen = choose(blocks(&[300 * MIB; 8]), TARGET, false);
        assert_eq!(chosen, None);
        assert_eq!(choose(blocks(&[300 * MIB; 8]), TARGET, true), Some(vec![0, 1, 2]));
        assert_eq!(choose(blocks(&[900 * MIB, 900 * MIB]), TARGET, true), None);
    }

    #[test]
    fn what_is_late_is_gathered_before_large_blocks_are_touched() {
        assert_eq!(choose(blocks(&[600 * MIB, MIB]), TARGET, true), None);
        assert_eq!(choose(blocks(&[600 * MIB, MIB, MIB]), TARGET, true), Some(vec![1, 2]));
        assert_eq!(choose(blocks(&[600 * MIB, 200 * MIB]), TARGET, true), Some(vec![1, 0]));
    }

    proptest! {
        /// Merging comes to an end, keeps every byte, and writes each a bounded number of times.
        #[test]
        fn merging_ends(sizes in prop::collection::vec(0..TARGET / 8, 0..60), over: bool) {
            let total: u64 = sizes.iter().sum();
            let mut all = sizes;
            let mut written = 0;
            let mut rounds = 0;
            while let Some(chosen) = choose(blocks(&all), TARGET, over) {
                prop_assert!(chosen.len() > 1);
                let sum: u64 = chosen.iter().map(|n| all[*n]).sum();
                prop_assert!(sum <= TARGET);
                written += sum;
                let mut number = 0;
                all.retain(|_| { number += 1; !chosen.contains(&(number - 1)) });
                all.push(sum);
                rounds += 1;
                prop_assert!(rounds < 200);
            }
            prop_assert_eq!(all.iter().sum::<u64>(), total);
            prop_assert!(written <= total.saturating_mul(u64::from(LEVELS) + 5));
        }
    }
}
