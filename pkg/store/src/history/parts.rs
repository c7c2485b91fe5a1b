//! Fetching parts of blocks, through the cache.
//!
//! Invariants: what is fetched at a time is what the caller asks for at a time; parts that lie close together are read in one go; nothing
//! that was fetched keeps more in memory than itself.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tailwater_wire::node::BlocksScanned;

use super::cache::{Flight, Key, Look, PageGrams, Part, Ticket, Value};
use super::{BlockRef, Inner};
use crate::Error;
use crate::block::{Footer, Index, Located, TAIL_GUESS, decode_grams};

/// Pages whose grams are fetched and kept together.
pub(super) const GRAMS_GROUP: u32 = 64;

/// What lies between two parts is read with them if it is no more than this, in bytes: from a server, where a request more costs more
/// than that, and from this machine.
const FAR_GAP: u64 = 128 << 10;
const NEAR_GAP: u64 = 4 << 10;

/// What a search has looked at in blocks so far.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BlocksScanned>);

impl Tally {
    pub(crate) fn add(&self, change: impl FnOnce(&mut BlocksScanned)) {
        change(&mut self.0.lock());
    }

    pub(crate) fn sum(&self) -> BlocksScanned {
        *self.0.lock()
    }
}

impl Inner {
    /// The footer of a block.
    pub(super) async fn footer(&self, block: &BlockRef, tally: &Tally) -> Result<Arc<Footer>, Error> {
        let key = Key { block: block.key, part: Part::Footer };
        let (value, hit) = self.cache.get(key, async || self.fetch_footer(block, tally).await).await?;
        tally.add(|t| t.cache_hits += u64::from(hit));
        match value {
            Value::Footer(footer) => Ok(footer),
            _ => Err(Error::corrupt(block.path.as_ref(), "the cache holds something else")),
        }
    }

    async fn fetch_footer(&self, block: &BlockRef, tally: &Tally) -> Result<Value, Error> {
        let began = Instant::now();
        let (mut tail, len) = self.objects.tail(&block.path, TAIL_GUESS).await?;
        let mut fetched = tail.len() as u64;
        let footer = loop {
            match Footer::locate(&tail, len)? {
                Located::Footer(footer) => break footer,
                Located::Need(range) if range.end - range.start > tail.len() as u64 => {
                    fetched += range.end - range.start;
                    tail = self.objects.ranges(&block.path, &[range]).await?.pop().unwrap_or_default();
                }
                Located::Need(_) => return Err(Error::corrupt("footer of a block", "it asks for what is there")),
            }
        };
        tally.add(|t| {
            t.fetched_bytes += fetched;
            t.fetch_nanos += nanos_since(began);
        });
        Ok(Value::Footer(Arc::from(footer)))
    }

    /// The index of a block, which its footer says it has.
    pub(super) async fn index(&self, block: &BlockRef, footer: &Footer, tally: &Tally) -> Result<Arc<Index>, Error> {
        let open = |_, bytes: Bytes| Ok(Value::Index(Arc::new(Index::open(&bytes, footer)?)));
        let wants = vec![(Part::Index, footer.index.range.clone())];
        match self.parts(block, wants, open, tally).await?.pop() {
            Some(Value::Index(index)) => Ok(index),
            _ => Err(Error::corrupt(block.path.as_ref(), "the cache holds something else")),
        }
    }

    /// The grams of groups of [`GRAMS_GROUP`] pages.
    pub(super) async fn grams(
        &self,
        block: &BlockRef,
        footer: &Footer,
        groups: &[u32],
        tally: &Tally,
    ) -> Result<Vec<PageGrams>, Error> {
        let pages = |group: u32| {
            let first = group.saturating_mul(GRAMS_GROUP);
            first..first.saturating_add(GRAMS_GROUP).min(footer.pages.len() as u32)
        };
        let wants = groups.iter().map(|group| (Part::Grams(*group), footer.grams_of(pages(*group)))).collect();
        let decode = |part: Part, bytes: Bytes| {
            let Part::Grams(group) = part else { return Ok(Value::Bytes(bytes)) };
            let pages = pages(group);
            let of = footer.pages.get(pages.start as usize..pages.end as usize).unwrap_or_default();
            Ok(Value::Grams(decode_grams(&bytes, of)?.into()))
        };
        let values = self.parts(block, wants, decode, tally).await?;
        let grams = |value| match value {
            Value::Grams(grams) => grams,
            Value::Footer(_) | Value::Index(_) | Value::Bytes(_) => PageGrams::default(),
        };
        Ok(values.into_iter().map(grams).collect())
    }

    /// Bytes of parts of a block.
    pub(super) async fn bytes(
        &self,
        block: &BlockRef,
        wants: Vec<(Part, Range<u64>)>,
        tally: &Tally,
    ) -> Result<Vec<Bytes>, Error> {
        let values = self.parts(block, wants, |_, bytes| Ok(Value::Bytes(bytes)), tally).await?;
        let bytes = |value| match value {
            Value::Bytes(bytes) => bytes,
            Value::Footer(_) | Value::Index(_) | Value::Grams(_) => Bytes::new(),
        };
        Ok(values.into_iter().map(bytes).collect())
    }

    /// Parts of a block: from the cache, from others who fetch them just now, or fetched together.
    async fn parts(
        &self,
        block: &BlockRef,
        wants: Vec<(Part, Range<u64>)>,
        decode: impl Fn(Part, Bytes) -> Result<Value, Error>,
        tally: &Tally,
    ) -> Result<Vec<Value>, Error> {
        let mut found: Vec<Option<Value>> = vec![None; wants.len()];
        let mut flying: Vec<(usize, Flight)> = Vec::new();
        let mut mine: Vec<(usize, Ticket<'_>)> = Vec::new();
        for (number, (part, _)) in wants.iter().enumerate() {
            match self.cache.look(Key { block: block.key, part: *part }) {
                Look::Hit(value) => found[number] = Some(value),
                Look::Flying(flight) => flying.push((number, flight)),
                Look::Mine(ticket) => mine.push((number, ticket)),
            }
        }
        let hits = (wants.len() - mine.len()) as u64;
        tally.add(|t| t.cache_hits += hits);
        // First what others may wait for, then what others fetch: so nobody waits in a circle.
        if !mine.is_empty() {
            let ranges: Vec<_> = mine.iter().map(|(number, _)| wants[*number].1.clone()).collect();
            let fetched = self.fetch(block, &ranges, tally).await?;
            for ((number, ticket), bytes) in mine.into_iter().zip(fetched) {
                let value = decode(wants[number].0, bytes)?;
                ticket.land(&value);
                found[number] = Some(value);
            }
        }
        for (number, flight) in flying {
            let value = match flight.landed().await {
                Some(value) => value,
                None => {
                    let (part, range) = &wants[number];
                    let key = Key { block: block.key, part: *part };
                    let fetch = async || {
                        let fetched = self.fetch(block, std::slice::from_ref(range), tally).await?.pop();
                        decode(*part, fetched.unwrap_or_default())
                    };
                    self.cache.get(key, fetch).await?.0
                }
            };
            found[number] = Some(value);
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Ranges of an object, in the order asked for.
    async fn fetch(&self, block: &BlockRef, ranges: &[Range<u64>], tally: &Tally) -> Result<Vec<Bytes>, Error> {
        let began = Instant::now();
        let near = self.objects.is_near();
        let together = coalesce(ranges, if near { NEAR_GAP } else { FAR_GAP });
        let read = if near {
            self.objects.ranges(&block.path, &together).await?
        } else {
            // One by one: the store would read what lies between them, too.
            let one = async |range: &Range<u64>| self.objects.ranges(&block.path, std::slice::from_ref(range)).await;
            futures_util::future::try_join_all(together.iter().map(one)).await?.into_iter().flatten().collect()
        };
        tally.add(|t| {
            t.fetched_bytes += together.iter().map(|range| range.end - range.start).sum::<u64>();
            t.fetch_nanos += nanos_since(began);
        });
        let part = |range: &Range<u64>| {
            let at = together.partition_point(|whole| whole.end < range.end);
            let (whole, bytes) = together.get(at).zip(read.get(at))?;
            if whole == range {
                return Some(bytes.clone());
            }
            let start = usize::try_from(range.start.checked_sub(whole.start)?).ok()?;
            let end = usize::try_from(range.end.checked_sub(whole.start)?).ok()?;
            // Copied: a slice would keep all of it.
            bytes.get(start..end).map(Bytes::copy_from_slice)
        };
        let missing = || Error::corrupt(block.path.as_ref(), "less was read than was asked for");
        ranges.iter().map(|range| part(range).ok_or_else(missing)).collect()
    }
}

/// The ranges, sorted, those together that are no further apart than `gap`.
fn coalesce(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut together: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match together.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => last.end = last.end.max(range.end),
            _ => together.push(range),
        }
    }
    together
}

fn nanos_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_read_together() {
        let together = |ranges: &[Range<u64>]| coalesce(ranges, 10);
        assert_eq!(together(&[]), []);
        assert_eq!(together(&[30..40, 0..10, 10..15]), [0..15, 30..40]);
        assert_eq!(together(&[0..10, 20..30, 41..50]), [0..30, 41..50]);
        assert_eq!(together(&[0..100, 10..20, 105..106]), vec![std::ops::Range { start: 0, end: 106 }]);
    }
}
