//! Appending: a number, the write-ahead log, then the readers.
//!
//! Invariants:
//! * One batch at a time gets its number and is written, under a lock that no reader takes: the disk holds up no reader.
//! * Readers see batches in the order of their numbers, and none that could still fail. If a 204 means that a batch survives a loss of power
//!   ([`SyncPolicy::Always`](tailwater_store::wal::SyncPolicy)), a batch is pending between its write and the round of syncing that it shares
//!   with all others written meanwhile.
//! * A batch that failed is as if it had never been: its maker takes back what the push has changed before it stops being pending. Whoever
//!   dropped lines because a pending batch has them depends on that batch: if it fails, the drop was wrong and is told as a failure.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tailwater_store::wal::Record;
use tailwater_store::{Error, wal};
use tailwater_wire::host::CopiedRecord;
use tokio::sync::oneshot;

use super::disk::Disk;
use super::memory::Leaving;
use super::{Account, ArrivalLog};
use crate::batch::Batch;

/// Who made a batch, and hears what becomes of it.
pub(crate) trait Maker: Send {
    /// The batch has its place; no reader can see it yet. Called under the log's write lock.
    fn placed(&mut self, seq: u64);

    /// Readers can see the batch.
    fn published(&mut self);

    /// The batch is not in the log and never will be. Not called for a batch that [`ArrivalLog::append`] has refused.
    fn failed(&mut self);
}

/// A batch of which perhaps nobody hears.
impl<M: Maker> Maker for Option<M> {
    fn placed(&mut self, seq: u64) {
        self.iter_mut().for_each(|maker| maker.placed(seq));
    }

    fn published(&mut self) {
        self.iter_mut().for_each(Maker::published);
    }

    fn failed(&mut self) {
        self.iter_mut().for_each(Maker::failed);
    }
}

/// What became of a batch that was appended.
pub(crate) enum Appended<M> {
    /// Readers can see it; [`Maker::published`] is left to the caller.
    Published(u64, M),
    /// It is being synced.
    Pending(u64, Settled),
}

/// Hears whether all that something depends on is in the log to stay.
pub(crate) type Settled = oneshot::Receiver<Result<(), Arc<Error>>>;

type Answer = oneshot::Sender<Result<(), Arc<Error>>>;

/// Whoever appends holds it.
#[derive(Default)]
pub(super) struct Appender {
    /// Written, not synced.
    pending: VecDeque<Pending>,
    /// The last batch that failed.
    last_failed: u64,
}

struct Pending {
    seq: u64,
    account: Arc<Account>,
    /// None once it has failed.
    made: Option<(Batch, Box<dyn Maker>)>,
    /// Its payload, if copies want it.
    payload: Option<Bytes>,
    /// Who waits for this one, and the first batch on which its answer depends.
    waiting: Vec<(u64, Answer)>,
}

/// Wakes the thread that syncs.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rung.lock() = true;
        self.heard.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock();
        while !*rung {
            self.heard.wait(&mut rung);
        }
        *rung = false;
    }
}

impl ArrivalLog {
    /// Gives the batch its place, makes it durable as far as is configured, and readable. `payload`: what the write-ahead log keeps of it,
    /// not looked at if there is none. `depends`: lines were dropped because the log has them.
    ///
    /// # Errors
    /// The batch could not be written. It is not in the log.
    pub(crate) fn append<M: Maker + 'static>(
        &self,
        mut batch: Batch,
        payload: &[&[u8]],
        depends: bool,
        mut maker: M,
    ) -> Result<Appended<M>, (Error, M)> {
        let lines = batch.lines();
        let Some(disk) = &self.disk else {
            let mut leaving = Leaving::new();
            let mut state = self.state.write();
            let seq = state.head + 1;
            let tenant_lines = batch.account.total.load(Ordering::Relaxed) + lines;
            batch.set_place(seq, self.stamps.lock().stamp(self.clock.now()), tenant_lines);
            maker.placed(seq);
            state.add(batch, &mut leaving);
            self.head.store(seq, Ordering::Release);
            drop(state);
            return Ok(Appended::Published(seq, maker));
        };
        let mut appender = disk.appender.lock();
        let seq = disk.wal.next();
        let accepted_at = self.stamps.lock().begin(seq, self.clock.now());
        let tenant_lines = batch.account.written.load(Ordering::Relaxed) + lines;
        batch.set_place(seq, accepted_at, tenant_lines);
        let record = Record {
            seq,
            accepted_at,
            tenant: &batch.account.tenant,
            tenant_lines,
            min: batch.min,
            max: batch.max,
            lines: u32::try_from(lines).unwrap_or(u32::MAX),
        };
        if let Err(error) = disk.wal.append(&record, payload) {
            self.stamps.lock().settle(seq);
            return Err((error, maker));
        }
        batch.account.written.store(tenant_lines, Ordering::Relaxed);
        let payload = disk.ring.is_wanted().then(|| Bytes::from(payload.concat()));
        if disk.sync == wal::SyncPolicy::Always {
            let depends = if depends { appender.pending.front().map_or(seq, |first| first.seq) } else { seq };
            let (answer, settled) = oneshot::channel();
            let (account, made) = (Arc::clone(&batch.account), Some((batch, Box::new(maker) as Box<dyn Maker>)));
            appender.pending.push_back(Pending { seq, account, made, payload, waiting: vec![(depends, answer)] });
            drop(appender);
            disk.bell.ring();
            return Ok(Appended::Pending(seq, settled));
        }
        let mut leaving = Leaving::new();
        self.publish(batch, payload, &mut maker, &mut leaving);
        drop(appender);
        Ok(Appended::Published(seq, maker))
    }

    /// For a push all of whose lines the log has already: waits until that is certain; none if it is. And the last batch that may have them.
    pub(crate) fn settled(&self) -> (Option<Settled>, u64) {
        let Some(disk) = &self.disk else { return (None, self.head()) };
        let mut appender = disk.appender.lock();
        let depends = appender.pending.front().map(|first| first.seq);
        let Some((depends, last)) = depends.zip(appender.pending.back_mut()) else { return (None, self.head()) };
        let (answer, settled) = oneshot::channel();
        last.waiting.push((depends, answer));
        (Some(settled), last.seq)
    }

    /// Makes a batch that is durable readable. `payload`: that of its record, if it is at hand.
    pub(super) fn publish(&self, batch: Batch, payload: Option<Bytes>, maker: &mut dyn Maker, leaving: &mut Leaving) {
        let seq = batch.seq;
        let record = payload.map(|payload| CopiedRecord::Batch {
            seq,
            accepted_at: batch.accepted_at,
            tenant: batch.account.tenant.clone(),
            tenant_lines: batch.tenant_lines,
            min: batch.min,
            max: batch.max,
            lines: u32::try_from(batch.lines()).unwrap_or(u32::MAX),
            payload,
        });
        let mut state = self.state.write();
        maker.placed(seq);
        if let Some(disk) = &self.disk {
            disk.tide.lock().add(seq, state.line_bytes, batch.accepted_at);
            disk.ring.add(seq, record);
        }
        state.add(batch, leaving);
        self.stamps.lock().settle(seq);
        self.head.store(seq, Ordering::Release);
    }

    /// Syncs what is pending and tells those who wait for it. By the thread that syncs.
    fn settle_pending(&self) {
        let Some(disk) = &self.disk else { return };
        let Some(last) = disk.appender.lock().pending.back().map(|pending| pending.seq) else { return };
        // One round for all of them; what became of each is asked then.
        let _ = disk.wal.sync_up_to(last);
        let pending: Vec<u64> = disk.appender.lock().pending.iter().map(|p| p.seq).filter(|seq| *seq <= last).collect();
        let outcomes: Vec<_> =
            pending.into_iter().map(|seq| (seq, disk.wal.sync_up_to(seq).map_err(Arc::new))).collect();
        // Taken back in reverse, as later ones build on earlier ones; pending until then, so that whoever still sees what a push has
        // changed depends on it.
        for (seq, _) in outcomes.iter().rev().filter(|(_, outcome)| outcome.is_err()) {
            let made = disk.appender.lock().pending.iter_mut().find(|p| p.seq == *seq).and_then(|p| p.made.take());
            if let Some((_, mut maker)) = made {
                maker.failed();
            }
        }
        for (_, outcome) in outcomes {
            self.settle_first(disk, &outcome);
        }
    }

    /// It is known what became of the first pending batch.
    fn settle_first(&self, disk: &Disk, outcome: &Result<(), Arc<Error>>) {
        let mut leaving = Leaving::new();
        let mut appender = disk.appender.lock();
        let Some(Pending { seq, account, made, payload, waiting }) = appender.pending.pop_front() else { return };
        let made = made.map(|(batch, mut maker)| {
            self.publish(batch, payload, &mut *maker, &mut leaving);
            maker
        });
        if made.is_none() {
            appender.last_failed = seq;
            self.stamps.lock().settle(seq);
            if !appender.pending.iter().any(|pending| Arc::ptr_eq(&pending.account, &account)) {
                // Its lines do not count, unless later batches count on from them already.
                account.written.store(account.total.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        let last_failed = appender.last_failed;
        drop(appender);
        drop(leaving);
        if let Some(mut maker) = made {
            maker.published();
        }
        for (depends, answer) in waiting {
            let answered = match outcome {
                Ok(()) if last_failed >= depends => Err(Arc::new(not_synced())),
                Ok(()) => Ok(()),
                Err(error) => Err(Arc::clone(error)),
            };
            // Who waited may be gone.
            let _gone = answer.send(answered);
        }
    }

    /// Starts the thread that syncs, if pushes wait for that.
    pub(super) fn start_syncing(self: &Arc<Self>) -> std::io::Result<()> {
        let Some(disk) = self.disk.as_ref().filter(|disk| disk.sync == wal::SyncPolicy::Always) else { return Ok(()) };
        let (bell, log): (_, Weak<Self>) = (Arc::clone(&disk.bell), Arc::downgrade(self));
        std::thread::Builder::new().name("wal-commit".into()).spawn(move || {
            loop {
                bell.wait();
                // The log rings when it goes.
                let Some(log) = log.upgrade() else { return };
                log.settle_pending();
            }
        })?;
        Ok(())
    }
}

fn not_synced() -> Error {
    Error::Unavailable { what: "the write-ahead log".into(), reason: "what was appended could not be synced".into() }
}
