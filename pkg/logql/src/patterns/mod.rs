//! Patterns of log lines, mined after the manner of Drain (He, Zhu, Zheng, Lyu: Drain, an online log parsing approach with fixed
//! depth tree, ICWS 2017): a line is taken apart into tokens, a tree of fixed depth leads to the few clusters that it may belong
//! to, and it joins the one that it looks most like, or begins its own. Where the lines of a cluster differ the pattern has `<_>`.
//!
//! What is different here: the tree begins not with the number of tokens but with the whole shape of the line, which is its
//! separators and the keys of `key=value` and `"key":`; numbers lead nowhere and count for less than words; and words in the
//! leading places that turn out to take many values are recognised as variables in the end.
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

use self::cluster::{Cluster, Likeness, Slot};
use self::tokens::{Kind, MARK, Token, Tokens};

/// Most clusters; when there are more, the rarer half is forgotten. (Few in tests.)
const MAX_CLUSTERS: usize = if cfg!(test) { 64 } else { 2048 };

/// Most counts (one per cluster and step with lines); when there are more, the rarer half of the clusters is forgotten.
const MAX_CELLS: usize = if cfg!(test) { 512 } else { 1 << 19 };

/// Most clusters of a leaf; when there are as many, a line joins the nearest.
const MAX_LEAF: usize = if cfg!(test) { 8 } else { 64 };

/// Leading tokens that the tree tells apart: the second word is a variable too often.
const DEPTH: usize = 1;

/// Most words that a place of the tree tells apart; the others share a branch.
const MAX_CHILDREN: usize = 16;

/// So many patterns that differ only in one leading word are one: the word is a variable.
const MANY_VARIANTS: usize = 8;

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
    shapes: HashMap<Vec<u8>, Branch>,
    clusters: usize,
    cells: usize,
    tokens: Tokens,
    key: Vec<u8>,
}

/// A place in the tree.
#[derive(Debug, Default)]
struct Branch {
    /// By leading word; the empty one is for all others.
    children: HashMap<Vec<u8>, Branch>,
    clusters: Vec<Cluster>,
}

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
        self.key.clear();
        self.key.extend_from_slice(level.as_bytes());
        self.key.extend_from_slice(&[END_OF_LEVEL, u8::from(tokens.open)]);
        self.key.extend_from_slice(&tokens.shape);
        let mut leaf = self.shapes.entry_ref(self.key.as_slice()).or_default();
        for lead in tokens.of(line).skip_while(|token| token.kind == Kind::Number).take(DEPTH) {
            let word: &[u8] = if lead.kind == Kind::Word { lead.text } else { &[] };
            let full = leaf.children.len() >= MAX_CHILDREN && !leaf.children.contains_key(word);
            leaf = leaf.children.entry_ref(if full { &[][..] } else { word }).or_default();
        }
        let nearest = leaf.nearest(&tokens.of(line));
        let cluster = match nearest {
            Some((place, likeness)) if likeness.is_close() || leaf.clusters.len() >= MAX_LEAF => {
                leaf.clusters[place].take_in(tokens.of(line));
                &mut leaf.clusters[place]
            }
            _ => {
                self.clusters += 1;
                leaf.clusters.push_mut(Cluster::new(tokens.of(line)))
            }
        };
        self.cells += usize::from(cluster.count(step));
    }

    /// The patterns, those with the most lines first, then by text and level.
    #[must_use]
    pub fn finish(self) -> Vec<Pattern> {
        let mut merged: BTreeMap<(String, String), BTreeMap<i64, u64>> = BTreeMap::new();
        for (key, branch) in self.shapes {
            let at = key.iter().position(|b| *b == END_OF_LEVEL).unwrap_or(key.len());
            let level = String::from_utf8_lossy(&key[..at]);
            let (open, shape) = match key.get(at + 1..) {
                Some([open, shape @ ..]) => (*open != 0, shape),
                _ => (false, &[][..]),
            };
            let mut clusters = Vec::new();
            branch.drain(&mut clusters);
            for cluster in fold_variants(clusters) {
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
        let mut counts = Vec::with_capacity(self.clusters);
        self.shapes.values().for_each(|branch| branch.counts(&mut counts));
        let half = counts.len() / 2;
        let (_, &mut least, more) = counts.select_nth_unstable(half);
        let mut room = more.len().max(1) - more.iter().filter(|count| **count > least).count();
        (self.clusters, self.cells) = (0, 0);
        self.shapes.retain(|_, branch| {
            branch.retain(&mut |cluster| {
                let keep = cluster.count > least || (cluster.count == least && room > 0);
                if keep {
                    room = room.saturating_sub(usize::from(cluster.count == least));
                    self.clusters += 1;
                    self.cells += cluster.samples.len();
                }
                keep
            });
            !branch.is_empty()
        });
    }
}

/// Recursion is at most [`DEPTH`] deep.
impl Branch {
    fn nearest<'l>(&self, tokens: &(impl Iterator<Item = Token<'l>> + Clone)) -> Option<(usize, Likeness)> {
        let mut best: Option<(usize, Likeness)> = None;
        for (place, cluster) in self.clusters.iter().enumerate() {
            let likeness = cluster.likeness(tokens.clone());
            if best.is_none_or(|(_, most)| likeness.is_more_than(most)) {
                best = Some((place, likeness));
            }
            if likeness.is_full() {
                break;
            }
        }
        best
    }

    fn counts(&self, out: &mut Vec<u64>) {
        out.extend(self.clusters.iter().map(|cluster| cluster.count));
        self.children.values().for_each(|child| child.counts(out));
    }

    fn retain(&mut self, keep: &mut impl FnMut(&Cluster) -> bool) {
        self.clusters.retain(&mut *keep);
        self.children.retain(|_, child| {
            child.retain(keep);
            !child.is_empty()
        });
    }

    fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.children.is_empty()
    }

    fn drain(self, out: &mut Vec<Cluster>) {
        out.extend(self.clusters);
        self.children.into_values().for_each(|child| child.drain(out));
    }
}

/// Makes one of clusters of a shape that differ in nothing but one of the leading words.
fn fold_variants(mut clusters: Vec<Cluster>) -> Vec<Cluster> {
    for lead in 0..DEPTH {
        if clusters.len() < MANY_VARIANTS {
            break;
        }
        let mut groups: HashMap<(usize, Box<[Slot]>), Vec<Cluster>> = HashMap::new();
        for cluster in clusters {
            let place = cluster.slots.iter().take_while(|slot| slot.is_number()).count() + lead;
            let mut slots = cluster.slots.clone();
            if let Some(slot) = slots.get_mut(place) {
                *slot = Slot::Any;
            }
            groups.entry((place, slots)).or_default().push(cluster);
        }
        clusters = Vec::new();
        for ((place, _), mut group) in groups {
            if group.len() >= MANY_VARIANTS
                && let Some(mut all) = group.pop()
            {
                group.into_iter().for_each(|cluster| all.merge(cluster, place));
                group = vec![all];
            }
            clusters.extend(group);
        }
    }
    clusters
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
