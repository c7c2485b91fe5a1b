//! Listings. A listing that breaks goes on after the last object seen, where the server gives them in order; a run of failures has the
//! budget of one operation.

use futures_util::stream::{BoxStream, StreamExt, once, unfold};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tailwater_model::Timestamp;

use super::attempt::Trial;
use super::failure::Failure;
use super::metrics::Operation;
use super::place::Scheme;
use super::{Inner, Listed, Objects};
use crate::Error;

/// Where a listing stands.
struct Walk {
    objects: Objects,
    folder: String,
    location: Option<Path>,
    /// The last object seen.
    last: Option<Path>,
    pages: BoxStream<'static, object_store::Result<ObjectMeta>>,
    over: bool,
}

pub(super) fn objects(objects: Objects, folder: &str) -> BoxStream<'static, Result<Listed, Error>> {
    let location = match objects.0.place.path(folder) {
        Ok(path) => Some(path).filter(|path| !path.as_ref().is_empty()),
        Err(error) => return once(async { Err(error) }).boxed(),
    };
    let pages = objects.0.store.list(location.as_ref());
    let walk = Walk { objects, folder: folder.to_owned(), location, last: None, pages, over: false };
    unfold(walk, |mut walk| async move {
        if walk.over {
            return None;
        }
        let next = walk.next().await?;
        walk.over = next.is_err();
        Some((next, walk))
    })
    .boxed()
}

impl Walk {
    async fn next(&mut self) -> Option<Result<Listed, Error>> {
        let objects = self.objects.clone();
        let inner = &*objects.0;
        // Nearly always the next object is at hand: no trial then, which would be counted as an operation.
        loop {
            let mut trial = Trial::new(inner, Operation::List, &self.folder);
            let meta = match self.attempt(&mut trial).await {
                Ok(Some(meta)) => meta,
                Ok(None) => {
                    return match trial.end_plainly(Ok(())).and_then(|()| inner.check_there("list", &self.folder)) {
                        Ok(()) => None,
                        Err(error) => Some(Err(error)),
                    };
                }
                Err(failure) => return trial.end_plainly::<()>(Err(failure)).err().map(Err),
            };
            let path = inner.place.below(&meta.location);
            if inner.folder.as_ref().is_some_and(|folder| folder.owns(path)) {
                continue;
            }
            let modified = meta.last_modified.timestamp_nanos_opt().unwrap_or_default();
            let listed = Listed { path: path.to_owned(), size: meta.size, modified: Timestamp(modified) };
            return Some(Ok(listed));
        }
    }

    async fn attempt(&mut self, trial: &mut Trial<'_>) -> Result<Option<ObjectMeta>, Failure> {
        loop {
            let pages = &mut self.pages;
            let next = trial.once(async { pages.next().await.transpose() }).await;
            match next {
                Ok(meta) => {
                    if let Some(meta) = &meta {
                        self.last = Some(meta.location.clone());
                    }
                    return Ok(meta);
                }
                Err(Failure::Missing) => return Ok(None),
                Err(Failure::Passing(reason)) => {
                    trial.pause(reason).await?;
                    self.resume();
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn resume(&mut self) {
        let inner = &*self.objects.0;
        let ordered = !matches!(inner.place.scheme, Scheme::Folder);
        self.pages = match &self.last {
            Some(last) if ordered => inner.store.list_with_offset(self.location.as_ref(), last),
            _ => inner.store.list(self.location.as_ref()),
        };
    }
}

pub(super) async fn folders(inner: &Inner, folder: &str) -> Result<Vec<String>, Error> {
    let location = inner.place.path(folder)?;
    let location = Some(location).filter(|path| !path.as_ref().is_empty());
    let mut trial = Trial::new(inner, Operation::List, folder);
    let listed = match trial.run(|| inner.store.list_with_delimiter(location.as_ref())).await {
        Ok(listed) => Ok(listed.common_prefixes),
        Err(Failure::Missing) => Ok(Vec::new()),
        Err(failure) => Err(failure),
    };
    let listed = trial.end_plainly(listed)?;
    if listed.is_empty() {
        inner.check_there(Operation::List.word(), folder)?;
    }
    let mut names: Vec<_> = listed.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}
