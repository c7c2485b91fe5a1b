//! Lines read from the logs again for one session alone: what one mark contains and its client has not had.
//!
//! Invariants:
//! * A catch-up reads, of each source, exactly the lines that `to` contains and that the client has not had. It holds about
//!   [`CATCH_UP_BYTES`] at a time, however much is missing. The sources go on side by side: the one that is furthest behind is read next.
//! * Where it stands can be said after each line ([`CatchUp::at`]): which sources have been read up to where, and of the part that is being
//!   sent the stretch and the last line. A stretch that is read again has the same lines in the same order.
//! * A source that cannot be read does not hold up the others. It is tried again for [`PATIENCE`], then blocks are asked, then its lines are
//!   told as lost, with their positions. That is longer than history waits for a store that does not answer: what a catch-up gives up is gone
//!   for its client, and live lines that come later are still there.
//! * Sources that `to` does not name, because the feed has not got them, are read up to where their log is now. One that cannot be read
//!   stays as it is, unless this is the last try.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tailwater_model::{Backoff, Timestamp};
use tailwater_wire::node::{MatchedLine, ReadChunk, StateRequest};
use tokio::time::Instant;

use crate::had::{Had, Name, Placed};
use crate::mark::Key;
use crate::outside::Outside;
use crate::place::place;
use crate::replay::{Own, named};
use crate::resume::{At, Part};
use crate::ring::Joined;
use crate::source::SourceId;
use crate::tenant_labels::TenantLabels;

/// How much matched text a catch-up holds at a time, in bytes.
const CATCH_UP_BYTES: usize = 1 << 20;

/// The least that is read of a source at a time when there are several, in bytes.
const MIN_PART_BYTES: usize = 64 << 10;

/// How long a source that cannot be read is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(15);

/// Pauses before a source is read again that could not be read.
const READ_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Why lines are lost that a log has let go of.
const TRIMMED: &str = "log_trimmed";

/// Lines that will not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) name: Name,
    /// The last batch before them.
    pub(crate) after: u64,
    /// The last batch of them, if it is known.
    pub(crate) through: Option<u64>,
    /// How many, matching or not, if it is known.
    pub(crate) lines: u64,
    pub(crate) reason: &'static str,
}

/// What has been read.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In time order within the part.
    pub(crate) lines: Own,
    pub(crate) lost: Vec<Lost>,
}

/// What lies between what a client has had and a mark, being read.
pub(crate) struct CatchUp {
    had: Had,
    to: Placed,
    /// The moment of the feed that `to` is of; none if it is of another feed.
    joined: Option<Joined>,
    /// What is still to be read.
    stretches: Vec<Stretch>,
    asking: Option<Asked>,
    max_bytes: usize,
    tenant_labels: Option<TenantLabels>,
    /// The part that has been read last.
    part: Option<Sending>,
    /// Sources that nobody answers for are given up.
    pub(crate) last_try: bool,
    /// Lines found so far.
    pub(crate) found: u64,
    /// Some were lost.
    pub(crate) incomplete: bool,
    /// Some of them because a log could not be read for too long.
    pub(crate) gave_up: bool,
    /// Lost before anything was read.
    lost: Vec<Lost>,
}

/// A part whose lines are being sent.
struct Sending {
    name: Name,
    after: u64,
    through: u64,
}

/// An answer that is waited for.
type Asking = Pin<Box<dyn Future<Output = Result<Heard, String>> + Send>>;

/// Which source was asked, and when.
struct Asked {
    stretch: usize,
    began: Instant,
    answer: Asking,
}

enum Heard {
    /// Where the log was at the origin.
    Place(u64),
    /// Where the log is.
    Head(u64),
    Chunk(ReadChunk),
}

/// A source that is being read.
struct Stretch {
    name: Name,
    /// Its number in `to`.
    id: SourceId,
    /// Its number for `tenant_labels`.
    place: SourceId,
    /// Its numbers in what has been had.
    numbers: Vec<(usize, SourceId)>,
    /// Where it goes on; none: where the log was at the origin.
    after: Option<u64>,
    /// Where it ends; none: where the log is now.
    through: Option<u64>,
    /// The feed has not got it.
    absent: bool,
    /// Up to here the log has let go of it: blocks are asked.
    trimmed: u64,
    /// The log has been given up: blocks are asked for all the rest.
    in_blocks: bool,
    /// The last batch of which a line was found.
    last: u64,
    /// The end of the part whose first lines, up to a key, have been sent.
    passed: Option<(u64, Key)>,
    /// Lines of the part so far, and where it began.
    gathered: Vec<(MatchedLine, Bytes)>,
    part_after: u64,
    /// What is missing of the part.
    lost: Vec<Lost>,
    /// When what has been read of it was accepted.
    reached: Timestamp,
    failing: Option<Failing>,
    pauses: Backoff,
}

struct Failing {
    since: Instant,
    again: Instant,
}

impl Stretch {
    fn new(had: &Had, name: Name, id: SourceId, place: usize) -> Self {
        let numbers = had.numbers(&name);
        let after = had.complete(&numbers);
        Self {
            name,
            id,
            place: SourceId::new(place),
            numbers,
            after,
            through: None,
            absent: false,
            trimmed: 0,
            in_blocks: false,
            last: after.unwrap_or(0),
            passed: None,
            gathered: Vec::new(),
            lost: Vec::new(),
            part_after: after.unwrap_or(0),
            reached: Timestamp::MIN,
            failing: None,
            pauses: READ_AGAIN,
        }
    }

    /// It has answered.
    fn works(&mut self) {
        self.failing = None;
        self.pauses.reset();
    }

    fn is_read(&self) -> bool {
        matches!((self.after, self.through), (Some(after), Some(through)) if after >= through)
    }

    /// Up to where everything of it is behind the session, when it has been read as far as it can be.
    fn settled(&self) -> u64 {
        let after = self.after.unwrap_or(0);
        // Blocks have no end of their own.
        if after == u64::MAX { self.last } else { after }
    }
}

impl CatchUp {
    /// Up to a moment of the feed. With `others` also of sources that the feed has not got; `last_try`: those that nobody answers for are
    /// given up.
    pub(crate) fn to_feed(outside: &Outside, had: Had, joined: Joined, others: bool, last_try: bool) -> Self {
        let mut to = outside.feed.placed(joined.mark.clone());
        let absent = if others { had.absent(&to) } else { Vec::new() };
        let mut stretches = Vec::new();
        for (place, name) in to.names().iter().enumerate() {
            let id = SourceId::new(place);
            let mut stretch = Stretch::new(&had, name.clone(), id, place);
            stretch.through = Some(to.mark().consumed(id));
            if stretch.after.is_none() && had.origin == outside.feed.opened() {
                // It has joined the feed of which the client had everything else.
                stretch.after = Some(to.mark().floor.seq(id));
            }
            stretches.push(stretch);
        }
        let mut lost = Vec::new();
        for name in absent {
            let mut stretch = Stretch::new(&had, name.clone(), SourceId::new(to.names().len()), stretches.len());
            stretch.absent = true;
            let after = stretch.after.unwrap_or(0);
            if outside.source(&name).is_none() {
                if outside.nodes.blocks().is_none() {
                    if last_try {
                        lost.push(Lost { name, after, through: None, lines: 0, reason: "log_gone" });
                    }
                    continue;
                }
                stretch.in_blocks = true;
                stretch.through = Some(u64::MAX);
            }
            // Whatever is found; in the end it is said how far that was.
            stretch.id = to.add(name, u64::MAX);
            stretches.push(stretch);
        }
        Self { last_try, lost, ..Self::new(outside, had, to, Some(joined), stretches) }
    }

    /// A catch-up of another session goes on.
    pub(crate) fn resumed(
        outside: &Outside,
        had: Had,
        to: Placed,
        unfinished: Vec<(Name, Option<u64>)>,
        part: Option<&Part>,
    ) -> Self {
        let stretches = unfinished.into_iter().enumerate().filter_map(|(place, (name, after))| {
            let id = to.number(&name)?;
            let mut stretch = Stretch::new(&had, name, id, place);
            (stretch.after, stretch.last, stretch.part_after) = (after, after.unwrap_or(0), after.unwrap_or(0));
            let through = to.mark().consumed(id);
            stretch.absent = through == u64::MAX;
            stretch.through = Some(through).filter(|_| !stretch.absent);
            stretch.passed = part.filter(|part| part.name == stretch.name).map(|part| (part.through, part.last));
            Some(stretch)
        });
        let stretches = stretches.collect();
        Self::new(outside, had, to, None, stretches)
    }

    fn new(outside: &Outside, had: Had, to: Placed, joined: Option<Joined>, stretches: Vec<Stretch>) -> Self {
        Self {
            max_bytes: (CATCH_UP_BYTES / stretches.len().max(1)).max(MIN_PART_BYTES),
            tenant_labels: outside.tenant_labels(stretches.iter().map(|stretch| &stretch.name)),
            had,
            to,
            joined,
            stretches,
            asking: None,
            part: None,
            last_try: false,
            found: 0,
            incomplete: false,
            gave_up: false,
            lost: Vec::new(),
        }
    }

    /// What has been had when all is read, and the moment of the feed.
    pub(crate) fn end(self) -> (Had, Placed, Option<Joined>) {
        (self.had, self.to, self.joined)
    }

    /// Where it stands when of the part that was read last everything up to `sent` has been sent; none: all of it.
    pub(crate) fn at(&self, sent: Option<&MatchedLine>) -> At {
        let sending = self.part.as_ref().zip(sent);
        let unfinished = self.stretches.iter().filter_map(|stretch| {
            let sending = sending.filter(|(part, _)| part.name == stretch.name);
            let after = sending.map_or_else(|| stretch.after.map(|_| stretch.settled()), |(part, _)| Some(part.after));
            (sending.is_some() || stretch.absent || !stretch.is_read()).then(|| (stretch.name.clone(), after))
        });
        let part = sending.map(|(part, line)| {
            let last = Key::of(SourceId::new(0), line);
            Part { name: part.name.clone(), through: part.through, last }
        });
        At::CatchUp { marks: self.had.marks.clone(), to: self.to.clone(), unfinished: unfinished.collect(), part }
    }

    /// The next part of what is missing; `None` when all is read. Cancel-safe.
    pub(crate) async fn read(&mut self, outside: &Outside) -> Option<Found> {
        if !self.lost.is_empty() {
            (self.incomplete, self.gave_up) = (true, true);
            return Some(Found { lost: std::mem::take(&mut self.lost), ..Found::default() });
        }
        loop {
            if self.asking.is_none() && !self.ask(outside).await {
                return None;
            }
            // The same one again after a cancel: nothing has changed.
            let Some(Asked { stretch, began, answer }) = &mut self.asking else { continue };
            let (at, began, heard) = (*stretch, *began, answer.as_mut().await);
            self.asking = None;
            let found = match heard {
                Ok(Heard::Place(before)) => {
                    self.begins(at, before);
                    None
                }
                Ok(Heard::Head(head)) => {
                    self.ends(at, head);
                    None
                }
                Ok(Heard::Chunk(chunk)) => self.take(outside, at, began, &chunk),
                Err(reason) => self.fail(outside, at, began, &reason),
            };
            if let Some(found) = found {
                self.incomplete |= !found.lost.is_empty();
                self.gave_up |= found.lost.iter().any(|lost| lost.reason != TRIMMED);
                return Some(found);
            }
        }
    }

    /// Asks for more of the source that is furthest behind; false when there is none left.
    async fn ask(&mut self, outside: &Outside) -> bool {
        let (to, absent_at) = (&mut self.to, |stretch: &Stretch| stretch.absent.then_some(stretch.id));
        self.stretches.retain(|stretch| {
            if let (true, Some(id)) = (stretch.is_read(), absent_at(stretch)) {
                to.set(id, stretch.settled());
            }
            !stretch.is_read()
        });
        loop {
            let now = Instant::now();
            let ready = |stretch: &Stretch| stretch.failing.as_ref().is_none_or(|failing| failing.again <= now);
            let next = self.stretches.iter().enumerate().filter(|(_, stretch)| ready(stretch));
            if let Some((at, stretch)) = next.min_by_key(|(_, stretch)| stretch.reached) {
                let answer = stretch.ask(outside, self.had.origin, self.max_bytes);
                self.asking = Some(Asked { stretch: at, began: now, answer });
                return true;
            }
            let again = self.stretches.iter().filter_map(|stretch| stretch.failing.as_ref().map(|f| f.again)).min();
            let Some(again) = again else { return false };
            tokio::time::sleep_until(again).await;
        }
    }

    /// A log has said where it was at the origin.
    fn begins(&mut self, at: usize, before: u64) {
        let Some(stretch) = self.stretches.get_mut(at) else { return };
        stretch.works();
        stretch.after = Some(before);
        (stretch.last, stretch.part_after) = (before, before);
    }

    /// A log has said where it is.
    fn ends(&mut self, at: usize, head: u64) {
        let Some(stretch) = self.stretches.get_mut(at) else { return };
        stretch.works();
        stretch.through = Some(head);
    }

    /// A chunk of a source.
    fn take(&mut self, outside: &Outside, at: usize, began: Instant, chunk: &ReadChunk) -> Option<Found> {
        let stretch = self.stretches.get_mut(at)?;
        let (after, through) = (stretch.after?, stretch.through?);
        let in_blocks = stretch.in_blocks || stretch.trimmed > after;
        if let Some(gap) = &chunk.gap {
            if !in_blocks && outside.nodes.blocks().is_some() {
                stretch.trimmed = gap.through.min(through);
                return None;
            }
            let (name, lines) = (stretch.name.clone(), gap.lines);
            let (after, end) = (gap.after, Some(gap.through));
            stretch.lost.push(Lost { name, after, through: end, lines, reason: TRIMMED });
            if stretch.gathered.is_empty() {
                stretch.part_after = gap.through.min(through);
            }
        }
        if chunk.through <= after && stretch.in_blocks {
            // There is no more of it.
            stretch.after = Some(through);
        } else if chunk.through <= after {
            return self.fail(outside, at, began, "its answer does not go on");
        } else {
            stretch.after = Some(chunk.through.min(through));
        }
        stretch.works();
        stretch.reached = chunk.batch.watermark;
        let batch = &chunk.batch;
        for line in &batch.lines {
            stretch.last = stretch.last.max(line.seq);
            if !self.had.contains(&stretch.numbers, line) && self.to.mark().contains(stretch.id, line) {
                stretch.gathered.push((named(&mut self.tenant_labels, stretch.place, line.clone()), batch.line(line)));
            }
        }
        if stretch.in_blocks && !stretch.absent && stretch.is_read() && stretch.last < through {
            let (name, after) = (stretch.name.clone(), stretch.last);
            stretch.lost.push(Lost { name, after, through: Some(through), lines: 0, reason: "log_away" });
        }
        let whole = stretch.passed.is_none_or(|(end, _)| stretch.after >= Some(end) || stretch.is_read());
        if !whole {
            return None;
        }
        Some(self.found(at, Vec::new())).filter(|found| !found.lines.is_empty() || !found.lost.is_empty())
    }

    /// The part that has been gathered.
    fn found(&mut self, at: usize, more: Vec<Lost>) -> Found {
        let Some(stretch) = self.stretches.get_mut(at) else { return Found::default() };
        let key = |line: &MatchedLine| Key::of(SourceId::new(0), line);
        let (mut lines, mut lost) = (std::mem::take(&mut stretch.gathered), std::mem::take(&mut stretch.lost));
        lost.extend(more);
        lines.sort_by_key(|(line, _)| key(line));
        if let Some((end, last)) = stretch.passed {
            lines.retain(|(line, _)| line.seq > end || key(line) > last);
            stretch.passed = stretch.passed.filter(|_| stretch.after < Some(end));
        }
        let through = stretch.after.unwrap_or(0);
        let after = std::mem::replace(&mut stretch.part_after, through);
        self.part = (!lines.is_empty()).then(|| Sending { name: stretch.name.clone(), after, through });
        self.found += lines.len() as u64;
        Found { lines: lines.into(), lost }
    }

    /// A source could not be read.
    fn fail(&mut self, outside: &Outside, at: usize, began: Instant, reason: &str) -> Option<Found> {
        let stretch = self.stretches.get_mut(at)?;
        let now = Instant::now();
        let since = stretch.failing.as_ref().map_or(now, |failing| failing.since);
        // Of what the feed has not got nobody waits for more; it is tried again when there is word of it.
        // The client may have taken nothing for long meanwhile: what counts is whether it was tried after that time.
        if began < since + PATIENCE && !stretch.absent {
            stretch.failing = Some(Failing { since, again: now + stretch.pauses.pause() });
            return None;
        }
        stretch.works();
        let name = stretch.name.clone();
        let listed = outside.source(&name).is_some();
        let Some(after) = stretch.after else {
            let begun = self.to.mark().floor.seq(stretch.id);
            tracing::warn!(log = %name.log, reason, "a resumed tail goes on without a part of a log");
            stretch.after = Some(begun);
            (stretch.last, stretch.part_after) = (begun, begun);
            let lost = Lost { name, after: 0, through: Some(begun), lines: 0, reason: "log_away" };
            return Some(Found { lost: vec![lost], ..Found::default() });
        };
        if stretch.trimmed > after && !stretch.in_blocks {
            // The log does not have it, and blocks cannot be read.
            let through = std::mem::take(&mut stretch.trimmed);
            stretch.after = Some(through);
            let lost = Lost { name, after, through: Some(through), lines: 0, reason: TRIMMED };
            return Some(self.found(at, vec![lost]));
        }
        let owed = stretch.absent && !self.last_try;
        if !stretch.in_blocks && outside.nodes.blocks().is_some() && !(owed && listed) {
            stretch.in_blocks = true;
            stretch.through.get_or_insert(u64::MAX);
            return None;
        }
        let known = stretch.through.filter(|through| *through != u64::MAX);
        if stretch.absent {
            // How far it has come is what is had of it.
            self.to.set(stretch.id, stretch.settled());
        }
        stretch.through = Some(after);
        if owed {
            return Some(self.found(at, Vec::new())).filter(|found| !found.lines.is_empty());
        }
        tracing::warn!(log = %name.log, reason, after, "a tail goes on without a part of a log");
        let lost = Lost { name, after, through: known, lines: 0, reason: if listed { "log_away" } else { "log_gone" } };
        Some(self.found(at, vec![lost]))
    }
}

impl Stretch {
    fn ask(&self, outside: &Outside, origin: Timestamp, max_bytes: usize) -> Asking {
        let nobody = || -> Asking { Box::pin(std::future::ready(Err("nobody answers for it".to_owned()))) };
        let (Some(after), Some(through)) = (self.after, self.through) else {
            let Some(source) = outside.source(&self.name) else { return nobody() };
            if self.after.is_some() {
                let state = source.node.state(StateRequest::default());
                return Box::pin(async move { answer(state).await.map(|state| Heard::Head(state.head)) });
            }
            let ago = outside.clock.now().since(origin);
            return Box::pin(async move {
                place(source.node.as_ref(), ago).await.map(Heard::Place).map_err(|error| error.to_string())
            });
        };
        // A part of which some has been sent ends where it ended.
        let through = self.passed.map_or(through, |(end, _)| if end > after { through.min(end) } else { through });
        let (source, through) = if self.in_blocks {
            (outside.blocks(&self.name, through), through)
        } else if self.trimmed > after {
            let through = through.min(self.trimmed);
            (outside.blocks(&self.name, through), through)
        } else {
            (outside.source(&self.name), through)
        };
        let Some(source) = source else { return nobody() };
        let chunk = source.read(&outside.feed.query, after, through, max_bytes);
        Box::pin(async move { answer(chunk).await.map(Heard::Chunk) })
    }
}

async fn answer<T>(asked: tailwater_wire::node::Answer<T>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}
