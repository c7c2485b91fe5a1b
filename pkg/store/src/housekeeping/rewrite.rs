//! From blocks to blocks: several become one, and what is expired or deleted is left out.
//!
//! Invariants:
//! * Every entry that is kept is written just as it was: line, metadata, timestamp, place and log. What is not kept is counted.
//! * The output has the order of the input: streams by labels, then logs, then (timestamp, seq, index). An entry that two inputs hold (the
//!   same place of the same log) is written once.
//! * Memory: per input what [`Input`] holds and one page, and the compressed output of one block, which ends at [`RewriteOptions::block_bytes`].
//!
//! It blocks, and is meant for a thread where that is allowed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tailwater_model::{Labels, LogId};

use super::input::Input;
use crate::Error;
use crate::block::{Built, Entry, Options, Writer};
use crate::deletes::{Deleted, Eraser};
use crate::entries::{Entries, Place};

/// Entries between looks at the cancel.
const ENTRIES_PER_LOOK: u32 = 8192;

/// How blocks are rewritten.
pub(super) struct RewriteOptions {
    /// How blocks are written.
    pub(super) block: Options,
    /// Bytes of lines after which a block ends.
    pub(super) block_bytes: u64,
}

/// What is left out.
pub(super) struct Filter {
    /// Whether a stream is kept.
    pub(super) keeps: Box<dyn Fn(&Labels) -> bool + Send>,
    /// Which lines are deleted.
    pub(super) eraser: Option<Eraser>,
}

impl Filter {
    /// Everything is kept.
    pub(super) fn nothing() -> Self {
        Self { keeps: Box::new(|_| true), eraser: None }
    }
}

/// What was not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Lines.
    pub(super) lines: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Of the lines, those that were there twice.
    pub(super) repeated: u64,
}

/// Where the entries of a stream and a log are: pages of an input.
type Pages = (usize, Range<u32>);

/// Rewrites blocks.
pub(super) struct Rewrite {
    inputs: Vec<Input>,
    filter: Filter,
    options: RewriteOptions,
    cancel: Arc<AtomicBool>,
    /// What is still to be begun, last first.
    todo: Vec<(Labels, LogId, Vec<Pages>)>,
    merge: Option<Merge>,
    dropped: Dropped,
    looks: u32,
    /// The input that could not be read.
    unreadable: Option<usize>,
}

/// The entries of one stream and one log, from several inputs.
struct Merge {
    labels: Labels,
    log: LogId,
    sources: Vec<Source>,
    /// The next entry of each source that has one.
    next: BinaryHeap<Reverse<(Key, usize)>>,
    /// The entry written last.
    last: Option<Key>,
}

/// The order within a stream and a log.
type Key = (i64, u64, u32);

/// The pages of one input.
struct Source {
    input: usize,
    pages: Range<u32>,
    page: Option<Page>,
}

/// A page, and how far it is read.
struct Page {
    entries: Entries,
    at: u32,
    deleted: Deleted,
}

impl Rewrite {
    /// Setting `cancel` ends the work early, with an error.
    pub(super) fn new(inputs: Vec<Input>, filter: Filter, options: RewriteOptions, cancel: Arc<AtomicBool>) -> Self {
        let mut dropped = Dropped::default();
        let mut all: BTreeMap<(Labels, LogId), Vec<Pages>> = BTreeMap::new();
        for (number, input) in inputs.iter().enumerate() {
            for of in &input.footer.streams {
                let pages = input.footer.pages.get(of.pages.start as usize..of.pages.end as usize).unwrap_or_default();
                if !(filter.keeps)(&of.stream.labels) {
                    dropped.lines += pages.iter().map(|p| u64::from(p.lines)).sum::<u64>();
                    dropped.bytes += pages.iter().map(|p| p.bytes).sum::<u64>();
                    continue;
                }
                for (page, info) in (of.pages.start..).zip(pages) {
                    let Some(covered) = input.footer.logs.get(usize::from(info.log)) else { continue };
                    let found = all.entry((of.stream.labels.clone(), covered.log)).or_default();
                    match found.last_mut() {
                        // Pages of one log lie in the order of time, unless what came was not sorted: then each is a source of its own.
                        Some((of, range)) if *of == number && range.end == page && follows(input, page) => {
                            range.end = page + 1;
                        }
                        _ => found.push((number, page..page + 1)),
                    }
                }
            }
        }
        let todo = all.into_iter().rev().map(|((labels, log), pages)| (labels, log, pages)).collect();
        Self { inputs, filter, options, cancel, todo, merge: None, dropped, looks: 0, unreadable: None }
    }

    /// What was left out so far.
    pub(super) fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The input that could not be read, by number, if that is why it failed.
    pub(super) fn unreadable(&self) -> Option<usize> {
        self.unreadable
    }

    /// The next block; nothing if everything is written. Blocks.
    ///
    /// # Errors
    /// An input cannot be read, the writer fails, or it was cancelled.
    pub(super) fn next_block(&mut self) -> Result<Option<Built>, Error> {
        let mut writer = Writer::new(self.options.block);
        let (mut lines, mut bytes) = (0_u64, 0_u64);
        while bytes < self.options.block_bytes {
            let Some(mut merge) = self.next_merge() else { break };
            writer.stream(&merge.labels, merge.log);
            let more = self.write(&mut merge, &mut writer, &mut lines, &mut bytes)?;
            self.merge = more.then_some(merge);
        }
        if lines == 0 { Ok(None) } else { writer.finish().map(Some) }
    }

    fn next_merge(&mut self) -> Option<Merge> {
        if self.merge.is_some() {
            return self.merge.take();
        }
        let (labels, log, pages) = self.todo.pop()?;
        let sources = pages.into_iter().map(|(input, pages)| Source { input, pages, page: None }).collect();
        let mut merge = Merge { labels, log, sources, next: BinaryHeap::new(), last: None };
        for number in 0..merge.sources.len() {
            self.enqueue(&mut merge, number);
        }
        Some(merge)
    }

    /// Puts a source where its next entry belongs, or where it belongs at the earliest if its page is not at hand yet.
    fn enqueue(&self, merge: &mut Merge, number: usize) {
        let Some(source) = merge.sources.get_mut(number) else { return };
        let key = source.page.as_ref().and_then(Page::key).or_else(|| {
            source.page = None;
            let input = self.inputs.get(source.input).filter(|_| !source.pages.is_empty())?;
            input.footer.pages.get(source.pages.start as usize).map(|info| (info.min, 0, 0))
        });
        if let Some(key) = key {
            merge.next.push(Reverse((key, number)));
        }
    }

    /// Fetches the next page of a source, unless all of it is deleted.
    fn open(&mut self, source: &mut Source) -> Result<(), Error> {
        let Some(number) = source.pages.next() else { return Ok(()) };
        let Some(input) = self.inputs.get_mut(source.input) else { return Ok(()) };
        let mut deleted = Deleted::Nothing;
        if let Some(eraser) = &mut self.filter.eraser
            && let Some(run) = input.run(number)
        {
            deleted = eraser.enter(&run);
            if deleted == Deleted::Everything {
                self.dropped.lines += u64::from(run.len);
                self.dropped.bytes += run.bytes;
                return Ok(());
            }
        }
        let entries = input.page(number).inspect_err(|_| self.unreadable = Some(source.input))?;
        source.page = Some(Page { entries, at: 0, deleted });
        Ok(())
    }

    /// Writes entries until there are no more, or the block is full. Whether there are more.
    fn write(
        &mut self,
        merge: &mut Merge,
        writer: &mut Writer,
        lines: &mut u64,
        bytes: &mut u64,
    ) -> Result<bool, Error> {
        while let Some(Reverse((key, number))) = merge.next.pop() {
            if *bytes >= self.options.block_bytes {
                merge.next.push(Reverse((key, number)));
                return Ok(true);
            }
            let Some(source) = merge.sources.get_mut(number) else { continue };
            if source.page.is_none() {
                self.open(source)?;
                self.enqueue(merge, number);
                continue;
            }
            // Mostly many entries of one source come before the next of any other.
            let upto = merge.next.peek().map(|Reverse((key, _))| *key);
            if let Some(page) = &mut source.page {
                self.write_from(page, key, upto, &mut merge.last, writer, lines, bytes)?;
            }
            self.enqueue(merge, number);
        }
        Ok(false)
    }

    /// Writes entries of a page from `key` on, up to those that come after `upto`.
    #[expect(clippy::too_many_arguments, reason = "what is counted belongs to the block, what was last to the stream")]
    fn write_from(
        &mut self,
        page: &mut Page,
        mut key: Key,
        upto: Option<Key>,
        last: &mut Option<Key>,
        writer: &mut Writer,
        lines: &mut u64,
        bytes: &mut u64,
    ) -> Result<(), Error> {
        let Some(run) = page.entries.runs.first() else { return Ok(()) };
        let mut eraser = self.filter.eraser.as_mut().filter(|_| page.deleted == Deleted::Some);
        if let Some(eraser) = &mut eraser {
            eraser.enter(run);
        }
        while let Some(span) = page.entries.entries(run).get(page.at as usize) {
            look(&mut self.looks, &self.cancel)?;
            let deleted = eraser.as_mut().is_some_and(|eraser| eraser.deletes(run, &page.entries, span));
            let repeated = *last == Some(key);
            if deleted || repeated {
                self.dropped.lines += 1;
                self.dropped.bytes += u64::from(span.line_len);
                self.dropped.repeated += u64::from(repeated);
            } else {
                let metadata = page.entries.metadata(span);
                let line = page.entries.line(span);
                let place = page.entries.place(page.at);
                writer.entry(&Entry { timestamp: span.timestamp, line, metadata: &metadata, place });
                *lines += 1;
                *bytes += page.entries.bytes(span);
                *last = Some(key);
            }
            page.at += 1;
            match page.key() {
                Some(next) if upto.is_none_or(|upto| next <= upto) && *bytes < self.options.block_bytes => key = next,
                _ => break,
            }
        }
        Ok(())
    }
}

fn look(looks: &mut u32, cancel: &AtomicBool) -> Result<(), Error> {
    *looks = looks.wrapping_add(1);
    if looks.is_multiple_of(ENTRIES_PER_LOOK) {
        std::thread::yield_now();
        if cancel.load(Ordering::Relaxed) {
            return Err(super::stopped());
        }
    }
    Ok(())
}

impl Page {
    /// The order of the next entry.
    fn key(&self) -> Option<Key> {
        let run = self.entries.runs.first()?;
        let span = self.entries.entries(run).get(self.at as usize)?;
        let Place { seq, index, .. } = self.entries.place(self.at);
        Some((span.timestamp, seq, index))
    }
}

/// Whether a page comes after the page before it: by time, in the same log. Pages that meet in one instant are in the order of the log,
/// since they were written so.
fn follows(input: &Input, page: u32) -> bool {
    let info = |number: u32| input.footer.pages.get(number as usize);
    match (page.checked_sub(1).and_then(info), info(page)) {
        (Some(before), Some(this)) => before.log == this.log && before.max <= this.min,
        _ => false,
    }
}
