//! What must hold for every input, said once: the fuzz targets run these checks, and the tests replay the corpus through them.

use prost::Message as _;
use tailwater_model::{Labels, Timestamp};
use tailwater_wire::compress::{self, Caps};
use tailwater_wire::push::{self, Kind, NO_TIMESTAMP, Push};
use tailwater_wire::{labels as label_text, otlp as otlp_push};

#[path = "oracle.rs"]
mod oracle;

const CAPS: Caps = Caps { max_body: 1 << 20, max_decompressed: 1 << 22 };

/// The decoder accepts what prost accepts (times apart) and reads the same from it.
pub(crate) fn push_protobuf(data: &[u8]) {
    let ours = push::decode(data.to_vec());
    let theirs = oracle::PushRequest::decode(data).ok().filter(|push| {
        let times = push.streams.iter().flat_map(|s| &s.entries).filter_map(|e| e.timestamp);
        times
            .into_iter()
            .all(|t| (-62_135_596_800..253_402_300_800).contains(&t.seconds) && (0..1_000_000_000).contains(&t.nanos))
    });
    let (Ok(ours), Some(theirs)) = (&ours, &theirs) else {
        assert_eq!(ours.is_ok(), theirs.is_some(), "ours {ours:?}, theirs {theirs:?}");
        return;
    };
    assert_eq!(ours.streams().len(), theirs.streams.len());
    for (span, stream) in ours.streams().iter().zip(&theirs.streams) {
        assert_eq!(ours.labels(span), stream.labels);
        assert_eq!(ours.entries(span).len(), stream.entries.len());
        for (e, entry) in ours.entries(span).iter().zip(&stream.entries) {
            let nanos = entry
                .timestamp
                .map_or(i128::from(NO_TIMESTAMP), |t| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos));
            assert_eq!(i128::from(e.timestamp), nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)));
            assert_eq!(ours.line(e), entry.line);
            let pairs = entry.structured_metadata.iter().map(|p| (&p.name[..], &p.value[..]));
            assert!(ours.metadata(e).eq(pairs));
        }
    }
}

/// What is read from JSON is a push in its protobuf form, whose spans say the same as the form.
pub(crate) fn push_json(data: &[u8]) {
    for kind in [Kind::V1, Kind::Legacy] {
        if let Ok(push) = push::read(kind, Some("application/json"), None, data, &CAPS) {
            whole(&push);
        }
    }
}

/// Labels that are accepted can be named, and survive being printed.
pub(crate) fn labels(data: &[u8]) {
    if let Ok(pairs) = label_text::parse(data) {
        assert!(
            pairs
                .iter()
                .all(|(name, _)| name.contains(':') || label_text::is_name(name.as_bytes()) || &**name == "__name__")
        );
        let labels = Labels::from_pairs(pairs);
        let again = label_text::parse(labels.to_string().as_bytes()).expect("printed labels are readable");
        assert_eq!(Labels::from_pairs(again), labels);
    }
    drop(label_text::normalize(data));
}

/// Both forms of OTLP; the first byte chooses.
pub(crate) fn otlp(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let kind = if first & 1 == 0 { "application/json" } else { "application/x-protobuf" };
    let read = otlp_push::read(Some(kind), None, body, &CAPS, Timestamp(1), &otlp_push::DEFAULT_INDEX_ATTRIBUTES);
    if let Ok(push) = read {
        assert!(push.streams().iter().all(|s| !push.entries(s).is_empty()));
        whole(&push);
    }
}

/// No coding yields more than the cap; the first byte chooses.
pub(crate) fn compressed(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let decompress = [compress::snappy, compress::gzip, compress::deflate, compress::zstd, compress::lz4];
    if let Ok(out) = decompress[*first as usize % decompress.len()](body, &CAPS) {
        assert!(out.len() <= CAPS.max_decompressed);
    }
}

fn whole(push: &Push) {
    let again = push::decode(push.body.clone()).expect("what was built is valid");
    assert_eq!(&again, push);
    for stream in push.streams() {
        drop(label_text::parse(push.labels(stream)));
    }
}
