//! Patterns of log lines, mined after the manner of Drain (He, Zhu, Zheng, Lyu: Drain, an online log parsing approach with fixed
//! depth tree, ICWS 2017): a line is taken apart into tokens, a tree of fixed depth leads to the few clusters that it may belong
//! to, and it joins the one that it looks most like, or begins its own. Where the lines of a cluster differ the pattern has `<_>`.
//!
//! What is different here: the tree does not begin with the number of tokens but with the whole shape of the line, which is its
//! separators and the keys of `key=value` and `"key":`, and its second and last level is the first word behind the header (what
//! comes before and with the level, or before `]:`). Headers and keys do not count when lines are compared, and numbers count for
//! less than words. A leading word that turns out to take many values is recognised as a variable in the end.
//!
//! Invariants:
//! * A pattern, used as the line filter `|>`, passes every line that was counted for it. No two of its captures touch.
//! * Every line counts for one pattern, the empty line for none. Rare patterns are forgotten when there are too many: what is
//!   counted is exact for those that were never forgotten, and the least that is certain for the others.
//! * Memory: at most [`MAX_CLUSTERS`] clusters of at most a few KiB each, and about [`MAX_CELLS`] counts.
//! * Work per line: its tokens are compared with at most [`MAX_LEAF`] clusters.

mod cluster;
mod tokens;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use self::cluster::{Cluster, Likeness, Slot, Slots};
use self::tokens::{Kind, MARK, Token, Tokens};

/// Most clusters; when there are more, the rarer half is forgotten. (Few in tests.)
const MAX_CLUSTERS: usize = if cfg!(test) { 64 } else { 2048 };

/// Most counts (one per cluster and step with lines); when there are more, the rarer half of the clusters is forgotten.
const MAX_CELLS: usize = if cfg!(test) { 512 } else { 1 << 19 };

/// Most clusters of a leaf; when there are as many, a line joins the nearest.
const MAX_LEAF: usize = if cfg!(test) { 8 } else { 64 };

/// Most leading words that are told apart within a shape; the others share a leaf.
const MAX_LEAVES: usize = if cfg!(test) { 16 } else { 32 };

/// So many patterns that differ only in the leading word are one: the word is a variable.
const MANY_VARIANTS: usize = 8;

/// Longest level, in bytes; lines of a longer one count as of none.
const MAX_LEVEL_BYTES: usize = 64;

/// Ends the level in the key of a shape; no text has such a byte.
const END_OF_LEVEL: u8 = 0xff;

/// The capture of a pattern.
const CAPTURE: &str = "<_>";

/// A pattern and its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The operand for `|>`.
    pub text: String,
    /// The level of its lines, as given to [`Miner::add`].
    pub level: String,
    /// How many lines there were in each step with lines, by the time that it begins. Sorted by time.
    pub samples: Vec<(i64, u64)>,
}

impl Pattern {
    /// How many lines there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.samples.iter().map(|(_, count)| count).sum()
    }
}

/// Finds the patterns of the lines that it is given.
#[derive(Debug, Default)]
pub struct Miner {
    /// By level and shape.
    shapes: HashMap<Vec<u8>, Leaves>,
    clusters: usize,
    cells: usize,
    tokens: Tokens,
    key: Vec<u8>,
}

/// The clusters of a shape by leading word; the empty one is for all others.
type Leaves = HashMap<Vec<u8>, Vec<Cluster>>;

impl Miner {
    /// Takes in a line of a level; `step` names the step that it is counted for, by the time that it begins.
    pub fn add(&mut self, level: &str, step: i64, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        if self.clusters >= MAX_CLUSTERS || self.cells >= MAX_CELLS {
            self.forget_rare();
        }
        let tokens = &mut self.tokens;
        tokens.split(line);
        let level = if level.len() > MAX_LEVEL_BYTES { "" } else { level };
        self.key.clear();
        self.key.extend_from_slice(level.as_bytes());
        self.key.extend_from_slice(&[END_OF_LEVEL, u8::from(tokens.open)]);
        self.key.extend_from_slice(&tokens.shape);
        let leaves = self.shapes.entry_ref(self.key.as_slice()).or_default();
        // Of a line that is all header the first word leads.
        let words = || tokens.of(line).enumerate().filter(|(_, token)| token.kind == Kind::Word);
        let lead = words().find(|(place, _)| *place >= tokens.header).or_else(|| words().next());
        let word = lead.map_or(&[][..], |(_, token)| token.text);
        let full = leaves.len() >= MAX_LEAVES && !leaves.contains_key(word);
        let leaf = leaves.entry_ref(if full { &[][..] } else { word }).or_default();
        let cluster = match nearest(leaf, &tokens.of(line), tokens.header) {
            Some((place, likeness)) if likeness.is_close() || leaf.len() >= MAX_LEAF => {
                leaf[place].take_in(tokens.of(line));
                &mut leaf[place]
            }
            _ => {
                self.clusters += 1;
                leaf.push_mut(Cluster::new(tokens.of(line), lead.map(|(place, _)| place)))
            }
        };
        self.cells += usize::from(cluster.count(step));
    }

    /// The patterns, those with the most lines first, then by text and level.
    #[must_use]
    pub fn finish(self) -> Vec<Pattern> {
        let mut merged: BTreeMap<(String, String), BTreeMap<i64, u64>> = BTreeMap::new();
        for (key, leaves) in self.shapes {
            let at = key.iter().position(|b| *b == END_OF_LEVEL).unwrap_or(key.len());
            let level = String::from_utf8_lossy(&key[..at]);
            let (open, shape) = match key.get(at + 1..) {
                Some([open, shape @ ..]) => (*open != 0, shape),
                _ => (false, &[][..]),
            };
            for cluster in fold_variants(leaves.into_values().flatten()) {
                let samples =
                    merged.entry((text(shape, &cluster.slots, open), level.clone().into_owned())).or_default();
                for (step, count) in cluster.samples {
                    *samples.entry(step).or_default() += count;
                }
            }
        }
        let pattern = |((text, level), samples): ((String, String), BTreeMap<_, _>)| Pattern {
            text,
            level,
            samples: samples.into_iter().collect(),
        };
        let mut patterns: Vec<_> = merged.into_iter().map(pattern).collect();
        // Stable: those with equally many lines stay in the order of their texts.
        patterns.sort_by_cached_key(|pattern| std::cmp::Reverse(pattern.count()));
        patterns
    }

    /// Forgets the rarer half of the clusters.
    fn forget_rare(&mut self) {
        let all = self.shapes.values().flat_map(HashMap::values).flatten();
        let mut counts: Vec<u64> = all.map(|cluster| cluster.count).collect();
        // There is at least one, or nothing would be too many.
        let half = counts.len() / 2;
        let (_, &mut least, more) = counts.select_nth_unstable(half);
        // Of those that have as many lines as the least of the better half, as many stay as belong to it.
        let mut room = more.len().max(1) - more.iter().filter(|count| **count > least).count();
        (self.clusters, self.cells) = (0, 0);
        self.shapes.retain(|_, leaves| {
            leaves.retain(|_, leaf| {
                leaf.retain(|cluster| {
                    let keep = cluster.count > least || (cluster.count == least && room > 0);
                    if keep {
                        room -= usize::from(cluster.count == least);
                        self.clusters += 1;
                        self.cells += cluster.samples.len();
                    }
                    keep
                });
                !leaf.is_empty()
            });
            !leaves.is_empty()
        });
    }
}

/// The cluster that a line looks most like.
fn nearest<'l>(
    leaf: &[Cluster],
    tokens: &(impl Iterator<Item = Token<'l>> + Clone),
    header: usize,
) -> Option<(usize, Likeness)> {
    let mut best: Option<(usize, Likeness)> = None;
    for (place, cluster) in leaf.iter().enumerate() {
        let likeness = cluster.likeness(tokens.clone(), header);
        if best.is_none_or(|(_, most)| likeness.is_more_than(most)) {
            best = Some((place, likeness));
        }
        if likeness.is_full() {
            break;
        }
    }
    best
}

/// Makes one of clusters of a shape that differ in nothing but the leading word.
fn fold_variants(clusters: impl Iterator<Item = Cluster>) -> Vec<Cluster> {
    let mut groups: HashMap<(Option<usize>, Slots), Vec<Cluster>> = HashMap::new();
    for cluster in clusters {
        let mut slots = cluster.slots.clone();
        if let Some(slot) = cluster.lead.and_then(|place| slots.get_mut(place)) {
            *slot = Slot::Any;
        }
        groups.entry((cluster.lead, slots)).or_default().push(cluster);
    }
    let mut folded = Vec::new();
    for ((lead, _), mut group) in groups {
        if group.len() >= MANY_VARIANTS
            && let (Some(place), Some(mut all)) = (lead, group.pop())
        {
            group.into_iter().for_each(|cluster| all.merge(cluster, place));
            group = vec![all];
        }
        folded.append(&mut group);
    }
    folded
}

/// The shape with a text or a capture for each token.
fn text(shape: &[u8], slots: &[Slot], open: bool) -> String {
    let mut out = Vec::with_capacity(shape.len() + slots.len() * 8);
    let mut slots = slots.iter();
    for byte in shape {
        match *byte {
            MARK => out.extend_from_slice(slots.next().and_then(Slot::text).unwrap_or(CAPTURE.as_bytes())),
            byte => out.push(byte),
        }
    }
    if open {
        out.extend_from_slice(CAPTURE.as_bytes());
    }
    // Separators and keys are ASCII, texts are UTF-8.
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
