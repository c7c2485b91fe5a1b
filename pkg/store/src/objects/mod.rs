//! Objects: named byte strings in a local folder, in S3, Google Cloud Storage or Azure, or in memory. The only user of the crate
//! `object_store`.
//!
//! Invariants:
//! * A write is durable when it returns, and readers see all of an object or nothing.
//! * Whatever the server does, slow, broken or gone, an operation ends within its budget (see [`Timing`]); what may pass is tried again with
//!   growing pauses, what will not is told at once, with the url and the operation.
//! * [`Objects::put_if`] decides who was first. Its own write, whose answer was lost, is recognised by reading it back, so contents written
//!   with it must differ from all that were there before (the catalog puts the id of the change in).
//! * After an error nobody knows whether a write happened, or will yet: a request that timed out may still be on its way. Of a conditional
//!   write that is harmless, because it names the version that it replaces.
//! * The operations under way are bounded, and what an operation may read at once is too ([`READ_BYTES_MAX`]).
//!
//! Paths are relative to the url, parts are separated by `/`, none is empty, `.` or `..`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use prometheus_client::registry::Registry;
use tailwater_model::Timestamp;
use tokio::sync::Semaphore;

use crate::Error;

mod attempt;
mod failure;
mod folder;
mod listing;
mod metrics;
mod open;
mod place;
mod ranges;
mod silence;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

pub use open::{Options, Secret, Timing};

use attempt::Trial;
use failure::Failure;
use folder::Folder;
use metrics::{Metrics, Operation};
use place::{Place, Scheme};
use silence::Silence;

/// Most bytes that one call reads. No block is near it; a length that is comes from a damaged footer.
pub const READ_BYTES_MAX: u64 = 1 << 30;

/// The objects below a url. Cheap to clone.
#[derive(Clone)]
pub struct Objects(Arc<Inner>);

struct Inner {
    place: Place,
    store: Arc<dyn ObjectStore>,
    /// What large objects are written through, where there is such a thing.
    parts: Option<Arc<dyn MultipartStore>>,
    /// The folder, if it is one.
    folder: Option<Folder>,
    timing: Timing,
    concurrency: usize,
    slots: Semaphore,
    silence: Silence,
    metrics: Metrics,
    writable: bool,
}

/// The object that tells the storage's time.
const CLOCK: &str = ".clock";

/// Which content an object had when it was read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    e_tag: Option<String>,
    /// Where the backend counts them.
    number: Option<String>,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object has the new content.
    Done(Version),
    /// The object is not, or no longer, the one expected. Nothing was written.
    Conflict,
}

/// What became of an object since it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Nothing.
    Same,
    /// It has another content.
    Changed(Bytes, Version),
    /// It is not there.
    Missing,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Timestamp,
}

impl Objects {
    /// Opens a storage url for reading and writing: a folder, `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix`, or `memory:`. A folder is made if need be, and belongs to this process until the last clone is dropped. A
    /// server is not spoken to yet; see [`Objects::probe`].
    ///
    /// # Errors
    /// [`Error::Config`]: the url or the options cannot work, or another process has the folder. [`Error::Io`]: the folder cannot be made.
    pub fn open(url: &str, options: &Options) -> Result<Self, Error> {
        open::open(url, options, true)
    }

    /// The same for reading alone, also beside a process that writes.
    ///
    /// # Errors
    /// As [`Objects::open`]; and [`Error::Config`] if there is no such folder.
    pub fn open_read_only(url: &str, options: &Options) -> Result<Self, Error> {
        open::open(url, options, false)
    }

    /// The url, for texts.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.place.url_of("")
    }

    /// The url of an object, for texts.
    #[must_use]
    pub fn url_of(&self, path: &str) -> String {
        self.0.place.url_of(path)
    }

    /// Whether it was opened for reading alone.
    #[must_use]
    pub fn read_only(&self) -> bool {
        !self.0.writable
    }

    /// Whether a read costs little beyond its bytes: it is a folder, or memory.
    #[must_use]
    pub fn is_near(&self) -> bool {
        matches!(self.0.place.scheme, Scheme::Folder | Scheme::Memory)
    }

    /// For how long the store has answered nothing of what it was asked to read; 0 while it is asked nothing.
    #[must_use]
    pub fn unanswered(&self) -> Duration {
        self.0.silence.lasts()
    }

    /// Adds what is counted here.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// Asks the storage something, to learn whether it is there and lets us in.
    ///
    /// # Errors
    /// [`Error::Unavailable`], with a hint.
    pub async fn probe(&self) -> Result<(), Error> {
        use futures_util::StreamExt;
        match self.list("").next().await {
            None | Some(Ok(_)) => self.0.check_there("list", ""),
            Some(Err(error)) => Err(error),
        }
    }

    /// Writes an object, in place of the one that is there. It is durable when this returns. More than 16 MiB go in parts where the backend
    /// has them, each with a budget of its own.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Full`], [`Error::Config`] (opened for reading alone, or no path).
    pub async fn put(&self, path: &str, content: Vec<Bytes>) -> Result<(), Error> {
        let inner = &*self.0;
        let location = inner.writable_path(path)?;
        let size = content.iter().map(Bytes::len).sum::<usize>();
        let mut trial = Trial::new(inner, Operation::Put, path);
        let written = match &inner.parts {
            Some(parts) if size > upload::PART_BYTES => {
                Box::pin(upload::put_in_parts(inner, &**parts, path, &location, &content)).await
            }
            _ => {
                let payload: PutPayload = content.into_iter().collect();
                trial.run(|| inner.store.put(&location, payload.clone())).await.map(|_| ())
            }
        };
        if written.is_ok() {
            inner.metrics.written.inc_by(size as u64);
        }
        trial.end_plainly(written)
    }

    /// Writes an object if it is still `expected`; `None`: if it is not there. See the module about its content.
    ///
    /// # Errors
    /// As [`Objects::put`]. After [`Error::Unavailable`] it may have been written, or be written yet.
    pub async fn put_if(&self, path: &str, content: Bytes, expected: Option<&Version>) -> Result<Put, Error> {
        let inner = &*self.0;
        let location = inner.writable_path(path)?;
        let mut trial = Trial::new(inner, Operation::PutIf, path);
        let put = Box::pin(self.put_if_in(&mut trial, path, &location, &content, expected)).await;
        match trial.end(put) {
            Ok(version) => {
                inner.metrics.written.inc_by(content.len() as u64);
                Ok(Put::Done(version))
            }
            Err(Failure::Taken) => Ok(Put::Conflict),
            Err(failure) => {
                Err(failure
                    .into_error(&format!("{} {}", Operation::PutIf.word(), self.url_of(path)), &self.url_of(path)))
            }
        }
    }

    async fn put_if_in(
        &self,
        trial: &mut Trial<'_>,
        path: &str,
        location: &Path,
        content: &Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, Failure> {
        let inner = &*self.0;
        let mut unsure = false;
        loop {
            let passing = match trial.once(inner.put_on_condition(location, content, expected)).await {
                Ok(version) => return Ok(version),
                Err(Failure::Passing(reason)) => {
                    unsure = true;
                    reason
                }
                Err(Failure::Taken) => {
                    // Who was first? Possibly an attempt of our own; or nobody, and the server is busy with several at once.
                    match self.get(path).await.map_err(Failure::Lasting)? {
                        Some((found, version)) if unsure && found == *content => return Ok(version),
                        found if found.as_ref().map(|(_, version)| version) == expected => {
                            "others write to it at the same time".to_owned()
                        }
                        _ => return Err(Failure::Taken),
                    }
                }
                Err(failure) => return Err(failure),
            };
            trial.pause(passing).await?;
        }
    }

    /// Reads a whole object; `None`: it is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Corrupt`] if it is larger than [`READ_BYTES_MAX`].
    pub async fn get(&self, path: &str) -> Result<Option<(Bytes, Version)>, Error> {
        match self.get_in(path, GetOptions::default()).await? {
            Fresh::Changed(bytes, version) => Ok(Some((bytes, version))),
            Fresh::Missing | Fresh::Same => Ok(None),
        }
    }

    /// Reads a whole object unless it is still `known`.
    ///
    /// # Errors
    /// As [`Objects::get`].
    pub async fn get_unless(&self, path: &str, known: &Version) -> Result<Fresh, Error> {
        self.get_in(path, GetOptions::default().with_if_none_match(known.e_tag.clone())).await
    }

    async fn get_in(&self, path: &str, options: GetOptions) -> Result<Fresh, Error> {
        let inner = &*self.0;
        let location = inner.place.path(path)?;
        let mut trial = Trial::new(inner, Operation::Get, path);
        let read = trial.run(|| async {
            let result = inner.store.get_opts(&location, options.clone()).await?;
            let meta = result.meta.clone();
            Ok((bounded(result).await?, meta))
        });
        let read = read.await;
        match trial.end(read) {
            Ok((Some(bytes), meta)) => {
                inner.metrics.read.inc_by(bytes.len() as u64);
                Ok(Fresh::Changed(bytes, Version::of(meta)))
            }
            Ok((None, meta)) => Err(too_large(&self.url_of(path), meta.size)),
            Err(Failure::Unchanged) => Ok(Fresh::Same),
            Err(Failure::Missing) => {
                inner.check_there(Operation::Get.word(), path)?;
                Ok(Fresh::Missing)
            }
            Err(failure) => {
                let url = self.url_of(path);
                Err(failure.into_error(&format!("{} {url}", Operation::Get.word()), &url))
            }
        }
    }

    /// Removes an object. It need not be there. Unlike writes it may come back when the machine loses power, from a folder.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Config`] if opened for reading alone.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let inner = &*self.0;
        let location = inner.writable_path(path)?;
        let mut trial = Trial::new(inner, Operation::Delete, path);
        let deleted = match trial.run(|| inner.store.delete(&location)).await {
            Err(Failure::Missing) => Ok(()),
            ended => ended,
        };
        trial.end_plainly(deleted)
    }

    /// What time it is by the clock that [`Listed::modified`] goes by. Writes a small object for it.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub async fn now(&self) -> Result<Timestamp, Error> {
        let inner = &*self.0;
        self.put(CLOCK, vec![Bytes::from_static(b"the time of the last look for orphans is when this was written\n")])
            .await?;
        let location = inner.place.path(CLOCK)?;
        let mut trial = Trial::new(inner, Operation::Get, CLOCK);
        let head = GetOptions::default().with_head(true);
        let read = trial.run(|| async { Ok(inner.store.get_opts(&location, head.clone()).await?.meta.last_modified) });
        let modified = read.await;
        let modified = trial.end_plainly(modified)?;
        Ok(Timestamp(modified.timestamp_nanos_opt().unwrap_or_default()))
    }

    /// All objects below a folder (empty: all), at any depth, in no particular order. For starts, housekeeping and commands: it asks the
    /// server once per thousand objects.
    #[must_use]
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Listed, Error>> {
        listing::objects(self.clone(), folder)
    }

    /// The names of the folders directly below a folder (empty: all of the url), sorted.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list_folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        listing::folders(&self.0, folder).await
    }
}

impl Inner {
    fn writable_path(&self, path: &str) -> Result<Path, Error> {
        if !self.writable {
            return Err(Error::Config { reason: format!("{} is open for reading alone", self.place.url_of("")) });
        }
        self.place.path(path)
    }

    /// Tells an object that is missing from a folder that is.
    fn check_there(&self, operation: &str, path: &str) -> Result<(), Error> {
        match &self.folder {
            Some(folder) if !folder.is_there() => Err(Error::Unavailable {
                what: format!("{operation} {}", self.place.url_of(path)),
                reason: "the storage folder is gone; is its disk mounted?".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    async fn put_on_condition(
        &self,
        location: &Path,
        content: &Bytes,
        expected: Option<&Version>,
    ) -> object_store::Result<Version> {
        let payload = PutPayload::from(content.clone());
        let expected = expected.map(|v| UpdateVersion { e_tag: v.e_tag.clone(), version: v.number.clone() });
        let result = if let Some(folder) = &self.folder {
            folder.put_if(location.clone(), payload, expected).await?
        } else {
            let mode = expected.map_or(PutMode::Create, PutMode::Update);
            self.store.put_opts(location, payload, PutOptions { mode, ..PutOptions::default() }).await?
        };
        Ok(Version { e_tag: result.e_tag, number: result.version })
    }
}

impl Version {
    fn of(meta: ObjectMeta) -> Self {
        Self { e_tag: meta.e_tag, number: meta.version }
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.url()).finish()
    }
}

/// The content, unless it is larger than may be read at once.
async fn bounded(result: GetResult) -> object_store::Result<Option<Bytes>> {
    if result.meta.size > READ_BYTES_MAX {
        return Ok(None);
    }
    result.bytes().await.map(Some)
}

fn too_large(url: &str, bytes: u64) -> Error {
    let reason = format!("{bytes} bytes would have to be read, at most {READ_BYTES_MAX} are");
    Error::Corrupt { what: url.to_owned(), reason }
}
