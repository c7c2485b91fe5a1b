//! A part of a stretch of the log, by position.

use std::sync::Arc;

use bytes::Bytes;
use tailwater_store::scan::{Cancel, Evaluator};
use tailwater_wire::node::{MatchedBatch, ReadChunk, ReadRequest};

use crate::evaluate::{Place, Reader, Step};
use crate::log::{Account, ArrivalLog};

/// Most text of a chunk, however much was asked for.
const MAX_CHUNK_BYTES: usize = 64 << 20;

fn empty(place: Place) -> MatchedBatch {
    let Place { position: through, watermark, .. } = place;
    MatchedBatch { through, watermark, text: Bytes::new(), lines: Vec::new() }
}

/// See [`tailwater_wire::node::Node::read`].
pub(crate) fn chunk(
    log: &Arc<ArrivalLog>,
    account: &Arc<Account>,
    request: &ReadRequest,
    cancel: &Cancel,
) -> ReadChunk {
    let upto = request.through.min(log.head());
    let evaluator = Evaluator::new(Arc::clone(&request.query), request.detect_level);
    let at = Place::after(request.after);
    let mut reader = Reader::new(Arc::clone(log), Arc::clone(account), evaluator, at);
    let flush = request.max_bytes.min(MAX_CHUNK_BYTES);
    let mut gap = None;
    loop {
        match reader.step(upto, flush, false) {
            Step::Lines(batch) => return ReadChunk { through: batch.through, gap, batch },
            Step::Gap(found) if gap.is_none() && found.after == request.after => gap = Some(found),
            // A gap that opened meanwhile: what lies before it is said now, the gap itself when asked to go on from there.
            Step::Gap(found) => {
                let batch = empty(Place { position: found.after, ..reader.settled() });
                return ReadChunk { through: found.after, gap, batch };
            }
            Step::Busy if !cancel.is_set() => {}
            Step::Busy | Step::Done => {
                let place = reader.settled();
                return ReadChunk { through: place.position, gap, batch: empty(place) };
            }
        }
    }
}
