//! One copy being written: records go there, acknowledgements come back.
//!
//! Invariants:
//! * At most [`MAX_IN_FLIGHT`] bytes are unacknowledged, and one piece more.
//! * A node that does not acknowledge is given up: after [`STUCK`] if it was up to date, after [`STUCK_CATCHING_UP`] while it is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tailwater_wire::host::{Copied, CopiedRecord, CopyBegin};
use tailwater_wire::node::Answer;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::courier::{CopyStream, Courier};
use super::metrics::ReplicatorMetrics;
use super::shared::Shared;
use crate::member::Member;

/// Most bytes that a copy has not acknowledged yet.
pub(super) const MAX_IN_FLIGHT: usize = 4 << 20;

/// What a record costs beside its payload.
const RECORD_BYTES: usize = 64;

/// How long a copy may take to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an up to date copy may leave records unacknowledged.
pub(super) const STUCK: Duration = Duration::from_secs(1);

/// How long one that is catching up may.
pub(super) const STUCK_CATCHING_UP: Duration = Duration::from_secs(5);

/// How often it is looked at whether more is in blocks, beside at every acknowledgement.
const LOOK_AT_BLOCKS: Duration = Duration::from_secs(1);

/// Why a copy is no longer written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) reason: String,
    pub(super) stuck: bool,
}

impl Ended {
    fn broken(reason: &dyn ToString) -> Self {
        Self { reason: reason.to_string(), stuck: false }
    }
}

/// Writes a copy until it breaks.
pub(super) async fn carry(
    copied: Arc<dyn Copied>,
    courier: Arc<dyn Courier>,
    owner: String,
    to: Member,
    shared: Arc<Shared>,
    metrics: ReplicatorMetrics,
) -> Ended {
    let begin = CopyBegin { log: copied.log_id(), owner, in_blocks: copied.in_blocks() };
    let in_blocks = begin.in_blocks;
    let stream = match timeout(BEGIN_TIMEOUT, courier.copy(&to, begin)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Ended::broken(&error),
        Err(_) => return Ended { reason: format!("it did not begin within {BEGIN_TIMEOUT:?}"), stuck: true },
    };
    // A new copy begins after what is in blocks.
    let head = if stream.head == 0 { in_blocks } else { stream.head };
    let mut line = Line {
        in_flight: VecDeque::new(),
        bytes: 0,
        waiting_since: Instant::now(),
        last: head,
        end: None,
        caught_up: false,
        told_blocks: in_blocks,
        name: to.name,
        id: shared.enter(),
        shared,
        metrics,
    };
    let ended = line.run(&*copied, stream, head).await;
    line.metrics.in_flight_bytes.dec_by(line.bytes as i64);
    ended
}

struct Line {
    /// What is unacknowledged: up to which batch, how many bytes.
    in_flight: VecDeque<(u64, usize)>,
    bytes: usize,
    /// When the copy last acknowledged anything, or since when there has been something to acknowledge.
    waiting_since: Instant,
    /// The last batch that was sent.
    last: u64,
    /// The last batch there was when there was nothing more to send for the first time.
    end: Option<u64>,
    caught_up: bool,
    told_blocks: u64,
    name: String,
    /// Tells it from an earlier one to the same node.
    id: u64,
    shared: Arc<Shared>,
    metrics: ReplicatorMetrics,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.gone(&self.name, self.id);
    }
}

impl Line {
    async fn run(&mut self, copied: &dyn Copied, stream: CopyStream, head: u64) -> Ended {
        let CopyStream { mut sink, mut acks, .. } = stream;
        let mut records = copied.records(head);
        self.shared.acknowledged(&self.name, self.id, head);
        let mut sending: Option<Answer<()>> = None;
        let mut look = interval(LOOK_AT_BLOCKS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = sending.is_none() && self.bytes < MAX_IN_FLIGHT;
            let patience = if self.caught_up { STUCK } else { STUCK_CATCHING_UP };
            let stuck = self.waiting_since + patience;
            let is_waiting = !self.in_flight.is_empty() || sending.is_some();
            tokio::select! {
                biased;
                acknowledged = acks.next() => match acknowledged {
                    Some(Ok(through)) => {
                        self.acknowledged(through);
                        let in_blocks = copied.in_blocks();
                        if sending.is_none() && in_blocks > self.told_blocks {
                            self.waiting_since = Instant::now();
                            self.told_blocks = in_blocks;
                            sending = Some(sink.in_blocks(in_blocks));
                        }
                    }
                    Some(Err(error)) => return Ended::broken(&error),
                    None => return Ended::broken(&"its stream ended"),
                },
                sent = async {
                    match &mut sending {
                        Some(sending) => sending.await,
                        None => std::future::pending().await,
                    }
                } => {
                    sending = None;
                    if let Err(error) = sent {
                        return Ended::broken(&error);
                    }
                }
                piece = records.next(), if has_room => match piece {
                    Some(Ok(piece)) => {
                        self.sent(&piece);
                        sending = Some(sink.send(piece));
                    }
                    Some(Err(error)) => return Ended::broken(&error),
                    None => return Ended::broken(&"the log is closed"),
                },
                _ = look.tick() => {
                    let in_blocks = copied.in_blocks();
                    if sending.is_none() && in_blocks > self.told_blocks {
                        if !is_waiting {
                            self.waiting_since = Instant::now();
                        }
                        self.told_blocks = in_blocks;
                        sending = Some(sink.in_blocks(in_blocks));
                    }
                }
                // It comes after the records: they had nothing to say.
                () = std::future::ready(()), if has_room && self.end.is_none() => {
                    self.end = Some(self.last);
                    self.settle(self.in_flight.is_empty());
                }
                () = sleep_until(stuck), if is_waiting => {
                    return Ended { reason: format!("it acknowledged nothing for {patience:?}"), stuck: true };
                }
            }
        }
    }

    fn sent(&mut self, piece: &[CopiedRecord]) {
        let bytes = piece.iter().map(|record| match record {
            CopiedRecord::Batch { payload, .. } => payload.len() + RECORD_BYTES,
            CopiedRecord::Missing { .. } => RECORD_BYTES,
        });
        let bytes: usize = bytes.sum();
        let Some(last) = piece.last().map(CopiedRecord::last) else { return };
        if self.in_flight.is_empty() {
            self.waiting_since = Instant::now();
        }
        self.last = last;
        self.in_flight.push_back((last, bytes));
        self.bytes += bytes;
        self.metrics.in_flight_bytes.inc_by(bytes as i64);
        self.metrics.sent_records.inc_by(piece.len() as u64);
        self.metrics.sent_bytes.inc_by(bytes as u64);
    }

    fn acknowledged(&mut self, through: u64) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(last, _)| *last <= through) {
            self.bytes -= bytes;
            self.metrics.in_flight_bytes.dec_by(bytes as i64);
        }
        // What says the same again is no progress.
        if self.shared.acknowledged(&self.name, self.id, through) {
            self.waiting_since = Instant::now();
        }
        self.settle(self.end.is_some_and(|end| through >= end));
    }

    /// It is up to date once it has what there was when there was nothing more to send.
    fn settle(&mut self, has_all: bool) {
        if has_all && !self.caught_up {
            self.caught_up = true;
            self.shared.caught_up(&self.name, self.id);
        }
    }
}
