//! The delete requests of all tenants, in the object store.
//!
//! Invariants: `<tenant>/deletes.json` changes only by compare-and-swap, so no request is lost when several ask at a time. What is
//! remembered of it is at most [`REMEMBERED`] old; a request that was made through the same [`Deletes`] is seen at once. If the store
//! cannot be reached, or takes longer than [`PATIENCE`], what is remembered stands in for it, however old: deleted lines stay hidden.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tailwater_logql::LogQuery;
use tailwater_model::{Clock, TenantId, Timestamp};
use ulid::Ulid;

use super::{Deletion, MAX_REQUESTS, Request, Status};
use crate::Error;
use crate::catalog::names;
use crate::objects::{Objects, Put, Version};

/// How long the requests of a tenant are remembered before the object is looked at again: others may have changed it.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How long a search waits for the object if something is remembered of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most tenants whose requests are remembered.
const MAX_REMEMBERED: usize = 4096;

/// Attempts to change an object that others change too.
const ATTEMPTS: usize = 16;

/// Longest query of a request, in bytes.
const MAX_QUERY_BYTES: usize = 16 << 10;

/// A request to be made. The range is inclusive at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRequest {
    /// The first instant.
    pub start: Timestamp,
    /// The last instant.
    pub end: Timestamp,
    /// A log query.
    pub query: String,
}

/// Why a request was not made, or not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The query is not a log query.
    #[error(transparent)]
    Query(#[from] tailwater_logql::Error),
    /// The range is empty.
    #[error("the end of the range is before its start")]
    Range,
    /// The query is longer than [`MAX_QUERY_BYTES`].
    #[error("the query is too long: max {MAX_QUERY_BYTES} bytes")]
    TooLong,
    /// The tenant has [`MAX_REQUESTS`] already.
    #[error("too many delete requests: max {MAX_REQUESTS}")]
    TooMany,
    /// The requests cannot be read or written.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What became of the wish to cancel a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled: its lines are answered again.
    Done,
    /// There is no such request.
    Unknown,
    /// It is processed: its lines are gone.
    Processed,
    /// It was made too long ago, and may be under way. Whoever forces it accepts that a part of the lines is gone.
    PastDeadline,
}

/// What the object holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct File {
    /// Names the change that made it: no two contents are alike, as the object store wants it.
    #[serde(default)]
    change: String,
    requests: Vec<Request>,
}

/// The requests of a tenant as they were when the object was last looked at.
#[derive(Clone)]
struct Known {
    at: Timestamp,
    requests: Arc<[Request]>,
    /// Of those that were active then, which may be a few more than are now.
    active: Arc<[Deletion]>,
}

/// The delete requests of all tenants.
pub struct Deletes {
    objects: Objects,
    clock: Arc<dyn Clock>,
    /// How long a request can be cancelled.
    cancel_period: Duration,
    known: Mutex<HashMap<TenantId, Known>>,
    /// Counts changes: what was read before the last one is not remembered.
    changes: AtomicU64,
}

/// The object as it was read.
struct Loaded {
    file: File,
    version: Option<Version>,
    /// The count of changes when the read began.
    changes: u64,
}

impl Deletes {
    /// `cancel_period`: how long a request can be cancelled, and how long it takes at least until its lines are removed from blocks.
    #[must_use]
    pub fn new(objects: Objects, clock: Arc<dyn Clock>, cancel_period: Duration) -> Self {
        Self { objects, clock, cancel_period, known: Mutex::default(), changes: AtomicU64::new(0) }
    }

    /// Makes a request; from now on no search answers the lines that it names. Answers its id.
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub async fn add(&self, tenant: &TenantId, new: NewRequest) -> Result<String, DeleteError> {
        if new.query.len() > MAX_QUERY_BYTES {
            return Err(DeleteError::TooLong);
        }
        LogQuery::parse(&new.query)?;
        if new.end < new.start {
            return Err(DeleteError::Range);
        }
        let now = self.clock.now();
        let request = Request {
            request_id: Ulid::generate().to_string(),
            start: new.start.nanos(),
            end: new.end.nanos(),
            query: new.query,
            status: Status::Received,
            created_at: now.nanos(),
            processed_at: None,
        };
        let change = |file: &mut File| {
            file.requests.retain(|r| r.is_listed(now));
            // An attempt whose answer was lost may have been made, and others may have changed more since.
            if file.requests.iter().any(|r| r.request_id == request.request_id) {
                return Change::Made(());
            }
            if file.requests.len() >= MAX_REQUESTS {
                return Change::Refused;
            }
            file.requests.push(request.clone());
            Change::Made(())
        };
        match self.change(tenant, change).await? {
            Some(()) => Ok(request.request_id),
            None => Err(DeleteError::TooMany),
        }
    }

    /// The requests of a tenant, oldest first, as the store has them now.
    ///
    /// # Errors
    /// The requests cannot be read.
    pub async fn list(&self, tenant: &TenantId) -> Result<Arc<[Request]>, Error> {
        let loaded = self.load(tenant).await?;
        Ok(self.remember(tenant, loaded).requests)
    }

    /// Takes a request back. `force`: also when its time to be cancelled is over.
    ///
    /// # Errors
    /// The requests cannot be read or written.
    pub async fn cancel(&self, tenant: &TenantId, id: &str, force: bool) -> Result<Cancelled, Error> {
        let now = self.clock.now();
        let mut outcome = Cancelled::Unknown;
        let change = |file: &mut File| {
            let Some(at) = file.requests.iter().position(|r| r.request_id == id) else {
                // Unless it was an attempt of this very change that has taken it out.
                if outcome != Cancelled::Done {
                    outcome = Cancelled::Unknown;
                }
                return Change::Refused;
            };
            let request = &file.requests[at];
            outcome = match request.status {
                Status::Processed => Cancelled::Processed,
                Status::Received if !force && self.is_due(request, now) => Cancelled::PastDeadline,
                Status::Received => Cancelled::Done,
            };
            if outcome != Cancelled::Done {
                return Change::Refused;
            }
            file.requests.remove(at);
            Change::Made(())
        };
        self.change(tenant, change).await?;
        Ok(outcome)
    }

    /// What searches of a tenant have to leave out. Taken before the catalog is asked for blocks.
    ///
    /// # Errors
    /// The requests cannot be read, and nothing is remembered of them.
    pub async fn filter(self: &Arc<Self>, tenant: &TenantId) -> Result<Arc<[Deletion]>, Error> {
        let known = self.known.lock().get(tenant).cloned();
        let now = self.clock.now();
        if let Some(known) = &known
            && now.since(known.at) < REMEMBERED
        {
            return Ok(Arc::clone(&known.active));
        }
        let Some(known) = known else {
            let loaded = self.load(tenant).await?;
            return Ok(self.remember(tenant, loaded).active);
        };
        let (deletes, of) = (Arc::clone(self), tenant.clone());
        // It goes on when this search does not wait any more: what it finds is for the next one.
        let looking = tokio::spawn(async move { deletes.load(&of).await.map(|loaded| deletes.remember(&of, loaded)) });
        let error = match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok(Ok(found))) => return Ok(found.active),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        tracing::warn!(%tenant, error, "cannot look at the delete requests, going on with those that are known");
        // Not for every search: each of them would wait for the store.
        let mut all = self.known.lock();
        if let Some(same) = all.get_mut(tenant).filter(|k| Arc::ptr_eq(&k.requests, &known.requests)) {
            same.at = now;
        }
        Ok(known.active)
    }

    /// Whether the tenant has made requests, also processed ones: then what is in blocks must be read from there, since copies elsewhere were
    /// not rewritten. As of the last [`Deletes::filter`].
    #[must_use]
    pub fn has_any(&self, tenant: &TenantId) -> bool {
        self.known.lock().get(tenant).is_some_and(|known| !known.requests.is_empty())
    }

    /// Whether a request can no longer be cancelled.
    pub(crate) fn is_due(&self, request: &Request, now: Timestamp) -> bool {
        request.status == Status::Received && now >= self.deadline(request)
    }

    /// Until when a request can be cancelled.
    pub(crate) fn deadline(&self, request: &Request) -> Timestamp {
        Timestamp(request.created_at).saturating_add(self.cancel_period)
    }

    /// Marks requests processed; those that were cancelled meanwhile are none any more.
    pub(crate) async fn processed(&self, tenant: &TenantId, ids: &[String]) -> Result<(), Error> {
        let now = self.clock.now();
        let change = |file: &mut File| {
            file.requests.retain(|r| r.is_listed(now));
            for request in file.requests.iter_mut().filter(|r| ids.contains(&r.request_id)) {
                request.status = Status::Processed;
                request.processed_at.get_or_insert(now.nanos());
            }
            Change::Made(())
        };
        self.change(tenant, change).await?;
        Ok(())
    }

    /// Changes the object, as often as it takes. Nothing if the change was refused.
    async fn change<T>(
        &self,
        tenant: &TenantId,
        mut change: impl FnMut(&mut File) -> Change<T>,
    ) -> Result<Option<T>, Error> {
        for _ in 0..ATTEMPTS {
            let mut loaded = self.load(tenant).await?;
            let answer = match change(&mut loaded.file) {
                Change::Made(answer) => answer,
                Change::Refused => return Ok(None),
            };
            loaded.file.change = Ulid::generate().to_string();
            let bytes = serde_json::to_vec(&loaded.file)
                .map_err(|e| Error::Corrupt { what: path(tenant), reason: e.to_string() })?;
            match self.objects.put_if(&path(tenant), Bytes::from(bytes), loaded.version.as_ref()).await? {
                Put::Done(_) => {
                    // Another change may have come after it already: it stands in if the store fails, but has to be looked at again.
                    self.changes.fetch_add(1, Ordering::SeqCst);
                    self.keep(tenant, Known::new(tenant, loaded.file, self.clock.now()).stale(), None);
                    return Ok(Some(answer));
                }
                Put::Conflict => {}
            }
        }
        Err(Error::Conflict)
    }

    async fn load(&self, tenant: &TenantId) -> Result<Loaded, Error> {
        let path = path(tenant);
        let changes = self.changes.load(Ordering::SeqCst);
        let Some((bytes, version)) = self.objects.get(&path).await? else {
            return Ok(Loaded { file: File::default(), version: None, changes });
        };
        let file = serde_json::from_slice(&bytes);
        let file = file.map_err(|e| Error::Corrupt { what: path, reason: e.to_string() })?;
        Ok(Loaded { file, version: Some(version), changes })
    }

    /// Remembers what was read, unless it has changed since.
    fn remember(&self, tenant: &TenantId, loaded: Loaded) -> Known {
        let known = Known::new(tenant, loaded.file, self.clock.now());
        self.keep(tenant, known.clone(), Some(loaded.changes));
        known
    }

    /// `read_at`: the count of changes when it was read; nothing if it was just written.
    fn keep(&self, tenant: &TenantId, known: Known, read_at: Option<u64>) {
        let mut all = self.known.lock();
        if read_at.is_some_and(|changes| changes != self.changes.load(Ordering::SeqCst)) {
            return;
        }
        if all.len() >= MAX_REMEMBERED && !all.contains_key(tenant) {
            all.clear();
        }
        all.insert(tenant.clone(), known);
    }
}

impl Known {
    fn new(tenant: &TenantId, file: File, now: Timestamp) -> Self {
        let active = file.requests.iter().filter(|r| r.is_active(now)).filter_map(|request| {
            Deletion::new(request)
                .inspect_err(|error| {
                    let id = &request.request_id;
                    tracing::error!(%tenant, id, %error, "a delete request cannot be understood and is not applied");
                })
                .ok()
        });
        Self { at: now, active: active.collect(), requests: file.requests.into() }
    }

    fn stale(self) -> Self {
        Self { at: Timestamp::MIN, ..self }
    }
}

/// What a change of the object came to.
enum Change<T> {
    /// It is to be written.
    Made(T),
    /// It is not.
    Refused,
}

fn path(tenant: &TenantId) -> String {
    format!("{}/deletes.json", names::tenant_folder(tenant))
}

impl fmt::Debug for Deletes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deletes").field("cancel_period", &self.cancel_period).finish_non_exhaustive()
    }
}
