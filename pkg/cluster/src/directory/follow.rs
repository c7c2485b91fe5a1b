//! A follow that outlives the streams it is made of.
//!
//! Invariants:
//! * Every stream begins after the position where the one before it has ended: nothing comes twice and nothing is left out.
//! * It prefers the owner. While it has a copy's stream it looks for the owner again and again, and goes back to it as soon as the owner
//!   has what was followed.
//! * A copy that ends before the position is not followed: it would keep silent about what it does not have. Unless the log has no owner
//!   any more, and all who have a copy say that they end there: then there is nothing else.
//! * When nobody can be followed it says so once, and goes on trying. So it does when a copy has no more, but another one, which does not
//!   answer, may have. It ends when the log has ended for good, or with its directory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tailwater_model::{Backoff, Timestamp};
use tailwater_wire::node::{Follow, FollowEvent, FollowRequest, Gap, MatchedBatch};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::places::{Heads, Known, Place, Places};

/// A stream that was silent for so long is broken: twelve times [`HEARTBEAT`](tailwater_wire::node::HEARTBEAT).
const SILENCE: Duration = Duration::from_secs(3);

/// The same for a node that gossip takes for dead.
const SILENCE_OF_THE_DEAD: Duration = Duration::from_secs(1);

/// How often the owner is looked for while a copy is followed.
const RETURN_EVERY: Duration = Duration::from_secs(1);

/// A stream that lived for so long has worked: the next failure is the first one again.
const STEADY: Duration = Duration::from_secs(1);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What was found while a copy is followed.
struct Found {
    /// Where to go on, if anywhere else than now.
    better: Option<(u64, Arc<Place>)>,
    /// The copy has no more, but another one may: why that is not known.
    unsure: Option<Arc<str>>,
}

type Probe = Pin<Box<dyn Future<Output = Found> + Send>>;

struct Stream {
    place: Arc<Place>,
    follow: Follow,
    /// When it yielded its first event.
    works_since: Option<Instant>,
}

/// See the module.
pub(super) struct Following {
    known: Arc<Known>,
    changes: watch::Receiver<Arc<Places>>,
    /// `after` is the position: everything up to there has been yielded.
    request: FollowRequest,
    watermark: Timestamp,
    stream: Option<Stream>,
    /// Whom it tried in vain since a stream worked, or since the last pause.
    failed: Vec<String>,
    reason: Arc<str>,
    away: bool,
    /// The copy that is followed has no more, but another one may.
    unsure: bool,
    backoff: Backoff,
    probe: Option<Probe>,
    probe_at: Instant,
}

impl Following {
    pub(super) fn new(known: Arc<Known>, request: FollowRequest) -> Self {
        known.metrics.follows.inc();
        let changes = known.places.subscribe();
        Self {
            known,
            changes,
            request,
            watermark: Timestamp::MIN,
            stream: None,
            failed: Vec::new(),
            reason: "no node that has it is known".into(),
            away: false,
            unsure: false,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            probe: None,
            probe_at: Instant::now(),
        }
    }

    /// The next event. None: the log has ended for good.
    pub(super) async fn next(&mut self) -> Option<FollowEvent> {
        loop {
            if self.changes.borrow().ended {
                return None;
            }
            if self.stream.is_none() && !self.connect().await {
                self.failed.clear();
                if let Some(event) = self.goes_away() {
                    return Some(event);
                }
                let pause = self.backoff.pause();
                tokio::select! {
                    () = sleep(pause) => {}
                    // However often they change: not more often than that.
                    changed = self.changes.changed() => {
                        changed.ok()?;
                        sleep(FIRST_PAUSE).await;
                    }
                }
                continue;
            }
            if let Some(event) = self.listen().await {
                return Some(event);
            }
        }
    }

    /// Says that it is away, unless it has.
    fn goes_away(&mut self) -> Option<FollowEvent> {
        if std::mem::replace(&mut self.away, true) {
            return None;
        }
        self.known.metrics.follows_away.inc();
        Some(FollowEvent::Away { reason: Arc::clone(&self.reason) })
    }

    /// Opens a stream where it is most likely to work. False: nobody is left.
    async fn connect(&mut self) -> bool {
        let places = Arc::clone(&self.changes.borrow_and_update());
        let owner = places.owner().filter(|owner| !self.failed.contains(&owner.name));
        if let Some(owner) = owner
            && owner.is_well()
            && self.open(owner)
        {
            return true;
        }
        let copies = places.list.iter().filter(|place| !place.owner && !self.failed.contains(&place.name));
        let heads = self.known.heads(copies, false).await.list;
        for (head, place) in &heads {
            if *head < self.request.after {
                let after = self.request.after;
                self.reason = format!("the copy on {} ends at {head}, before {after}", place.name).into();
                continue;
            }
            if self.open(place) {
                return true;
            }
        }
        // What was seen and nobody has any more is gone with an owner that was given up, and nothing comes after it.
        if places.owner().is_none() && heads.len() == places.list.len() {
            return heads.first().is_some_and(|(_, place)| self.open(place));
        }
        // Gossip may be wrong, and what broke may work again.
        owner.is_some_and(|owner| self.open(owner))
    }

    fn open(&mut self, place: &Arc<Place>) -> bool {
        let Some(node) = place.node(self.known.log) else { return false };
        let follow = node.follow(self.request.clone());
        self.stream = Some(Stream { place: Arc::clone(place), follow, works_since: None });
        self.unsure = false;
        self.probe = None;
        self.probe_at = Instant::now() + RETURN_EVERY;
        true
    }

    /// What the stream says. None: nothing for whoever follows.
    async fn listen(&mut self) -> Option<FollowEvent> {
        let stream = self.stream.as_mut()?;
        let on_copy = !stream.place.owner;
        let places = Arc::clone(&self.changes.borrow_and_update());
        let usable = places.list.iter().any(|place| place.name == stream.place.name && place.usable);
        let patience = if usable { SILENCE } else { SILENCE_OF_THE_DEAD };
        let silent = Instant::now() + patience;
        loop {
            let stream = self.stream.as_mut()?;
            tokio::select! {
                biased;
                event = stream.follow.next() => return match event {
                    None => self.broken("it ended"),
                    Some(FollowEvent::Away { reason }) => self.broken(&reason),
                    // That nothing comes is no news while something may be missing.
                    Some(FollowEvent::Idle { .. }) if self.unsure => None,
                    Some(event) => {
                        self.unsure = false;
                        self.works();
                        self.pass(event)
                    }
                },
                found = async {
                    match &mut self.probe {
                        Some(probe) => probe.await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.probe = None;
                    self.probe_at = Instant::now() + RETURN_EVERY;
                    let Found { better, unsure } = found;
                    if let Some((head, place)) = better && head >= self.request.after && self.open(&place) {
                        self.known.metrics.follow_returns.inc_by(place.owner.into());
                        return None;
                    }
                    self.unsure = unsure.is_some();
                    self.reason = unsure?;
                    return self.goes_away();
                }
                () = sleep_until(self.probe_at), if on_copy && self.probe.is_none() => self.probe = Some(self.look()),
                changed = self.changes.changed() => {
                    // Who made this follow is gone.
                    if changed.is_err() || self.changes.borrow().ended {
                        return None;
                    }
                    if on_copy && self.probe.is_none() {
                        self.probe = Some(self.look());
                    }
                    let name = &self.stream.as_ref()?.place.name;
                    let still = self.changes.borrow().list.iter().any(|place| place.name == *name && place.usable);
                    if still != usable {
                        // It is waited for longer, or not so long.
                        return None;
                    }
                }
                () = sleep_until(silent) => return self.broken(&format!("silent for {patience:?}")),
            }
        }
    }

    /// Looks for the owner, and for a copy that has more if the one that is followed has nothing left.
    fn look(&self) -> Probe {
        let known = Arc::clone(&self.known);
        let position = self.request.after;
        let current = self.stream.as_ref().map(|stream| stream.place.name.clone());
        Box::pin(async move {
            let places = known.places();
            let Heads { list, silent } = known.heads(places.list.iter(), false).await;
            if let Some(owner) = list.iter().find(|(head, place)| place.owner && *head >= position) {
                owner.1.answered();
                return Found { better: Some(owner.clone()), unsure: None };
            }
            let has = list.iter().find(|(_, place)| Some(&place.name) == current.as_ref()).map_or(0, |(head, _)| *head);
            let better = list.into_iter().find(|(head, _)| has <= position && *head > position);
            let lacks = has <= position && !silent.is_empty();
            let unsure = lacks.then(|| {
                let current = current.unwrap_or_default();
                format!("the copy on {current} may lack what {} has, which does not answer", silent.join(", ")).into()
            });
            Found { better, unsure }
        })
    }

    fn works(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let since = *stream.works_since.get_or_insert_with(|| {
            stream.place.answered();
            Instant::now()
        });
        self.failed.clear();
        if since.elapsed() >= STEADY {
            self.backoff.reset();
        }
        if std::mem::take(&mut self.away) {
            self.known.metrics.follows_away.dec();
        }
    }

    fn broken(&mut self, reason: &str) -> Option<FollowEvent> {
        let stream = self.stream.take()?;
        self.probe = None;
        self.known.metrics.follow_breaks.inc();
        stream.place.failed();
        self.reason = format!("{}: {reason}", stream.place.name).into();
        // What has worked is tried once more, at once. What breaks over and over is not.
        if stream.works_since.is_none_or(|since| since.elapsed() < STEADY) {
            self.failed.push(stream.place.name.clone());
        }
        None
    }

    /// The event, if it is news, as it is by the position.
    fn pass(&mut self, event: FollowEvent) -> Option<FollowEvent> {
        let position = self.request.after;
        match event {
            FollowEvent::Lines(batch) => {
                if batch.through <= position {
                    return None;
                }
                self.request.after = batch.through;
                self.watermark = self.watermark.max(batch.watermark);
                if batch.lines.iter().all(|line| line.seq > position || line.seq == 0) {
                    return Some(FollowEvent::Lines(batch));
                }
                let lines: Vec<_> = batch.lines.iter().filter(|line| line.seq > position).cloned().collect();
                if lines.is_empty() {
                    return Some(FollowEvent::Idle { through: batch.through, watermark: self.watermark });
                }
                Some(FollowEvent::Lines(Arc::new(MatchedBatch { lines, ..MatchedBatch::clone(&batch) })))
            }
            FollowEvent::Idle { through, watermark } => {
                // Who is behind knows nothing of what comes next.
                if through >= position {
                    self.request.after = through;
                    self.watermark = self.watermark.max(watermark);
                }
                Some(FollowEvent::Idle { through: self.request.after, watermark: self.watermark })
            }
            FollowEvent::Gap(gap) => {
                if gap.through <= position {
                    return None;
                }
                self.request.after = gap.through;
                Some(FollowEvent::Gap(Gap { after: gap.after.max(position), ..gap }))
            }
            FollowEvent::Away { .. } => None,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.known.metrics.follows.dec();
        if self.away {
            self.known.metrics.follows_away.dec();
        }
    }
}
