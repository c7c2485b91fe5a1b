//! Resume tokens: what a client has had, exactly, in a text that it brings back to any querier.
//!
//! A token is base64url of `body, HMAC-SHA256(body)`. The body, numbers as varints (LEB128, signed ones zigzag):
//!
//! ```text
//! version, what it is of (16 bytes), origin, delay,
//! logs (count, 16 bytes each), sources (count, then log and tenant by their numbers),
//! kind, and by kind
//!   0  marks                                                  everything that they contain
//!   1  marks, mark, unfinished sources, part                  also what has been read of another mark
//!   2  mark, start, limit, waiting, last line                 history as of a mark, up to a line
//! mark: numbers of its sources, floor, base, round, complete
//! ```
//!
//! Invariants:
//! * Nothing in a token is believed before its signature has been checked; a token that is not accepted says no more than that it is none,
//!   or that it is of another query.
//! * It is bound to the tenants, the canonical query and the form of the frames by a hash of them, so tenants are only numbers in it.
//! * It has at most [`MAX_TOKEN_BYTES`]. What does not fit has no token, and [`Seal::lacks`] says why.

mod varint;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use tailwater_model::{LogId, TenantId, Timestamp};
use tailwater_wire::frame::TailEncoding;

use self::varint::{Reader, Writer};
use crate::feed::FeedKey;
use crate::had::{Name, Placed};
use crate::mark::{Extent, Key, Mark};
use crate::source::{Positions, SourceId};

/// Longest token, as text. It travels in a header or a target, and what usually stands before servers lets about as much through. A log takes
/// about 40 of it, and 65 in the middle of a catch-up.
pub(crate) const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Most marks of a token.
const MAX_MARKS: usize = 4;

/// Most sources of a token: each takes more than a byte.
const MAX_SOURCES: usize = MAX_TOKEN_BYTES;

const VERSION: u8 = 1;

/// Bytes of the hash of what a token is of.
const BOUND_BYTES: usize = 16;

/// Bytes of HMAC-SHA256.
const TAG_BYTES: usize = 32;

/// Why there is no token.
const TOO_LONG: &str = "where the tail is takes more than the 8 KiB of a token: it has many sources (tenants x logs)";
const NO_SECRET: &str = "the server has no secret to sign tokens with";

/// Where a tail stands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// When the tail began, by the clock of the querier where it did. See [`crate::had::Had`].
    pub(crate) origin: Timestamp,
    pub(crate) delay: Duration,
    pub(crate) at: At,
}

/// What a client has had.
#[derive(Clone, Debug)]
pub(crate) enum At {
    /// What the marks contain.
    Marks(Vec<Placed>),
    /// Also a part of what another mark contains.
    CatchUp {
        marks: Vec<Placed>,
        to: Placed,
        /// Sources of which `to` has not been read to the end, and after which batch reading goes on; none: from where the log was at the origin.
        unfinished: Vec<(Name, Option<u64>)>,
        part: Option<Part>,
    },
    /// Some of its history.
    History(HistoryAt),
}

/// A stretch of a source whose lines are being sent in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: Name,
    /// The stretch ends with this batch. It begins where the source goes on.
    pub(crate) through: u64,
    /// The last line that was sent, as of source 0.
    pub(crate) last: Key,
}

/// History that is being sent.
#[derive(Clone, Debug)]
pub(crate) struct HistoryAt {
    /// As of what.
    pub(crate) mark: Placed,
    pub(crate) start: Timestamp,
    pub(crate) limit: usize,
    /// Lines that the feed held back then.
    pub(crate) waiting: usize,
    /// The last line that was sent.
    pub(crate) sent: Option<Sent>,
}

/// The last line that was sent of a history: by time and stream, which are the same wherever it is read from, and the number of lines with
/// both that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) timestamp: Timestamp,
    pub(crate) stream_hash: u64,
    pub(crate) lines: u64,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is none, or none of ours, or damaged.
    Invalid,
    /// It is of another query, other tenants or another form of frames.
    OfAnother,
}

/// The secret of a querier.
pub(crate) struct Secret(Option<hmac::Key>);

impl Secret {
    /// This secret, or one that is good for as long as the process lives.
    pub(crate) fn new(secret: Option<&[u8]>) -> Self {
        Self(match secret {
            Some(secret) => Some(hmac::Key::new(hmac::HMAC_SHA256, secret)),
            // A system without random numbers: no tokens are given, none accepted.
            None => hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new()).ok(),
        })
    }

    /// What makes and reads the tokens of a feed.
    pub(crate) fn seal_of(&self, key: &FeedKey) -> Seal {
        Seal {
            key: self.0.clone(),
            bound: bound(key),
            delay: key.delay,
            tenants: key.tenants.iter().map(|tenant| tenant.id.clone()).collect(),
        }
    }
}

/// Makes and reads the tokens of one (tenants, query, encoding).
#[derive(Clone)]
pub(crate) struct Seal {
    key: Option<hmac::Key>,
    bound: [u8; BOUND_BYTES],
    delay: Duration,
    tenants: Arc<[TenantId]>,
}

/// A hash of what a token is of.
fn bound(key: &FeedKey) -> [u8; BOUND_BYTES] {
    let mut text = Writer::default();
    text.number(key.tenants.len() as u64);
    for tenant in &key.tenants {
        text.text(tenant.id.as_str());
    }
    text.number(key.names_tenants.into());
    text.text(&key.query);
    match &key.encoding {
        TailEncoding::Legacy => text.number(0),
        TailEncoding::V1 { categorize, flags } => {
            text.number(1 + u64::from(*categorize));
            text.number(flags.len() as u64);
            flags.iter().for_each(|flag| text.text(flag));
        }
    }
    let hash = digest::digest(&digest::SHA256, text.bytes());
    let mut bound = [0; BOUND_BYTES];
    bound.copy_from_slice(&hash.as_ref()[..BOUND_BYTES]);
    bound
}

impl Seal {
    /// Why there is no token of what has been had.
    pub(crate) fn lacks(&self) -> &'static str {
        if self.key.is_some() { TOO_LONG } else { NO_SECRET }
    }

    /// A token; none if it would be too long.
    pub(crate) fn token(&self, origin: Timestamp, at: &At) -> Option<String> {
        let marks: Vec<&Placed> = match at {
            At::Marks(marks) => marks.iter().collect(),
            At::CatchUp { marks, to, .. } => marks.iter().chain([to]).collect(),
            At::History(history) => vec![&history.mark],
        };
        let mut out = Body { out: self.head(origin), names: Vec::new() };
        if marks.len() > MAX_MARKS || !out.sources(&marks, &self.tenants) {
            return None;
        }
        match at {
            At::Marks(marks) => {
                out.out.number(0);
                out.marks(marks);
            }
            At::CatchUp { marks, to, unfinished, part } => {
                out.out.number(1);
                out.marks(marks);
                out.mark(to);
                out.out.number(unfinished.len() as u64);
                for (name, after) in unfinished {
                    out.name(name);
                    out.out.option(*after);
                }
                out.out.number(part.is_some().into());
                if let Some(Part { name, through, last }) = part {
                    out.name(name);
                    out.out.number(*through);
                    out.key(last);
                }
            }
            At::History(HistoryAt { mark, start, limit, waiting, sent }) => {
                out.out.number(2);
                out.mark(mark);
                out.out.signed(start.nanos());
                out.out.number(*limit as u64);
                out.out.number(*waiting as u64);
                out.out.number(sent.is_some().into());
                if let Some(Sent { timestamp, stream_hash, lines }) = sent {
                    out.out.signed(timestamp.nanos());
                    out.out.number(*stream_hash);
                    out.out.number(*lines);
                }
            }
        }
        self.sign(out.out)
    }

    /// The token of who has had everything that a mark contains.
    pub(crate) fn token_at(&self, origin: Timestamp, names: &Arc<[Name]>, mark: &Mark) -> Option<String> {
        self.token(origin, &At::Marks(vec![Placed::new(Arc::clone(names), mark.clone())]))
    }

    fn head(&self, origin: Timestamp) -> Writer {
        let mut out = Writer::default();
        out.byte(VERSION);
        out.raw(&self.bound);
        out.signed(origin.nanos());
        out.number(u64::try_from(self.delay.as_nanos()).unwrap_or(u64::MAX));
        out
    }

    fn sign(&self, body: Writer) -> Option<String> {
        let mut bytes = body.into_bytes();
        // Base64 makes 4 of 3.
        if (bytes.len() + TAG_BYTES).div_ceil(3) * 4 > MAX_TOKEN_BYTES {
            return None;
        }
        let tag = hmac::sign(self.key.as_ref()?, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        Some(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a token says.
    pub(crate) fn read(&self, text: &str) -> Result<Token, Refused> {
        self.verified(text).ok_or(Refused::Invalid).and_then(|body| {
            let mut body = Reader::new(&body);
            if body.byte() != Some(VERSION) {
                return Err(Refused::Invalid);
            }
            if body.raw(BOUND_BYTES) != Some(&self.bound[..]) {
                return Err(Refused::OfAnother);
            }
            self.decode(body).ok_or(Refused::Invalid)
        })
    }

    fn verified(&self, text: &str) -> Option<Vec<u8>> {
        if text.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let tag = bytes.split_off(bytes.len().checked_sub(TAG_BYTES)?);
        hmac::verify(self.key.as_ref()?, &bytes, &tag).ok()?;
        Some(bytes)
    }

    fn decode(&self, mut body: Reader<'_>) -> Option<Token> {
        let origin = Timestamp(body.signed()?);
        let delay = Duration::from_nanos(body.number()?);
        let mut logs = Vec::new();
        for _ in 0..body.count(MAX_SOURCES)? {
            let id: [u8; 16] = body.raw(16)?.try_into().ok()?;
            logs.push(LogId::from_u128(u128::from_be_bytes(id)));
        }
        let mut names = Vec::new();
        for _ in 0..body.count(MAX_SOURCES)? {
            let log = *logs.get(body.index()?)?;
            let tenant = self.tenants.get(body.index()?)?.clone();
            names.push(Name { log, tenant });
        }
        let mut body = Known { body, names };
        let at = match body.body.number()? {
            0 => At::Marks(body.marks()?),
            1 => At::CatchUp {
                marks: body.marks()?,
                to: body.mark()?,
                unfinished: (0..body.body.count(MAX_SOURCES)?)
                    .map(|_| Some((body.name()?, body.body.option()?)))
                    .collect::<Option<_>>()?,
                part: match body.body.number()? {
                    0 => None,
                    1 => Some(Part { name: body.name()?, through: body.body.number()?, last: body.key()? }),
                    _ => return None,
                },
            },
            2 => At::History(HistoryAt {
                mark: body.mark()?,
                start: Timestamp(body.body.signed()?),
                limit: body.body.index()?,
                waiting: body.body.index()?,
                sent: match body.body.number()? {
                    0 => None,
                    1 => Some(Sent {
                        timestamp: Timestamp(body.body.signed()?),
                        stream_hash: body.body.number()?,
                        lines: body.body.number()?,
                    }),
                    _ => return None,
                },
            }),
            _ => return None,
        };
        body.body.is_empty().then_some(Token { origin, delay, at })
    }
}

/// A body being written: sources have numbers by now.
struct Body {
    out: Writer,
    names: Vec<Name>,
}

impl Body {
    /// The sources of all marks; false if a tenant is not one of the query's, or if there are too many.
    fn sources(&mut self, marks: &[&Placed], tenants: &[TenantId]) -> bool {
        for mark in marks {
            // Nearly always the same ones in the same order.
            if self.names.starts_with(mark.names()) {
                continue;
            }
            for name in mark.names() {
                if self.names.len() >= MAX_SOURCES {
                    return false;
                }
                if !self.names.contains(name) {
                    self.names.push(name.clone());
                }
            }
        }
        let mut logs: Vec<LogId> = self.names.iter().map(|name| name.log).collect();
        logs.sort_unstable();
        logs.dedup();
        self.out.number(logs.len() as u64);
        logs.iter().for_each(|log| self.out.raw(&log.as_u128().to_be_bytes()));
        self.out.number(self.names.len() as u64);
        for name in &self.names {
            let tenant = tenants.iter().position(|tenant| *tenant == name.tenant);
            let (Ok(log), Some(tenant)) = (logs.binary_search(&name.log), tenant) else { return false };
            self.out.number(log as u64);
            self.out.number(tenant as u64);
        }
        true
    }

    /// The number of a source, which is one of those of the marks.
    fn name(&mut self, name: &Name) {
        let at = self.names.iter().position(|known| known == name).unwrap_or(self.names.len());
        self.out.number(at as u64);
    }

    fn marks(&mut self, marks: &[Placed]) {
        self.out.number(marks.len() as u64);
        marks.iter().for_each(|mark| self.mark(mark));
    }

    fn mark(&mut self, placed: &Placed) {
        let (names, mark) = (placed.names(), placed.mark());
        self.out.number(names.len() as u64);
        let in_order = self.names.starts_with(names);
        self.out.number(in_order.into());
        if !in_order {
            names.iter().for_each(|name| self.name(name));
        }
        for at in 0..names.len() {
            let id = SourceId::new(at);
            let floor = mark.floor.seq(id);
            self.out.number(floor);
            // Each is about the one before it.
            let mut last = floor;
            for positions in [&mark.complete, &mark.base.consumed, &mark.round.consumed] {
                let seq = positions.seq(id);
                self.out.signed(seq.wrapping_sub(last) as i64);
                last = seq;
            }
        }
        self.key(&mark.base.until);
        self.out.number((mark.base.until == mark.round.until).into());
        if mark.base.until != mark.round.until {
            self.key(&mark.round.until);
        }
    }

    fn key(&mut self, key: &Key) {
        let (release, timestamp, source, seq, index) = key.parts();
        let ends = *key == Key::end_of(release);
        self.out.number(ends.into());
        self.out.signed(release.nanos());
        if !ends {
            self.out.signed(timestamp.nanos());
            self.out.number(source.at() as u64);
            self.out.number(seq);
            self.out.number(index.into());
        }
    }
}

/// A body being read whose sources are known.
struct Known<'a> {
    body: Reader<'a>,
    names: Vec<Name>,
}

impl Known<'_> {
    fn name(&mut self) -> Option<Name> {
        let at = self.body.index()?;
        self.names.get(at).cloned()
    }

    fn marks(&mut self) -> Option<Vec<Placed>> {
        (0..self.body.count(MAX_MARKS)?).map(|_| self.mark()).collect()
    }

    fn mark(&mut self) -> Option<Placed> {
        let count = self.body.count(self.names.len())?;
        let names: Arc<[Name]> = match self.body.number()? {
            1 => self.names.get(..count)?.into(),
            0 => (0..count).map(|_| self.name()).collect::<Option<_>>()?,
            _ => return None,
        };
        let (mut floor, mut complete, mut base, mut round) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let mut last = self.body.number()?;
            floor.push(last);
            for positions in [&mut complete, &mut base, &mut round] {
                last = last.wrapping_add(self.body.signed()? as u64);
                positions.push(last);
            }
        }
        let positions = |seqs: Vec<u64>| -> Arc<Positions> { Arc::new(seqs.into_iter().collect()) };
        let until = self.key()?;
        let base = Extent { consumed: positions(base), until };
        let until = match self.body.number()? {
            1 => until,
            0 => self.key()?,
            _ => return None,
        };
        let round = Extent { consumed: positions(round), until };
        Some(Placed::new(names, Mark { floor: positions(floor), base, round, complete: positions(complete) }))
    }

    fn key(&mut self) -> Option<Key> {
        let ends = self.body.number()?;
        let release = Timestamp(self.body.signed()?);
        if ends == 1 {
            return Some(Key::end_of(release));
        }
        let timestamp = Timestamp(self.body.signed()?);
        let source = SourceId::new(usize::try_from(u32::try_from(self.body.number()?).ok()?).ok()?);
        let seq = self.body.number()?;
        let index = u32::try_from(self.body.number()?).ok()?;
        Some(Key::from_parts((release, timestamp, source, seq, index)))
    }
}

#[cfg(test)]
mod tests;
