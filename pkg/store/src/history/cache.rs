//! What was read of blocks, kept for the next who asks: footers, indexes, grams, pages.
//!
//! Invariants:
//! * The cost of everything kept is at most the bound; what alone costs more than a shard may hold is not kept.
//! * What is being fetched is fetched once: others who want it wait. If the fetch fails or is given up, one of them fetches it.
//! * Who is new is on probation: what is asked for again before its turn to leave comes stays, so that a search through everything once
//!   does not drive out what every search needs. As long as there is room nobody leaves.
//!
//! Pages are kept compressed, as they are in the block: ten times as many fit, and who wants one unpacks a page faster than it scans it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::metrics::{Kind, Metrics};
use crate::Error;
use crate::block::{Footer, Grams, Index};

/// Parts with a lock of their own. (One in tests, so that what leaves is known.)
const SHARDS: usize = if cfg!(test) { 1 } else { 16 };

/// The part of a shard that those on probation may fill when it is full: one in so many.
const PROBATION: usize = 8;

/// What an entry costs beyond what it holds, in bytes: its places in tables and queues.
const ENTRY_COST: usize = 160;

/// How often at most a second chance is remembered.
const MAX_CHANCES: u8 = 3;

/// Names a part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Names the block.
    pub(super) block: u128,
    pub(super) part: Part,
}

/// A part of a block that is read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Footer,
    Index,
    /// Of a group of pages, by its number.
    Grams(u32),
    /// The small columns of a page.
    Columns(u32),
    Page(u32),
}

impl Part {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Footer => Kind::Footer,
            Self::Index => Kind::Index,
            Self::Grams(_) => Kind::Grams,
            Self::Columns(_) => Kind::Columns,
            Self::Page(_) => Kind::Page,
        }
    }
}

/// The grams of consecutive pages.
pub(super) type PageGrams = Arc<[Option<Grams>]>;

/// What a part of a block is to those who want it.
#[derive(Clone)]
pub(super) enum Value {
    Footer(Arc<Footer>),
    Index(Arc<Index>),
    Grams(PageGrams),
    Bytes(Bytes),
}

impl Value {
    /// Bytes in memory.
    fn cost(&self) -> usize {
        match self {
            Self::Footer(footer) => footer.memory(),
            Self::Index(index) => index.memory(),
            Self::Grams(grams) => grams.iter().map(|g| g.as_ref().map_or(0, Grams::memory)).sum(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

struct Slot {
    value: Value,
    cost: usize,
    /// Tells it from what had its key before.
    stamp: u64,
    /// How often it was asked for, up to [`MAX_CHANCES`]; each is one more turn.
    chances: u8,
    on_probation: bool,
}

#[derive(Default)]
struct Shard {
    slots: HashMap<Key, Slot>,
    /// In the order in which they came.
    probation: VecDeque<(Key, u64)>,
    /// In the order of their turns.
    settled: VecDeque<(Key, u64)>,
    cost: usize,
    probation_cost: usize,
    flights: HashMap<Key, (u64, watch::Receiver<Option<Value>>)>,
    stamps: u64,
}

/// See the module's words.
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Of a shard, in bytes.
    room: usize,
    metrics: Metrics,
}

/// How a look into the cache ends.
pub(super) enum Look<'a> {
    /// It is there.
    Hit(Value),
    /// Somebody fetches it.
    Flying(Flight),
    /// It has to be fetched.
    Mine(Ticket<'a>),
}

/// A fetch of somebody else.
pub(super) struct Flight(watch::Receiver<Option<Value>>);

impl Flight {
    /// What was fetched; none if the fetch failed or was given up.
    pub(super) async fn landed(mut self) -> Option<Value> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|value| value.clone())
    }
}

/// The duty to fetch something. Dropped without it, it passes to another who waits.
pub(super) struct Ticket<'a> {
    cache: &'a Cache,
    key: Key,
    stamp: u64,
    sender: watch::Sender<Option<Value>>,
}

impl Ticket<'_> {
    /// Hands over what was fetched.
    pub(super) fn land(self, value: &Value) {
        self.cache.insert(self.key, value.clone());
        self.sender.send_replace(Some(value.clone()));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(&self.key).lock();
        if let Entry::Occupied(flight) = shard.flights.entry(self.key)
            && flight.get().0 == self.stamp
        {
            flight.remove();
        }
    }
}

impl Cache {
    /// `bytes`: the bound.
    pub(super) fn new(bytes: usize, metrics: Metrics) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, room: bytes / SHARDS, metrics }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        let part = match key.part {
            Part::Footer | Part::Index => 0,
            Part::Grams(n) | Part::Columns(n) | Part::Page(n) => n as usize,
        };
        // Pages are read in a row; that of one block is spread over all shards.
        let number = (key.block as usize).wrapping_add(part) % self.shards.len().max(1);
        &self.shards[number]
    }

    /// Whether it is there, without a claim to it.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.shard(key).lock().slots.contains_key(key)
    }

    /// Looks for a part of a block.
    pub(super) fn look(&self, key: Key) -> Look<'_> {
        let mut shard = self.shard(&key).lock();
        if let Some(slot) = shard.slots.get_mut(&key) {
            slot.chances = (slot.chances + 1).min(MAX_CHANCES);
            let value = slot.value.clone();
            drop(shard);
            self.metrics.hit(key.part.kind());
            return Look::Hit(value);
        }
        if let Some((_, flight)) = shard.flights.get(&key) {
            return Look::Flying(Flight(flight.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        shard.stamps += 1;
        let stamp = shard.stamps;
        shard.flights.insert(key, (stamp, receiver));
        drop(shard);
        self.metrics.miss(key.part.kind());
        Look::Mine(Ticket { cache: self, key, stamp, sender })
    }

    /// The part, fetched if it is not there.
    pub(super) async fn get(
        &self,
        key: Key,
        fetch: impl AsyncFnOnce() -> Result<Value, Error>,
    ) -> Result<(Value, bool), Error> {
        loop {
            match self.look(key) {
                Look::Hit(value) => return Ok((value, true)),
                Look::Flying(flight) => {
                    if let Some(value) = flight.landed().await {
                        return Ok((value, true));
                    }
                }
                Look::Mine(ticket) => {
                    let value = fetch().await?;
                    ticket.land(&value);
                    return Ok((value, false));
                }
            }
        }
    }

    /// Forgets what turned out to be of no use.
    pub(super) fn forget(&self, key: &Key) {
        let mut shard = self.shard(key).lock();
        if let Some(slot) = shard.slots.remove(key) {
            shard.left(&slot, &self.metrics);
        }
    }

    fn insert(&self, key: Key, value: Value) {
        let cost = value.cost() + ENTRY_COST;
        if cost > self.room {
            return;
        }
        let mut gone = Vec::new();
        let mut shard = self.shard(&key).lock();
        if let Some(slot) = shard.slots.remove(&key) {
            shard.left(&slot, &self.metrics);
            gone.push(slot);
        }
        shard.make_room(self.room - cost, self.room / PROBATION, &self.metrics, &mut gone);
        shard.stamps += 1;
        let stamp = shard.stamps;
        shard.slots.insert(key, Slot { value, cost, stamp, chances: 0, on_probation: true });
        shard.probation.push_back((key, stamp));
        shard.cost += cost;
        shard.probation_cost += cost;
        self.metrics.kept(cost);
        drop(shard);
        // Freed only now, while nobody waits.
        drop(gone);
    }

    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().cost).sum()
    }
}

impl Shard {
    /// Has entries leave until the others cost no more than `room`.
    fn make_room(&mut self, room: usize, probation: usize, metrics: &Metrics, gone: &mut Vec<Slot>) {
        while self.cost > room {
            let from_probation = self.probation_cost > probation || self.settled.is_empty();
            let turn = if from_probation { self.probation.pop_front() } else { self.settled.pop_front() };
            let Some((key, stamp)) = turn else { return };
            let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.stamp == stamp) else { continue };
            if slot.chances > 0 {
                slot.chances -= 1;
                if std::mem::take(&mut slot.on_probation) {
                    self.probation_cost -= slot.cost;
                }
                self.settled.push_back((key, stamp));
            } else if let Some(slot) = self.slots.remove(&key) {
                self.left(&slot, metrics);
                metrics.evicted();
                gone.push(slot);
            }
        }
        // What was forgotten left its turn behind.
        if self.probation.len() + self.settled.len() > 2 * self.slots.len() + SPARE_TURNS {
            let Self { slots, probation, settled, .. } = self;
            let is_there = |(key, stamp): &(Key, u64)| slots.get(key).is_some_and(|slot| slot.stamp == *stamp);
            probation.retain(is_there);
            settled.retain(is_there);
        }
    }

    /// Accounts for a slot that was taken out.
    fn left(&mut self, slot: &Slot, metrics: &Metrics) {
        self.cost -= slot.cost;
        if slot.on_probation {
            self.probation_cost -= slot.cost;
        }
        metrics.let_go(slot.cost);
    }
}

/// Turns of what is not there any more that do not matter.
const SPARE_TURNS: usize = 64;

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("room", &self.room).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: usize = 1000 + ENTRY_COST;

    fn key(n: u32) -> Key {
        Key { block: 1, part: Part::Page(n) }
    }

    fn value(n: u32) -> Value {
        Value::Bytes(Bytes::from(vec![n as u8; 1000]))
    }

    fn put(cache: &Cache, n: u32) {
        let Look::Mine(ticket) = cache.look(key(n)) else { panic!("{n} is there") };
        ticket.land(&value(n));
    }

    fn present(cache: &Cache, range: std::ops::Range<u32>) -> Vec<u32> {
        range.filter(|n| cache.contains(&key(*n))).collect()
    }

    #[test]
    fn it_stays_within_its_bound_and_the_oldest_leave() {
        let cache = Cache::new(10 * COST, Metrics::default());
        (0..10).for_each(|n| put(&cache, n));
        assert_eq!(present(&cache, 0..10).len(), 10, "there is room for all");
        (10..100).for_each(|n| put(&cache, n));
        assert_eq!(present(&cache, 0..100), (90..100).collect::<Vec<_>>());
        assert_eq!(cache.cost(), 10 * COST);
        cache.insert(key(200), Value::Bytes(Bytes::from(vec![0; 11 * COST])));
        assert!(!cache.contains(&key(200)), "it is too large");
        assert_eq!(present(&cache, 0..100).len(), 10);
    }

    #[test]
    fn what_is_asked_for_survives_a_search_through_everything() {
        let cache = Cache::new(10 * COST, Metrics::default());
        (0..5).for_each(|n| put(&cache, n));
        for n in 0..5 {
            assert!(matches!(cache.look(key(n)), Look::Hit(_)));
        }
        (100..200).for_each(|n| put(&cache, n));
        assert_eq!(present(&cache, 0..5), [0, 1, 2, 3, 4]);
        // But not for ever: others that are asked for take their place.
        for n in (300..320).chain(300..320) {
            match cache.look(key(n)) {
                Look::Mine(ticket) => ticket.land(&value(n)),
                Look::Hit(_) | Look::Flying(_) => {}
            }
            let _ = cache.look(key(n));
        }
        assert!(present(&cache, 0..5).len() < 5);
        assert!(cache.cost() <= 10 * COST);
    }

    #[test]
    fn what_is_forgotten_gives_its_room_back() {
        let cache = Cache::new(10 * COST, Metrics::default());
        for round in 0..1000 {
            put(&cache, round % 7);
            cache.forget(&key(round % 7));
        }
        assert_eq!(cache.cost(), 0);
        assert!(cache.shards[0].lock().probation.len() <= 1000);
        (0..10).for_each(|n| put(&cache, n));
        assert_eq!(present(&cache, 0..10).len(), 10);
    }

    #[tokio::test]
    async fn equal_fetches_are_one() {
        let cache = Cache::new(10 * COST, Metrics::default());
        let Look::Mine(ticket) = cache.look(key(1)) else { panic!() };
        let waiting = cache.get(key(1), async || panic!("it is being fetched"));
        let landing = async {
            tokio::task::yield_now().await;
            ticket.land(&value(1));
        };
        let (got, ()) = futures_util::future::join(waiting, landing).await;
        let (Value::Bytes(bytes), true) = got.unwrap() else { panic!() };
        assert_eq!(bytes.len(), 1000);
    }

    #[tokio::test]
    async fn a_fetch_that_is_given_up_passes_to_who_waits() {
        let cache = Cache::new(10 * COST, Metrics::default());
        let Look::Mine(ticket) = cache.look(key(1)) else { panic!() };
        let waiting = cache.get(key(1), async || Ok(value(7)));
        let dropping = async {
            tokio::task::yield_now().await;
            drop(ticket);
        };
        let (got, ()) = futures_util::future::join(waiting, dropping).await;
        assert!(!got.unwrap().1, "it was fetched by who waited");
        let failing = cache.get(key(2), async || Err(Error::Conflict)).await;
        assert!(failing.is_err() && matches!(cache.look(key(2)), Look::Mine(_)));
    }
}
