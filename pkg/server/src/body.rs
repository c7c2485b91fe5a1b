//! Collecting the body of a request: capped, within a time, and within what all bodies together may take.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::Failure;

/// Most bytes that all bodies being received and handled may take together.
pub(crate) const MAX_BYTES_IN_FLIGHT: usize = 1 << 30;

/// Memory is asked for in advance up to this; beyond, as bytes arrive.
const MAX_TRUSTED_LENGTH: usize = 1 << 20;

/// How much bodies take now.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<usize>);

impl InFlight {
    /// Bytes now.
    pub(crate) fn bytes(&self) -> usize {
        *self.0.lock()
    }

    fn grow(&self, by: usize) -> bool {
        let mut bytes = self.0.lock();
        let fits = MAX_BYTES_IN_FLIGHT - *bytes >= by;
        if fits {
            *bytes += by;
        }
        fits
    }
}

/// A body. Its share of [`MAX_BYTES_IN_FLIGHT`] is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Collected {
    bytes: Vec<u8>,
    taken: usize,
    in_flight: Arc<InFlight>,
}

impl std::ops::Deref for Collected {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Collected {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        *self.in_flight.0.lock() -= self.taken;
    }
}

impl Collected {
    /// A body that has come in another way.
    ///
    /// # Errors
    /// 503 when all bodies together take too much.
    pub(crate) fn hold(bytes: Vec<u8>, in_flight: &Arc<InFlight>) -> Result<Self, Failure> {
        if !in_flight.grow(bytes.len()) {
            return Err(full());
        }
        Ok(Self { taken: bytes.len(), bytes, in_flight: Arc::clone(in_flight) })
    }

    fn append(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        if !self.in_flight.grow(chunk.len()) {
            return Err(full());
        }
        self.taken += chunk.len();
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// Receives a whole body of at most `cap` bytes.
///
/// # Errors
/// 413 over the cap, 503 when all bodies together take too much, 408 after `timeout`, 499 when the client breaks off.
pub(crate) async fn collect(
    body: Body,
    cap: usize,
    timeout: Duration,
    in_flight: &Arc<InFlight>,
) -> Result<Collected, Failure> {
    let collecting = receive(body, cap, in_flight);
    tokio::time::timeout(timeout, collecting).await.unwrap_or_else(|_elapsed| {
        let text = format!("the request body did not arrive within {timeout:?}");
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, text))
    })
}

async fn receive(mut body: Body, cap: usize, in_flight: &Arc<InFlight>) -> Result<Collected, Failure> {
    let too_large = |size: usize| {
        let text = format!("request body too large: message size too large than max ({size} vs {cap})");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let declared = body.size_hint().exact().map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if declared > cap {
        return Err(too_large(declared));
    }
    let bytes = Vec::with_capacity(declared.min(MAX_TRUSTED_LENGTH));
    let mut collected = Collected { bytes, taken: 0, in_flight: Arc::clone(in_flight) };
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        match frame {
            None => return Ok(collected),
            // Nobody reads this any more; it is for the metrics.
            Some(Err(_broken_off)) => return Err(Failure::cancelled()),
            Some(Ok(frame)) => {
                let Some(chunk) = frame.data_ref() else { continue };
                if chunk.len() > cap - collected.bytes.len() {
                    return Err(too_large(cap.saturating_add(1)));
                }
                collected.append(chunk)?;
            }
        }
    }
}

/// Most bytes that the bodies being read may become together, where each may become much.
pub(crate) const MAX_BYTES_EXPANDED: usize = 512 << 20;

/// Bodies that cannot become more than this are read where they arrive.
pub(crate) const MAX_BYTES_INLINE: usize = 1 << 20;

/// Each of the others takes at least this much of [`MAX_BYTES_EXPANDED`], so that only so many threads are busy with them.
const MIN_SHARE: usize = MAX_BYTES_EXPANDED / 16;

/// Shares are counted in these.
const UNIT: usize = 1 << 10;

/// The room in which bodies are read that may become much more than they are.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BYTES_EXPANDED / UNIT)))
    }
}

impl Room {
    /// Bytes taken now.
    pub(crate) fn bytes(&self) -> usize {
        MAX_BYTES_EXPANDED.saturating_sub(self.0.available_permits() * UNIT)
    }

    /// Waits until there is room for a body that may become `bytes`. Who may become more than everything gets everything.
    ///
    /// # Errors
    /// 503 after `timeout`.
    pub(crate) async fn take(&self, bytes: usize, timeout: Duration) -> Result<OwnedSemaphorePermit, Failure> {
        let share = bytes.clamp(MIN_SHARE, MAX_BYTES_EXPANDED) / UNIT;
        let taking = Arc::clone(&self.0).acquire_many_owned(u32::try_from(share).unwrap_or(u32::MAX));
        // The semaphore is never closed.
        match tokio::time::timeout(timeout, taking).await {
            Ok(Ok(taken)) => Ok(taken),
            _ => Err(full()),
        }
    }
}

fn full() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The server cannot accept more requests at this time.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bodies_that_may_become_much_wait_for_room_and_not_for_ever() {
        let (room, patience) = (Room::default(), Duration::from_secs(30));
        let first = room.take(MAX_BYTES_EXPANDED / 2, patience).await.unwrap();
        let second = room.take(usize::MAX, patience);
        assert_eq!(second.await.unwrap_err().status, 503);
        let small = room.take(1, patience).await.unwrap();
        assert_eq!(room.bytes(), MAX_BYTES_EXPANDED / 2 + MIN_SHARE);
        drop((first, small));
        let everything = room.take(usize::MAX, patience).await.unwrap();
        assert_eq!(room.bytes(), MAX_BYTES_EXPANDED);
        drop(everything);
        assert_eq!(room.bytes(), 0);
    }

    #[tokio::test]
    async fn bodies_are_capped_and_accounted_for() {
        let in_flight = Arc::<InFlight>::default();
        let second = Duration::from_secs(1);
        let body = collect(Body::from("12345"), 5, second, &in_flight).await.unwrap();
        assert_eq!((&body[..], in_flight.bytes()), (&b"12345"[..], 5));
        drop(body);
        assert_eq!(in_flight.bytes(), 0);

        let failure = collect(Body::from("123456"), 5, second, &in_flight).await.unwrap_err();
        assert_eq!(failure.status, 413);
        assert_eq!(failure.text, "request body too large: message size too large than max (6 vs 5)");

        *in_flight.0.lock() = MAX_BYTES_IN_FLIGHT - 2;
        let failure = collect(Body::from("123"), 5, second, &in_flight).await.unwrap_err();
        assert_eq!(failure.status, 503);
        assert_eq!(in_flight.bytes(), MAX_BYTES_IN_FLIGHT - 2);
    }
}
