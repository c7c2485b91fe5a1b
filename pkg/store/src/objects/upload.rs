//! Large objects are written in parts, several at a time, each repeated on its own.
//!
//! Nothing is visible before the last step. That step may have worked although its answer was lost: then the upload is unknown when it is
//! repeated, and the object is there with its size. An upload that comes to nothing is taken back as far as the server lets us; what it
//! keeps of one whose process died is for a lifecycle rule of the bucket ("abort incomplete multipart uploads").

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::Inner;
use super::attempt::Trial;
use super::failure::Failure;
use super::metrics::Operation;
use crate::Error;

/// Objects of more bytes than this are written in parts of this size.
pub(super) const PART_BYTES: usize = 16 << 20;

/// Most parts of an object that are under way at once.
const PARTS_AT_ONCE: usize = 4;

/// Writes an object in parts.
pub(super) async fn put_in_parts(
    inner: &Inner,
    store: &dyn MultipartStore,
    path: &str,
    location: &Path,
    chunks: &[Bytes],
) -> Result<(), Failure> {
    let begin = || Trial::new(inner, Operation::Put, path);
    let id = begin().run(|| store.create_multipart(location)).await?;
    let sent = iter(parts_of(chunks).into_iter().enumerate())
        .map(|(number, part)| {
            let id = &id;
            async move { begin().run(|| store.put_part(location, id, number, part.clone())).await }
        })
        .buffered(PARTS_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await;
    let ended = match sent {
        Ok(parts) => complete(inner, store, path, location, &id, &parts, chunks).await,
        Err(failure) => Err(known(failure, begin().what())),
    };
    if ended.is_err() {
        let aborted = begin().once(store.abort_multipart(location, &id)).await;
        if let Err(failure) = aborted {
            tracing::debug!(path, ?failure, "cannot take back an upload");
        }
    }
    ended
}

async fn complete(
    inner: &Inner,
    store: &dyn MultipartStore,
    path: &str,
    location: &Path,
    id: &String,
    parts: &[PartId],
    chunks: &[Bytes],
) -> Result<(), Failure> {
    let mut trial = Trial::new(inner, Operation::Put, path);
    let size = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
    let mut unsure = false;
    loop {
        match trial.once(store.complete_multipart(location, id, parts.to_vec())).await {
            Ok(_) => return Ok(()),
            Err(Failure::Passing(reason)) => {
                unsure = true;
                trial.pause(reason).await?;
            }
            // What a server says of an upload that it has completed already is not the same everywhere.
            Err(failure) if unsure => {
                let found = Trial::new(inner, Operation::Put, path).run(|| inner.store.head(location)).await;
                return match found {
                    Ok(meta) if meta.size == size => Ok(()),
                    Err(unknown @ Failure::Lasting(_)) => Err(unknown),
                    _ => Err(known(failure, trial.what())),
                };
            }
            Err(failure) => return Err(known(failure, trial.what())),
        }
    }
}

/// The failure of an upload: that it is missing does not mean that the object is.
fn known(failure: Failure, what: &str) -> Failure {
    match failure {
        Failure::Missing => {
            let reason = "the server has lost the upload".to_owned();
            Failure::Lasting(Error::Unavailable { what: what.to_owned(), reason })
        }
        failure => failure,
    }
}

/// The content in parts of [`PART_BYTES`], the last one shorter.
fn parts_of(chunks: &[Bytes]) -> Vec<PutPayload> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut room = PART_BYTES;
    for chunk in chunks {
        let mut rest = chunk.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(room.min(rest.len()));
            room -= piece.len();
            part.push(piece);
            if room == 0 {
                parts.push(std::mem::take(&mut part).into_iter().collect());
                room = PART_BYTES;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part.into_iter().collect());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_everything_and_only_the_last_is_shorter() {
        let chunks: Vec<_> =
            [3, PART_BYTES, 0, PART_BYTES * 2 - 3, 7].map(|len| Bytes::from(vec![len as u8; len])).to_vec();
        let parts = parts_of(&chunks);
        let sizes: Vec<_> = parts.iter().map(PutPayload::content_length).collect();
        assert_eq!(sizes, [PART_BYTES, PART_BYTES, PART_BYTES, 7]);
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().flatten().copied().collect::<Vec<_>>()).collect();
        assert!(all == chunks.concat());
    }
}
