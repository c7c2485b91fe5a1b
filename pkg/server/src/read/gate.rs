//! How many queries of a tenant run at a time: so many, the others wait their turn, and when too many wait, one more is refused.
//!
//! Invariants: a query holds its place until its answer is made or given up; a tenant nobody asks for is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tailwater_model::TenantIds;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The gates of all tenants. Several tenants together are one more.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<TenantIds, Arc<Gate>>>);

/// The gate of one.
#[derive(Debug)]
struct Gate {
    running: Arc<Semaphore>,
    /// `max_query_parallelism` when the gate was made.
    width: usize,
}

/// The right to run a query.
#[derive(Debug)]
pub(crate) struct Place {
    gates: Arc<Gates>,
    tenants: TenantIds,
    gate: Arc<Gate>,
    /// None while it waits.
    permit: Option<OwnedSemaphorePermit>,
}

/// One query too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Gates {
    /// Waits until the tenants may run one more query of at most `width` (0 = any number); at most `queue` may wait (0 = any number).
    ///
    /// # Errors
    /// So many wait already.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        tenants: &TenantIds,
        width: usize,
        queue: usize,
    ) -> Result<Option<Place>, TooMany> {
        if width == 0 {
            return Ok(None);
        }
        let mut place = self.stand(tenants, width, queue)?;
        let running = Arc::clone(&place.gate.running);
        // The semaphore is never closed.
        place.permit = running.acquire_owned().await.ok();
        Ok(Some(place))
    }

    fn stand(self: &Arc<Self>, tenants: &TenantIds, width: usize, queue: usize) -> Result<Place, TooMany> {
        let mut gates = self.0.lock();
        let make = || Arc::new(Gate { running: Arc::new(Semaphore::new(width.min(Semaphore::MAX_PERMITS))), width });
        let gate = gates.entry(tenants.clone()).or_insert_with(make);
        if gate.width != width {
            // The limit has changed: what runs keeps the old gate.
            *gate = make();
        }
        // The table itself holds one.
        let present = Arc::strong_count(gate) - 1;
        if queue > 0 && present >= width.saturating_add(queue) {
            return Err(TooMany);
        }
        Ok(Place { gates: Arc::clone(self), tenants: tenants.clone(), gate: Arc::clone(gate), permit: None })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit.take();
        let mut gates = self.gates.0.lock();
        // Of the gate there are the table's and this one.
        let last = |gate: &Arc<Gate>| Arc::ptr_eq(gate, &self.gate) && Arc::strong_count(gate) == 2;
        if gates.get(&self.tenants).is_some_and(last) {
            gates.remove(&self.tenants);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tenants(text: &str) -> TenantIds {
        TenantIds::parse(text).unwrap()
    }

    #[tokio::test]
    async fn so_many_run_so_many_wait_and_one_more_is_refused() {
        let gates = Arc::new(Gates::default());
        let a = tenants("a");
        let first = gates.enter(&a, 1, 1).await.unwrap().unwrap();
        let waiting = tokio::spawn({
            let (gates, a) = (Arc::clone(&gates), a.clone());
            async move { gates.enter(&a, 1, 1).await.map(|place| place.is_some()) }
        });
        while Arc::strong_count(&first.gate) < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(gates.enter(&a, 1, 1).await.unwrap_err(), TooMany);
        assert!(gates.enter(&tenants("b"), 1, 1).await.unwrap().is_some());
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(true));
        assert!(gates.0.lock().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_no_trace() {
        let gates = Arc::new(Gates::default());
        let a = tenants("a");
        assert!(gates.enter(&a, 0, 0).await.unwrap().is_none());
        let first = gates.enter(&a, 1, 0).await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(5), gates.enter(&a, 1, 0)).await;
        assert!(waited.is_err());
        drop(first);
        assert!(gates.0.lock().is_empty());
    }
}
