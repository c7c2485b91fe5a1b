//! Reads of history: by position here, by time in the store. They run on threads for blocking work ([`scan::blocking`]).

mod beyond;
mod chunk;
mod everything;

use tailwater_store::scan::{self, Cancel};
use tailwater_wire::node::{NodeError, Part, Sampled, SamplesRequest};

pub(crate) use beyond::not_beyond;
pub(crate) use chunk::chunk;
pub(crate) use everything::Everything;

/// See [`tailwater_wire::node::Node::samples`].
pub(crate) fn samples(
    source: &Everything,
    request: &SamplesRequest,
    seed: u64,
    cancel: &Cancel,
) -> Result<Sampled, NodeError> {
    let Everything { log, account, history, part } = source;
    let (head, ()) = log.with_head(account, || ());
    let through = request.as_of.min(head.seq);
    let from_anywhere = request.after == 0 && request.settled.is_none();
    // What the log has trimmed is in blocks, if there are any; who reads these is told that he has to, instead.
    let complete = from_anywhere || history.is_some() || (*part != Part::Whole && log.is_durable());
    let gap = if complete { None } else { log.gap_after(account, request.after, through) };
    let known = Sampled { through, watermark: head.watermark, gap, ..Sampled::default() };
    match (scan::samples(source, request, known.clone(), seed, cancel), part) {
        // Nothing is asked for of what the log has let go of: it would only tell which later entries have an equal there.
        (Err(NodeError::Trimmed { .. }), Part::Log { after }) if request.after > *after => {
            let later = Everything { part: Part::Log { after: request.after }, ..source.clone() };
            scan::samples(&later, request, known, seed, cancel)
        }
        (answer, _) => answer,
    }
}
