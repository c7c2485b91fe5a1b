//! Copies of logs on their way: the owner's end of the stream, and how records are said.
//!
//! Invariants:
//! * Records arrive in the order in which they were sent, or the stream has failed.
//! * A message is at most [`PIECE_BYTES`] and what belongs to one record beside its payload; larger payloads come in parts before it.
//! * What is under way is bounded by the window of the stream, two messages, and what is being written.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tailwater_model::{LogId, Timestamp};
use tailwater_wire::host::{CopiedRecord, CopyBegin};
use tailwater_wire::node::{Answer, NodeError};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::peer::Peer;
use super::proto::copied_record::What;
use super::proto::copy_down;
use super::proto::copy_up::What as Up;
use super::requests::{log_bytes, tenant};
use super::{PIECE_BYTES, proto};

/// Messages that wait to be sent.
const WAITING: usize = 2;

/// Most records of a message.
const MESSAGE_RECORDS: usize = 4096;

/// What a record counts beside its payload, in bytes.
const RECORD_BYTES: usize = 256;

/// Most bytes of the payload of a record: a batch of a log is at most 2 GiB.
const MAX_PAYLOAD_BYTES: usize = (2 << 30) + (64 << 20);

/// A copy that is being written on another node. Dropping it ends the stream there.
pub struct CopyStream {
    /// The last batch that the copy has had when it began.
    pub head: u64,
    log: LogId,
    who: String,
    peer: Arc<Peer>,
    up: mpsc::Sender<proto::CopyUp>,
    down: Mutex<Streaming<proto::CopyDown>>,
}

impl CopyStream {
    pub(super) fn begin(peer: Arc<Peer>, begin: CopyBegin) -> Answer<Self> {
        Box::pin(async move {
            let (who, log) = (peer.who(), begin.log);
            let mut client = peer.host().await.map_err(|reason| peer.failed(&who, log, &reason))?;
            let (up, waiting) = mpsc::channel(WAITING);
            let CopyBegin { log: _, owner, in_blocks } = begin;
            let begin = Up::Begin(proto::CopyBegin { log: log_bytes(log), owner, in_blocks });
            // There is room for it.
            let _ = up.try_send(proto::CopyUp { what: Some(begin) });
            let called = client.copy(ReceiverStream::new(waiting)).await;
            let mut down = called.map_err(|status| peer.error(&status, log, &who))?.into_inner();
            let first = down.message().await.map_err(|status| peer.error(&status, log, &who))?;
            match first.and_then(|down| down.what) {
                Some(copy_down::What::Head(head)) => Ok(Self { head, log, who, peer, up, down: Mutex::new(down) }),
                _ => Err(peer.failed(&who, log, "it did not say what the copy has")),
            }
        })
    }

    /// Sends records; waits while there is no room for more. If it is dropped some of them may have been sent: begin anew then.
    ///
    /// # Errors
    /// The stream has ended; [`CopyStream::acks`] says why.
    pub async fn send(&self, records: Vec<CopiedRecord>) -> Result<(), NodeError> {
        for message in messages(records) {
            self.up(message).await?;
        }
        Ok(())
    }

    /// Says that everything up to a batch is in blocks.
    ///
    /// # Errors
    /// As [`CopyStream::send`].
    pub async fn in_blocks(&self, through: u64) -> Result<(), NodeError> {
        self.up(Up::InBlocks(through)).await
    }

    async fn up(&self, what: Up) -> Result<(), NodeError> {
        let sent = self.up.send(proto::CopyUp { what: Some(what) }).await;
        sent.map_err(|_| NodeError::Unavailable { log: self.log, reason: format!("{}: the copy has ended", self.who) })
    }

    /// The next position that is acknowledged: everything up to there is written. Nothing is lost if it is dropped.
    ///
    /// # Errors
    /// The stream has failed or ended.
    pub async fn acks(&self) -> Result<u64, NodeError> {
        let message = self.down.lock().await.message().await;
        match message.map_err(|status| self.peer.error(&status, self.log, &self.who))?.and_then(|down| down.what) {
            Some(copy_down::What::Acknowledged(through)) => Ok(through),
            Some(copy_down::What::Head(_)) => {
                Err(self.peer.failed(&self.who, self.log, "it said again what the copy has"))
            }
            None => Err(self.peer.failed(&self.who, self.log, "it ended the copy")),
        }
    }
}

/// Records as messages.
fn messages(records: Vec<CopiedRecord>) -> impl Iterator<Item = Up> {
    let mut records = records.into_iter().peekable();
    // The payload of the next record, if it is too large for a message.
    let mut large: Option<Bytes> = None;
    std::iter::from_fn(move || {
        if let Some(CopiedRecord::Batch { payload, .. }) = records.peek_mut()
            && large.is_none()
            && payload.len() > PIECE_BYTES
        {
            large = Some(std::mem::take(payload));
        }
        if let Some(payload) = &mut large {
            if !payload.is_empty() {
                return Some(Up::Payload(payload.split_to(payload.len().min(PIECE_BYTES))));
            }
            large = None;
            let records = records.next().iter().map(put_record).collect();
            return Some(Up::Records(proto::CopiedRecords { records }));
        }
        let (mut some, mut bytes) = (Vec::new(), 0);
        while some.len() < MESSAGE_RECORDS
            && let Some(record) = records.next_if(|next| bytes + size(next) <= PIECE_BYTES + RECORD_BYTES)
        {
            bytes += size(&record);
            some.push(put_record(&record));
        }
        (!some.is_empty()).then_some(Up::Records(proto::CopiedRecords { records: some }))
    })
}

/// What a record counts, in bytes.
pub(super) fn size(record: &CopiedRecord) -> usize {
    match record {
        CopiedRecord::Batch { payload, .. } => RECORD_BYTES + payload.len(),
        CopiedRecord::Missing { .. } => RECORD_BYTES,
    }
}

fn put_record(record: &CopiedRecord) -> proto::CopiedRecord {
    let what = match record {
        CopiedRecord::Batch { seq, accepted_at, tenant, tenant_lines, min, max, lines, payload } => {
            What::Batch(proto::CopiedBatch {
                seq: *seq,
                accepted_at: accepted_at.0,
                tenant: tenant.to_string(),
                tenant_lines: *tenant_lines,
                min: *min,
                max: *max,
                lines: *lines,
                payload: payload.clone(),
            })
        }
        CopiedRecord::Missing { first, last, lost } => {
            What::Missing(proto::MissingBatches { first: *first, last: *last, lost: *lost })
        }
    };
    proto::CopiedRecord { what: Some(what) }
}

/// What comes up a stream, at the other end.
pub(super) enum Upward {
    Records(Vec<CopiedRecord>),
    InBlocks(u64),
}

/// Reads what comes up a stream after its beginning.
#[derive(Default)]
pub(super) struct UpReader {
    /// The parts of the payload of the next record.
    payload: BytesMut,
}

impl UpReader {
    /// What a message says; nothing if it is a part of something.
    pub(super) fn read(&mut self, up: proto::CopyUp) -> Result<Option<Upward>, Status> {
        match up.what {
            Some(Up::Payload(part)) => {
                if self.payload.len() + part.len() > MAX_PAYLOAD_BYTES {
                    return Err(Status::invalid_argument("a record is too large"));
                }
                self.payload.extend_from_slice(&part);
                Ok(None)
            }
            Some(Up::Records(records)) => {
                let records = records.records.into_iter().map(|record| self.record(record));
                let records: Vec<_> = records.collect::<Result<_, _>>()?;
                Ok((!records.is_empty()).then_some(Upward::Records(records)))
            }
            Some(Up::InBlocks(through)) => Ok(Some(Upward::InBlocks(through))),
            Some(Up::Begin(_)) | None => Err(Status::invalid_argument("neither records nor anything else")),
        }
    }

    fn record(&mut self, record: proto::CopiedRecord) -> Result<CopiedRecord, Status> {
        let large = std::mem::take(&mut self.payload).freeze();
        match record.what {
            Some(What::Batch(batch)) if large.is_empty() || batch.payload.is_empty() => Ok(CopiedRecord::Batch {
                seq: batch.seq,
                accepted_at: Timestamp(batch.accepted_at),
                tenant: tenant(&batch.tenant)?,
                tenant_lines: batch.tenant_lines,
                min: batch.min,
                max: batch.max,
                lines: batch.lines,
                payload: if large.is_empty() { batch.payload } else { large },
            }),
            Some(What::Missing(missing)) if large.is_empty() => {
                Ok(CopiedRecord::Missing { first: missing.first, last: missing.last, lost: missing.lost })
            }
            _ => Err(Status::invalid_argument("a record that cannot be understood")),
        }
    }
}

/// The next message, if it is there already.
pub(super) fn at_hand(ups: &mut Streaming<proto::CopyUp>) -> Option<Result<proto::CopyUp, Status>> {
    use futures_util::FutureExt as _;
    let next = pin!(ups.message());
    next.now_or_never()?.transpose()
}
