//! What a push leaves behind besides its batch, and how its sender hears of it.
//!
//! Invariants: the sender hears of success only when the batch is as durable as is configured, can be read, and is in as many copies of the
//! log as are needed. A push that is not in enough copies in time is answered with an error and stays in the log. Any other push that fails has changed
//! nothing: what it has taken of rates is given back and its streams are checked against what they had before, so that the same push is
//! accepted whole when it is sent again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tailwater_store::Error;

use crate::error::{PushError, PushErrorKind};
use crate::log::{Maker, Settled};
use crate::push::Accepted;
use crate::quorum::Acknowledged;
use crate::stream::{Stream, StreamState};
use crate::tails::Concerned;
use crate::tenant::Tenant;

/// What became of a push, as soon as that is certain.
#[must_use = "a push may fail"]
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Known(Result<Accepted, PushError>),
    Pending(Box<Pending>),
    Taken,
}

/// What is waited for.
#[derive(Debug)]
struct Pending {
    /// Being in the log.
    settled: Option<Settled>,
    /// Being in copies of it.
    copies: Option<Acknowledged>,
    /// The answer if all goes well.
    answer: Result<Accepted, PushError>,
}

impl Receipt {
    pub(crate) fn known(answer: Result<Accepted, PushError>) -> Self {
        Self(State::Known(answer))
    }

    /// The answer if the push comes to be in the log, and in copies of it, as far as that is not certain yet.
    pub(crate) fn pending(
        settled: Option<Settled>,
        copies: Option<Acknowledged>,
        answer: Result<Accepted, PushError>,
    ) -> Self {
        if settled.is_none() && copies.is_none() {
            return Self::known(answer);
        }
        Self(State::Pending(Box::new(Pending { settled, copies, answer })))
    }
}

impl Pending {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PushError>> {
        if let Some(settled) = &mut self.settled {
            match ready!(Pin::new(settled).poll(context)) {
                Ok(Ok(())) => self.settled = None,
                Ok(Err(error)) => return Poll::Ready(Err(not_stored(&error))),
                Err(_) => {
                    return Poll::Ready(Err(PushError::new(PushErrorKind::Unavailable, "Ingester is shutting down")));
                }
            }
        }
        if let Some(copies) = &mut self.copies
            && ready!(copies.poll(context)).is_err()
        {
            let text = format!(
                "too few replicas have confirmed the push within {:?}: its lines may have been stored all the same, send it again later",
                copies.timeout()
            );
            return Poll::Ready(Err(PushError::new(PushErrorKind::Unavailable, text)));
        }
        Poll::Ready(Ok(()))
    }
}

impl Future for Receipt {
    type Output = Result<Accepted, PushError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Pending(pending) = &mut self.0
            && let Err(error) = ready!(pending.poll(context))
        {
            self.0 = State::Taken;
            return Poll::Ready(Err(error));
        }
        match std::mem::replace(&mut self.0, State::Taken) {
            State::Known(answer) => Poll::Ready(answer),
            State::Pending(pending) => Poll::Ready(pending.answer),
            State::Taken => Poll::Pending,
        }
    }
}

/// What to say of a push that could not be written.
pub(crate) fn not_stored(error: &Error) -> PushError {
    PushError::new(PushErrorKind::StorageFailed, format!("the push could not be stored, send it again later: {error}"))
}

/// A push that has been checked, until its batch is in the log.
pub(crate) struct Pushed {
    tenant: Arc<Tenant>,
    concerned: Option<Concerned>,
    /// Whether all tails are to be woken.
    all: bool,
    lines: u64,
    bytes: u64,
    /// What it took of the tenant's rate.
    taken: u64,
    changes: Vec<Change>,
}

/// What a push changed of a stream.
pub(crate) struct Change {
    pub(crate) stream: Arc<Stream>,
    pub(crate) before: Checks,
    pub(crate) after: Checks,
    /// What it took of the stream's rate.
    pub(crate) cost: f64,
}

/// What the entries of the next push are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checks {
    last: Option<(i64, u128)>,
    highest: Option<i64>,
}

impl Checks {
    pub(crate) fn of(state: &StreamState) -> Self {
        Self { last: state.last, highest: state.highest }
    }
}

impl Pushed {
    pub(crate) fn new(
        tenant: Arc<Tenant>,
        concerned: Option<Concerned>,
        (lines, bytes): (u64, u64),
        taken: u64,
        changes: Vec<Change>,
    ) -> Self {
        Self { tenant, concerned, all: false, lines, bytes, taken, changes }
    }

    /// Takes back what the push has changed. The caller holds the tenant's turn.
    pub(crate) fn take_back(&mut self) {
        self.tenant.give_back(self.taken);
        for Change { stream, before, after, cost } in self.changes.drain(..).rev() {
            let mut state = stream.state.lock();
            state.bucket.give_back(cost);
            // What a later push has set stays, that push has been checked against it.
            if state.last == after.last {
                state.last = before.last;
            }
            if state.highest == after.highest {
                state.highest = before.highest;
            }
        }
    }
}

impl Maker for Pushed {
    fn placed(&mut self, seq: u64) {
        self.all = self.tenant.tails.mark(self.concerned.as_ref(), seq);
    }

    fn published(&mut self) {
        self.tenant.tails.wake(self.concerned.as_ref(), self.all);
        self.tenant.metrics.lines.inc_by(self.lines);
        self.tenant.metrics.bytes.inc_by(self.bytes);
    }

    fn failed(&mut self) {
        let tenant = Arc::clone(&self.tenant);
        let _turn = tenant.turn.lock();
        self.take_back();
    }
}

/// One push of a tenant at a time is checked against its streams and appended, where appending may fail: nobody drops a line for being in a
/// push that then fails.
#[derive(Debug, Default)]
pub(crate) struct Turn(Mutex<()>);

impl Turn {
    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.0.lock()
    }
}
