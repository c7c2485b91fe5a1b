//! What waits for its turn in a search, and what is under way.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::Stretch;
use super::pieces::MAX_UNDER_WAY;
use crate::Error;
use crate::entries::Entries;
use crate::history::{Block, Kept, Opened};

/// Pages that wait for their turn, above which no further block is opened before its turn comes.
const PAGES_AHEAD: usize = 256;

/// In which order pieces are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As is cheapest.
    Any,
    /// Those with the earliest timestamp first.
    Oldest,
    /// Those with the latest timestamp first.
    Newest,
}

impl Order {
    /// The larger, the earlier its turn.
    pub(super) fn rank(self, min: i64, max: i64) -> i64 {
        match self {
            Self::Any => 0,
            Self::Oldest => !min,
            Self::Newest => max,
        }
    }

    /// The best timestamp of what has this rank.
    pub(super) fn best(self, rank: i64) -> i64 {
        if self == Self::Oldest { !rank } else { rank }
    }
}

/// Something that waits for its turn.
pub(super) struct Waiting<T> {
    pub(super) rank: i64,
    /// Of equals the first comes first.
    pub(super) serial: u64,
    pub(super) what: T,
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank).then_with(|| other.serial.cmp(&self.serial))
    }
}

/// What is at hand, or reads itself.
pub(super) enum AtHand {
    Batch(Arc<Entries>),
    Stretch(Arc<dyn Stretch>),
}

/// A block whose pages are being handed out.
pub(super) struct Pages {
    pub(super) opened: Opened,
    taken: Box<[AtomicBool]>,
}

impl Pages {
    pub(super) fn take(&self, number: usize) -> bool {
        self.taken.get(number).is_some_and(|taken| !taken.swap(true, Ordering::Relaxed))
    }
}

/// Pages that are fetched together, ascending.
pub(super) struct Group {
    pub(super) of: Arc<Pages>,
    pub(super) pages: Vec<Kept>,
    pub(super) bytes: u64,
    /// None: there is nothing to fetch.
    pub(super) task: Option<Fetch>,
}

/// A fetch that is given up when it is dropped.
pub(super) struct Fetch(pub(super) JoinHandle<Result<Vec<Bytes>, Error>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) enum Next {
    AtHand(AtHand),
    Group(Group),
}

#[derive(Default)]
pub(super) struct State {
    /// The worst first; none is added later.
    pub(super) at_hand: Vec<Waiting<AtHand>>,
    pub(super) blocks: BinaryHeap<Waiting<Arc<Block>>>,
    pub(super) pages: BinaryHeap<Waiting<(Arc<Pages>, usize)>>,
    pub(super) under_way: VecDeque<Group>,
    pub(super) under_way_bytes: u64,
    /// Blocks that are being opened.
    pub(super) opening: usize,
    /// Blocks that were opened.
    pub(super) opened: usize,
    /// Fetches that were handed out, and their bytes.
    pub(super) fetches: usize,
    pub(super) fetched: u64,
    pub(super) serial: u64,
}

impl State {
    pub(super) fn clear(&mut self) {
        self.at_hand.clear();
        self.blocks.clear();
        self.pages.clear();
        self.under_way.clear();
        self.under_way_bytes = 0;
    }

    pub(super) fn add(&mut self, opened: Opened, order: Order) {
        let taken = opened.kept.iter().map(|_| AtomicBool::new(false)).collect();
        let of = Arc::new(Pages { opened, taken });
        for (number, kept) in of.opened.kept.iter().enumerate() {
            let Some((_, info)) = of.opened.page(kept) else { continue };
            let rank = order.rank(info.min, info.max);
            self.serial += 1;
            self.pages.push(Waiting { rank, serial: self.serial, what: (Arc::clone(&of), number) });
        }
    }

    /// Whether a block of this rank may be opened: nothing that waits is better, or the search has a long way to go.
    pub(super) fn is_time_to_open(&self, rank: i64, in_order: bool) -> bool {
        let few = self.pages.len() < PAGES_AHEAD;
        if !in_order {
            return few;
        }
        let best = self.at_hand.last().is_none_or(|other| other.rank <= rank)
            && self.pages.peek().is_none_or(|other| other.rank <= rank);
        best || (few && self.fetches >= MAX_UNDER_WAY)
    }

    pub(super) fn hand_out(&mut self, number: usize) -> Option<Next> {
        let group = self.under_way.remove(number)?;
        self.under_way_bytes -= group.bytes;
        self.fetches += 1;
        self.fetched += group.bytes;
        Some(Next::Group(group))
    }
}

impl Group {
    pub(super) fn is_ready(&self) -> bool {
        self.task.as_ref().is_none_or(|fetch| fetch.0.is_finished())
    }
}
