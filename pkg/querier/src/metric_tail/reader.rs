//! One node as a feed reads it: from where it goes on, and when it has a part in a step.
//!
//! Invariants:
//! * What lies after `position` is in none of what was collected, what lies up to it is in it as far as windows need it, or will be when
//!   it is loaded.
//! * All range aggregations of a step see the same stretch of the node's log.
//! * A node that is listed after blocks of logs that nobody has were read may have been one of those: if it has blocks, nothing is read of it
//!   before all has begun anew.
//! * Where it begins may not be known: then that is asked for first, at every step until there is an answer.
//! * A read that takes longer than a step waits is not given up: the next step goes on waiting for it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use tailwater_model::{LogId, TenantId, Timestamp};
use tailwater_wire::node::{Answer, Node, NodeError, Sampled, StateRequest, warn};
use tokio::time::Instant;

use super::collected::Part;
use super::frame::Told;
use super::{Pair, Plan};
use crate::place::place;

/// See the module.
pub(super) struct Reader {
    node: Arc<dyn Node>,
    standing: Standing,
    opened: Instant,
    /// None: where the log was when the feed was opened is not known yet.
    position: Option<u64>,
    /// Whether what windows need up to `position` has been read.
    loaded: bool,
    /// What it has in blocks may have been read with the blocks of logs that nobody has.
    doubtful: bool,
    /// The last step it had a part in.
    settled: Option<u32>,
    reading: Option<Answer<Ended>>,
}

/// Whether a node is in the list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Listed,
    /// It has left the list, and is asked once more.
    Leaving,
    Gone,
}

/// What a read has found.
struct Read {
    parts: Vec<Part>,
    told: Told,
    lacking: Vec<String>,
    through: u64,
    watermark: Timestamp,
}

/// How a read ends.
enum Ended {
    Read(Read),
    /// Nothing was read: it has blocks, and these may have been read already.
    ReadElsewhere,
}

/// What a node had for a step.
pub(super) struct Reached {
    pub(super) parts: Vec<Part>,
    pub(super) told: Told,
    /// What it could not look at.
    pub(super) lacking: Vec<String>,
    /// Why it has no part in the step.
    pub(super) missing: Option<NodeError>,
    /// It has none until all has begun anew.
    pub(super) read_elsewhere: bool,
}

impl Reader {
    /// A node of which nothing has been read. What is accepted after `position`, or after where the log was when the feed was `opened`, and
    /// lies in windows of steps before `first` is late.
    pub(super) fn new(node: Arc<dyn Node>, opened: Instant, position: Option<u64>, first: u32) -> Self {
        let settled = first.checked_sub(1);
        Self {
            node,
            standing: Standing::Listed,
            opened,
            position,
            loaded: false,
            doubtful: false,
            settled,
            reading: None,
        }
    }

    pub(super) fn position(&self) -> Option<u64> {
        self.position
    }

    pub(super) fn log(&self) -> LogId {
        self.node.log_id()
    }

    /// The node is in the list, perhaps as another object.
    pub(super) fn listed(&mut self, node: &Arc<dyn Node>) {
        self.standing = Standing::Listed;
        if !Arc::ptr_eq(&self.node, node) {
            self.node = Arc::clone(node);
            self.reading = None;
        }
    }

    /// The node is not in the list.
    pub(super) fn unlisted(&mut self) {
        if self.standing == Standing::Listed {
            self.standing = Standing::Leaving;
        }
    }

    /// Whether it has a part in the next step.
    pub(super) fn takes_part(&self) -> bool {
        self.standing != Standing::Gone
    }

    /// A step has been read.
    pub(super) fn stepped(&mut self) {
        if self.standing == Standing::Leaving {
            self.standing = Standing::Gone;
            self.reading = None;
        }
    }

    /// What it has in blocks may have been read with the blocks of logs that nobody has.
    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// What was collected is lost: what windows need is read again at the next step.
    pub(super) fn begin_anew(&mut self) {
        (self.loaded, self.doubtful) = (false, false);
        self.reading = None;
    }

    /// Reads until everything is in that was accepted before a step is due, or until `deadline`.
    pub(super) async fn reach(&mut self, plan: &Arc<Plan>, step: u32, rooms: &[usize], deadline: Instant) -> Reached {
        let mut reached = Reached {
            parts: Vec::new(),
            told: Told::default(),
            lacking: Vec::new(),
            missing: None,
            read_elsewhere: false,
        };
        let unavailable = |reason: &str| NodeError::Unavailable { log: self.node.log_id(), reason: reason.to_owned() };
        let (late, behind) = (unavailable("it did not answer in time"), unavailable("its clock is behind"));
        let anew = unavailable("it has been listed again, and is read from the next step on");
        loop {
            // What an earlier step has asked for says nothing of the clock now.
            let asked_now = self.reading.is_none();
            let reading = self.reading.get_or_insert_with(|| {
                let go_on = GoOn {
                    opened: self.opened,
                    after: self.position,
                    // Also before the first batch: earlier logs may hold something.
                    load: !self.loaded,
                    doubtful: self.doubtful && !self.loaded,
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
                Ok(Ended::Read(read)) => read,
                Ok(Ended::ReadElsewhere) => {
                    (reached.missing, reached.read_elsewhere) = (Some(anew), true);
                    return reached;
                }
                Err(error) => {
                    reached.missing = Some(error);
                    return reached;
                }
            };
            self.position = self.position.max(Some(through));
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
    opened: Instant,
    /// None: after where the log was when the feed was opened.
    after: Option<u64>,
    /// Read what windows need up to `after`, too.
    load: bool,
    /// What is in blocks may have been read elsewhere.
    doubtful: bool,
    settled: Option<u32>,
    step: u32,
    rooms: Vec<usize>,
}

async fn read(plan: Arc<Plan>, node: Arc<dyn Node>, go_on: GoOn) -> Result<Ended, NodeError> {
    let GoOn { opened, after, load, doubtful, settled, step, rooms } = go_on;
    // What has no blocks now had none then.
    if doubtful && node.state(StateRequest::default()).await?.in_blocks > 0 {
        return Ok(Ended::ReadElsewhere);
    }
    let after = match after {
        Some(after) => after,
        None => place(node.as_ref(), opened.elapsed()).await?,
    };
    let ask = |pair: Pair<'_>, stretch: (u64, u64), settled: Option<u32>| {
        let room = rooms.get(pair.leaf).copied().unwrap_or_default();
        plan.samples(&node, plan.samples_request(pair, stretch, step..u32::MAX, settled, room))
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
    Ok(Ended::Read(Read { parts, told, lacking, through, watermark }))
}
