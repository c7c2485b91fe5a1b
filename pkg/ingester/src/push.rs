//! The push path: check, resolve streams, append, wake.
//!
//! The order is Loki's (contract, Loki API §2.1): labels and entries are checked first, then the tenant's rate decides over all that is
//! left, then each stream's own checks: stream limit, duplicates, out-of-order window, the stream's rate. Unlike Loki, every
//! refusal is told, also when a later stream of the push is fine.
//!
//! With a write-ahead log the streams' own checks and the append are one turn of the tenant's: if the append fails, the push has changed
//! nothing. What the log keeps is the body as it came, if all of it was accepted as it was.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tailwater_model::{Labels, Limits, TenantId, Timestamp};
use tailwater_store::entries::{Run, content_key};
use tailwater_store::wal::MAX_PAYLOAD;
use tailwater_wire::push::{self, EntrySpan, Push};

use crate::batch::Batch;
use crate::error::{PushError, PushErrorKind};
use crate::ingester::Ingester;
use crate::log::{self, Appended, Maker as _};
use crate::receipt::{Change, Checks, Pushed, Receipt, not_stored};
use crate::stream::StreamState;
use crate::tails::Concerned;
use crate::tenant::{Found, Tenant};
use crate::validate::{
    EntryRules, Reason, Refusals, Verdict, byte_size, cutoff, entry_bytes, go_time, rewrite, rfc3339,
};

/// Most refused entries that the text about a stream lists.
const MAX_LISTED: usize = 10;

/// A body is written anew if less than this part of it was accepted.
const MIN_KEPT_SHARE: usize = 4;

/// Largest push, however large the log; leaves room for what spans must address when metadata is written anew.
const MAX_PUSH_BYTES: usize = 2 << 30;

/// Bodies up to this size are copied into an allocation of their own size, whatever buffer they came in.
const SMALL_BODY: usize = 4 << 10;

/// Larger bodies are too, if more than this part of them is room to spare.
const SPARE_SHARE: usize = 8;

/// What was stored of a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Lines stored.
    pub lines: u64,
    /// Bytes of their text and their structured metadata.
    pub bytes: u64,
    /// Their batch; none if nothing was stored.
    pub seq: Option<u64>,
}

/// The entries of one stream of the push that passed the checks of entries.
struct Candidate<'a> {
    /// The text of its labels, as sent.
    text: &'a [u8],
    /// The stream's number in the push.
    number: usize,
    found: Found,
    /// Its first entry in [`Pass::entries`].
    first: usize,
    len: usize,
}

/// One push being checked.
struct Pass<'a> {
    ingester: &'a Ingester,
    tenant: &'a Arc<Tenant>,
    limits: &'a Arc<Limits>,
    now: Timestamp,
    push: &'a Push,
    refusals: Refusals,
    /// What passed so far.
    entries: Vec<EntrySpan>,
    /// Whether metadata must be written anew.
    rewrite: bool,
    /// Whether an entry that passed is not as it was sent.
    altered: bool,
    /// What was taken of the tenant's rate.
    taken: u64,
    duplicates: u64,
    /// What is to be taken back if the push cannot be stored; noted only if that can happen.
    changes: Option<Vec<Change>>,
}

/// What is left of a push after all checks.
struct Checked {
    runs: Vec<Run>,
    /// The numbers of their streams in the push.
    numbers: Vec<usize>,
    entries: Vec<EntrySpan>,
    rewrite: bool,
    altered: bool,
    bytes: u64,
    taken: u64,
    duplicates: u64,
    changes: Vec<Change>,
    concerned: Option<Concerned>,
    refusals: Refusals,
}

pub(crate) fn push(ingester: &Ingester, id: &TenantId, push: Push, packed: Option<&[u8]>) -> Receipt {
    accept(ingester, id, push, packed).unwrap_or_else(|error| Receipt::known(Err(error)))
}

fn accept(ingester: &Ingester, id: &TenantId, push: Push, packed: Option<&[u8]>) -> Result<Receipt, PushError> {
    if push.streams.is_empty() {
        let text = "error at least one valid stream is required for ingestion";
        return Err(PushError::new(PushErrorKind::NoStreams, text));
    }
    let (size, max) = (size_in_log(&push), ingester.log.memory().min(MAX_PUSH_BYTES));
    if size > max {
        let text = format!("push too large: it takes {size} bytes of the {max} bytes that the arrival log has");
        return Err(PushError::new(PushErrorKind::TooLarge, text));
    }
    let Some(tenant) = ingester.tenants.admit(id) else {
        return Err(PushError::new(PushErrorKind::RateLimited, format!("too many active tenants, user: '{id}'")));
    };
    let limits = ingester.limits.limits(id);
    let durable = ingester.log.is_durable();
    let mut pass = Pass {
        ingester,
        tenant: &tenant,
        limits: &limits,
        now: ingester.clock.now(),
        push: &push,
        refusals: Refusals::default(),
        entries: Vec::with_capacity(push.entries.len()),
        rewrite: false,
        altered: false,
        taken: 0,
        duplicates: 0,
        changes: durable.then(Vec::new),
    };
    let candidates = pass.check_entries();
    let candidates = match pass.check_rate() {
        Ok(()) => candidates,
        Err(refusals) => {
            pass.refusals.count(&tenant.metrics);
            refusals.count(&tenant.metrics);
            return Ok(Receipt::known(refusals.into_error().map_or_else(|| Ok(Accepted::default()), Err)));
        }
    };
    // Nobody waits for the compression of a body that came otherwise, unless something is refused only then.
    let body = match packed {
        _ if !durable || !pass.is_whole() => None,
        Some(packed) => Some(Cow::Borrowed(packed)),
        None => Some(Cow::Owned(pack(&push).inspect_err(|_| tenant.give_back(pass.taken))?)),
    };
    let turn = durable.then(|| tenant.turn.lock());
    let checked = pass.check_streams(candidates);
    let is_whole = !checked.rewrite && !checked.altered && checked.entries.len() == push.entries.len();
    let Checked { runs, numbers, entries, rewrite, bytes, taken, duplicates, changes, concerned, refusals, .. } =
        checked;
    if runs.is_empty() {
        // What it repeats may be on its way still, to the disk and to copies.
        let (settled, last) = if duplicates > 0 { ingester.log.settled() } else { (None, 0) };
        drop(turn);
        refusals.count(&tenant.metrics);
        let answer = refusals.into_error().map_or_else(|| Ok(Accepted::default()), Err);
        return Ok(Receipt::pending(settled, ingester.quorum.wait(last), answer));
    }
    let (mut head, mut texts) = (Vec::new(), Vec::new());
    if durable {
        log::encode_head(&mut head, runs.iter().map(|run| &run.stream.labels));
        if !is_whole {
            texts = numbers.iter().filter_map(|n| push.streams.get(*n)).map(|s| push.labels(s).to_vec()).collect();
        }
    }
    let lines = entries.len() as u64;
    let batch = Batch::new(Arc::clone(&tenant.account), runs, keep(push, entries, rewrite));
    let mut pushed = Pushed::new(Arc::clone(&tenant), concerned, (lines, bytes), taken, changes);
    let body = match body {
        _ if !durable => Cow::Borrowed(&[][..]),
        Some(body) if is_whole => body,
        _ => {
            let body = batch.extract(&texts).and_then(|push| pack(&push));
            Cow::Owned(body.inspect_err(|_| pushed.take_back())?)
        }
    };
    if head.len() + body.len() > MAX_PAYLOAD {
        pushed.take_back();
        return Err(PushError::new(PushErrorKind::TooLarge, "push too large: the write-ahead log does not take it"));
    }
    let appended = ingester.log.append(batch, &[&head, &body], duplicates > 0, pushed);
    let appended = appended.map_err(|(error, mut pushed)| {
        pushed.take_back();
        if let (tailwater_store::Error::Full { .. }, Some(pager)) = (&error, ingester.pager.get()) {
            pager.press();
        }
        not_stored(&error)
    });
    drop(turn);
    let appended = appended?;
    refusals.count(&tenant.metrics);
    let answer = |seq| {
        let accepted = Accepted { lines, bytes, seq: Some(seq) };
        refusals.into_error().map_or(Ok(accepted), Err)
    };
    Ok(match appended {
        Appended::Published(seq, mut pushed) => {
            pushed.published();
            Receipt::pending(None, ingester.quorum.wait(seq), answer(seq))
        }
        Appended::Pending(seq, settled) => Receipt::pending(Some(settled), ingester.quorum.wait(seq), answer(seq)),
    })
}

/// The push as the write-ahead log keeps it.
fn pack(push: &Push) -> Result<Vec<u8>, PushError> {
    push::pack(push).map_err(|error| PushError::new(PushErrorKind::TooLarge, error.to_string()))
}

fn size_in_log(push: &Push) -> usize {
    push.body.len() + size_of_val(push.entries.as_slice()) + size_of_val(push.metadata.as_slice())
}

/// The push with just these entries.
fn keep(mut push: Push, entries: Vec<EntrySpan>, must_rewrite: bool) -> Push {
    let kept: usize = entries.iter().map(|e| e.line_len as usize).sum();
    let mostly_refused = entries.len() < push.entries.len() && kept < push.body.len() / MIN_KEPT_SHARE;
    if must_rewrite || mostly_refused {
        return rewrite(&push, &entries);
    }
    push.entries = entries;
    push.body = fit(push.body);
    push
}

/// The body without room to spare, so that it costs what it is counted for.
fn fit(body: Bytes) -> Bytes {
    if body.len() <= SMALL_BODY {
        return Bytes::copy_from_slice(&body);
    }
    match body.try_into_mut() {
        Ok(own) if own.capacity() - own.len() > own.len() / SPARE_SHARE => Bytes::copy_from_slice(&own),
        Ok(own) => own.freeze(),
        Err(shared) => shared,
    }
}

impl<'a> Pass<'a> {
    /// The tenant's rate, over all that passed so far: all or nothing; other refusals are not told then.
    fn check_rate(&mut self) -> Result<(), Refusals> {
        let (lines, bytes) = self.sum(0..self.entries.len());
        let metrics = &self.tenant.metrics;
        metrics.received_lines.inc_by(lines);
        metrics.received_bytes.inc_by(bytes);
        if lines > 0 && !self.tenant.take(self.now, self.limits, bytes) {
            return Err(self.rate_limited(lines, bytes));
        }
        self.taken = bytes;
        Ok(())
    }

    /// Whether everything so far is as it was sent.
    fn is_whole(&self) -> bool {
        !self.rewrite && !self.altered && self.entries.len() == self.push.entries.len()
    }

    fn check_streams(mut self, candidates: Vec<Candidate<'a>>) -> Checked {
        let mut concerned = self.tenant.tails.concerned();
        let mut runs = Vec::with_capacity(candidates.len());
        let mut numbers = Vec::with_capacity(candidates.len());
        let mut kept = 0;
        for candidate in candidates {
            let number = candidate.number;
            if let Some(run) = self.check_stream(candidate, &mut kept, concerned.as_mut()) {
                runs.push(run);
                numbers.push(number);
            }
        }
        let bytes = if kept == self.entries.len() { self.taken } else { self.sum(0..kept).1 };
        self.entries.truncate(kept);
        Checked {
            runs,
            numbers,
            entries: self.entries,
            rewrite: self.rewrite,
            altered: self.altered,
            bytes,
            taken: self.taken,
            duplicates: self.duplicates,
            changes: self.changes.unwrap_or_default(),
            concerned,
            refusals: self.refusals,
        }
    }

    /// Lines and bytes of a stretch of the entries that passed.
    fn sum(&self, range: Range<usize>) -> (u64, u64) {
        let entries = &self.entries[range];
        (entries.len() as u64, entries.iter().map(|e| entry_bytes(self.push, e)).sum())
    }

    fn rate_limited(&self, lines: u64, bytes: u64) -> Refusals {
        let mut refusals = Refusals::default();
        refusals.add(Reason::RateLimited, 0, 0, (lines, bytes), || {
            #[expect(clippy::cast_sign_loss, reason = "a rate is not negative, and the cast saturates")]
            let limit = (self.limits.ingestion_rate_mb * f64::from(1 << 20)) as u64;
            format!(
                "ingestion rate limit exceeded for user {} (limit: {limit} bytes/sec) while attempting to ingest '{lines}' lines \
                 totaling '{bytes}' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased",
                self.tenant.id
            )
        });
        refusals
    }

    /// Labels and entries, stream by stream.
    fn check_entries(&mut self) -> Vec<Candidate<'a>> {
        let push = self.push;
        let rules = EntryRules::new(self.limits, self.now);
        let spans = || push.streams.iter().enumerate().filter(|(_, span)| span.entries_len > 0);
        let texts = spans().map(|(_, span)| push.labels(span));
        let found = self.tenant.find(texts, self.limits, self.ingester.seed, self.now);
        let mut candidates = Vec::with_capacity(found.len());
        let mut truncated = 0;
        for ((number, span), found) in spans().zip(found) {
            let labels = match &found {
                Found::Known(stream) => &stream.labels,
                Found::New(labels) => labels,
                Found::Refused(reason, text) => {
                    let entries = push.entries(span);
                    let lost = (entries.len() as u64, entries.iter().map(|e| entry_bytes(push, e)).sum());
                    self.refusals.add(*reason, number, 0, lost, || text.clone());
                    continue;
                }
            };
            let first = self.entries.len();
            let mut stream_text = None;
            let mut before = None;
            for entry in push.entries(span) {
                let mut entry = *entry;
                truncated += u64::from(rules.truncate(push, &mut entry));
                match rules.judge(push, &entry) {
                    Verdict::Keep => {}
                    Verdict::Rewrite => self.rewrite = true,
                    Verdict::Refuse(reason, detail) => {
                        self.refusals.add(reason, number, detail, (1, entry_bytes(push, &entry)), || {
                            let stream = stream_text.get_or_insert_with(|| labels.to_string());
                            rules.text(reason, detail, stream, push)
                        });
                        continue;
                    }
                }
                if self.limits.increment_duplicate_timestamp {
                    let (sent, kept) = increment(&mut entry, before);
                    self.altered |= sent != kept;
                    before = Some((sent, kept));
                }
                self.entries.push(entry);
            }
            let len = self.entries.len() - first;
            if len > 0 {
                candidates.push(Candidate { text: push.labels(span), number, found, first, len });
            }
        }
        self.tenant.metrics.truncated_lines.inc_by(truncated);
        self.altered |= truncated > 0;
        candidates
    }

    /// What depends on what the stream has had so far. Entries that pass move down to `kept`.
    fn check_stream(
        &mut self,
        candidate: Candidate<'a>,
        kept: &mut usize,
        concerned: Option<&mut Concerned>,
    ) -> Option<Run> {
        let Candidate { text, number, found, first, len } = candidate;
        let stream = match found {
            Found::Known(stream) => stream,
            Found::New(labels) => match self.tenant.create(text, &labels, self.limits, self.ingester.seed, self.now) {
                Some(stream) => stream,
                None => {
                    self.too_many_streams(number, &labels, first..first + len);
                    return None;
                }
            },
            Found::Refused(..) => return None,
        };
        let mut state = stream.state.lock();
        let begin = *kept;
        let mut passed = self.check_order(&state, first..first + len, kept);
        if !passed.behind.is_empty() {
            let text = self.behind_text(&stream.labels, &passed.behind, passed.behind_lines, len);
            let lost = (passed.behind_lines, passed.behind_bytes);
            self.refusals.add(Reason::TooFarBehind, number, 0, lost, || text);
        }
        if passed.duplicates > 0 {
            self.tenant.metrics.duplicate_lines.inc_by(passed.duplicates);
            self.duplicates += passed.duplicates;
        }
        let last = passed.last.take()?;
        let (lines, bytes) = self.sum(begin..*kept);
        #[expect(clippy::cast_precision_loss, reason = "a push has less than 2^53 bytes, and rates need not be exact")]
        let (rate, burst, cost) =
            (self.limits.per_stream_rate_limit as f64, self.limits.per_stream_rate_limit_burst as f64, bytes as f64);
        if !state.bucket.take(self.now, rate, burst, cost) {
            let text = self.stream_rate_text(&stream.labels, begin..*kept, len);
            self.refusals.add(Reason::StreamRateLimit, number, 0, (lines, bytes), || text);
            *kept = begin;
            return None;
        }
        let before = Checks::of(&state);
        state.last = Some((last.timestamp, content_key(self.push, &last, self.ingester.seed)));
        state.highest = Some(state.highest.map_or(passed.max, |highest| highest.max(passed.max)));
        let after = Checks::of(&state);
        if let Some(concerned) = concerned {
            concerned.add(&mut state.tails, &stream.labels);
        }
        drop(state);
        let shared = Arc::clone(&stream.shared);
        if let Some(changes) = &mut self.changes {
            changes.push(Change { stream, before, after, cost });
        }
        let span = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
        let text = self.entries[begin..*kept].iter().map(|e| u64::from(e.line_len)).sum();
        let (first, len) = (span(begin), span(*kept - begin));
        Some(Run { stream: shared, first, len, min: passed.min, max: passed.max, bytes: text })
    }

    /// Duplicates and the out-of-order window, entry by entry.
    fn check_order(&mut self, state: &StreamState, range: Range<usize>, kept: &mut usize) -> Passed {
        let mut passed = Passed { min: i64::MAX, max: i64::MIN, ..Passed::default() };
        let mut highest = state.highest;
        for i in range {
            let entry = self.entries[i];
            let is_duplicate = match &passed.last {
                Some(last) => last.timestamp == entry.timestamp && same_content(self.push, last, &entry),
                None => state.last.is_some_and(|(timestamp, key)| {
                    timestamp == entry.timestamp && key == content_key(self.push, &entry, self.ingester.seed)
                }),
            };
            if is_duplicate {
                passed.duplicates += 1;
                continue;
            }
            let cutoff = cutoff(highest, self.limits.out_of_order_window);
            if let Some(cutoff) = cutoff.filter(|cutoff| entry.timestamp < cutoff.nanos()) {
                passed.behind_lines += 1;
                passed.behind_bytes += entry_bytes(self.push, &entry);
                if passed.behind.len() < MAX_LISTED {
                    passed.behind.push((Timestamp(entry.timestamp), cutoff));
                }
                continue;
            }
            highest = Some(highest.map_or(entry.timestamp, |highest| highest.max(entry.timestamp)));
            passed.min = passed.min.min(entry.timestamp);
            passed.max = passed.max.max(entry.timestamp);
            passed.last = Some(entry);
            self.entries[*kept] = entry;
            *kept += 1;
        }
        passed
    }

    fn too_many_streams(&mut self, number: usize, labels: &Labels, entries: Range<usize>) {
        let lost = self.sum(entries);
        self.refusals.add(Reason::StreamLimit, number, 0, lost, || {
            format!(
                "maximum active stream limit exceeded when trying to create stream {labels}, reduce the number of active streams \
                 (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, \
                 user: '{}'",
                self.tenant.id
            )
        });
    }

    fn behind_text(&self, stream: &Labels, behind: &[(Timestamp, Timestamp)], ignored: u64, total: usize) -> String {
        let listed = behind.iter().map(|(at, cutoff)| {
            let reason = format!(
                "entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {}",
                rfc3339(*at),
                rfc3339(*cutoff)
            );
            (*at, reason)
        });
        ignored_text(&self.tenant.id, stream, listed, ignored, total)
    }

    fn stream_rate_text(&self, stream: &Labels, entries: Range<usize>, total: usize) -> String {
        let ignored = entries.len() as u64;
        let listed = self.entries[entries].iter().take(MAX_LISTED).map(|entry| {
            let reason = format!(
                "Per stream rate limit exceeded (limit: {}/sec) while attempting to ingest for stream '{stream}' totaling {}, consider \
                 splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased",
                byte_size(self.limits.per_stream_rate_limit),
                byte_size(entry_bytes(self.push, entry)),
            );
            (Timestamp(entry.timestamp), reason)
        });
        ignored_text(&self.tenant.id, stream, listed, ignored, total)
    }
}

/// What [`Pass::check_order`] has found.
#[derive(Default)]
struct Passed {
    /// The last entry that passed; none if none did.
    last: Option<EntrySpan>,
    min: i64,
    max: i64,
    duplicates: u64,
    /// Entries before the window, and where it began then; the first few.
    behind: Vec<(Timestamp, Timestamp)>,
    behind_lines: u64,
    behind_bytes: u64,
}

/// Loki's envelope around what an ingester refuses.
fn ignored_text(
    tenant: &TenantId,
    stream: &Labels,
    listed: impl Iterator<Item = (Timestamp, String)>,
    ignored: u64,
    total: usize,
) -> String {
    let mut text = String::new();
    for (at, reason) in listed {
        text.push_str(&format!("entry with timestamp {} ignored, reason: '{reason}',\n", go_time(at)));
    }
    text.push_str(&format!("user '{tenant}', total ignored: {ignored} out of {total} for stream: {stream}"));
    text
}

/// Moves an entry on if its timestamp is that of the entry before it, or one that the entry before it was moved past. `before`: the
/// timestamps of that one, as sent and as kept.
fn increment(entry: &mut EntrySpan, before: Option<(i64, i64)>) -> (i64, i64) {
    let sent = entry.timestamp;
    if let Some((sent_before, kept_before)) = before
        && (sent == sent_before || (sent_before < sent && sent <= kept_before))
    {
        entry.timestamp = kept_before.saturating_add(1);
    }
    (sent, entry.timestamp)
}

fn same_content(push: &Push, a: &EntrySpan, b: &EntrySpan) -> bool {
    push.line(a) == push.line(b) && push.metadata(a).eq(push.metadata(b))
}
