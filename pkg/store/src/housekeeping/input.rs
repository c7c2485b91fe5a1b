//! A block that is read from its first page to its last.
//!
//! Invariants: held are the footer and [`READ_AHEAD`] bytes, or one page if that is larger. Pages that are asked for in order are fetched
//! together; others can be asked for too.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::Error;
use crate::block::{Footer, Located, TAIL_GUESS, decode_page};
use crate::entries::{Entries, Run};
use crate::objects::Objects;

/// Bytes that are fetched at a time.
const READ_AHEAD: u64 = 2 << 20;

/// A block, open.
pub(super) struct Input {
    objects: Objects,
    runtime: Handle,
    path: String,
    pub(super) footer: Footer,
    /// Where the bytes at hand begin in the object.
    start: u64,
    window: Bytes,
    /// Where the pages end.
    end: u64,
}

impl Input {
    /// Opens a block.
    ///
    /// # Errors
    /// It cannot be read, or is no block.
    pub(super) async fn open(objects: &Objects, path: &str) -> Result<Self, Error> {
        let (mut tail, len) = objects.tail(path, TAIL_GUESS).await?;
        let footer = loop {
            match Footer::locate(&tail, len)? {
                Located::Footer(footer) => break *footer,
                Located::Need(range) if range.end.saturating_sub(range.start) > tail.len() as u64 => {
                    tail = objects.ranges(path, &[range]).await?.pop().unwrap_or_default();
                }
                Located::Need(_) => return Err(Error::corrupt(path, "its footer asks for less than was given")),
            }
        };
        let end = footer.pages.last().map_or(0, |page| page.range().end);
        Ok(Self {
            objects: objects.clone(),
            runtime: Handle::current(),
            path: path.to_owned(),
            footer,
            start: 0,
            window: Bytes::new(),
            end,
        })
    }

    /// What the footer says of the entries of a page.
    pub(super) fn run(&self, number: u32) -> Option<Run> {
        let info = self.footer.pages.get(number as usize)?;
        let of = self.footer.streams.get(info.stream as usize)?;
        let (min, max, bytes) = (info.min, info.max, info.bytes);
        Some(Run { stream: Arc::clone(&of.stream), first: 0, len: info.lines, min, max, bytes })
    }

    /// The entries of a page. Blocks.
    ///
    /// # Errors
    /// The page cannot be read or is corrupt.
    pub(super) fn page(&mut self, number: u32) -> Result<Entries, Error> {
        let path = &self.path;
        let missing = || Error::corrupt(path.as_str(), "it has no such page");
        let info = self.footer.pages.get(number as usize).ok_or_else(missing)?;
        let of = self.footer.streams.get(info.stream as usize).ok_or_else(missing)?;
        let range = info.range();
        let mut at_hand = cut(self.start, &self.window, range.clone());
        if at_hand.is_none() {
            let ahead = range.start..range.end.max(range.start.saturating_add(READ_AHEAD).min(self.end));
            self.start = ahead.start;
            self.window = self.runtime.block_on(self.objects.ranges(path, &[ahead]))?.pop().ok_or_else(missing)?;
            at_hand = cut(self.start, &self.window, range);
        }
        decode_page(&at_hand.ok_or_else(missing)?, info, Arc::clone(&of.stream))
    }
}

/// A range of the object, if it lies in the window.
fn cut(start: u64, window: &Bytes, range: Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    (from <= to && to <= window.len()).then(|| window.slice(from..to))
}
