//! The pieces of a search's units, handed to its workers: batches and stretches as they are, blocks page by page.
//!
//! Invariants:
//! * Every page that a search wants is handed to one worker, once. What is deleted is not shown.
//! * In an order (oldest or newest first) a block is opened, and a page fetched, only when nothing better is left but what is under way, and
//!   never once it is beyond what the search can use. How much is under way begins small and grows with what was of use, so that a
//!   search that ends early has read little, and one that goes on does not wait for the store.
//! * Memory: [`MAX_UNDER_WAY_BYTES`] of fetched pages and those in the hands of workers; each worker unpacks one page at a time.
//! * A search that is cancelled or has failed stops at the next page; its fetches are given up.
//! * A part that is lost is told in a warning, and the search goes on with the rest.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tailwater_wire::node::{BlocksScanned, NodeError, Scanned};

use super::queue::{AtHand, Fetch, Group, Next, Order, Pages, State, Waiting};
use super::trouble::Troubles;
use super::{Cancel, Unit};
use crate::block::{Columns, PageInfo};
use crate::deletes::{Deleted, Deletion, Eraser};
use crate::entries::Entries;
use crate::history::{Block, History, Kept, Need, Opened, Tally, Wanted};
use crate::{Error, Stream};

/// Most fetches under way.
pub(super) const MAX_UNDER_WAY: usize = 16;

/// Most bytes of fetches under way, as stored.
const MAX_UNDER_WAY_BYTES: u64 = 32 << 20;

/// Most bytes fetched at a time, as stored.
const FETCH_BYTES: u64 = 4 << 20;

/// Most pages fetched at a time.
const FETCH_PAGES: usize = 256;

/// The part of what was fetched so far that is fetched at a time, in an order.
const FETCH_SHARE: u64 = 8;

/// Most blocks that are being opened.
const MAX_OPENING: usize = 8;

/// Time between looks at the cancel while a worker waits.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// What a worker looks at.
pub(super) enum Look<'a> {
    /// Entries. Those outside of the times asked for are to be passed over.
    Entries(&'a Entries),
    /// A page of which the search did not need the lines.
    Page(PageLook<'a>),
}

/// A page without its lines.
pub(super) struct PageLook<'a> {
    pub(super) stream: &'a Arc<Stream>,
    pub(super) info: &'a PageInfo,
    /// If they are needed. Only entries of places that are asked for.
    pub(super) columns: Option<Columns>,
    opened: &'a Opened,
    kept: &'a Kept,
    tally: &'a Tally,
}

impl PageLook<'_> {
    /// The entries after all. Fetches the page.
    pub(super) fn entries(&self) -> Result<Option<Entries>, Error> {
        self.opened.fetch_lines(self.kept, self.tally)
    }
}

/// What a worker does with what it is shown.
pub(super) type Looks<'a> = dyn FnMut(Look<'_>) -> ControlFlow<()> + 'a;

/// See the module's words.
pub(super) struct Pieces(Arc<Shared>);

struct Shared {
    order: Order,
    wanted: Arc<dyn Wanted>,
    deletions: Arc<[Deletion]>,
    /// See [`Eraser::new`].
    detect_level: bool,
    cancel: Cancel,
    tally: Arc<Tally>,
    troubles: Troubles,
    /// Where blocks are read, if there are any.
    history: OnceLock<History>,
    ended: AtomicBool,
    batches: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a search is about.
pub(super) struct Plan {
    pub(super) order: Order,
    pub(super) wanted: Arc<dyn Wanted>,
    pub(super) deletions: Arc<[Deletion]>,
    /// Whether entries that bring no `detected_level` get one before it is asked whether they are deleted.
    pub(super) detect_level: bool,
    pub(super) troubles: Troubles,
}

impl Pieces {
    pub(super) fn new(units: impl IntoIterator<Item = Unit>, plan: Plan, cancel: &Cancel) -> Self {
        let Plan { order, wanted, deletions, detect_level, troubles } = plan;
        let (mut state, history) = (State::default(), OnceLock::new());
        for unit in units {
            let rank = order.rank(unit.min(), unit.max());
            state.serial += 1;
            let serial = state.serial;
            match unit {
                Unit::Batch(batch) => state.at_hand.push(Waiting { rank, serial, what: AtHand::Batch(batch) }),
                Unit::Stretch(stretch) => state.at_hand.push(Waiting { rank, serial, what: AtHand::Stretch(stretch) }),
                Unit::Block(block) => {
                    history.get_or_init(|| block.history().clone());
                    state.blocks.push(Waiting { rank, serial, what: block });
                }
                Unit::Lost(error) => troubles.note(&error),
            }
        }
        state.at_hand.sort();
        Self(Arc::new(Shared {
            order,
            wanted,
            deletions,
            detect_level,
            cancel: cancel.clone(),
            tally: Arc::default(),
            troubles,
            history,
            ended: AtomicBool::new(false),
            batches: AtomicU64::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }))
    }

    /// Has a worker look at pieces until there are no more, or `look` breaks for all workers. `beyond`: whether nothing with a best timestamp
    /// like this is of use any more; once it is so for a timestamp it stays so, and is so for worse ones.
    pub(super) fn work(&self, beyond: &dyn Fn(i64) -> bool, look: &mut Looks<'_>) {
        let shared = &*self.0;
        let deletions = &shared.deletions;
        let mut eraser = (!deletions.is_empty()).then(|| Eraser::new(Arc::clone(deletions), shared.detect_level));
        while let Some(next) = self.next(beyond) {
            let went = match next {
                Next::AtHand(AtHand::Batch(batch)) => self.show(&batch, &mut eraser, look),
                Next::AtHand(AtHand::Stretch(stretch)) => {
                    let mut went = ControlFlow::Continue(());
                    let visited = stretch.visit(&mut |entries| {
                        if shared.ends() {
                            return ControlFlow::Break(());
                        }
                        went = self.show(&entries, &mut eraser, look);
                        went
                    });
                    if let Err(error) = visited {
                        shared.troubles.note(&error);
                    }
                    went
                }
                Next::Group(group) => self.group(group, beyond, &mut eraser, look),
            };
            if went.is_break() {
                self.end();
                return;
            }
        }
    }

    /// What was looked at, but for lines; and the warnings, unless the search has failed.
    ///
    /// # Errors
    /// [`NodeError::Unavailable`]
    pub(super) fn finish(&self) -> Result<(Scanned, Vec<String>), NodeError> {
        let shared = &*self.0;
        let warnings = shared.troubles.settle()?;
        let batches = shared.batches.load(Ordering::Relaxed);
        let blocks = self.count(shared.tally.sum());
        Ok((Scanned { batches, blocks, ..Scanned::default() }, warnings))
    }

    /// The same of a look at pieces that others look at again: only what was fetched.
    ///
    /// # Errors
    /// [`NodeError::Unavailable`]
    pub(super) fn finish_first_look(&self) -> Result<(BlocksScanned, Vec<String>), NodeError> {
        let warnings = self.0.troubles.settle()?;
        let BlocksScanned { fetched_bytes, fetch_nanos, cache_hits, .. } = self.0.tally.sum();
        Ok((self.count(BlocksScanned { fetched_bytes, fetch_nanos, cache_hits, ..BlocksScanned::default() }), warnings))
    }

    fn count(&self, blocks: BlocksScanned) -> BlocksScanned {
        if let Some(history) = self.0.history.get() {
            history.searched(&blocks);
        }
        blocks
    }

    /// Takes note of an error that a worker met.
    pub(super) fn note(&self, error: &Error) {
        self.0.troubles.note(error);
    }

    /// Whether nobody wants the answer, or there is none.
    pub(super) fn ends(&self) -> bool {
        self.0.ends()
    }

    /// Shows what is not deleted of entries of the log.
    fn show(&self, entries: &Entries, eraser: &mut Option<Eraser>, look: &mut Looks<'_>) -> ControlFlow<()> {
        self.0.batches.fetch_add(1, Ordering::Relaxed);
        show(entries, eraser, look)
    }

    fn group(
        &self,
        group: Group,
        beyond: &dyn Fn(i64) -> bool,
        eraser: &mut Option<Eraser>,
        look: &mut Looks<'_>,
    ) -> ControlFlow<()> {
        let shared = &*self.0;
        let Group { of, pages, task, .. } = group;
        let fetched = match task {
            None => vec![Bytes::new(); pages.len()],
            Some(task) => match shared.wait(task, of.opened.block()) {
                None => return ControlFlow::Continue(()),
                Some(Ok(fetched)) => fetched,
                Some(Err(error)) => {
                    shared.troubles.note(&error);
                    return ControlFlow::Continue(());
                }
            },
        };
        let mut pages: Vec<_> = pages.iter().zip(fetched).collect();
        if shared.order == Order::Newest {
            // The later ones of a stream come last.
            pages.reverse();
        }
        for (kept, bytes) in pages {
            if shared.ends() {
                break;
            }
            match self.page(&of.opened, kept, &bytes, (beyond, eraser, look)) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(went) => return went,
                Err(error) => shared.troubles.note(&error),
            }
        }
        ControlFlow::Continue(())
    }

    fn page(
        &self,
        opened: &Opened,
        kept: &Kept,
        bytes: &Bytes,
        (beyond, eraser, look): (&dyn Fn(i64) -> bool, &mut Option<Eraser>, &mut Looks<'_>),
    ) -> Result<ControlFlow<()>, Error> {
        let (order, tally) = (self.0.order, &self.0.tally);
        let Some((stream, info)) = opened.page(kept) else { return Ok(ControlFlow::Continue(())) };
        if order != Order::Any && beyond(order.best(order.rank(info.min, info.max))) {
            return Ok(ControlFlow::Continue(()));
        }
        if kept.need == Need::Lines {
            let entries = opened.entries(kept, bytes, tally)?;
            return Ok(entries.map_or(ControlFlow::Continue(()), |entries| show(&entries, eraser, look)));
        }
        let columns = if kept.need == Need::Columns { Some(opened.columns(kept, bytes, tally)?) } else { None };
        Ok(look(Look::Page(PageLook { stream, info, columns, opened, kept, tally })))
    }

    /// The next piece for a worker. Waits for it.
    fn next(&self, beyond: &dyn Fn(i64) -> bool) -> Option<Next> {
        let shared = &self.0;
        let mut state = shared.state.lock();
        loop {
            if shared.ends() {
                state.clear();
                return None;
            }
            shared.start(&mut state, beyond);
            if let Some(ready) = state.under_way.iter().position(Group::is_ready) {
                return state.hand_out(ready);
            }
            if let Some(best) = state.at_hand.last() {
                if shared.is_beyond(best.rank, beyond) {
                    // So are all that follow.
                    state.at_hand.clear();
                    continue;
                }
                return state.at_hand.pop().map(|waiting| Next::AtHand(waiting.what));
            }
            if !state.under_way.is_empty() {
                return state.hand_out(0);
            }
            if state.opening == 0 {
                return None;
            }
            shared.changed.wait_for(&mut state, LOOK_PAUSE);
        }
    }

    /// Has all workers stop.
    fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
        self.0.state.lock().clear();
        self.0.changed.notify_all();
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.end();
    }
}

/// Shows what is not deleted.
fn show(entries: &Entries, eraser: &mut Option<Eraser>, look: &mut Looks<'_>) -> ControlFlow<()> {
    let Some(eraser) = eraser else { return look(Look::Entries(entries)) };
    let mut keep = Vec::with_capacity(entries.lines() as usize);
    for run in &entries.runs {
        match eraser.enter(run) {
            Deleted::Nothing => keep.resize(keep.len() + run.len as usize, true),
            Deleted::Everything => keep.resize(keep.len() + run.len as usize, false),
            Deleted::Some => keep.extend(entries.entries(run).iter().map(|e| !eraser.deletes(run, entries, e))),
        }
    }
    if keep.iter().all(|keep| *keep) {
        return look(Look::Entries(entries));
    }
    entries.keep(&keep).map_or(ControlFlow::Continue(()), |left| look(Look::Entries(&left)))
}

impl Shared {
    fn ends(&self) -> bool {
        self.cancel.is_set() || self.ended.load(Ordering::Relaxed) || self.troubles.failed()
    }

    fn is_beyond(&self, rank: i64, beyond: &dyn Fn(i64) -> bool) -> bool {
        self.order != Order::Any && beyond(self.order.best(rank))
    }

    /// Begins fetches, and opens blocks, as far as it is time.
    fn start(self: &Arc<Self>, state: &mut State, beyond: &dyn Fn(i64) -> bool) {
        let in_order = self.order != Order::Any;
        let fetches = if in_order { (2 + state.fetches).min(MAX_UNDER_WAY) } else { MAX_UNDER_WAY };
        while state.under_way.len() < fetches && state.under_way_bytes < MAX_UNDER_WAY_BYTES {
            let Some(best) = state.pages.peek() else { break };
            if self.is_beyond(best.rank, beyond) {
                state.pages.clear();
                break;
            }
            let Some(Waiting { what: (of, number), .. }) = state.pages.pop() else { break };
            if of.take(number) {
                let group = self.gather(state, of, number, beyond);
                state.under_way_bytes += group.bytes;
                state.under_way.push_back(group);
            }
        }
        let openings = if in_order { 1 + (state.fetches + state.opened) / 2 } else { MAX_OPENING };
        while let Some(best) = state.blocks.peek() {
            if self.is_beyond(best.rank, beyond) {
                state.blocks.clear();
                break;
            }
            if state.opening >= openings.min(MAX_OPENING) || !state.is_time_to_open(best.rank, in_order) {
                break;
            }
            let Some(Waiting { what: block, .. }) = state.blocks.pop() else { break };
            state.opening += 1;
            let opening = Opening(Arc::clone(self));
            block.history().runtime().clone().spawn_blocking(move || opening.open(&block));
        }
    }

    /// Begins to fetch a page, and with it others beside it.
    fn gather(&self, state: &State, of: Arc<Pages>, first: usize, beyond: &dyn Fn(i64) -> bool) -> Group {
        let near = of.opened.block().history().is_near();
        let most = match self.order {
            Order::Any if near => FETCH_BYTES / 4,
            Order::Any => FETCH_BYTES,
            Order::Oldest | Order::Newest => (state.fetched / FETCH_SHARE).min(FETCH_BYTES),
        };
        let len = |number: usize| of.opened.kept.get(number).map(|kept| of.opened.range(kept)).map(|r| r.end - r.start);
        let mut bytes = len(first).unwrap_or(0);
        let (mut begin, mut end) = (first, first + 1);
        let mut takes = |number: usize, count: usize| {
            let Some(more) = len(number).filter(|more| bytes + more <= most && count < FETCH_PAGES) else {
                return false;
            };
            let info = of.opened.kept.get(number).and_then(|kept| of.opened.page(kept));
            let useful = info.is_some_and(|(_, info)| !self.is_beyond(self.order.rank(info.min, info.max), beyond));
            let took = useful && of.take(number);
            bytes += if took { more } else { 0 };
            took
        };
        // What comes next in the order lies on this side, if it is of the same stream.
        for down in [self.order == Order::Newest, self.order != Order::Newest] {
            if down {
                while begin > 0 && takes(begin - 1, end - begin) {
                    begin -= 1;
                }
            } else {
                while takes(end, end - begin) {
                    end += 1;
                }
            }
        }
        let pages: Vec<Kept> = of.opened.kept.get(begin..end).unwrap_or_default().to_vec();
        let task = (bytes > 0).then(|| {
            let runtime = of.opened.block().history().runtime().clone();
            let (of, pages, tally) = (Arc::clone(&of), pages.clone(), Arc::clone(&self.tally));
            Fetch(runtime.spawn(async move { of.opened.fetch(&pages, &tally).await }))
        });
        Group { of, pages, bytes, task }
    }

    /// Waits for a fetch. None: nobody wants it any more.
    fn wait(&self, mut fetch: Fetch, block: &Block) -> Option<Result<Vec<Bytes>, Error>> {
        while !self.ends() {
            let patient = async { tokio::time::timeout(LOOK_PAUSE, &mut fetch.0).await };
            match block.history().runtime().block_on(patient) {
                Ok(Ok(fetched)) => return Some(fetched),
                Ok(Err(error)) => {
                    let what = "a fetch".to_owned();
                    return Some(Err(Error::Unavailable { what, reason: error.to_string() }));
                }
                Err(_elapsed) => {}
            }
        }
        None
    }
}

/// A block that is being opened; counted until it is, or it turns out that it cannot be.
struct Opening(Arc<Shared>);

impl Opening {
    fn open(&self, block: &Arc<Block>) {
        let shared = &*self.0;
        if shared.ends() {
            return;
        }
        match block.open(&*shared.wanted, &shared.tally) {
            Ok(opened) => shared.state.lock().add(opened, shared.order),
            Err(error) => shared.troubles.note(&error),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.opening -= 1;
        state.opened += 1;
        drop(state);
        self.0.changed.notify_all();
    }
}
