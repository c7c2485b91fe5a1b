//! Looking at a store from outside: what is in a block, and whether every byte of it is what was written. It reads what it looks at
//! anew, piece by piece, and changes nothing, so it may be used beside a running server.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_logql::LogQuery;
use tailwater_model::{LabelSet, TenantId, Timestamp};

use crate::block::{Footer, Index, Located, TAIL_GUESS, decode_grams, decode_page};
use crate::catalog::BlockMeta;
use crate::entries::Entries;
use crate::objects::Objects;
use crate::scan::Evaluator;
use crate::{Error, Kind};

/// About as many bytes are fetched at once.
const PIECE_BYTES: u64 = 4 << 20;

/// What [`check`] has found in a block.
#[derive(Debug, Default)]
pub struct Checked {
    /// Bytes that were read and verified.
    pub bytes: u64,
    /// Entries that were decoded.
    pub lines: u64,
    /// What is wrong; empty: every byte is what was written, and what the manifest says is true.
    pub problems: Vec<Error>,
}

/// A line of a block.
#[derive(Debug)]
pub struct Line<'a> {
    /// When it happened, as the sender says.
    pub timestamp: Timestamp,
    /// Its text, after the pipeline of the query.
    pub text: &'a [u8],
    /// Its labels and its structured metadata.
    pub labels: LabelSet,
}

/// A log query for [`lines`].
///
/// # Errors
/// What is wrong with the text.
pub fn parse(query: &str) -> Result<Arc<LogQuery>, tailwater_logql::Error> {
    LogQuery::parse(query).map(Arc::new)
}

/// Reads the footer of a block.
///
/// # Errors
/// Whatever keeps it from being read; [`Error::Corrupt`] if it is not what was written.
pub async fn footer(objects: &Objects, path: &str) -> Result<(Footer, u64), Error> {
    let (tail, len) = objects.tail(path, TAIL_GUESS).await?;
    let mut located = Footer::locate(&tail, len)?;
    // The first answer asks for the trailer at most, the second for the footer.
    for _ in 0..2 {
        match located {
            Located::Footer(footer) => return Ok((*footer, len)),
            Located::Need(range) => located = Footer::locate(&one(objects, path, range).await?, len)?,
        }
    }
    match located {
        Located::Footer(footer) => Ok((*footer, len)),
        Located::Need(_) => Err(Error::corrupt(path, "its end names no footer")),
    }
}

/// Verifies a whole block: footer, grams, index, and every page, and that it is as its manifest says.
///
/// # Errors
/// Only what keeps it from being looked at, such as a store that does not answer; what is wrong with the block is in the answer.
pub async fn check(objects: &Objects, tenant: &TenantId, meta: &BlockMeta) -> Result<Checked, Error> {
    let path = meta.path(tenant);
    let mut checked = Checked::default();
    let (footer, len) = match footer(objects, &path).await {
        Ok(found) => found,
        Err(error) => return checked.told(error),
    };
    let same = [
        ("bytes", len, meta.bytes),
        ("lines", footer.lines, meta.lines),
        ("bytes of lines", footer.bytes, meta.raw_bytes),
        ("streams", footer.streams.len() as u64, meta.streams),
    ];
    for (what, found, said) in same.into_iter().filter(|(_, found, said)| found != said) {
        let reason = format!("it has {found} {what}, and its manifest says {said}");
        checked.problems.push(Error::corrupt(path.as_str(), reason));
    }
    if footer.pages.iter().any(|page| page.min < meta.min || page.max > meta.max) {
        checked.problems.push(Error::corrupt(path.as_str(), "it has pages outside the time that its manifest says"));
    }
    checked.bytes += len.saturating_sub(footer.index.range.end);
    check_grams(objects, &path, &footer, &mut checked).await?;
    let index = footer.index.range.clone();
    if !index.is_empty() {
        checked.bytes += index.end - index.start;
        let opened = one(objects, &path, index).await.and_then(|section| Index::open(&section, &footer));
        if let Err(error) = opened {
            checked = checked.told(error)?;
        }
    }
    let mut at = 0;
    while at < footer.pages.len() {
        at = check_pages(objects, &path, &footer, at, &mut checked).await?;
    }
    Ok(checked)
}

async fn check_grams(objects: &Objects, path: &str, footer: &Footer, checked: &mut Checked) -> Result<(), Error> {
    let range = footer.grams();
    if range.is_empty() {
        return Ok(());
    }
    checked.bytes += range.end - range.start;
    let decoded = one(objects, path, range).await.and_then(|bytes| decode_grams(&bytes, &footer.pages));
    if let Err(error) = decoded {
        checked.tell(error)?;
    }
    Ok(())
}

/// Verifies some pages from `at` on; answers where to go on.
async fn check_pages(
    objects: &Objects,
    path: &str,
    footer: &Footer,
    at: usize,
    checked: &mut Checked,
) -> Result<usize, Error> {
    let (end, pieces) = match fetch_pages(objects, path, footer, at).await {
        Ok(fetched) => fetched,
        Err(error) => {
            checked.tell(error)?;
            return Ok(footer.pages.len());
        }
    };
    for (page, bytes) in footer.pages.iter().skip(at).zip(&pieces) {
        checked.bytes += bytes.len() as u64;
        let Some(of) = footer.streams.get(page.stream as usize) else { continue };
        match decode_page(bytes, page, Arc::clone(&of.stream)) {
            Ok(entries) => checked.lines += entries.lines(),
            Err(error) => checked.tell(error)?,
        }
    }
    Ok(end)
}

/// The bytes of pages from `at` on, about [`PIECE_BYTES`] of them.
async fn fetch_pages(objects: &Objects, path: &str, footer: &Footer, at: usize) -> Result<(usize, Vec<Bytes>), Error> {
    let mut ranges = Vec::new();
    let mut total = 0;
    for page in footer.pages.iter().skip(at) {
        if total > 0 && total + page.len > PIECE_BYTES {
            break;
        }
        total += page.len;
        ranges.push(page.range());
    }
    let pieces = objects.ranges(path, &ranges).await?;
    Ok((at + ranges.len(), pieces))
}

/// Hands out the lines of a block that pass a query, stream by stream, each stream's oldest first, until `f` breaks off.
///
/// # Errors
/// Whatever keeps the block from being read, [`Error::Corrupt`] among it.
pub async fn lines(
    objects: &Objects,
    path: &str,
    query: &Arc<LogQuery>,
    mut f: impl FnMut(Line<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let (footer, _) = footer(objects, path).await?;
    let mut evaluator = Evaluator::new(Arc::clone(query), false);
    let mut at = 0;
    while at < footer.pages.len() {
        let (end, pieces) = fetch_pages(objects, path, &footer, at).await?;
        for (page, bytes) in footer.pages.iter().skip(at).zip(&pieces) {
            let Some(of) = footer.streams.get(page.stream as usize) else { continue };
            if !query.matchers().matches(&of.stream.labels) {
                continue;
            }
            let entries = decode_page(bytes, page, Arc::clone(&of.stream))?;
            if hand_out(&entries, &mut evaluator, &mut f).is_break() {
                return Ok(());
            }
        }
        at = end;
    }
    Ok(())
}

fn hand_out(
    entries: &Entries,
    evaluator: &mut Evaluator,
    f: &mut impl FnMut(Line<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for run in &entries.runs {
        for entry in entries.entries(run) {
            let Some(hit) = evaluator.run(&run.stream.labels, entries, entry) else { continue };
            f(Line { timestamp: Timestamp(entry.timestamp), text: hit.line, labels: hit.labels })?;
        }
    }
    ControlFlow::Continue(())
}

async fn one(objects: &Objects, path: &str, range: std::ops::Range<u64>) -> Result<Bytes, Error> {
    let pieces = objects.ranges(path, &[range]).await?;
    pieces.into_iter().next().ok_or_else(|| Error::NotFound { path: path.to_owned() })
}

impl Checked {
    /// Remembers what is wrong with the block; what is wrong with the way to it ends the look.
    fn tell(&mut self, error: Error) -> Result<(), Error> {
        match error.kind() {
            Kind::Corrupt | Kind::NotFound => {
                self.problems.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn told(mut self, error: Error) -> Result<Self, Error> {
        self.tell(error)?;
        Ok(self)
    }
}
