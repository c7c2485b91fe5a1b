//! Answers as records, records as pieces.
//!
//! Invariants: a piece is at most [`PIECE_BYTES`]; records are made only as pieces are asked for; who joins pieces holds at most what it
//! allowed, and one record of it in bytes.

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;

use super::proto::record::What;
use super::{Garbled, PIECE_BYTES, proto};

/// Records on their way.
pub(super) type Records = Box<dyn Iterator<Item = What> + Send>;

/// Cuts records into pieces.
pub(super) struct Pieces {
    records: Records,
    ready: BytesMut,
}

impl Pieces {
    pub(super) fn new(records: Records) -> Self {
        Self { records, ready: BytesMut::new() }
    }
}

impl Iterator for Pieces {
    type Item = proto::Piece;

    fn next(&mut self) -> Option<proto::Piece> {
        while self.ready.len() < PIECE_BYTES
            && let Some(what) = self.records.next()
        {
            let record = proto::Record { what: Some(what) };
            self.ready.reserve(record.encoded_len() + 10);
            record.encode_length_delimited(&mut self.ready).expect("there is room for it");
        }
        let len = self.ready.len().min(PIECE_BYTES);
        (len > 0).then(|| proto::Piece { data: self.ready.split_to(len).freeze() })
    }
}

/// What became of a piece.
#[derive(Debug)]
pub(super) enum Unjoined {
    /// There is more than was allowed.
    TooMuch,
    /// It is no piece of an answer.
    Garbled(Garbled),
}

impl From<Garbled> for Unjoined {
    fn from(garbled: Garbled) -> Self {
        Self::Garbled(garbled)
    }
}

/// Joins pieces to records again.
pub(super) struct Joined {
    open: BytesMut,
    room: usize,
}

impl Joined {
    /// Of at most `limit` bytes in all.
    pub(super) fn new(limit: usize) -> Self {
        Self { open: BytesMut::new(), room: limit }
    }

    /// Takes a piece in.
    pub(super) fn push(&mut self, data: &Bytes) -> Result<(), Unjoined> {
        self.room = self.room.checked_sub(data.len()).ok_or(Unjoined::TooMuch)?;
        self.open.extend_from_slice(data);
        Ok(())
    }

    /// The next record, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<What>, Unjoined> {
        let mut bytes = &self.open[..];
        let Ok(len) = prost::decode_length_delimiter(&mut bytes) else {
            return if self.open.len() < 10 { Ok(None) } else { Err(Garbled("a record without length").into()) };
        };
        if len > bytes.len() {
            // More than may still come will not come.
            let missing = len - bytes.len();
            return if missing > self.room { Err(Unjoined::TooMuch) } else { Ok(None) };
        }
        let head = self.open.len() - bytes.len();
        self.open.advance(head);
        let record = proto::Record::decode(self.open.split_to(len).freeze());
        let what = record.ok().and_then(|record| record.what);
        what.map(Some).ok_or_else(|| Garbled("an unknown record").into())
    }

    /// Whether nothing is left over.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
