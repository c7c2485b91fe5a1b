//! A log of another node as a [`Node`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::HeaderValue;
use prost::Message as _;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{Labels, LogId};
use tailwater_wire::node::{
    Answer, Follow, FollowEvent, FollowRequest, LabelsRequest, LogState, Node, NodeError, Partial, PatternsRequest,
    ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected, SeriesRequest, StateRequest, Stats,
    StreamVolume, VolumeRequest,
};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Response, Status, Streaming};

use super::answers::{self, Collect};
use super::lines::LineReader;
use super::peer::{Line, Peer};
use super::pieces::{Joined, Unjoined};
use super::proto::node_client::NodeClient;
use super::proto::record::What;
use super::{Garbled, MAX_ANSWER_BYTES, MAX_EVENT_BYTES, MAX_FOLLOWS, RpcMetrics, errors, proto, requests};

/// What an answer with samples may take beyond twice what was asked for, in bytes.
const SAMPLES_SLACK: usize = 16 << 20;

/// A log of another node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Far {
    peer: Arc<Peer>,
    log: LogId,
    who: Arc<str>,
    /// The log, if the node is to answer only as its owner.
    owner: Option<HeaderValue>,
}

/// Most bytes of an answer, in pieces and in memory, and what is said of more.
#[derive(Clone, Copy)]
enum Limit {
    Whole,
    Samples(usize),
}

impl Limit {
    fn bytes(self) -> usize {
        match self {
            Self::Whole => MAX_ANSWER_BYTES,
            Self::Samples(max) => max.saturating_mul(2).saturating_add(SAMPLES_SLACK).min(MAX_ANSWER_BYTES),
        }
    }
}

impl Far {
    pub(super) fn new(peer: Arc<Peer>, log: LogId, name: &str, owner: bool) -> Self {
        let who = format!("ingester {name} at {}", peer.address()).into();
        let owner = HeaderValue::from_str(&log.to_string()).ok().filter(|_| owner);
        Self { peer, log, who, owner }
    }

    async fn client(&self) -> Result<NodeClient<Line>, NodeError> {
        self.peer.client(self.owner.clone()).await.map_err(|reason| self.peer.failed(&self.who, self.log, &reason))
    }

    fn error(&self, status: &Status) -> NodeError {
        self.peer.error(status, self.log, &self.who)
    }

    fn garbled(&self, garbled: Garbled) -> NodeError {
        self.peer.failed(&self.who, self.log, &format!("of its answer {garbled}"))
    }

    /// Makes the answer of its pieces.
    async fn collect<C: Collect>(
        &self,
        called: Result<Response<Streaming<proto::Piece>>, Status>,
        limit: Limit,
    ) -> Result<C::Answer, NodeError> {
        let mut pieces = called.map_err(|status| self.error(&status))?.into_inner();
        let (mut joined, mut collected) = (Joined::new(limit.bytes()), C::default());
        while let Some(piece) = pieces.message().await.map_err(|status| self.error(&status))? {
            joined.push(&piece.data).map_err(|unjoined| self.unjoined(&unjoined, limit))?;
            while let Some(record) = joined.next().map_err(|unjoined| self.unjoined(&unjoined, limit))? {
                if let What::End(end) = record {
                    if !joined.is_empty() {
                        return Err(self.garbled(Garbled("it goes on after its end")));
                    }
                    return collected.finish(end).map_err(|garbled| self.garbled(garbled));
                }
                collected.take(record).map_err(|garbled| self.garbled(garbled))?;
                if collected.memory() > limit.bytes() {
                    return Err(self.unjoined(&Unjoined::TooMuch, limit));
                }
            }
        }
        Err(self.garbled(Garbled("it has no end")))
    }

    fn unjoined(&self, unjoined: &Unjoined, limit: Limit) -> NodeError {
        match (unjoined, limit) {
            (Unjoined::Garbled(garbled), _) => self.garbled(*garbled),
            (Unjoined::TooMuch, Limit::Samples(limit)) => {
                self.peer.metrics.errors.inc();
                NodeError::TooLarge { limit }
            }
            (Unjoined::TooMuch, Limit::Whole) => {
                let reason = format!("its answer has more than {MAX_ANSWER_BYTES} bytes");
                self.peer.failed(&self.who, self.log, &reason)
            }
        }
    }
}

/// A call whose answer comes in pieces.
macro_rules! pieces {
    ($self:ident, $method:ident, $put:ident, $request:ident, $collect:ty, $limit:expr) => {{
        let far = $self.clone();
        let limit = $limit;
        Box::pin(async move {
            let mut client = far.client().await?;
            let called = client.$method(requests::$put(far.log, &$request)).await;
            far.collect::<$collect>(called, limit).await
        })
    }};
}

impl Node for Far {
    fn log_id(&self) -> LogId {
        self.log
    }

    fn state(&self, request: StateRequest) -> Answer<LogState> {
        let far = self.clone();
        Box::pin(async move {
            let mut client = far.client().await?;
            let answer = client.state(requests::put_state(far.log, request)).await;
            Ok(requests::log_state(answer.map_err(|status| far.error(&status))?.into_inner()))
        })
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        let following = Following::Begin { far: self.clone(), request };
        Box::pin(stream::unfold(following, Following::next))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        pieces!(self, read, put_read, request, answers::Chunk, Limit::Whole)
    }

    fn select(&self, request: SelectRequest) -> Answer<Selected> {
        pieces!(self, select, put_select, request, answers::Lines, Limit::Whole)
    }

    fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
        let limit = Limit::Samples(request.max_bytes);
        pieces!(self, samples, put_samples, request, answers::Columns, limit)
    }

    fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        pieces!(self, labels, put_labels, request, answers::Names, Limit::Whole)
    }

    fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        pieces!(self, series, put_series, request, answers::Streams, Limit::Whole)
    }

    fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
        pieces!(self, stats, put_series, request, answers::StatsOf, Limit::Whole)
    }

    fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        pieces!(self, volume, put_volume, request, answers::Volumes, Limit::Whole)
    }

    fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        pieces!(self, patterns, put_patterns, request, answers::Patterns, Limit::Whole)
    }
}

/// A follow of a log of another node.
enum Following {
    Begin { far: Far, request: FollowRequest },
    Open(Box<Open>),
    Ended,
}

struct Open {
    far: Far,
    events: Streaming<proto::FollowEvent>,
    reader: LineReader,
    /// The parts of an event that have come.
    parts: BytesMut,
    _counted: CountedFollow,
}

/// One of the follows that a peer may have.
struct CountedFollow {
    metrics: RpcMetrics,
    _permit: OwnedSemaphorePermit,
}

impl Drop for CountedFollow {
    fn drop(&mut self) {
        self.metrics.follows.dec();
    }
}

impl Following {
    async fn next(self) -> Option<(FollowEvent, Self)> {
        let opened = match self {
            Self::Begin { far, request } => Self::open(far, request).await,
            Self::Open(open) => Ok(open),
            Self::Ended => return None,
        };
        let event = match opened {
            Ok(mut open) => match open.event().await {
                Ok(event) => return Some((event, Self::Open(open))),
                Err(reason) => reason,
            },
            Err(reason) => reason,
        };
        Some((FollowEvent::Away { reason: event.into() }, Self::Ended))
    }

    async fn open(far: Far, request: FollowRequest) -> Result<Box<Open>, String> {
        let failed = |reason: &str| {
            far.peer.metrics.errors.inc();
            format!("{}: {reason}", far.who)
        };
        let permit = Arc::clone(&far.peer.follows).try_acquire_owned();
        let permit = permit.map_err(|_| failed(&format!("more than {MAX_FOLLOWS} follows of one node")))?;
        far.peer.metrics.follows.inc();
        let counted = CountedFollow { metrics: far.peer.metrics.clone(), _permit: permit };
        let mut client = far.peer.client(far.owner.clone()).await.map_err(|reason| failed(&reason))?;
        let called = client.follow(requests::put_follow(far.log, &request)).await;
        let events = called.map_err(|status| failed(&errors::reason(&status)))?.into_inner();
        Ok(Box::new(Open { far, events, reader: LineReader::default(), parts: BytesMut::new(), _counted: counted }))
    }
}

impl Open {
    /// The next event, or why there is none.
    async fn event(&mut self) -> Result<FollowEvent, String> {
        use proto::follow_event::What;
        loop {
            let message = match self.events.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(self.failed("it ended the follow")),
                Err(status) => return Err(self.failed(&errors::reason(&status))),
            };
            let message = match message.what {
                Some(What::Part(part)) => match self.part(&part.data, part.last) {
                    Ok(Some(message)) => message,
                    Ok(None) => continue,
                    Err(garbled) => return Err(self.failed(&garbled.to_string())),
                },
                what => proto::FollowEvent { what },
            };
            return answers::event(message, &mut self.reader).map_err(|garbled| self.failed(&garbled.to_string()));
        }
    }

    /// Takes a part of an event in; the event, if it is whole.
    fn part(&mut self, data: &Bytes, last: bool) -> Result<Option<proto::FollowEvent>, Garbled> {
        if self.parts.len() + data.len() > MAX_EVENT_BYTES {
            return Err(Garbled("an event is too large"));
        }
        self.parts.extend_from_slice(data);
        if !last {
            return Ok(None);
        }
        let event = std::mem::take(&mut self.parts).freeze();
        proto::FollowEvent::decode(event).map(Some).map_err(|_| Garbled("an unknown event"))
    }

    fn failed(&self, reason: &str) -> String {
        self.far.peer.metrics.errors.inc();
        format!("{}: {reason}", self.far.who)
    }
}
