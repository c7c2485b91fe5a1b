//! Steps that a feed does not hold, evaluated for one session: those before the feed began, and those that the session was too slow for.
//!
//! Invariants: the lines are those up to the positions at which the feed's ring begins, so that what comes later is in a frame of the ring or
//! is told there; what a node cannot say for now is left out, and the frames name the node; a piece reads each line at most about twice, whatever the query's range; what waits for the client is bounded.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tailwater_logql::metric::Evaluated;
use tailwater_model::LogId;
use tailwater_wire::node::{NodeError, warn};

use super::Plan;
use super::collected::{Collected, Part};
use super::frame::{Told, frame};
use super::others;
use super::ring::Positions;
use crate::Error;
use crate::busy::busy;

/// Steps of a piece, unless the query's range is longer.
const PIECE_STEPS: u32 = 256;

/// A piece ends early when its frames pass this, in bytes.
const PIECE_BYTES: usize = 4 << 20;

/// The frames of the first of some steps, at least one. `told` goes with the first of them.
pub(super) async fn again(
    plan: Arc<Plan>,
    steps: Range<u32>,
    as_of: Positions,
    told: Told,
) -> Result<VecDeque<Bytes>, Error> {
    let mut count = (steps.end - steps.start).min(PIECE_STEPS.max(longest_range(&plan)));
    loop {
        let piece = steps.start..steps.start.saturating_add(count);
        return Ok(match collect(&plan, piece.clone(), &as_of).await {
            Ok(collected) => busy(|| frames(&plan, collected, piece, told)),
            Err(NodeError::TooLarge { .. }) if count > 1 => {
                count /= 2;
                continue;
            }
            // A single step that has no room fails as it would have live.
            Err(error @ NodeError::TooLarge { .. }) => {
                VecDeque::from([frame_of(&plan, steps.start, &Err(error.into()), told, &[])])
            }
            Err(error) => return Err(error.into()),
        });
    }
}

/// In steps.
fn longest_range(plan: &Plan) -> u32 {
    let ranges = plan.compiled.distinct.iter().map(|leaf| leaf.query.aggregation().range.as_nanos());
    let longest = ranges.max().unwrap_or_default() / u128::from(plan.key.step.unsigned_abs()).max(1);
    u32::try_from(longest).unwrap_or(u32::MAX)
}

/// What was collected, and what could not be looked at.
type Found = (Collected, Vec<String>);

async fn collect(plan: &Arc<Plan>, steps: Range<u32>, as_of: &Positions) -> Result<Found, NodeError> {
    let (mut collected, mut lacking) = (Collected::new(plan), Vec::new());
    let nodes = plan.nodes.read().clone();
    let listed: Vec<LogId> = plan.listed.borrow().iter().map(|node| node.log_id()).collect();
    let mut boundaries = Vec::new();
    for (node, as_of) in nodes.iter().zip(as_of.iter()) {
        if let (Some(as_of), true) = (*as_of, plan.blocks.is_some() && !listed.contains(&node.log_id())) {
            // Nobody has it any more: it is one of the others, up to where it was read.
            boundaries.push((node.log_id(), as_of));
            continue;
        }
        boundaries.push((node.log_id(), 0));
        let unavailable = |reason: &str| NodeError::Unavailable { log: node.log_id(), reason: reason.to_owned() };
        let Some(as_of) = *as_of else {
            lacking.push(unavailable("where it was is not known").to_string());
            continue;
        };
        let rooms = collected.rooms(plan);
        let ask = |pair: super::Pair<'_>| {
            let room = rooms.get(pair.leaf).copied().unwrap_or_default();
            plan.samples(node, plan.samples_request(pair, (0, as_of), steps.clone(), None, room))
        };
        let answers: Vec<_> = plan.pairs().map(ask).collect();
        let answers = match tokio::time::timeout(plan.timeout, try_join_all(answers)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error @ NodeError::TooLarge { .. })) => return Err(error),
            Ok(Err(error)) => {
                lacking.push(error.to_string());
                continue;
            }
            Err(_elapsed) => {
                lacking.push(unavailable("it did not answer in time").to_string());
                continue;
            }
        };
        let mut parts = Vec::new();
        for (pair, found) in plan.pairs().zip(answers) {
            warn(&mut lacking, found.warnings);
            parts.push(Part { leaf: pair.leaf, tenant: pair.tenant.clone(), series: found.series });
        }
        collected.take(plan, parts)?;
    }
    let reading = others::read(Arc::clone(plan), boundaries.into(), steps, collected.rooms(plan));
    match tokio::time::timeout(plan.timeout, reading).await {
        Ok(Ok(others::Read { parts, lacking: more })) => {
            warn(&mut lacking, more);
            collected.take(plan, parts)?;
        }
        Ok(Err(error @ NodeError::TooLarge { .. })) => return Err(error),
        Ok(Err(error)) => lacking.push(others::told(&error)),
        Err(_elapsed) => lacking.push(others::missing("they were not read in time")),
    }
    Ok((collected, lacking))
}

fn frames(plan: &Plan, (mut collected, mut lacking): Found, steps: Range<u32>, told: Told) -> VecDeque<Bytes> {
    let (mut frames, mut bytes, mut told) = (VecDeque::new(), 0, Some(told));
    for step in steps {
        let value = collected.evaluate(plan, step);
        let frame = frame_of(plan, step, &value, told.take().unwrap_or_default(), &std::mem::take(&mut lacking));
        bytes += frame.len();
        frames.push_back(frame);
        if bytes > PIECE_BYTES {
            break;
        }
        collected.forget_before(plan, step.saturating_add(1));
    }
    frames
}

fn frame_of(plan: &Plan, step: u32, value: &Result<Evaluated, Error>, told: Told, lacking: &[String]) -> Bytes {
    plan.metrics.steps_again.inc();
    frame(plan.time(step), value, told, lacking)
}
