//! What a node answers when it is called.
//!
//! Invariants: a call that is given up by who called is dropped with everything that it waits for; follows and copies end when the node
//! goes down, other calls are answered.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use tailwater_wire::host::{self, Copying};
use tailwater_wire::node::{self, Follow};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::copy::{self, UpReader, Upward};
use super::lines::LineWriter;
use super::pieces::{Pieces, Records};
use super::proto::copy_down;
use super::queries::Queries;
use super::requests::{self, log_bytes, log_of};
use super::{KEEPALIVE, PIECE_BYTES, answers, errors, proto};

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The largest event of a follow that is sent in one message, in bytes.
const EVENT_BYTES: usize = 2 * PIECE_BYTES;

/// Records that are written to a copy at a time, in bytes: what came while the ones before were being written.
const APPEND_BYTES: usize = 4 << 20;

/// Both services of a node.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) host: Arc<dyn host::Host>,
    pub(super) queries: Arc<Queries>,
    /// Turns true when the node goes down.
    pub(super) closing: watch::Receiver<bool>,
}

impl Services {
    fn node(&self, log: &Bytes) -> Result<Arc<dyn node::Node>, Status> {
        let log = log_of(log).ok_or_else(|| Status::invalid_argument("no log"))?;
        self.host.log(log).ok_or_else(|| Status::not_found(format!("it does not have the log {log}")))
    }
}

fn pieces(records: Records) -> Result<Response<Answers<proto::Piece>>, Status> {
    Ok(Response::new(Box::pin(stream::iter(Pieces::new(records).map(Ok)))))
}

/// A call whose answer is sent in pieces.
macro_rules! pieces {
    ($self:ident, $log:expr, $request:ident, $method:ident, $take:ident, $put:expr) => {{
        let node = $self.node($log)?;
        let request = requests::$take($request, &$self.queries).await?;
        pieces($put(node.$method(request).await.map_err(|error| errors::status(&error))?))
    }};
}

fn log_in(series: Option<&proto::SeriesRequest>) -> Bytes {
    series.map(|series| series.log.clone()).unwrap_or_default()
}

#[tonic::async_trait]
impl proto::node_server::Node for Services {
    type FollowStream = Answers<proto::FollowEvent>;
    type ReadStream = Answers<proto::Piece>;
    type SelectStream = Answers<proto::Piece>;
    type SamplesStream = Answers<proto::Piece>;
    type LabelsStream = Answers<proto::Piece>;
    type SeriesStream = Answers<proto::Piece>;
    type StatsStream = Answers<proto::Piece>;
    type VolumeStream = Answers<proto::Piece>;
    type PatternsStream = Answers<proto::Piece>;

    async fn state(&self, request: Request<proto::StateRequest>) -> Result<Response<proto::LogState>, Status> {
        let request = request.into_inner();
        let state = self.node(&request.log)?.state(requests::state(&request)).await;
        state.map(|state| Response::new(requests::put_log_state(state))).map_err(|error| errors::status(&error))
    }

    async fn follow(&self, request: Request<proto::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let request = request.into_inner();
        let node = self.node(&request.log)?;
        let request = requests::follow(request, &self.queries).await?;
        let followed = Followed {
            events: node.follow(request),
            writer: LineWriter::default(),
            parts: VecDeque::new(),
            closing: self.closing.clone(),
            ended: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(followed, Followed::next))))
    }

    async fn read(&self, request: Request<proto::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &request.log, request, read, read, |chunk| answers::put_chunk(&chunk))
    }

    async fn select(&self, request: Request<proto::SelectRequest>) -> Result<Response<Self::SelectStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &request.log, request, select, select, answers::put_selected)
    }

    async fn samples(&self, request: Request<proto::SamplesRequest>) -> Result<Response<Self::SamplesStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &request.log, request, samples, samples, answers::put_sampled)
    }

    async fn labels(&self, request: Request<proto::LabelsRequest>) -> Result<Response<Self::LabelsStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &request.log, request, labels, labels, answers::put_names)
    }

    async fn series(&self, request: Request<proto::SeriesRequest>) -> Result<Response<Self::SeriesStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &request.log, request, series, series, answers::put_streams)
    }

    async fn stats(&self, request: Request<proto::SeriesRequest>) -> Result<Response<Self::StatsStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &request.log, request, stats, series, answers::put_stats)
    }

    async fn volume(&self, request: Request<proto::VolumeRequest>) -> Result<Response<Self::VolumeStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &log_in(request.series.as_ref()), request, volume, volume, answers::put_volumes)
    }

    async fn patterns(
        &self,
        request: Request<proto::PatternsRequest>,
    ) -> Result<Response<Self::PatternsStream>, Status> {
        let request = request.into_inner();
        pieces!(self, &log_in(request.series.as_ref()), request, patterns, patterns, answers::put_patterns)
    }
}

/// Waits until the node goes down.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // Who would say so being gone says so, too.
    let _ = closing.wait_for(|closing| *closing).await;
}

fn going_down() -> Status {
    Status::unavailable("the node is going down")
}

/// A follow that is sent to another node.
struct Followed {
    events: Follow,
    writer: LineWriter,
    /// Parts of an event that are still to be sent.
    parts: VecDeque<proto::FollowEvent>,
    closing: watch::Receiver<bool>,
    ended: bool,
}

impl Followed {
    async fn next(mut self) -> Option<(Result<proto::FollowEvent, Status>, Self)> {
        if let Some(part) = self.parts.pop_front() {
            return Some((Ok(part), self));
        }
        if self.ended {
            return None;
        }
        let event = tokio::select! {
            biased;
            () = closed(&mut self.closing) => {
                self.ended = true;
                return Some((Err(going_down()), self));
            }
            event = self.events.next() => event?,
        };
        let message = answers::put_event(&event, &mut self.writer);
        if message.encoded_len() <= EVENT_BYTES {
            return Some((Ok(message), self));
        }
        self.parts = parts(Bytes::from(message.encode_to_vec()));
        self.parts.pop_front().map(|part| (Ok(part), self))
    }
}

/// An event in parts.
fn parts(mut event: Bytes) -> VecDeque<proto::FollowEvent> {
    let mut parts = VecDeque::new();
    while !event.is_empty() {
        let data = event.split_to(event.len().min(PIECE_BYTES));
        let part = proto::EventPart { data, last: event.is_empty() };
        parts.push_back(proto::FollowEvent { what: Some(proto::follow_event::What::Part(part)) });
    }
    parts
}

#[tonic::async_trait]
impl proto::host_server::Host for Services {
    type CopyStream = Answers<proto::CopyDown>;

    async fn push(&self, request: Request<proto::ForwardedPush>) -> Result<Response<proto::PushAnswer>, Status> {
        let request = request.into_inner();
        let push = host::ForwardedPush { tenant: requests::tenant(&request.tenant)?, body: request.body };
        let answer = self.host.push(push).await.map_err(|error| errors::status(&error))?;
        Ok(Response::new(proto::PushAnswer { status: answer.status.into(), message: answer.message }))
    }

    async fn copy(&self, request: Request<Streaming<proto::CopyUp>>) -> Result<Response<Self::CopyStream>, Status> {
        let mut ups = request.into_inner();
        let first = tokio::time::timeout(KEEPALIVE, ups.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the copy did not begin"))??;
        let Some(proto::copy_up::What::Begin(begin)) = first.and_then(|first| first.what) else {
            return Err(Status::invalid_argument("no beginning"));
        };
        let log = log_of(&begin.log).ok_or_else(|| Status::invalid_argument("no log"))?;
        let begin = host::CopyBegin { log, owner: begin.owner, in_blocks: begin.in_blocks };
        let copying = self.host.copy(begin).await.map_err(|error| errors::status(&error))?;
        let head = proto::CopyDown { what: Some(copy_down::What::Head(copying.head())) };
        let written = Written {
            ups,
            reader: UpReader::default(),
            copying,
            closing: self.closing.clone(),
            next: None,
            ended: false,
        };
        let acks = stream::unfold(written, Written::next);
        Ok(Response::new(Box::pin(stream::iter([Ok(head)]).chain(acks))))
    }

    async fn info(&self, _: Request<proto::InfoRequest>) -> Result<Response<proto::HostInfo>, Status> {
        let logs = self.host.logs().into_iter().map(log_bytes).collect();
        Ok(Response::new(proto::HostInfo { name: self.host.name(), logs }))
    }
}

/// A copy that is being written here.
struct Written {
    ups: Streaming<proto::CopyUp>,
    reader: UpReader,
    copying: Arc<dyn Copying>,
    closing: watch::Receiver<bool>,
    /// What was taken already but has to wait its turn.
    next: Option<Upward>,
    ended: bool,
}

impl Written {
    /// Writes what comes and answers how far that is.
    async fn next(mut self) -> Option<(Result<proto::CopyDown, Status>, Self)> {
        if self.ended {
            return None;
        }
        match self.written().await {
            Ok(Some(through)) => {
                let down = proto::CopyDown { what: Some(copy_down::What::Acknowledged(through)) };
                Some((Ok(down), self))
            }
            Ok(None) => None,
            Err(status) => {
                self.ended = true;
                Some((Err(status), self))
            }
        }
    }

    async fn written(&mut self) -> Result<Option<u64>, Status> {
        loop {
            let upward = match self.next.take() {
                Some(upward) => upward,
                None => {
                    let up = tokio::select! {
                        biased;
                        () = closed(&mut self.closing) => return Err(going_down()),
                        up = self.ups.message() => up?,
                    };
                    let Some(up) = up else { return Ok(None) };
                    match self.reader.read(up)? {
                        Some(upward) => upward,
                        None => continue,
                    }
                }
            };
            match upward {
                Upward::InBlocks(through) => self.copying.in_blocks(through),
                Upward::Records(mut records) => {
                    self.more(&mut records)?;
                    let through = self.copying.append(records).await;
                    return through.map(Some).map_err(|error| errors::status(&error));
                }
            }
        }
    }

    /// Adds what has come meanwhile.
    fn more(&mut self, records: &mut Vec<host::CopiedRecord>) -> Result<(), Status> {
        let mut bytes: usize = records.iter().map(copy::size).sum();
        while bytes < APPEND_BYTES
            && let Some(up) = copy::at_hand(&mut self.ups)
        {
            // What came before the failure is written all the same; then there is nothing more.
            let Ok(up) = up else { break };
            match self.reader.read(up)? {
                Some(Upward::Records(more)) => {
                    bytes += more.iter().map(copy::size).sum::<usize>();
                    records.extend(more);
                }
                Some(other) => {
                    self.next = Some(other);
                    break;
                }
                None => {}
            }
        }
        Ok(())
    }
}
