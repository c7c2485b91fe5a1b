//! The way of a push once its body is there: read, stored by the own ingester, or sent on to another node.
//!
//! Invariants:
//! * A push is stored here if it can be. It goes on to another node if this one keeps no log, is recovering its log, or is leaving; what came
//!   from another node goes nowhere.
//! * What may become much is read on a thread that may be busy for long, when there is room for it; everything else on the
//!   spot: a push of a thousand lines takes some hundred microseconds, less than handing it to another thread would disturb.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use tailwater_ingester::{Ingester, Receipt};
use tailwater_model::TenantId;
use tailwater_wire::compress::{self, Caps};
use tailwater_wire::host::{ForwardedPush, PushAnswer};
use tailwater_wire::push::{self, Push};

use crate::Config;
use crate::answer::Failure;
use crate::body::{Collected, InFlight, MAX_BYTES_INLINE, Room};
use crate::cluster::forward::Forward;

/// The status by which a node says to another that it takes no pushes now: nothing of the push is there. No client sees it.
pub(crate) const NOT_HERE: StatusCode = StatusCode::MISDIRECTED_REQUEST;

/// A body that has been read.
pub(crate) struct Read {
    pub(crate) push: Push,
    /// The body, if it came as the log keeps it.
    pub(crate) packed: Option<Collected>,
}

/// See the module.
pub(crate) struct Intake {
    ingester: Option<Arc<Ingester>>,
    caps: Caps,
    /// How long a push waits for room.
    patience: Duration,
    room: Room,
    in_flight: Arc<InFlight>,
    forward: OnceLock<Forward>,
    leaving: AtomicBool,
}

/// What is to be waited for.
enum Step {
    Stored(Receipt),
    Onward(Bytes),
}

impl Intake {
    pub(crate) fn new(config: &Config, ingester: Option<Arc<Ingester>>) -> Arc<Self> {
        Arc::new(Self {
            ingester,
            caps: Caps {
                max_body: config.distributor.max_recv_msg_size,
                max_decompressed: config.distributor.max_decompressed_size,
            },
            patience: config.server.http_server_read_timeout,
            room: Room::default(),
            in_flight: Arc::default(),
            forward: OnceLock::new(),
            leaving: AtomicBool::new(false),
        })
    }

    /// From now on pushes that cannot be stored here go to other nodes. To be called once.
    pub(crate) fn join(&self, forward: Forward) {
        self.forward.get_or_init(|| forward);
    }

    /// From now on pushes go to other nodes, if there are any.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(crate) fn ingester(&self) -> Option<&Arc<Ingester>> {
        self.ingester.as_ref()
    }

    pub(crate) fn caps(&self) -> &Caps {
        &self.caps
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    pub(crate) fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// The ingester, if pushes are for it.
    fn storing(&self) -> Option<&Arc<Ingester>> {
        let ingester = self.ingester.as_ref()?;
        let elsewhere =
            self.forward.get().is_some() && (self.leaving.load(Ordering::Relaxed) || ingester.recovering().is_some());
        (!elsewhere).then_some(ingester)
    }

    /// Stores what `read` makes of a body that may become `most` bytes, here or elsewhere.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) async fn take(
        self: &Arc<Self>,
        tenant: &TenantId,
        most: usize,
        read: impl FnOnce() -> Result<Read, Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        match self.step(tenant, most, self.forward.get().is_some(), read).await? {
            Step::Stored(receipt) => receipt.await.map(drop).map_err(Failure::from),
            Step::Onward(body) => match self.forward.get() {
                Some(forward) => forward.send(ForwardedPush { tenant: tenant.clone(), body }).await,
                None => Err(not_here()),
            },
        }
    }

    /// Stores a push that came from another node.
    pub(crate) async fn forwarded(self: &Arc<Self>, push: ForwardedPush) -> PushAnswer {
        match self.take_forwarded(push).await {
            Ok(()) => PushAnswer { status: StatusCode::NO_CONTENT.as_u16(), message: String::new() },
            Err(Failure { status, text, .. }) => PushAnswer { status: status.as_u16(), message: text },
        }
    }

    async fn take_forwarded(self: &Arc<Self>, push: ForwardedPush) -> Result<(), Failure> {
        if self.storing().is_none() {
            return Err(not_here());
        }
        let ForwardedPush { tenant, body } = push;
        let held = Collected::hold(body.to_vec(), &self.in_flight)?;
        let most = compress::expands_to("", &body, &self.caps);
        let caps = self.caps;
        let read = move || Ok(Read { push: push::unpack(&body, &caps)?, packed: Some(held) });
        match self.step(&tenant, most, false, read).await? {
            Step::Stored(receipt) => receipt.await.map(drop).map_err(Failure::from),
            Step::Onward(_) => Err(not_here()),
        }
    }

    async fn step(
        self: &Arc<Self>,
        tenant: &TenantId,
        most: usize,
        may_go_on: bool,
        read: impl FnOnce() -> Result<Read, Failure> + Send + 'static,
    ) -> Result<Step, Failure> {
        let (own, tenant) = (Arc::clone(self), tenant.clone());
        let work = move || -> Result<Step, Failure> {
            let Read { push, packed } = read()?;
            match own.storing() {
                Some(ingester) => Ok(Step::Stored(ingester.push(&tenant, push, packed.as_deref()))),
                None if may_go_on => {
                    let packed = match packed {
                        Some(packed) => packed,
                        None => Collected::hold(push::pack(&push)?, &own.in_flight)?,
                    };
                    Ok(Step::Onward(Bytes::from_owner(packed)))
                }
                None => Err(not_here()),
            }
        };
        // While a disk makes one push wait, others do not keep threads from tails and queries.
        if most <= MAX_BYTES_INLINE && !self.ingester.as_ref().is_some_and(|ingester| ingester.is_busy()) {
            return work();
        }
        let room = self.room.take(most, self.patience).await?;
        // Also when the client goes away: what was begun is finished, and its room is taken until then.
        let working = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(room);
            result
        });
        working.await.unwrap_or_else(|error| Err(Failure::internal(error)))
    }
}

fn not_here() -> Failure {
    Failure::new(NOT_HERE, "this node takes no pushes now")
}
