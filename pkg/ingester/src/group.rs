//! Tail groups: follows of a tenant with equal queries share one evaluation.
//!
//! Invariants:
//! * A group has no task of its own: whichever follower wants to go on when the group is at its position looks at the next stretch for all.
//!   A group without followers does nothing and goes with the last of them.
//! * The ring holds what was handed over between `ring_after` and the group's position, as far as followers still need it and
//!   [`RING_BYTES`] allow. Each slot tells where it begins and ends.
//! * A follower that is before the ring reads the log by itself until it stands at a boundary inside the ring: every line once. A follower
//!   that is ahead of the group takes the group along.
//! * Where the log goes on only on disk, followers read by themselves, too, until they are in memory again: a group never waits for a disk.
//! * The group's lock is held for one bounded step at a time and never by a push.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tailwater_model::LabelSet;
use tailwater_store::Error;
use tailwater_store::scan::Evaluator;
use tailwater_wire::node::{FollowEvent, FollowRequest, HEARTBEAT, MatchedBatch, MatchedLine};
use tokio::time::Instant;

use crate::evaluate::{FLUSH_BYTES, Place, Reader, Step};
use crate::log::{ArrivalLog, Fetched, Head};
use crate::metrics::Metrics;
use crate::tails::{GroupKey, Signal};
use crate::tenant::Tenant;

/// Most bytes that a group keeps for followers that are behind others. (Small in tests, so that they reach it.)
const RING_BYTES: usize = if cfg!(test) { 4 << 10 } else { 4 << 20 };

/// Idle follows beat a little more often than promised, since timers are late.
const BEAT: Duration = HEARTBEAT.saturating_sub(Duration::from_millis(50));

/// How long a follower waits before it tries a disk again that has failed.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// See the module's words.
#[derive(Debug)]
pub(crate) struct Group {
    tenant: Arc<Tenant>,
    key: GroupKey,
    signal: Arc<Signal>,
    metrics: Metrics,
    shared: Mutex<Shared>,
    /// A follower found the lock taken and waits to be woken when it is free.
    waiting: AtomicBool,
}

struct Shared {
    reader: Reader,
    ring: VecDeque<Slot>,
    ring_bytes: usize,
    /// The ring says everything about what lies after this and up to where the reader has settled.
    ring_after: u64,
    /// Positions of the followers; those that are gone leave at the next look.
    followers: Vec<Weak<AtomicU64>>,
}

struct Slot {
    /// The first batch that it says something about.
    first: u64,
    /// Its end.
    through: Place,
    event: FollowEvent,
    bytes: usize,
}

/// A read from disk, where it may block.
type Reading = Pin<Box<dyn Future<Output = Result<Fetched, Error>> + Send>>;

/// One follow.
pub(crate) struct Follower {
    log: Arc<ArrivalLog>,
    group: Arc<Group>,
    query: FollowRequest,
    /// Everything up to here was handed over.
    place: Place,
    /// Its position, for the group to see.
    shown: Arc<AtomicU64>,
    /// Reads the log alone, up to `catch_up_to`.
    alone: Option<Box<Reader>>,
    catch_up_to: u64,
    /// What is being read from disk for it.
    reading: Option<Reading>,
    /// When silence has lasted long enough.
    beat_at: Instant,
    /// The first sign of life comes as soon as it has caught up.
    greeted: bool,
    closed: Arc<AtomicBool>,
}

enum Turn {
    Event(FollowEvent),
    /// There is more to look at.
    Busy,
    /// Another follower looks, for all.
    Theirs,
    /// What comes next is being read from disk.
    Reading,
    /// There is nothing more to look at.
    Idle,
}

impl Group {
    pub(crate) fn join(
        log: &Arc<ArrivalLog>,
        tenant: &Arc<Tenant>,
        metrics: &Metrics,
        request: &FollowRequest,
    ) -> Arc<Self> {
        let key = GroupKey { query: request.query.canonical().into(), detect_level: request.detect_level };
        tenant.tails.join(key, &request.query, |key, signal| {
            // The group is in the table by now; whatever the head is, later batches are told to it.
            let (head, ()) = log.with_head(&tenant.account, || ());
            signal.want(head.seq);
            let evaluator = Evaluator::new(Arc::clone(&request.query), request.detect_level);
            let place = place_of(request.after, head);
            let ring_after = place.position;
            let reader = Reader::new(Arc::clone(log), Arc::clone(&tenant.account), evaluator, place);
            let shared =
                Shared { reader, ring: VecDeque::new(), ring_bytes: 0, ring_after, followers: Vec::with_capacity(1) };
            metrics.tail_groups.inc();
            Self {
                tenant: Arc::clone(tenant),
                key,
                signal,
                metrics: metrics.clone(),
                shared: Mutex::new(shared),
                waiting: AtomicBool::new(false),
            }
        })
    }
}

impl Group {
    /// The lock; without it the follower is woken once it is free.
    fn lock_or_wait(&self) -> Option<MutexGuard<'_, Shared>> {
        self.shared.try_lock().or_else(|| {
            self.waiting.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            // It may have become free before its holder could see that somebody waits.
            self.shared.try_lock()
        })
    }

    /// Wakes those who found the lock taken. Called after it was freed.
    fn wake_waiting(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
            self.signal.notify.notify_waiters();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.tenant.tails.leave(&self.key, &self.signal);
        self.metrics.tail_groups.dec();
    }
}

impl Shared {
    /// The lowest position of a follower.
    fn lowest(&mut self) -> Option<u64> {
        self.followers.retain(|f| f.strong_count() > 0);
        self.followers.iter().filter_map(Weak::upgrade).map(|p| p.load(Ordering::Relaxed)).min()
    }

    /// Lets go of what nobody needs, and of the oldest if it is too much.
    fn tidy(&mut self) {
        let lowest = self.lowest();
        while let Some(slot) = self.ring.front() {
            if self.ring_bytes <= RING_BYTES && lowest.is_some_and(|lowest| slot.through.position > lowest) {
                break;
            }
            self.ring_after = slot.through.position;
            self.ring_bytes -= slot.bytes;
            self.ring.pop_front();
        }
        if self.ring.is_empty() {
            self.ring_after = self.reader.settled().position;
            self.ring = VecDeque::new();
        }
    }

    /// Goes on at a place ahead; others that are behind it read alone.
    fn move_to(&mut self, place: Place) {
        self.reader.move_to(place);
        self.ring.clear();
        self.ring_bytes = 0;
        self.ring_after = place.position;
    }

    fn keep(&mut self, first: u64, event: &FollowEvent) {
        let bytes = event_bytes(event);
        self.ring_bytes += bytes;
        self.ring.push_back(Slot { first, through: self.reader.settled(), event: event.clone(), bytes });
    }
}

impl Follower {
    pub(crate) fn new(
        log: Arc<ArrivalLog>,
        group: Arc<Group>,
        request: FollowRequest,
        closed: Arc<AtomicBool>,
    ) -> Self {
        let (head, ()) = log.with_head(&group.tenant.account, || ());
        let place = place_of(request.after, head);
        let shown = Arc::new(AtomicU64::new(place.position));
        group.shared.lock().followers.push(Arc::downgrade(&shown));
        group.metrics.followers.inc();
        Self {
            log,
            group,
            query: request,
            place,
            shown,
            alone: None,
            catch_up_to: 0,
            reading: None,
            beat_at: Instant::now() + BEAT,
            greeted: false,
            closed,
        }
    }

    /// The next event; none when the ingester is closed and everything was handed over. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<FollowEvent> {
        let signal = Arc::clone(&self.group.signal);
        loop {
            let woken = signal.notify.notified();
            tokio::pin!(woken);
            // Whatever happens after this look at the log wakes it.
            woken.as_mut().enable();
            match self.turn() {
                Turn::Event(event) => {
                    self.beat_at = Instant::now() + BEAT;
                    return Some(event);
                }
                Turn::Idle if self.closed.load(Ordering::Acquire) && self.place.position >= self.log.head() => {
                    return None;
                }
                Turn::Idle if !self.greeted => return Some(self.beat()),
                Turn::Reading => match self.read().await {
                    Turn::Event(event) => {
                        self.beat_at = Instant::now() + BEAT;
                        return Some(event);
                    }
                    Turn::Idle => return Some(self.beat()),
                    _ => continue,
                },
                Turn::Busy | Turn::Theirs if Instant::now() >= self.beat_at => return Some(self.beat()),
                Turn::Busy => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Turn::Theirs | Turn::Idle => {}
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = tokio::time::sleep_until(self.beat_at) => {
                    // Only a last look says how far the silence reaches.
                    if let Turn::Event(event) = self.turn() {
                        self.beat_at = Instant::now() + BEAT;
                        return Some(event);
                    }
                    return Some(self.beat());
                }
            }
        }
    }

    /// Waits for what is being read from disk, until a sign of life is due.
    async fn read(&mut self) -> Turn {
        let Some(reading) = &mut self.reading else { return Turn::Busy };
        let fetched = tokio::select! {
            biased;
            fetched = reading => fetched,
            () = tokio::time::sleep_until(self.beat_at) => return Turn::Idle,
        };
        self.reading = None;
        let Some(reader) = &mut self.alone else { return Turn::Busy };
        match fetched {
            Ok(fetched) => {
                let gap = reader.take_in(fetched);
                let settled = reader.settled();
                self.advance(settled);
                gap.map_or(Turn::Busy, |gap| Turn::Event(FollowEvent::Gap(gap)))
            }
            Err(error) => {
                tracing::warn!(%error, "a tail cannot go on from disk, it is tried again");
                let again = Self::reading(reader, self.catch_up_to);
                self.reading = Some(Box::pin(async move {
                    tokio::time::sleep(DISK_PAUSE).await;
                    again.await
                }));
                Turn::Busy
            }
        }
    }

    fn reading(reader: &Reader, upto: u64) -> Reading {
        let (log, account, place) = reader.next_on_disk();
        Box::pin(log.fetch_in_turn(account, (place.position, upto), place.seen))
    }

    fn beat(&mut self) -> FollowEvent {
        self.greeted = true;
        self.beat_at = Instant::now() + BEAT;
        FollowEvent::Idle { through: self.place.position, watermark: self.place.watermark }
    }

    /// One bounded step.
    fn turn(&mut self) -> Turn {
        if self.reading.is_some() {
            return Turn::Reading;
        }
        if self.alone.is_some() {
            return self.turn_alone();
        }
        let group = Arc::clone(&self.group);
        let turn = match group.lock_or_wait() {
            Some(shared) => self.turn_with(shared),
            None => Turn::Theirs,
        };
        group.wake_waiting();
        turn
    }

    fn turn_with(&mut self, mut shared: MutexGuard<'_, Shared>) -> Turn {
        let position = self.place.position;
        if position > shared.reader.settled().position {
            shared.move_to(self.place);
        }
        if position < shared.ring_after {
            let upto = shared.ring_after;
            drop(shared);
            return self.read_alone(upto);
        }
        let slot = shared.ring.partition_point(|s| s.through.position <= position);
        if let Some(slot) = shared.ring.get(slot) {
            if slot.first <= position {
                // It stands inside the slot.
                let upto = slot.through.position;
                drop(shared);
                return self.read_alone(upto);
            }
            let event = slot.event.clone();
            self.advance(slot.through);
            shared.tidy();
            return Turn::Event(event);
        }
        // Nothing was found between here and where the group is.
        let turn = self.look_for_all(&mut shared);
        shared.tidy();
        turn
    }

    /// The group's next step. Called when nothing lies between the follower and the group.
    fn look_for_all(&mut self, shared: &mut Shared) -> Turn {
        let (head, wanted) = self.log.with_head(&self.group.tenant.account, || self.group.signal.wanted());
        let before = shared.reader.settled().position;
        if shared.reader.is_idle() && wanted <= before {
            let seen = Some(head.tenant_lines);
            shared.reader.move_to(Place { position: head.seq, seen, watermark: head.watermark });
            self.advance(shared.reader.settled());
            return Turn::Idle;
        }
        match shared.reader.step(head.seq, FLUSH_BYTES, true) {
            Step::Lines(lines) => {
                let first = lines.lines.first().map_or(before, |l| l.seq);
                self.hand_over(shared, first, FollowEvent::Lines(Arc::new(lines)))
            }
            Step::Gap(gap) => self.hand_over(shared, gap.after + 1, FollowEvent::Gap(gap)),
            Step::OnDisk => self.read_alone(self.log.before_memory()),
            Step::Busy => {
                self.advance(shared.reader.settled());
                Turn::Busy
            }
            // What came meanwhile wakes it again.
            Step::Done => {
                self.advance(shared.reader.settled());
                Turn::Idle
            }
        }
    }

    fn hand_over(&mut self, shared: &mut Shared, first: u64, event: FollowEvent) -> Turn {
        if shared.followers.len() > 1 {
            shared.keep(first, &event);
        }
        self.advance(shared.reader.settled());
        Turn::Event(event)
    }

    fn advance(&mut self, place: Place) {
        self.place = place;
        self.shown.store(place.position, Ordering::Relaxed);
    }

    /// Begins to read alone, up to a boundary of the ring.
    fn read_alone(&mut self, upto: u64) -> Turn {
        let evaluator = Evaluator::new(Arc::clone(&self.query.query), self.query.detect_level);
        let account = Arc::clone(&self.group.tenant.account);
        let reader = Reader::new(Arc::clone(&self.log), account, evaluator, self.place);
        self.alone = Some(Box::new(reader));
        self.catch_up_to = upto;
        Turn::Busy
    }

    fn turn_alone(&mut self) -> Turn {
        let Some(reader) = &mut self.alone else { return Turn::Busy };
        let step = reader.step(self.catch_up_to, FLUSH_BYTES, true);
        let settled = reader.settled();
        self.advance(settled);
        match step {
            Step::Lines(lines) => Turn::Event(FollowEvent::Lines(Arc::new(lines))),
            Step::Gap(gap) => Turn::Event(FollowEvent::Gap(gap)),
            Step::OnDisk => {
                self.reading = self.alone.as_deref().map(|reader| Self::reading(reader, self.catch_up_to));
                Turn::Reading
            }
            Step::Busy => Turn::Busy,
            Step::Done => {
                self.rejoin();
                Turn::Busy
            }
        }
    }

    /// Back to the group, unless the ring has gone on meanwhile: then the same reader goes on.
    fn rejoin(&mut self) {
        let position = self.place.position;
        match self.group.shared.try_lock() {
            Some(shared) if position < shared.ring_after => self.catch_up_to = shared.ring_after,
            Some(_) => self.alone = None,
            None => {}
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.group.metrics.followers.dec();
    }
}

/// Where a follow begins: not beyond the head, and if just there, with all that is known of it.
fn place_of(after: u64, head: Head) -> Place {
    if after < head.seq {
        return Place::after(after);
    }
    Place { position: head.seq, seen: Some(head.tenant_lines), watermark: head.watermark }
}

fn event_bytes(event: &FollowEvent) -> usize {
    let lines = |batch: &MatchedBatch| batch.text.len() + batch.lines.len() * size_of::<MatchedLine>();
    // Label sets are shared; counting one for the batch keeps the order of magnitude.
    let labels = |batch: &MatchedBatch| batch.lines.first().map_or(0, |l| LabelSet::heap_bytes(&l.labels));
    size_of::<Slot>()
        + match event {
            FollowEvent::Lines(batch) => size_of::<MatchedBatch>() + lines(batch) + labels(batch),
            FollowEvent::Away { reason } => reason.len(),
            FollowEvent::Idle { .. } | FollowEvent::Gap(_) => 0,
        }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settled", &self.reader.settled()).finish_non_exhaustive()
    }
}
