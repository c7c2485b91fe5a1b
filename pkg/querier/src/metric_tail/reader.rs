//! One node as a feed reads it: from where it goes on, and when it has a part in a step.
//!
//! Invariants:
//! * What lies after `position` is in none of what was collected, what lies up to it is in it as far as windows need it, or will be when
//!   it is loaded.
//! * All range aggregations of a step see the same stretch of the node's log.
//! * A read that takes longer than a step waits is not given up: the next step goes on waiting for it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use tailwater_model::{TenantId, Timestamp};
use tailwater_wire::node::{Answer, Node, NodeError, Sampled, warn};
use tokio::time::Instant;

use super::collected::Part;
use super::frame::Told;
use super::{Pair, Plan};

/// See the module.
pub(super) struct Reader {
    node: Arc<dyn Node>,
    position: u64,
    /// Whether what windows need up to `position` has been read.
    loaded: bool,
    /// The last step it had a part in.
    settled: Option<u32>,
    reading: Option<Answer<Read>>,
}

/// What a read has found.
struct Read {
    parts: Vec<Part>,
    told: Told,
    lacking: Vec<String>,
    through: u64,
    watermark: Timestamp,
}

/// What a node had for a step.
pub(super) struct Reached {
    pub(super) parts: Vec<Part>,
    pub(super) told: Told,
    /// What it could not look at.
    pub(super) lacking: Vec<String>,
    /// Why it has no part in the step.
    pub(super) missing: Option<NodeError>,
}

impl Reader {
    /// A node of which nothing has been read, for a feed that begins with `first`. What is accepted after `head` and lies in windows of
    /// earlier steps is late.
    pub(super) fn new(node: Arc<dyn Node>, head: u64, first: u32) -> Self {
        Self { node, position: head, loaded: false, settled: first.checked_sub(1), reading: None }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What was collected is lost: what windows need is read again at the next step.
    pub(super) fn begin_anew(&mut self) {
        self.loaded = false;
        self.reading = None;
    }

    /// Reads until everything is in that was accepted before a step is due, or until `deadline`.
    pub(super) async fn reach(&mut self, plan: &Arc<Plan>, step: u32, rooms: &[usize], deadline: Instant) -> Reached {
        let mut reached = Reached { parts: Vec::new(), told: Told::default(), lacking: Vec::new(), missing: None };
        let unavailable = |reason: &str| NodeError::Unavailable { log: self.node.log_id(), reason: reason.to_owned() };
        let (late, behind) = (unavailable("it did not answer in time"), unavailable("its clock is behind"));
        loop {
            // What an earlier step has asked for says nothing of the clock now.
            let asked_now = self.reading.is_none();
            let reading = self.reading.get_or_insert_with(|| {
                let go_on = GoOn {
                    after: self.position,
                    // Also before the first batch: earlier logs may hold something.
                    load: !self.loaded,
                    settled: self.settled,
                    step,
                    rooms: rooms.to_vec(),
                };
                Box::pin(read(Arc::clone(plan), Arc::clone(&self.node), go_on))
            });
            let Ok(read) = tokio::time::timeout_at(deadline, reading).await else {
                reached.missing = Some(late);
                return reached;
            };
            self.reading = None;
            let Read { parts, told, lacking, through, watermark } = match read {
                Ok(read) => read,
                Err(error) => {
                    reached.missing = Some(error);
                    return reached;
                }
            };
            self.position = self.position.max(through);
            self.loaded = true;
            reached.parts.extend(parts);
            reached.told += told;
            warn(&mut reached.lacking, lacking);
            if watermark >= plan.due(step) {
                self.settled = Some(step);
                return reached;
            }
            if !asked_now {
                continue;
            }
            let again = Instant::now() + plan.due(step).since(watermark);
            if again > deadline {
                reached.missing = Some(behind);
                return reached;
            }
            tokio::time::sleep_until(again).await;
        }
    }
}

/// Where a read goes on.
struct GoOn {
    after: u64,
    /// Read what windows need up to `after`, too.
    load: bool,
    settled: Option<u32>,
    step: u32,
    rooms: Vec<usize>,
}

async fn read(plan: Arc<Plan>, node: Arc<dyn Node>, go_on: GoOn) -> Result<Read, NodeError> {
    let GoOn { after, load, settled, step, rooms } = go_on;
    let ask = |pair: Pair<'_>, stretch: (u64, u64), settled: Option<u32>| {
        let room = rooms.get(pair.leaf).copied().unwrap_or_default();
        node.samples(plan.samples_request(pair, stretch, step..u32::MAX, settled, room))
    };
    let part = |Pair { leaf, tenant, .. }: Pair<'_>, series| Part { leaf, tenant: tenant.clone(), series };
    let (mut parts, mut lacking) = (Vec::new(), Vec::new());
    if load {
        let loads: Vec<_> = plan.pairs().map(|pair| ask(pair, (0, after), None)).collect();
        let loaded = try_join_all(loads).await?;
        for (pair, sampled) in plan.pairs().zip(loaded) {
            warn(&mut lacking, sampled.warnings);
            parts.push(part(pair, sampled.series));
        }
    }
    let mut answers = Vec::new();
    let (mut through, mut watermark) = (after, Timestamp::MAX);
    if let Some(first) = plan.pairs().next() {
        let first = ask(first, (after, u64::MAX), settled).await?;
        (through, watermark) = (first.through, first.watermark);
        answers.push(first);
    }
    let others: Vec<_> = plan.pairs().skip(1).map(|pair| ask(pair, (after, through), settled)).collect();
    answers.extend(try_join_all(others).await?);
    let mut told = Told::default();
    // A log is trimmed for all range aggregations alike.
    let mut trimmed: HashMap<&TenantId, u64> = HashMap::new();
    for (pair, Sampled { series, gap, late, warnings, .. }) in plan.pairs().zip(answers) {
        told.late += late;
        warn(&mut lacking, warnings);
        let of_tenant = trimmed.entry(pair.tenant).or_default();
        *of_tenant = gap.map_or(0, |gap| gap.lines).max(*of_tenant);
        parts.push(part(pair, series));
    }
    told.trimmed = trimmed.values().sum();
    Ok(Read { parts, told, lacking, through, watermark })
}
