//! Lines that look alike: what they have in common, and how many there were when.
//!
//! Invariant: whatever a slot was made from, it stands for; a slot only ever comes to stand for more.

use std::collections::BTreeMap;

use super::tokens::{Kind, Token};

/// What words count for in a comparison.
const WORD: u32 = 2;

/// What numbers count for: that there is one in the same place tells less than that there is the same word.
const NUMBER: u32 = 1;

/// Of ten parts that are compared so many must agree.
const SIMILAR_TENTHS: u32 = 6;

/// What stands in one place of the lines of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// Always this word.
    Word(Box<[u8]>),
    /// Always this number.
    Figure(Box<[u8]>),
    /// Different numbers.
    Number,
    /// Different things.
    Any,
}

impl Slot {
    fn new(token: Token<'_>) -> Self {
        match token.kind {
            Kind::Word => Self::Word(token.text.into()),
            Kind::Number => Self::Figure(token.text.into()),
            Kind::Opaque => Self::Any,
        }
    }

    /// What always stands there.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Word(text) | Self::Figure(text) => Some(text),
            Self::Number | Self::Any => None,
        }
    }

    /// Whether nothing but numbers stands there.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Figure(_) | Self::Number)
    }

    /// Makes it stand for more.
    fn widen(&mut self, text: Option<&[u8]>, is_number: bool) {
        if text.is_none() || self.text() != text {
            *self = if self.is_number() && is_number { Self::Number } else { Self::Any };
        }
    }
}

/// What stands in all places.
pub(super) type Slots = Box<[Slot]>;

/// How much of what can be compared is the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Likeness {
    same: u32,
    of: u32,
}

impl Likeness {
    /// Whether the line belongs to the cluster.
    pub(super) fn is_close(self) -> bool {
        self.same * 10 >= self.of * SIMILAR_TENTHS
    }

    /// Whether there is no difference.
    pub(super) fn is_full(self) -> bool {
        self.same == self.of
    }

    pub(super) fn is_more_than(self, other: Self) -> bool {
        // Of the same shape, so both are of about as much.
        u64::from(self.same) * u64::from(other.of.max(1)) > u64::from(other.same) * u64::from(self.of.max(1))
    }
}

/// Lines of one shape that look alike.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) slots: Slots,
    /// The place of the word that led to it.
    pub(super) lead: Option<usize>,
    pub(super) count: u64,
    /// Lines by the time that their step begins.
    pub(super) samples: BTreeMap<i64, u64>,
}

impl Cluster {
    pub(super) fn new<'l>(tokens: impl Iterator<Item = Token<'l>>, lead: Option<usize>) -> Self {
        Self { slots: tokens.map(Slot::new).collect(), lead, count: 0, samples: BTreeMap::new() }
    }

    /// How much a line with as many tokens looks like the lines of this cluster, its header aside.
    pub(super) fn likeness<'l>(&self, tokens: impl Iterator<Item = Token<'l>>, header: usize) -> Likeness {
        let mut all = Likeness::default();
        for (slot, token) in self.slots.iter().zip(tokens).skip(header) {
            let (same, of) = match (slot, token.kind) {
                (_, Kind::Opaque) => continue,
                (Slot::Word(word), Kind::Word) if **word == *token.text => (WORD, WORD),
                (Slot::Figure(_) | Slot::Number, Kind::Number) => (NUMBER, NUMBER),
                (Slot::Any, Kind::Number) => (0, NUMBER),
                _ => (0, WORD),
            };
            all.same += same;
            all.of += of;
        }
        all
    }

    /// Makes the slots stand for a line, too.
    pub(super) fn take_in<'l>(&mut self, tokens: impl Iterator<Item = Token<'l>>) {
        for (slot, token) in self.slots.iter_mut().zip(tokens) {
            slot.widen((token.kind != Kind::Opaque).then_some(token.text), token.kind == Kind::Number);
        }
    }

    /// Counts a line; answers whether it is the first of its step.
    pub(super) fn count(&mut self, step: i64) -> bool {
        let count = self.samples.entry(step).or_default();
        *count += 1;
        self.count += 1;
        *count == 1
    }

    /// Takes over the lines of a cluster that differs only in one place.
    pub(super) fn merge(&mut self, other: Self, place: usize) {
        if let (Some(slot), Some(other)) = (self.slots.get_mut(place), other.slots.get(place)) {
            slot.widen(other.text(), other.is_number());
        }
        self.count += other.count;
        for (step, count) in other.samples {
            *self.samples.entry(step).or_default() += count;
        }
    }
}
