//! Blocks for tests, and what is in them.

mod rewrite;

use bytes::Bytes;
use tailwater_model::{Labels, LogId, Timestamp};

use crate::block::{Built, Entry, Footer, Located, Options, Writer, decode_page};
use crate::entries::Place;
use crate::objects::Objects;

/// A line as a test thinks of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) app: String,
    pub(super) log: u128,
    pub(super) timestamp: i64,
    pub(super) seq: u64,
    pub(super) index: u32,
    pub(super) text: String,
    pub(super) metadata: Vec<(String, String)>,
}

pub(super) fn labels(app: &str) -> Labels {
    Labels::from_pairs(vec![("app".into(), app.into())])
}

/// A block of lines, in pages of a few lines.
pub(super) fn build(lines: &[Line]) -> Built {
    let mut lines = lines.to_vec();
    lines.sort();
    let mut writer = Writer::new(Options { page_bytes: 64, ..Options::default() });
    let mut current = None;
    for line in &lines {
        if current != Some((&line.app, line.log)) {
            writer.stream(&labels(&line.app), LogId::from_u128(line.log));
            current = Some((&line.app, line.log));
        }
        let metadata: Vec<_> = line.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let accepted_at = Timestamp(i64::try_from(line.seq).unwrap());
        let place = Place { seq: line.seq, index: line.index, accepted_at };
        writer.entry(&Entry { timestamp: line.timestamp, line: line.text.as_bytes(), metadata: &metadata, place });
    }
    writer.finish().unwrap()
}

pub(super) fn joined(built: &Built) -> Bytes {
    built.parts.concat().into()
}

/// The lines of a block, in its order.
pub(super) fn read(object: &[u8]) -> Vec<Line> {
    let Located::Footer(footer) = Footer::locate(object, object.len() as u64).unwrap() else { panic!("not all of it") };
    let mut lines = Vec::new();
    for info in &footer.pages {
        let stream = &footer.streams[info.stream as usize].stream;
        let range = usize::try_from(info.range().start).unwrap()..usize::try_from(info.range().end).unwrap();
        let entries = decode_page(&object[range], info, stream.clone()).unwrap();
        for (number, span) in (0..).zip(entries.entries(&entries.runs[0])) {
            let place = entries.place(number);
            assert_eq!(place.accepted_at.nanos(), i64::try_from(place.seq).unwrap());
            let metadata = entries.metadata(span);
            lines.push(Line {
                app: stream.labels.get("app").unwrap_or_default().to_owned(),
                log: footer.logs[usize::from(info.log)].log.as_u128(),
                timestamp: span.timestamp,
                seq: place.seq,
                index: place.index,
                text: String::from_utf8_lossy(entries.line(span)).into_owned(),
                metadata: metadata.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            });
        }
    }
    lines
}

pub(super) fn memory() -> Objects {
    Objects::open("memory:", &crate::objects::Options::default()).unwrap()
}
