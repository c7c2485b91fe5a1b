//! Opening a log that is on disk, and taking back into memory what it holds.
//!
//! Invariants:
//! * Everything that is still in the write-ahead log is gone through once, in order, a record at a time; memory holds what it always
//!   would, the newest. Nothing is appended meanwhile.
//! * Where records are lost, nothing before them stays in memory: readers pass there on disk, where the loss is told.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tailwater_model::Clock;
use tailwater_store::wal::{self, Found, Item, Opened, Origin, Progress, Stored, Wal, Why};
use tailwater_store::{Error, Stream};

use super::append::Maker;
use super::covered::Covered;
use super::disk::{Disk, batch_of, lines_before};
use super::memory::{Leaving, State};
use super::{Account, ArrivalLog};
use crate::batch::Batch;

/// Nobody waits for a batch that comes back.
struct Nobody;

impl Maker for Nobody {
    fn placed(&mut self, _seq: u64) {}

    fn published(&mut self) {}

    fn failed(&mut self) {}
}

impl ArrivalLog {
    /// A log that was opened in a folder, and how it is synced; with at most `memory` bytes of it in memory. Nothing is in memory before it
    /// is [recovered](Self::recover).
    ///
    /// # Errors
    /// There can be no thread that syncs it.
    pub(crate) fn open(
        memory: usize,
        of: (PathBuf, wal::SyncPolicy),
        opened: Opened,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Found), Error> {
        let (log, found) = Self::on(memory, of, opened, clock, false);
        let started = log.start_syncing();
        started
            .map_err(|source| Error::Io { what: "start the thread that syncs the write-ahead log".into(), source })?;
        Ok((log, found))
    }

    /// Opens a copy of a log, or makes one, in the same way. Blocks.
    ///
    /// # Errors
    /// See [`Wal::open_copy`].
    pub(crate) fn open_copy(
        memory: usize,
        config: wal::Config,
        disk: Arc<dyn wal::Disk>,
        origin: Origin,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Found), Error> {
        let of = (config.dir.clone(), config.sync);
        let opened = Wal::open_copy(config, disk, wal::Metrics::default(), origin)?;
        Ok(Self::on(memory, of, opened, clock, true))
    }

    fn on(
        memory: usize,
        (dir, sync): (PathBuf, wal::SyncPolicy),
        opened: Opened,
        clock: Arc<dyn Clock>,
        is_copy: bool,
    ) -> (Arc<Self>, Found) {
        let before = opened.wal.first().saturating_sub(1);
        let covered = Covered::open(dir, opened.log, (before, opened.next.saturating_sub(1)));
        let disk = Some(Disk::new(opened.wal, sync, covered));
        (Arc::new(Self::new(opened.log, State::new(memory, before), disk, clock, is_copy)), opened.found)
    }

    /// Takes back what the write-ahead log holds. `account`: that of a record; called for every record, in order. `stream`: the stream of a
    /// text of the record's tenant and of what is known of its `service_name`. `restored`: hears of every batch. Blocks.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) fn recover<S>(
        &self,
        state: &mut S,
        mut account: impl FnMut(&mut S, &Stored) -> Arc<Account>,
        mut stream: impl FnMut(&mut S, &[u8], Option<&str>) -> Result<Arc<Stream>, tailwater_wire::Error>,
        mut restored: impl FnMut(&mut S, &Batch),
        progress: impl FnMut(Progress),
    ) -> Result<(), Error> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let take = |item| {
            match item {
                Item::Record(stored) => {
                    let account = account(state, &stored);
                    account.go_on(&stored);
                    let batch = batch_of(&stored, &account, |text, service_name| stream(state, text, service_name));
                    if let Ok(batch) = &batch {
                        restored(state, batch);
                    }
                    self.take_back(&stored, &account, batch, &mut Nobody);
                }
                Item::Missing(missing) => {
                    if missing.why == Why::Corrupt {
                        self.note_loss(missing.first, missing.last);
                    }
                    self.pass(missing.last, missing.why, || ());
                }
            }
            ControlFlow::Continue(())
        };
        disk.wal.recover(self.head(), take, progress)?;
        self.pass(disk.wal.next().saturating_sub(1), Why::Failed, || ());
        Ok(())
    }

    /// Adds a batch that has its place already; what cannot be read is lost.
    pub(super) fn take_back(
        &self,
        stored: &Stored,
        account: &Account,
        batch: Result<Batch, Error>,
        maker: &mut dyn Maker,
    ) {
        match batch {
            Ok(batch) => {
                let mut leaving = Leaving::new();
                self.stamps.lock().advance(batch.accepted_at);
                self.publish(batch, None, maker, &mut leaving);
            }
            Err(error) => {
                tracing::error!(%error, tenant = %stored.tenant, lines = stored.lines, "lines are lost");
                account.total.store(stored.tenant_lines, Ordering::Relaxed);
                self.note_loss(stored.seq, stored.seq);
                self.pass(stored.seq, Why::Corrupt, || maker.placed(stored.seq));
            }
        }
        account.written.store(stored.tenant_lines, Ordering::Relaxed);
    }

    /// A copy has lost what its log, or another copy, may have.
    fn note_loss(&self, first: u64, last: u64) {
        if self.is_copy {
            self.losses.add(first, last);
        }
    }

    /// Numbers up to this one have no batch. `tell` is called before readers can see that.
    pub(super) fn pass(&self, last: u64, why: Why, tell: impl FnOnce()) {
        let mut leaving = Leaving::new();
        let mut state = self.state.write();
        tell();
        match why {
            Why::Failed => state.pass(last),
            Why::Trimmed | Why::Crash | Why::Corrupt => state.skip_to(last, &mut leaving),
        }
        if let Some(disk) = &self.disk {
            disk.ring.pass(state.head);
        }
        self.head.store(state.head, Ordering::Release);
    }

    /// Ends the log in good order: everything survives a loss of power. Nothing can be appended any more. Blocks.
    ///
    /// # Errors
    /// Not everything could be written; it may be tried again.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.disk.as_ref().map_or(Ok(()), |disk| disk.wal.close())
    }
}

impl Account {
    /// Goes on with a record of a log whose beginning may be gone.
    pub(super) fn go_on(&self, stored: &Stored) {
        if self.written.load(Ordering::Relaxed) == 0 {
            let before = lines_before(stored);
            for lines in [&self.written, &self.total, &self.trimmed, &self.unmarked] {
                lines.store(before, Ordering::Relaxed);
            }
        }
    }
}
