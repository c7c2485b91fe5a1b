//! What is known of the objects of the catalog, in bounded memory.
//!
//! Invariants: there is at most one slot for an object while anybody uses it, so whoever has the slot's turn is the only one in this process
//! who reads or writes the object. What a slot holds was the object's content at `read_at`; while a write is in doubt it holds nothing
//! afterwards.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use ulid::Ulid;

use super::manifest::{Document, Fault, Owner};
use crate::Error;
use crate::objects::{Fresh, Objects, Put, Version};

/// The content of an object.
#[derive(Debug)]
pub(super) struct Held<T> {
    /// The content; the default if there is no object.
    pub(super) value: Arc<T>,
    /// Its version; `None`: there is no object.
    pub(super) version: Option<Version>,
    /// When it was asked for: it is at least as new as this.
    pub(super) read_at: Instant,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), version: self.version.clone(), read_at: self.read_at }
    }
}

/// One object.
#[derive(Debug)]
pub(super) struct Slot<T> {
    held: Mutex<Option<Held<T>>>,
    /// Whose turn it is.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// What an object was when it was asked for.
#[derive(Debug)]
pub(super) enum Fetched<T> {
    /// Its content.
    Held(Held<T>),
    /// It cannot be read.
    Faulty(Fault, Version),
}

impl<T: Document> Slot<T> {
    /// What is known.
    pub(super) fn held(&self) -> Option<Held<T>> {
        self.held.lock().clone()
    }

    /// Lets go of what is known.
    pub(super) fn forget(&self) {
        *self.held.lock() = None;
    }

    /// Asks for the object, or whether it has changed. For whoever has the turn.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn fetch(&self, objects: &Objects, path: &str, owner: Owner<'_>) -> Result<Fetched<T>, Error> {
        let read_at = Instant::now();
        let known = self.held();
        let version = known.as_ref().and_then(|held| held.version.as_ref());
        let fresh = match version {
            Some(version) => objects.get_unless(path, version).await?,
            None => objects.get(path).await?.map_or(Fresh::Missing, |(bytes, version)| Fresh::Changed(bytes, version)),
        };
        let held = match (fresh, known) {
            (Fresh::Same, Some(known)) => Held { read_at, ..known },
            (Fresh::Same | Fresh::Missing, _) => Held { value: Arc::default(), version: None, read_at },
            (Fresh::Changed(bytes, version), _) => match T::parse(&bytes, owner) {
                Ok(value) => Held { value: Arc::new(value), version: Some(version), read_at },
                Err(fault) => {
                    self.forget();
                    return Ok(Fetched::Faulty(fault, version));
                }
            },
        };
        *self.held.lock() = Some(held.clone());
        Ok(Fetched::Held(held))
    }

    /// Replaces the object if it is still `version`. For whoever has the turn. `None`: it is not.
    ///
    /// # Errors
    /// As [`Objects::put_if`]: nobody knows whether it was replaced, or will be.
    pub(super) async fn replace(
        &self,
        objects: &Objects,
        path: &str,
        owner: Owner<'_>,
        value: T,
        version: Option<&Version>,
    ) -> Result<Option<Held<T>>, Error> {
        let doubt = Doubt(self);
        let read_at = Instant::now();
        let bytes = value.to_bytes(owner, Ulid::generate());
        match objects.put_if(path, bytes, version).await? {
            Put::Done(version) => {
                let held = Held { value: Arc::new(value), version: Some(version), read_at };
                *self.held.lock() = Some(held.clone());
                std::mem::forget(doubt);
                Ok(Some(held))
            }
            Put::Conflict => Ok(None),
        }
    }
}

/// A write that may have happened: what is known is forgotten when it ends so, also by being dropped.
struct Doubt<'a, T: Document>(&'a Slot<T>);

impl<T: Document> Drop for Doubt<'_, T> {
    fn drop(&mut self) {
        self.0.forget();
    }
}

/// The slots of all objects of a kind. The ones that were used least recently make room.
#[derive(Debug)]
pub(super) struct Slots<K, T> {
    entries: Mutex<Entries<K, T>>,
    /// Most slots.
    slots_max: usize,
    /// Most weight of all that is held.
    weight_max: usize,
}

#[derive(Debug)]
struct Entries<K, T> {
    by_key: HashMap<K, Entry<T>>,
    /// By the time of the last use.
    by_use: BTreeMap<u64, K>,
    uses: u64,
    weight: usize,
}

#[derive(Debug)]
struct Entry<T> {
    slot: Arc<Slot<T>>,
    used: u64,
    weight: usize,
}

impl<K: Clone + Eq + Hash, T: Document> Slots<K, T> {
    pub(super) fn new(slots_max: usize, weight_max: usize) -> Self {
        let entries = Entries { by_key: HashMap::new(), by_use: BTreeMap::new(), uses: 0, weight: 0 };
        Self { entries: Mutex::new(entries), slots_max, weight_max }
    }

    /// The slot of an object, made if need be.
    pub(super) fn slot(&self, key: &K) -> Arc<Slot<T>> {
        let mut entries = self.entries.lock();
        let entries = &mut *entries;
        entries.uses += 1;
        let used = entries.uses;
        let slot = if let Some(entry) = entries.by_key.get_mut(key) {
            entries.by_use.remove(&entry.used);
            entry.used = used;
            Arc::clone(&entry.slot)
        } else {
            let slot = Arc::new(Slot { held: Mutex::new(None), turn: tokio::sync::Mutex::default() });
            let entry = Entry { slot: Arc::clone(&slot), used, weight: 1 };
            entries.by_key.insert(key.clone(), entry);
            entries.weight += 1;
            slot
        };
        entries.by_use.insert(used, key.clone());
        entries.make_room(self.slots_max, self.weight_max);
        slot
    }

    /// Says how much a slot holds.
    pub(super) fn weigh(&self, key: &K, weight: usize) {
        let mut entries = self.entries.lock();
        let entries = &mut *entries;
        if let Some(entry) = entries.by_key.get_mut(key) {
            entries.weight = entries.weight - entry.weight + weight;
            entry.weight = weight;
        }
        entries.make_room(self.slots_max, self.weight_max);
    }

    /// Slots, and the weight of what they hold.
    pub(super) fn size(&self) -> (usize, usize) {
        let entries = self.entries.lock();
        (entries.by_key.len(), entries.weight)
    }
}

impl<K: Clone + Eq + Hash, T> Entries<K, T> {
    /// Gives up what was used least recently. A slot that somebody uses stays: new uses begin under the lock that is held here.
    fn make_room(&mut self, slots_max: usize, weight_max: usize) {
        let mut kept = 0;
        while self.by_key.len() > slots_max || self.weight > weight_max {
            let Some((used, key)) = self.by_use.iter().nth(kept).map(|(used, key)| (*used, key.clone())) else {
                return;
            };
            let in_use = self.by_key.get(&key).is_some_and(|entry| Arc::strong_count(&entry.slot) > 1);
            if in_use {
                kept += 1;
                continue;
            }
            self.by_use.remove(&used);
            if let Some(entry) = self.by_key.remove(&key) {
                self.weight -= entry.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Days;
    use super::*;

    #[test]
    fn what_was_used_least_recently_makes_room_and_what_is_in_use_stays() {
        let slots: Slots<u32, Days> = Slots::new(3, 100);
        let first = slots.slot(&1);
        for key in 2..10 {
            drop(slots.slot(&key));
        }
        assert_eq!(slots.size(), (3, 3));
        assert!(Arc::ptr_eq(&first, &slots.slot(&1)));
        drop(first);
        slots.weigh(&1, 50);
        assert_eq!(slots.size(), (3, 52));
        let ninth = slots.slot(&9);
        slots.weigh(&9, 60);
        assert_eq!(slots.size(), (1, 60));
        drop(ninth);
        let all: Vec<_> = (20..30).map(|key| slots.slot(&key)).collect();
        assert_eq!(slots.size().0, 10);
        drop(all);
        drop(slots.slot(&30));
        assert_eq!(slots.size().0, 3);
    }
}
