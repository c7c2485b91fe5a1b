//! Reading parts of an object.
//!
//! A range comes from a footer, which may be damaged: one that the object does not have is damage, told as such and never asked for twice.

use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectStoreExt, coalesce_ranges};

use super::attempt::Trial;
use super::metrics::Operation;
use super::place::Scheme;
use super::{Objects, READ_BYTES_MAX, too_large};
use crate::Error;

/// No object is as large, anywhere; some servers refuse to hear of it.
const OBJECT_BYTES_MAX: u64 = 1 << 50;

impl Objects {
    /// Reads parts of an object, in the order asked for; ranges that are close to each other are read together.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`]; [`Error::Corrupt`]: the object ends before a range does, or the ranges are
    /// more than [`READ_BYTES_MAX`].
    pub async fn ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let inner = &*self.0;
        let location = inner.place.path(path)?;
        let mut total = 0_u64;
        for range in ranges {
            let Some(len) = range.end.checked_sub(range.start).filter(|_| range.end <= OBJECT_BYTES_MAX) else {
                return Err(ends_early(&self.url_of(path), range));
            };
            total = total.saturating_add(len);
        }
        if total > READ_BYTES_MAX {
            return Err(too_large(&self.url_of(path), total));
        }
        let wanted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        let mut read = if matches!(inner.place.scheme, Scheme::Folder | Scheme::Memory) {
            self.local_ranges(path, &location, &wanted).await?
        } else {
            let one = |range| self.range(path, &location, range);
            coalesce_ranges(&wanted, one, OBJECT_STORE_COALESCE_DEFAULT).await?
        }
        .into_iter();
        let mut all = Vec::with_capacity(ranges.len());
        for range in ranges {
            let bytes = if range.is_empty() { Bytes::new() } else { read.next().unwrap_or_default() };
            if bytes.len() as u64 != range.end - range.start {
                return Err(ends_early(&self.url_of(path), range));
            }
            all.push(bytes);
        }
        inner.metrics.read.inc_by(total);
        Ok(all)
    }

    /// One range of an object on a server. Its length is the range's.
    async fn range(&self, path: &str, location: &Path, range: Range<u64>) -> Result<Bytes, Error> {
        let mut trial = Trial::new(&self.0, Operation::Ranges, path);
        let bytes = trial.run(|| self.0.store.get_range(location, range.clone())).await;
        let bytes = match trial.end_plainly(bytes) {
            Err(error @ Error::NotFound { .. }) => self.0.check_there("read", path).and(Err(error)),
            ended => ended,
        }?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(ends_early(&self.url_of(path), &range));
        }
        Ok(bytes)
    }

    /// All ranges of an object on this machine, in one go. What the crate below says of a range beyond the end cannot be told from other
    /// errors, so the size is asked for first.
    async fn local_ranges(&self, path: &str, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let inner = &*self.0;
        let mut trial = Trial::new(inner, Operation::Ranges, path);
        let read = trial.run(|| async {
            let meta = inner.store.head(location).await?;
            if let Some(beyond) = ranges.iter().find(|range| range.end > meta.size) {
                return Ok(Err(beyond.clone()));
            }
            inner.store.get_ranges(location, ranges).await.map(Ok)
        });
        let read = read.await;
        match trial.end_plainly(read) {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(beyond)) => Err(ends_early(&self.url_of(path), &beyond)),
            Err(error @ Error::NotFound { .. }) => inner.check_there("read", path).and(Err(error)),
            Err(error) => Err(error),
        }
    }

    /// Reads the last `n` bytes of an object, or all of it if it has fewer, and says how many it has.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`]; [`Error::Corrupt`] if `n` is more than [`READ_BYTES_MAX`], or the object is empty.
    pub async fn tail(&self, path: &str, n: u64) -> Result<(Bytes, u64), Error> {
        let inner = &*self.0;
        if n > READ_BYTES_MAX {
            return Err(too_large(&self.url_of(path), n));
        }
        let location = inner.place.path(path)?;
        let mut trial = Trial::new(inner, Operation::Tail, path);
        let read = trial.run(|| async {
            if inner.place.scheme == Scheme::Azure {
                // There a range cannot be counted from the end.
                let size = inner.store.head(&location).await?.size;
                let range = size.saturating_sub(n)..size;
                return Ok((inner.store.get_range(&location, range).await?, size));
            }
            let result = inner.store.get_opts(&location, GetOptions::default().with_range(Some(GetRange::Suffix(n))));
            let result = result.await?;
            let size = result.meta.size;
            Ok((result.bytes().await?, size))
        });
        let read = read.await;
        match trial.end_plainly(read) {
            Ok((bytes, size)) if !bytes.is_empty() || n == 0 => {
                inner.metrics.read.inc_by(bytes.len() as u64);
                Ok((bytes, size))
            }
            Ok(_) => Err(Error::Corrupt { what: self.url_of(path), reason: "it is empty".to_owned() }),
            Err(error @ Error::NotFound { .. }) => inner.check_there("tail", path).and(Err(error)),
            Err(error) => Err(error),
        }
    }
}

fn ends_early(url: &str, range: &Range<u64>) -> Error {
    Error::Corrupt { what: url.to_owned(), reason: format!("it ends before byte {}", range.end) }
}
