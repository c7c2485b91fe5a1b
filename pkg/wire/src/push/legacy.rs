//! Pushes as JSON in the form of `/api/prom/push` (contract, Loki API §2.9): labels as text, times as RFC 3339.

use jiff::Timestamp;

use super::build::Builder;
use super::json::{frame, metadata};
use super::{NO_TIMESTAMP, Push};
use crate::Error;
use crate::json::{Fault, NO_OBJECT, NO_STRING, Reader, Text, found};

const ROOT: &str = "logproto.PushRequest.";
const STREAMS: &str = "logproto.PushRequest.Streams: []logproto.Stream: ";

pub(super) fn read(body: &[u8]) -> Result<Push, Error> {
    if body.is_empty() {
        return Err(Error::malformed("EOF"));
    }
    let mut reader = Reader::new(body);
    let mut streams = Streams { push: Builder::with_capacity(body.len()), ..Streams::default() };
    frame(&mut reader, ROOT, STREAMS, |reader| streams.element(reader))?;
    Ok(streams.push.finish())
}

#[derive(Default)]
struct Streams {
    push: Builder,
    scratch: Vec<u8>,
    pairs: Vec<(Text, Text)>,
    labels: Vec<u8>,
}

impl Streams {
    fn element(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        self.push.begin_stream();
        self.labels.clear();
        match reader.token() {
            b'{' => {}
            b'n' => {
                reader.literal("ull")?;
                return Ok(self.push.end_stream(&[])?);
            }
            _ => return Err(NO_OBJECT),
        }
        let mut more = reader.first_member()?;
        while more {
            self.scratch.clear();
            let key = reader.key(&mut self.scratch)?;
            let key = key.of(reader.buf, &self.scratch);
            if key.eq_ignore_ascii_case(b"labels") {
                self.scratch.clear();
                let labels = optional(reader, &mut self.scratch)?;
                self.labels.clear();
                self.labels.extend_from_slice(labels.map_or(&[], |l| l.of(reader.buf, &self.scratch)));
            } else if key.eq_ignore_ascii_case(b"entries") {
                self.entries(reader)?;
            } else {
                reader.skip()?;
            }
            more = reader.next_member()?;
        }
        Ok(self.push.end_stream(&self.labels)?)
    }

    fn entries(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        self.push.begin_stream();
        match reader.token() {
            b'[' => {}
            b'n' => return reader.literal("ull"),
            c => return Err(found("decode slice", "expect [ or n, but found ", c)),
        }
        let mut more = reader.first_element();
        while more {
            self.entry(reader)?;
            more = reader.next_element()?;
        }
        Ok(())
    }

    fn entry(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        if reader.token() != b'{' {
            return Err(NO_OBJECT);
        }
        let (mut timestamp, mut line) = (NO_TIMESTAMP, None);
        let mut key_scratch = Vec::new();
        self.scratch.clear();
        self.pairs.clear();
        let mut more = reader.first_member()?;
        while more {
            key_scratch.clear();
            let key = reader.key(&mut key_scratch)?;
            let key = key.of(reader.buf, &key_scratch);
            if key.eq_ignore_ascii_case(b"ts") {
                let from = self.scratch.len();
                if let Some(text) = optional(reader, &mut self.scratch)? {
                    timestamp = time(text.of(reader.buf, &self.scratch))?;
                    self.scratch.truncate(from);
                }
            } else if key.eq_ignore_ascii_case(b"line") {
                line = optional(reader, &mut self.scratch)?;
            } else if key.eq_ignore_ascii_case(b"structuredMetadata") {
                self.pairs.clear();
                metadata(reader, &mut self.scratch, &mut self.pairs)?;
            } else {
                reader.skip()?;
            }
            more = reader.next_member()?;
        }
        let of = |text: &Text| text.of(reader.buf, &self.scratch);
        let line = line.as_ref().map_or(&[][..], of);
        Ok(self.push.entry(timestamp, line, self.pairs.iter().map(|(n, v)| (of(n), of(v))))?)
    }
}

/// A string or `null`.
fn optional(reader: &mut Reader<'_>, scratch: &mut Vec<u8>) -> Result<Option<Text>, Fault> {
    match reader.token() {
        b'"' => Ok(Some(reader.string(scratch)?)),
        b'n' => reader.literal("ull").map(|()| None),
        _ => Err(NO_STRING),
    }
}

/// RFC 3339 in the strict form: `T` between date and time, offset or `Z`.
fn time(text: &[u8]) -> Result<i64, Fault> {
    let bad = || {
        let text = String::from_utf8_lossy(text);
        Fault::Syntax("parsing time", format!("{text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse").into())
    };
    let strict = text.get(10) == Some(&b'T') && !text.contains(&b'[');
    let text = std::str::from_utf8(text).ok().filter(|_| strict).ok_or_else(bad)?;
    let nanos = text.parse::<Timestamp>().map_err(|_| bad())?.as_nanosecond();
    Ok(nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}
