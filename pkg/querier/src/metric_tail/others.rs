//! What blocks hold of logs that a feed does not read: those that nobody has any more. It is read once, for the windows of the first steps.
//!
//! Invariants:
//! * Of a log that the feed reads, which it does by position, nothing is read here; of every other log all that is in blocks. Which logs were
//!   left out is known: one that is listed later may have been read here, and if it has blocks then all is read anew ([`super::reader`]).
//! * Logs that nobody has do not grow, so what has been read is not read again, until all is.
//! * Until it has been read, every step says so. A read that takes longer than a step waits is not given up.
//! * Where nodes answer from blocks themselves there is nothing to do.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tailwater_model::LogId;
use tailwater_wire::node::{Answer, NodeError, warn};
use tokio::time::Instant;

use super::collected::Part;
use super::{Boundaries, Plan};

/// See the module.
#[derive(Default)]
pub(super) struct Others {
    /// What was left out when the read that is under way or done began; none: none has begun.
    left_out: Option<Vec<LogId>>,
    loaded: bool,
    reading: Option<Answer<Read>>,
}

/// What was found, and what could not be looked at.
#[derive(Default)]
pub(super) struct Read {
    pub(super) parts: Vec<Part>,
    pub(super) lacking: Vec<String>,
}

impl Others {
    /// Whether lines of a log may have been read here, or may yet be.
    pub(super) fn may_have(&self, log: LogId) -> bool {
        self.left_out.as_ref().is_some_and(|left_out| !left_out.contains(&log))
    }

    /// What was collected is lost, or was not what it should be: all is read again at the next step.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// The feed reads more logs. If nothing has been read yet it is read without them; otherwise false.
    pub(super) fn leaves_out_more(&mut self) -> bool {
        if !self.loaded {
            self.begin_anew();
        }
        !self.loaded
    }

    /// Reads what there is, if that has not been done, but no longer than until `deadline`.
    ///
    /// # Errors
    /// [`NodeError::TooLarge`].
    pub(super) async fn reach(
        &mut self,
        plan: &Arc<Plan>,
        logs: Vec<LogId>,
        step: u32,
        rooms: &[usize],
        deadline: Instant,
    ) -> Result<Read, NodeError> {
        if self.loaded || plan.blocks.is_none() {
            return Ok(Read::default());
        }
        let reading = self.reading.get_or_insert_with(|| {
            let boundaries = logs.iter().map(|log| (*log, 0)).collect();
            self.left_out = Some(logs);
            Box::pin(read(Arc::clone(plan), boundaries, step..u32::MAX, rooms.to_vec()))
        });
        let lacks = |lacking| Ok(Read { parts: Vec::new(), lacking: vec![lacking] });
        let Ok(read) = tokio::time::timeout_at(deadline, reading).await else {
            return lacks(missing("they were not read in time"));
        };
        self.reading = None;
        match read {
            Ok(read) => {
                self.loaded = true;
                Ok(read)
            }
            Err(error @ NodeError::TooLarge { .. }) => Err(error),
            Err(error) => lacks(told(&error)),
        }
    }
}

/// Reads blocks for the windows of some steps: of these logs up to a position each, of all others everything.
///
/// # Errors
/// [`NodeError::TooLarge`], and whatever keeps blocks from being read.
pub(super) async fn read(
    plan: Arc<Plan>,
    boundaries: Boundaries,
    steps: std::ops::Range<u32>,
    rooms: Vec<usize>,
) -> Result<Read, NodeError> {
    let Some(blocks) = plan.blocks.clone() else { return Ok(Read::default()) };
    // The name is of no matter: it is that of no log.
    let node = blocks.up_to(boundaries, LogId::from_u128(0), std::time::Instant::now());
    let ask = |pair: super::Pair<'_>| {
        let room = rooms.get(pair.leaf).copied().unwrap_or_default();
        node.samples(plan.samples_request(pair, (0, u64::MAX), steps.clone(), None, room))
    };
    let answers = try_join_all(plan.pairs().map(ask).collect::<Vec<_>>()).await?;
    let mut read = Read::default();
    for (pair, sampled) in plan.pairs().zip(answers) {
        warn(&mut read.lacking, sampled.warnings);
        read.parts.push(Part { leaf: pair.leaf, tenant: pair.tenant.clone(), series: sampled.series });
    }
    Ok(read)
}

/// What steps say while it cannot be read.
pub(super) fn told(error: &NodeError) -> String {
    match error {
        NodeError::Unavailable { reason, .. } => missing(reason),
        other => missing(&other.to_string()),
    }
}

pub(super) fn missing(reason: &str) -> String {
    format!("lines in blocks of logs that no ingester has any more are missing: {reason}")
}
