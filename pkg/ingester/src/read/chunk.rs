//! A part of a stretch of the log, by position.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_store::Error;
use tailwater_store::scan::{Cancel, Evaluator};
use tailwater_wire::node::{MatchedBatch, NodeError, ReadChunk, ReadRequest};

use crate::evaluate::{Place, Reader, Step};
use crate::log::{Account, ArrivalLog};

/// Most text of a chunk, however much was asked for.
const MAX_CHUNK_BYTES: usize = 64 << 20;

fn empty(place: Place) -> MatchedBatch {
    let Place { position: through, watermark, .. } = place;
    MatchedBatch { through, watermark, text: Bytes::new(), lines: Vec::new() }
}

/// See [`tailwater_wire::node::Node::read`].
///
/// # Errors
/// What is next cannot be read from disk now.
pub(crate) fn chunk(
    log: &Arc<ArrivalLog>,
    account: &Arc<Account>,
    request: &ReadRequest,
    cancel: &Cancel,
) -> Result<ReadChunk, NodeError> {
    let upto = request.through.min(log.head());
    let evaluator = Evaluator::new(Arc::clone(&request.query), request.detect_level);
    let at = Place::after(request.after);
    let mut reader = Reader::new(Arc::clone(log), Arc::clone(account), evaluator, at);
    let flush = request.max_bytes.min(MAX_CHUNK_BYTES);
    let mut gap = None;
    loop {
        let step = match reader.step(upto, flush, false) {
            Step::OnDisk => {
                let (_, _, place) = reader.next_on_disk();
                let fetched = log.fetch_from_disk(account, place.position, upto, place.seen);
                let unavailable = |error: Error| NodeError::Unavailable { log: log.id(), reason: error.to_string() };
                reader.take_in(fetched.map_err(unavailable)?).map_or(Step::Busy, Step::Gap)
            }
            step => step,
        };
        match step {
            Step::Lines(batch) => return Ok(ReadChunk { through: batch.through, gap, batch }),
            Step::Gap(found) if gap.is_none() && found.after == request.after => gap = Some(found),
            // A gap that opened meanwhile: what lies before it is said now, the gap itself when asked to go on from there.
            Step::Gap(found) => {
                let batch = empty(Place { position: found.after, ..reader.settled() });
                return Ok(ReadChunk { through: found.after, gap, batch });
            }
            Step::Busy | Step::OnDisk if !cancel.is_set() => {}
            Step::Busy | Step::OnDisk | Step::Done => {
                let place = reader.settled();
                return Ok(ReadChunk { through: place.position, gap, batch: empty(place) });
            }
        }
    }
}
