//! A part of a stretch of the log, by position.

use std::sync::Arc;

use tailwater_wire::node::{MatchedBatch, ReadChunk, ReadRequest};

use super::Cancel;
use crate::evaluate::{Evaluator, Place, Reader, Step};
use crate::log::ArrivalLog;
use crate::tenant::Tenant;

/// Most text of a chunk, however much was asked for.
const MAX_CHUNK_BYTES: usize = 64 << 20;

/// See [`tailwater_wire::node::Node::read`].
pub(crate) fn chunk(log: &Arc<ArrivalLog>, tenant: &Tenant, request: &ReadRequest, cancel: &Cancel) -> ReadChunk {
    let upto = request.through.min(log.head());
    let evaluator = Evaluator::new(Arc::clone(&request.query), request.detect_level);
    let at = Place::after(request.after);
    let mut reader = Reader::new(Arc::clone(log), Arc::clone(&tenant.account), evaluator, at);
    let empty = |place: Place| MatchedBatch {
        through: place.position,
        watermark: place.watermark,
        text: bytes::Bytes::new(),
        lines: Vec::new(),
    };
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
