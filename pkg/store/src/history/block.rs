//! A block as a unit of a search: which of its pages have to be read, and what is in them.
//!
//! Invariant: what is pruned holds no line that the search would answer. The order is that of growing cost: streams, times and positions by
//! the footer; structured metadata by the index; texts by the grams. What cannot be read of an index or of grams rules nothing out.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_logql::matchers::Matchers;
use tailwater_logql::{AnyOf, Requirements};

use super::cache::{Key, Part};
use super::parts::{GRAMS_GROUP, Tally};
use super::{BlockRef, History, Places};
use crate::block::{Columns, Footer, Index, PageInfo, PageSet, Probe, decode_columns, decode_page};
use crate::entries::{Entries, Place};
use crate::{Error, Kind, Stream};

/// Grams are of no use if more than this part of the pages that lack the text is expected to pass all the same.
const MAX_FALSE: f64 = 0.5;

/// What a search wants of a block.
pub(crate) trait Wanted: Send + Sync {
    /// The earliest and the latest timestamp, inclusive.
    fn times(&self) -> (i64, i64);

    /// Whether a stream is looked at.
    fn selects(&self, stream: &Stream) -> bool;

    /// What [`Wanted::selects`] goes by, if it is one selector.
    fn matchers(&self) -> Option<&Matchers>;

    /// What every line has that is of interest.
    fn requirements(&self) -> Option<&Requirements>;

    /// How much of a page is needed; none: nothing. `whole`: all of its entries are of places that are asked for.
    fn need(&self, stream: &Stream, page: &PageInfo, whole: bool) -> Option<Need>;
}

/// How much of a page is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// What the footer says of it.
    Table,
    /// Times and lengths.
    Columns,
    /// Everything.
    Lines,
}

/// A block of a tenant.
pub struct Block {
    history: History,
    of: BlockRef,
    places: Places,
}

/// A page that may hold what a search wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Its number in the block.
    pub(crate) page: u32,
    pub(crate) need: Need,
    /// Whether all of its entries are of places that are asked for.
    whole: bool,
}

/// A block with its footer, and the pages that a search has to look at, in the order of the object.
pub(crate) struct Opened {
    block: Arc<Block>,
    footer: Arc<Footer>,
    pub(crate) kept: Vec<Kept>,
}

impl Block {
    pub(super) fn new(history: History, of: BlockRef, places: Places) -> Self {
        Self { history, of, places }
    }

    /// No timestamp is earlier.
    pub(crate) fn min(&self) -> i64 {
        self.of.min
    }

    /// No timestamp is later.
    pub(crate) fn max(&self) -> i64 {
        self.of.max
    }

    /// How many entries there are, also of other places.
    pub(crate) fn lines(&self) -> u64 {
        self.of.lines
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The same without lines of earlier logs.
    pub(crate) fn without_earlier(&self) -> Self {
        let places = Places { earlier: false, ..self.places.clone() };
        Self { history: self.history.clone(), of: self.of.clone(), places }
    }

    /// Reads the footer, and as much else as is needed to know which pages have to be read. Blocks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::NotFound`] name the block; [`Error::Unavailable`].
    pub(crate) fn open(self: &Arc<Self>, wanted: &dyn Wanted, tally: &Tally) -> Result<Opened, Error> {
        let runtime = self.history.runtime();
        let footer =
            runtime.block_on(self.history.0.footer(&self.of, tally)).map_err(|e| self.history.damage(&self.of, e))?;
        let kept = self.of_streams(&footer, wanted, tally)?;
        let pruned = footer.pages.len() - kept.len();
        tally.add(|t| {
            t.blocks += 1;
            t.pruned_by_streams += pruned as u64;
        });
        let mut opened = Opened { block: Arc::clone(self), footer, kept };
        if let Some(requirements) = wanted.requirements() {
            opened.prune_by_fields(requirements, tally)?;
            opened.prune_by_grams(requirements, tally)?;
        }
        Ok(opened)
    }

    /// The pages of selected streams that may hold entries of the times and places asked for.
    fn of_streams(&self, footer: &Footer, wanted: &dyn Wanted, tally: &Tally) -> Result<Vec<Kept>, Error> {
        let (first, last) = wanted.times();
        // Of very many streams the index knows which are selected; else each is asked.
        let mut by_index = None;
        if let Some(matchers) = wanted.matchers().filter(|matchers| footer.index_selects(matchers))
            && let Some(index) = self.index(footer, tally)?
        {
            by_index = index.select(footer, matchers).map_err(|error| self.damage(error)).ok();
        }
        let mut kept = Vec::new();
        for (entry, number) in footer.streams.iter().zip(0..) {
            if by_index.as_ref().is_some_and(|streams| streams.binary_search(&number).is_err()) {
                continue;
            }
            let pages = entry.pages.clone();
            let of_stream = footer.pages.get(pages.start as usize..pages.end as usize).unwrap_or_default();
            let mut selected = None;
            for (info, page) in of_stream.iter().zip(pages) {
                if !info.overlaps(first, last) {
                    continue;
                }
                let Some(whole) = self.places(footer, info) else { continue };
                if !*selected.get_or_insert_with(|| wanted.selects(&entry.stream)) {
                    break;
                }
                if let Some(need) = wanted.need(&entry.stream, info, whole) {
                    kept.push(Kept { page, need, whole });
                }
            }
        }
        Ok(kept)
    }

    /// Whether all places of a page are asked for; none if no place is.
    fn places(&self, footer: &Footer, page: &PageInfo) -> Option<bool> {
        let Some(covered) = footer.logs.get(usize::from(page.log)) else {
            return self.places.earlier.then_some(true);
        };
        let (after, upto) = self.places.of(covered.log)?;
        (page.max_seq > after && page.min_seq <= upto).then_some(page.min_seq > after && page.max_seq <= upto)
    }

    /// The index; none if it cannot be read, then nothing is ruled out.
    fn index(&self, footer: &Footer, tally: &Tally) -> Result<Option<Arc<Index>>, Error> {
        match self.history.runtime().block_on(self.history.0.index(&self.of, footer, tally)) {
            Ok(index) => Ok(Some(index)),
            Err(error) if error.kind() == Kind::Corrupt => {
                self.damage(error);
                Ok(None)
            }
            Err(error) => Err(self.damage(error)),
        }
    }

    fn key(&self, part: Part) -> Key {
        Key { block: self.of.key, part }
    }

    fn damage(&self, error: Error) -> Error {
        self.history.damage(&self.of, error)
    }
}

impl Opened {
    /// What the footer says of a page, and whose it is.
    pub(crate) fn page(&self, kept: &Kept) -> Option<(&Arc<Stream>, &PageInfo)> {
        let info = self.footer.pages.get(kept.page as usize)?;
        Some((&self.footer.streams.get(info.stream as usize)?.stream, info))
    }

    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Leaves out pages of streams that lack a label, if the page lacks it as structured metadata, too.
    fn prune_by_fields(&mut self, requirements: &Requirements, tally: &Tally) -> Result<(), Error> {
        if requirements.fields.is_empty() {
            return Ok(());
        }
        let (footer, before) = (Arc::clone(&self.footer), self.kept.len());
        let fields: Vec<_> = requirements.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // For each field the pages that may have it as metadata.
        let mut sets: Vec<_> = fields.iter().map(|field| footer.pages_without_index(&[*field])).collect();
        let is_open = |kept: &Kept, sets: &[PageSet]| {
            let Some(info) = footer.pages.get(kept.page as usize) else { return false };
            let Some(entry) = footer.streams.get(info.stream as usize) else { return false };
            let mut fields = fields.iter().zip(sets);
            fields.all(|((name, value), set)| {
                entry.stream.labels.get(name) == Some(*value) || (info.has_metadata && set.contains(kept.page))
            })
        };
        self.kept.retain(|kept| is_open(kept, &sets));
        // The index is fetched only if there is something left that it may rule out.
        let prunes = |field: &(&str, &str)| footer.index_prunes(&[*field]);
        if !self.kept.is_empty()
            && fields.iter().any(prunes)
            && let Some(index) = self.block.index(&footer, tally)?
        {
            for (field, set) in fields.iter().zip(&mut sets).filter(|(field, _)| prunes(field)) {
                match index.pages_with(&footer, &[*field]) {
                    Ok(pages) => *set = pages,
                    Err(error) => drop(self.block.damage(error)),
                }
            }
            self.kept.retain(|kept| is_open(kept, &sets));
        }
        tally.add(|t| t.pruned_by_fields += (before - self.kept.len()) as u64);
        Ok(())
    }

    /// Leaves out pages whose grams prove that they lack a text.
    fn prune_by_grams(&mut self, requirements: &Requirements, tally: &Tally) -> Result<(), Error> {
        let probes: Vec<Probes> = requirements.literals.iter().filter_map(Probes::new).collect();
        if probes.is_empty() {
            return Ok(());
        }
        let Self { block, footer, kept } = self;
        let history = &block.history;
        let asked = |kept: &Kept| {
            let info = footer.pages.get(kept.page as usize)?;
            let worth = info.grams_bits > 0
                && expected(&probes, info.grams_fill) <= MAX_FALSE
                && !history.0.cache.contains(&block.key(Part::Page(kept.page)));
            worth.then_some(kept.page / GRAMS_GROUP)
        };
        let mut groups: Vec<u32> = kept.iter().filter_map(asked).collect();
        groups.dedup();
        if groups.is_empty() {
            return Ok(());
        }
        let grams = match history.runtime().block_on(history.0.grams(&block.of, footer, &groups, tally)) {
            Ok(grams) => grams,
            Err(error) if error.kind() == Kind::Corrupt => {
                // The pages may be sound: they are looked at.
                block.damage(error);
                return Ok(());
            }
            Err(error) => return Err(block.damage(error)),
        };
        let before = kept.len();
        kept.retain(|kept| {
            let group = groups.binary_search(&(kept.page / GRAMS_GROUP)).ok().and_then(|at| grams.get(at));
            let grams = group.and_then(|group| group.get((kept.page % GRAMS_GROUP) as usize)?.as_ref());
            grams.is_none_or(|grams| probes.iter().all(|any| any.0.iter().any(|probe| grams.pass(probe))))
        });
        let pruned = (before - kept.len()) as u64;
        tally.add(|t| t.pruned_by_grams += pruned);
        Ok(())
    }

    /// The range of the object that a page needs.
    pub(crate) fn range(&self, kept: &Kept) -> Range<u64> {
        let Some((_, info)) = self.page(kept) else { return 0..0 };
        match kept.need {
            Need::Table => info.offset..info.offset,
            Need::Columns => info.offset..info.offset.saturating_add(info.columns_len),
            Need::Lines => info.range(),
        }
    }

    /// What pages need, in the same order.
    ///
    /// # Errors
    /// As [`Block::open`].
    pub(crate) async fn fetch(&self, pages: &[Kept], tally: &Tally) -> Result<Vec<Bytes>, Error> {
        let want = |kept: &Kept| {
            // Its columns are the beginning of a page.
            let whole = Kept { need: Need::Lines, ..*kept };
            let is_there = self.block.history.0.cache.contains(&self.block.key(Part::Page(kept.page)));
            match kept.need {
                Need::Columns if !is_there => (Part::Columns(kept.page), self.range(kept)),
                Need::Table | Need::Columns | Need::Lines => (Part::Page(kept.page), self.range(&whole)),
            }
        };
        let wants: Vec<_> = pages.iter().filter(|kept| kept.need > Need::Table).map(want).collect();
        let fetched = self.block.history.0.bytes(&self.block.of, wants, tally).await;
        let mut fetched = fetched.map_err(|error| self.block.damage(error))?.into_iter();
        let bytes =
            |kept: &Kept| if kept.need > Need::Table { fetched.next().unwrap_or_default() } else { Bytes::new() };
        Ok(pages.iter().map(bytes).collect())
    }

    /// All of a page, whatever it was thought to need. Blocks.
    ///
    /// # Errors
    /// As [`Block::open`].
    pub(crate) fn fetch_lines(&self, kept: &Kept, tally: &Tally) -> Result<Option<Entries>, Error> {
        let kept = Kept { need: Need::Lines, ..*kept };
        let bytes = self.block.history.runtime().block_on(self.fetch(&[kept], tally))?;
        self.entries(&kept, &bytes.into_iter().next().unwrap_or_default(), tally)
    }

    /// The entries of a page that are of places asked for.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(crate) fn entries(&self, kept: &Kept, bytes: &Bytes, tally: &Tally) -> Result<Option<Entries>, Error> {
        let Some((stream, info)) = self.page(kept) else { return Ok(None) };
        let entries = decode_page(bytes, info, Arc::clone(stream)).map_err(|error| self.lost(kept, error))?;
        tally.add(|t| {
            t.pages += 1;
            t.compressed_bytes += info.len;
            t.decompressed_bytes += info.bytes;
            t.lines += u64::from(info.lines);
        });
        let asked = if kept.whole {
            Some(entries)
        } else {
            let range = self.asked(info);
            let keep: Vec<bool> = (0..info.lines).map(|number| is_within(range, entries.place(number))).collect();
            entries.keep(&keep)
        };
        Ok(asked.map(|entries| if self.is_own(info) { entries } else { entries.of_earlier_log() }))
    }

    /// Times and lengths of the entries of a page that are of places asked for.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(crate) fn columns(&self, kept: &Kept, bytes: &Bytes, tally: &Tally) -> Result<Columns, Error> {
        let Some((_, info)) = self.page(kept) else { return Ok(Columns::default()) };
        let mut columns = decode_columns(bytes, info).map_err(|error| self.lost(kept, error))?;
        tally.add(|t| {
            t.pages += 1;
            t.compressed_bytes += info.columns_len;
            t.lines += u64::from(info.lines);
        });
        if !kept.whole {
            let range = self.asked(info);
            let mut stretches = columns.stretches.iter().peekable();
            let mut asked = false;
            let mut keep = (0..info.lines).map(|number| {
                while let Some((_, place)) = stretches.next_if(|(first, _)| *first <= number) {
                    asked = is_within(range, *place);
                }
                asked
            });
            let keep: Vec<bool> = keep.by_ref().collect();
            let mut kept = keep.iter();
            columns.times.retain(|_| kept.next() == Some(&true));
            let mut kept = keep.iter();
            columns.lengths.retain(|_| kept.next() == Some(&true));
            columns.stretches.clear();
        }
        Ok(columns)
    }

    fn is_own(&self, info: &PageInfo) -> bool {
        self.footer.logs.get(usize::from(info.log)).is_some_and(|covered| covered.log == self.block.places.own)
    }

    /// Which batches of the log of a page are asked for.
    fn asked(&self, info: &PageInfo) -> (u64, u64) {
        let log = self.footer.logs.get(usize::from(info.log)).map(|covered| covered.log);
        log.and_then(|log| self.block.places.of(log)).unwrap_or_default()
    }

    /// A page that cannot be read is not kept for others: what was fetched may be what is wrong.
    fn lost(&self, kept: &Kept, error: Error) -> Error {
        for part in [Part::Columns(kept.page), Part::Page(kept.page)] {
            self.block.history.0.cache.forget(&self.block.key(part));
        }
        self.block.damage(error)
    }
}

fn is_within((after, upto): (u64, u64), place: Place) -> bool {
    after < place.seq && place.seq <= upto
}

/// Probes for texts of which a line holds at least one.
struct Probes(Vec<Probe>);

impl Probes {
    /// None if they can rule out nothing.
    fn new(any_of: &AnyOf) -> Option<Self> {
        let probes: Vec<_> = any_of.literals().iter().map(|literal| Probe::new(literal)).collect();
        probes.iter().all(Probe::is_of_use).then_some(Self(probes))
    }
}

/// The part of the pages without the texts that pass all the same, if this many 255ths of the bits are set.
fn expected(probes: &[Probes], fill: u8) -> f64 {
    let fill = f64::from(fill) / 255.0;
    let one = |probe: &Probe| fill.powi(i32::try_from(probe.grams()).unwrap_or(i32::MAX));
    probes.iter().map(|any| 1.0 - any.0.iter().map(|probe| 1.0 - one(probe)).product::<f64>()).product()
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("of", &self.of).field("places", &self.places).finish_non_exhaustive()
    }
}
