//! Compiled queries of other nodes, each compiled once: many calls bring the same ones.
//!
//! Invariants: at most twice [`MAX_KNOWN`] of a kind are kept; compiling does not hold up other calls.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tailwater_logql::matchers::Matchers;
use tailwater_logql::metric::SampleQuery;
use tailwater_logql::{Error, LogQuery};
use tonic::Status;

/// When so many were added the older ones, as many at most, are forgotten.
const MAX_KNOWN: usize = 64;

/// Most bytes of a query.
const MAX_QUERY_BYTES: usize = 1 << 20;

/// Queries of one kind.
struct Known<T>(Mutex<Generations<T>>);

struct Generations<T> {
    young: HashMap<Bytes, Arc<T>>,
    old: HashMap<Bytes, Arc<T>>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<T> Generations<T> {
    fn get(&mut self, bytes: &Bytes) -> Option<Arc<T>> {
        if let Some(known) = self.young.get(bytes) {
            return Some(Arc::clone(known));
        }
        let (bytes, known) = self.old.remove_entry(bytes)?;
        self.add(bytes, Arc::clone(&known));
        Some(known)
    }

    fn add(&mut self, bytes: Bytes, query: Arc<T>) {
        if self.young.len() >= MAX_KNOWN {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(bytes, query);
    }
}

impl<T: Send + Sync + 'static> Known<T> {
    async fn get(&self, bytes: Bytes, compile: fn(&[u8]) -> Result<T, Error>) -> Result<Arc<T>, Status> {
        if let Some(known) = self.0.lock().get(&bytes) {
            return Ok(known);
        }
        if bytes.len() > MAX_QUERY_BYTES {
            return Err(Status::invalid_argument("the query is too long"));
        }
        // A copy: what came in a message would keep all of it.
        let bytes = Bytes::copy_from_slice(&bytes);
        let source = bytes.clone();
        let compiled = tokio::task::spawn_blocking(move || compile(&source)).await;
        let compiled = compiled.map_err(|_| Status::internal("the query was given up"))?;
        let query =
            Arc::new(compiled.map_err(|error| Status::invalid_argument(format!("the query is refused: {error}")))?);
        self.0.lock().add(bytes, Arc::clone(&query));
        Ok(query)
    }
}

/// Queries of all kinds.
#[derive(Default)]
pub(super) struct Queries {
    log: Known<LogQuery>,
    sample: Known<SampleQuery>,
    matchers: Known<Matchers>,
}

impl Queries {
    pub(super) async fn log(&self, bytes: Bytes) -> Result<Arc<LogQuery>, Status> {
        self.log.get(bytes, LogQuery::from_bytes).await
    }

    pub(super) async fn sample(&self, bytes: Bytes) -> Result<Arc<SampleQuery>, Status> {
        self.sample.get(bytes, SampleQuery::from_bytes).await
    }

    pub(super) async fn matchers(&self, bytes: Bytes) -> Result<Arc<Matchers>, Status> {
        self.matchers.get(bytes, Matchers::from_bytes).await
    }
}
