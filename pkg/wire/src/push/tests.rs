use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::Error;
use crate::compress::Caps;
use crate::proto::push as oracle;

const PROTOBUF: Option<&str> = Some("application/x-protobuf");
const JSON: Option<&str> = Some("application/json");

/// What prost makes of a body, by the rules that are not protobuf's: valid times, and the fields that are dropped.
fn by_prost(body: &[u8]) -> Option<oracle::PushRequest> {
    let mut push = oracle::PushRequest::decode(body).ok()?;
    push.format = Bytes::new();
    for stream in &mut push.streams {
        stream.hash = 0;
        for entry in &mut stream.entries {
            entry.parsed.clear();
            if let Some(time) = &entry.timestamp {
                let valid = (-62_135_596_800..253_402_300_800).contains(&time.seconds);
                if !valid || !(0..1_000_000_000).contains(&time.nanos) {
                    return None;
                }
            }
        }
    }
    Some(push)
}

/// A push as prost would show it; times are compared as nanoseconds.
fn as_prost(push: &Push) -> Vec<(Vec<u8>, Vec<oracle::Entry>)> {
    let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let entry = |e: &EntrySpan| oracle::Entry {
        timestamp: (e.timestamp != NO_TIMESTAMP).then_some(oracle::Time { seconds: e.timestamp, nanos: 0 }),
        line: copy(push.line(e)),
        structured_metadata: push.metadata(e).map(|(n, v)| oracle::Pair { name: copy(n), value: copy(v) }).collect(),
        parsed: vec![],
    };
    push.streams().iter().map(|s| (push.labels(s).to_vec(), push.entries(s).iter().map(entry).collect())).collect()
}

fn nanos_of(push: oracle::PushRequest) -> Vec<(Vec<u8>, Vec<oracle::Entry>)> {
    let entry = |mut e: oracle::Entry| {
        e.timestamp = e.timestamp.and_then(|t| {
            let nanos = i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos);
            let nanos = nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            (nanos != NO_TIMESTAMP).then_some(oracle::Time { seconds: nanos, nanos: 0 })
        });
        e
    };
    push.streams.into_iter().map(|s| (s.labels.to_vec(), s.entries.into_iter().map(entry).collect())).collect()
}

fn same_as_prost(body: &[u8]) -> Result<(), TestCaseError> {
    match (decode(body.to_vec()), by_prost(body)) {
        (Ok(ours), Some(theirs)) => prop_assert_eq!(as_prost(&ours), nanos_of(theirs)),
        (Err(_), None) => {}
        (ours, theirs) => prop_assert!(false, "ours {:?}, theirs {:?}", ours, theirs),
    }
    Ok(())
}

prop_compose! {
    fn bytes()(all in vec(any::<u8>(), 0..20)) -> Bytes { all.into() }
}

prop_compose! {
    fn pair()(name in bytes(), value in bytes()) -> oracle::Pair { oracle::Pair { name, value } }
}

prop_compose! {
    fn time()(seconds in prop_oneof![any::<i64>(), 0..2_000_000_000i64], nanos in -1..1_000_000_001) -> oracle::Time {
        oracle::Time { seconds, nanos }
    }
}

prop_compose! {
    fn entry()(
        timestamp in prop::option::of(prop_oneof![
            9 => (0..2_000_000_000i64, 0..1_000_000_000).prop_map(|(seconds, nanos)| oracle::Time { seconds, nanos }),
            1 => time(),
        ]),
        line in bytes(),
        structured_metadata in vec(pair(), 0..3),
        parsed in vec(pair(), 0..2),
    ) -> oracle::Entry {
        oracle::Entry { timestamp, line, structured_metadata, parsed }
    }
}

prop_compose! {
    fn request()(
        streams in vec((bytes(), vec(entry(), 0..4), any::<u64>()), 0..4),
        format in bytes(),
    ) -> oracle::PushRequest {
        let stream = |(labels, entries, hash)| oracle::Stream { labels, entries, hash };
        oracle::PushRequest { streams: streams.into_iter().map(stream).collect(), format }
    }
}

/// Fields of any number and way of writing, also nested, also broken.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let key = |number: u32, wire: u32| {
        let mut out = Vec::new();
        prost::encoding::encode_varint(u64::from(number << 3 | wire), &mut out);
        out
    };
    let leaf = (0..8u32, 0..8u32, vec(any::<u8>(), 0..12)).prop_map(move |(number, wire, rest)| {
        let mut out = key(number, wire);
        if wire == 2 {
            out.push(rest.len() as u8);
        }
        out.extend(rest);
        out
    });
    leaf.prop_recursive(5, 40, 6, move |inner| {
        (1..5u32, prop::bool::weighted(0.8), vec(inner, 0..6)).prop_map(move |(number, message, parts)| {
            let parts = parts.concat();
            let mut out = key(number, if message { 2 } else { 3 });
            if message {
                prost::encoding::encode_varint(parts.len() as u64, &mut out);
                out.extend(parts);
            } else {
                out.extend(parts);
                out.extend(key(number, 4));
            }
            out
        })
    })
}

proptest! {
    #[test]
    fn valid_bodies_decode_as_prosts_do(request in request()) {
        same_as_prost(&request.encode_to_vec())?;
    }

    #[test]
    fn mutated_bodies_decode_as_prosts_do(
        request in request(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        let mut body = request.encode_to_vec();
        for (at, byte, how) in changes {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => body.truncate(at),
            }
        }
        same_as_prost(&body)?;
    }

    #[test]
    fn fields_in_any_order_and_form_decode_as_prosts_do(parts in vec(fields(), 0..6)) {
        same_as_prost(&parts.concat())?;
    }

    #[test]
    fn random_bytes_decode_as_prosts_do(body in vec(any::<u8>(), 0..64)) {
        same_as_prost(&body)?;
    }

    #[test]
    fn what_is_encoded_is_what_prost_reads(
        streams in vec(("[a-z{}=\"]{0,20}", vec((any::<i64>(), vec(any::<u8>(), 0..300), vec(("[a-z]{0,9}", ".{0,9}"), 0..3)), 0..4)), 0..4)
    ) {
        let pairs: Vec<Vec<Vec<(&str, &str)>>> = streams.iter().map(|(_, entries)| {
            entries.iter().map(|(_, _, pairs)| pairs.iter().map(|(n, v)| (&n[..], &v[..])).collect()).collect()
        }).collect();
        let outgoing = streams.iter().zip(&pairs).map(|((labels, entries), pairs)| {
            let entries = entries.iter().zip(pairs).map(|((time, line, _), metadata)| Outgoing {
                timestamp: tailwater_model::Timestamp(*time), line, metadata,
            });
            (&labels[..], entries)
        });
        let body = encode(outgoing).unwrap();
        let push = read(Kind::V1, PROTOBUF, None, &body, &Caps::default()).unwrap();
        let theirs = by_prost(&push.body);
        // Years before 1678 are not told apart from no time at all, everything else survives.
        prop_assert_eq!(as_prost(&push), nanos_of(theirs.unwrap()));
        prop_assert_eq!(push.streams().len(), streams.len());
        for (span, (labels, entries)) in push.streams().iter().zip(&streams) {
            prop_assert_eq!(push.labels(span), labels.as_bytes());
            prop_assert_eq!(push.entries(span).len(), entries.len());
            for (e, (time, line, pairs)) in push.entries(span).iter().zip(entries) {
                prop_assert_eq!(e.timestamp, *time);
                prop_assert_eq!(push.line(e), &line[..]);
                let got: Vec<_> = push.metadata(e).collect();
                let want: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
                prop_assert_eq!(got, want);
            }
        }
    }

    #[test]
    fn json_is_read_as_serde_reads_it(streams in json_streams()) {
        let body = serde_json::json!({ "streams": streams.iter().map(|(labels, entries)| {
            let values: Vec<_> = entries.iter().map(|(time, line, pairs)| match pairs {
                None => serde_json::json!([time.to_string(), line]),
                Some(pairs) => serde_json::json!([time.to_string(), line, pairs]),
            }).collect();
            serde_json::json!({ "stream": labels, "values": values })
        }).collect::<Vec<_>>() });
        for text in [serde_json::to_vec(&body).unwrap(), serde_json::to_vec_pretty(&body).unwrap(), escaped(&body)] {
            let push = read(Kind::V1, JSON, None, &text, &Caps::default()).unwrap();
            prop_assert_eq!(&decode(push.body.clone()).unwrap(), &push);
            prop_assert_eq!(push.streams().len(), streams.len());
            for (span, (labels, entries)) in push.streams().iter().zip(&streams) {
                let got = crate::labels::parse(push.labels(span)).unwrap();
                let got: Vec<_> = got.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
                prop_assert_eq!(got, labels.clone().into_iter().collect::<Vec<_>>());
                let lines: Vec<_> = push.entries(span).iter().map(|e| {
                    let pairs = push.metadata(e).map(|(n, v)| (owned(n), owned(v))).collect();
                    (e.timestamp, owned(push.line(e)), pairs)
                }).collect();
                let want: Vec<_> = entries.iter().map(|(time, line, pairs)| {
                    (*time, line.clone(), pairs.clone().unwrap_or_default())
                }).collect();
                prop_assert_eq!(lines, want);
            }
        }
    }

    #[test]
    fn json_that_serde_refuses_is_refused(
        streams in json_streams(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let values = |entries: &[Entry]| entries.iter().map(|(t, l, _)| (t.to_string(), l.clone())).collect::<Vec<_>>();
        let streams: Vec<_> = streams.iter().map(|(l, e)| serde_json::json!({ "stream": l, "values": values(e) })).collect();
        let mut text = serde_json::to_vec(&serde_json::json!({ "streams": streams })).unwrap();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        let valid = serde_json::from_slice::<serde_json::Value>(&text).is_ok();
        let ours = read(Kind::V1, JSON, None, &text, &Caps::default());
        // Not refused although serde does: what is not UTF-8, what follows the object, and half surrogates nowhere used.
        let lenient = std::str::from_utf8(&text).is_err() || text.get(at) == Some(&b'}') || at == 0;
        prop_assert!(valid || lenient || ours.is_err(), "{:?}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn no_body_of_any_kind_panics(body in vec(any::<u8>(), 0..80), text in "[\\[\\]{}\",:0-9a-z\\\\ -]{0,80}") {
        for body in [&body[..], text.as_bytes()] {
            for kind in [Kind::V1, Kind::Legacy] {
                for coding in [None, Some("gzip"), Some("deflate")] {
                    drop(read(kind, JSON, coding, body, &Caps::default()));
                    drop(read(kind, PROTOBUF, coding, body, &Caps::default()));
                }
            }
        }
    }
}

type Entry = (i64, String, Option<std::collections::BTreeMap<String, String>>);
type Stream = (std::collections::BTreeMap<String, String>, Vec<Entry>);

fn json_streams() -> impl Strategy<Value = Vec<Stream>> {
    let map = |name| prop::collection::btree_map(name, ".{0,12}", 0..4);
    let entry = (any::<i64>(), "(.|\n|\\\\|\"){0,40}", prop::option::of(map("[^\0]{0,6}")));
    vec((map("[a-zA-Z_][a-zA-Z0-9_]{0,6}"), vec(entry, 0..5)), 0..4)
}

fn owned(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The same JSON with everything in strings as `\u` escapes, but what times are made of (their digits are not unescaped).
fn escaped(value: &serde_json::Value) -> Vec<u8> {
    let mut out = String::new();
    let mut inside = false;
    let text = value.to_string();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                inside = !inside;
                out.push(c);
            }
            '\\' => {
                out.push(c);
                out.extend(chars.next());
            }
            c if inside && !c.is_ascii_alphanumeric() && c != '-' => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
            c => out.push(c),
        }
    }
    out.into_bytes()
}

fn v1(body: &str) -> Result<Push, Error> {
    read(Kind::V1, JSON, None, body.as_bytes(), &Caps::default())
}

/// Label texts, and (time, line) of every entry.
fn show(push: &Push) -> Vec<(String, Vec<(i64, String)>)> {
    let entries = |s| push.entries(s).iter().map(|e| (e.timestamp, owned(push.line(e)))).collect();
    push.streams().iter().map(|s| (owned(push.labels(s)), entries(s))).collect()
}

fn one(labels: &str, entries: &[(i64, &str)]) -> Vec<(String, Vec<(i64, String)>)> {
    vec![(labels.to_owned(), entries.iter().map(|(t, l)| (*t, (*l).to_owned())).collect())]
}

#[test]
fn json_is_lenient_where_loki_is() {
    for (body, want) in [
        (r#"{"streams":[{"stream":{"b":"x","a":"y"},"values":[["1","l"]]}]}"#, one(r#"{a="y", b="x"}"#, &[(1, "l")])),
        (r#"{"streams":[{"values":[["-7","l"]],"stream":{"a":"1","a":"2"}}]}"#, one(r#"{a="2"}"#, &[(-7, "l")])),
        (r#"{"streams":[{"stream":{"n":5,"t":true,"z":null,"o":{"q":[1, 2]}},"values":[]}]}"#, {
            one(r#"{n="5", o="{\"q\":[1, 2]}", t="true", z="null"}"#, &[])
        }),
        (r#"{"Streams":[{"stream":{"a":"q\"\\\n"}}],"more":[{}]} tail"#, one(r#"{a="q\"\\\n"}"#, &[])),
        (r#"{"streams":[{"values":[["1"],[],["2","x",{},5,null],["3","y"]]}]}"#, {
            one("{}", &[(1, ""), (NO_TIMESTAMP, ""), (2, "x"), (3, "y")])
        }),
        (r#"{"streams":[{"values":null,"x":1.5e-3}]}"#, one("{}", &[])),
        (r#"{"streams":[{"values":[["1","a"]],"values":[["2","b"]]}]}"#, one("{}", &[(2, "b")])),
        (r#"{"streams":null}"#, vec![]),
        ("null", vec![]),
        ("{}", vec![]),
    ] {
        let push = v1(body).unwrap_or_else(|e| panic!("{body}: {e}"));
        assert_eq!(show(&push), want, "{body}");
    }
}

#[test]
fn json_faults_are_told_in_lokis_words() {
    let stream = |entry: &str| format!(r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[{entry}]}}]}}"#);
    let scalar = "Value looks like Number/Boolean/None, but can't find its end: ',' or '}' symbol";
    let string = "Value is string, but can't find closing '\"' symbol";
    let object = "Value looks like object, but can't find closing '}' symbol";
    for (entry, want) in [
        (r#"["1.5","x"]"#, scalar),
        (r#"["","x"]"#, scalar),
        (r#"["+1","x"]"#, scalar),
        (r#"["9223372036854775808","x"]"#, scalar),
        (r#"["1","\udc00"]"#, scalar),
        (r#"[1,"x"]"#, string),
        (r#"["1",null]"#, string),
        (r#"["1","x",null]"#, object),
        (r#"["1","x",{"k":5}]"#, string),
        ("5", "Malformed JSON error"),
    ] {
        let text = v1(&stream(entry)).unwrap_err().to_string();
        let start = format!(
            "loghttp.PushRequest.Streams: []loghttp.LogProtoStream: unmarshalerDecoder: {want}, error found in #10 byte of ...|"
        );
        assert!(text.starts_with(&start), "{entry}: {text}");
    }
    for (body, want) in [
        ("", "EOF"),
        (
            "x",
            "readObjectStart: expect { or n, but found x, error found in #1 byte of ...|x|..., bigger context ...|x|...",
        ),
        ("nope", "skipThreeBytes: expect ull, error found in #4 byte of ...|nope|..., bigger context ...|nope|..."),
        (
            r#"{"streams":{}}"#,
            "loghttp.PushRequest.Streams: []loghttp.LogProtoStream: decode slice: expect [ or n, but found {, \
             error found in #10 byte of ...|\"streams\":{}}|..., bigger context ...|{\"streams\":{}}|...",
        ),
    ] {
        let text = v1(body).unwrap_err().to_string();
        if body.contains("streams") {
            assert!(text.starts_with(&want[..110]), "{text}");
        } else {
            assert_eq!(text, want);
        }
    }
    // A fault of syntax anywhere in the stream comes before one of value.
    let text = v1(r#"{"streams":[{"values":[[1,"x"]],"stream":{"a" "b"}}]}"#).unwrap_err().to_string();
    assert!(text.contains("ReadObject: expect : after object field, but found \""), "{text}");
    for bad in
        ["{\"streams\":[{\"values\":[[\"1\",\"a\nb\"]]}]}", r#"{"streams":[{},]}"#, r#"{"streams":[01]}"#, r#"{"a":1"#]
    {
        assert!(v1(bad).is_err(), "{bad}");
    }
}

#[test]
fn deep_json_costs_a_byte_per_level_and_ends() {
    let deep = |n: usize| format!(r#"{{"x":{}{},"streams":[]}}"#, "[".repeat(n), "]".repeat(n));
    assert!(v1(&deep(9_999)).is_ok());
    assert!(v1(&deep(1_000_000)).unwrap_err().to_string().contains("exceeded max depth"));
    assert!(v1(&format!(r#"{{"x":{}"#, "{\"a\":".repeat(500_000))).is_err());
}

#[test]
fn legacy_json_has_text_labels_and_rfc3339() {
    let legacy = |body: &str| read(Kind::Legacy, JSON, None, body.as_bytes(), &Caps::default());
    let body = r#"{"streams":[{"labels":"{app=\"x\"}","entries":[
        {"ts":"2026-11-01T12:00:01.000000002Z","line":"o\u006ee"},
        {"line":"two","ts":"2026-11-01T13:00:02+01:00","structuredMetadata":{"k":"v"},"more":[]}, {"ts":null}]}]}"#;
    let push = legacy(body).unwrap();
    let entries = [(1_793_534_401_000_000_002, "one"), (1_793_534_402_000_000_000, "two"), (NO_TIMESTAMP, "")];
    assert_eq!(show(&push), one(r#"{app="x"}"#, &entries));
    assert_eq!(push.metadata(&push.entries[1]).collect::<Vec<_>>(), [(&b"k"[..], &b"v"[..])]);
    assert_eq!(decode(push.body.clone()).unwrap(), push);
    // The v1 form holds no entries here.
    let push = legacy(r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}]}"#).unwrap();
    assert_eq!(show(&push), one("", &[]));
    for bad in
        [r#"{"streams":[{"labels":5}]}"#, r#"{"streams":[{"entries":[{"ts":"yesterday"}]}]}"#, r#"{"streams":["x"]}"#]
    {
        assert!(legacy(bad).is_err(), "{bad}");
    }
}

#[test]
fn content_types_and_codings_follow_the_contract() {
    use std::io::Write as _;
    let json = br#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}]}"#;
    let snappy = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body).unwrap();
    let gzip = |body: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    };
    let deflate = |body: &[u8]| {
        let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    };
    let protobuf = v1(std::str::from_utf8(json).unwrap()).unwrap().body;
    let want = decode(protobuf.clone()).unwrap();
    let take = |kind, coding, body: &[u8]| read(Kind::V1, kind, coding, body, &Caps::default());
    for coding in [None, Some(""), Some("snappy")] {
        assert_eq!(take(Some("application/json; charset=utf-8"), coding, json), Ok(want.clone()));
        assert_eq!(take(PROTOBUF, coding, &snappy(&protobuf)), Ok(want.clone()));
        assert_eq!(take(Some("text/plain"), coding, &snappy(&protobuf)), Ok(want.clone()));
    }
    assert_eq!(take(JSON, Some("gzip"), &gzip(json)), Ok(want.clone()));
    assert_eq!(take(JSON, Some("deflate"), &deflate(json)), Ok(want.clone()));
    assert_eq!(take(PROTOBUF, Some("gzip"), &gzip(&snappy(&protobuf))), Ok(want.clone()));
    assert_eq!(take(PROTOBUF, Some("deflate"), &deflate(&snappy(&protobuf))), Ok(want));
    for (kind, coding, body, text) in [
        (None, None, &json[..], "mime: no media type"),
        (JSON, Some("br"), json, "Content-Encoding \"br\" not supported"),
        (JSON, Some("GZIP"), json, "Content-Encoding \"GZIP\" not supported"),
        (JSON, Some("gzip"), json, "gzip: invalid header"),
        (PROTOBUF, None, json, "snappy: corrupt input"),
        (PROTOBUF, None, b"", "snappy: corrupt input"),
        (PROTOBUF, None, &snappy(b"\x0a\x05abc"), "unexpected EOF"),
        (PROTOBUF, None, &snappy(b"\x0f"), "proto: illegal wireType 7"),
        (PROTOBUF, None, &snappy(b"\x08\x01"), "proto: wrong wireType = 0 for field Streams"),
    ] {
        assert_eq!(take(kind, coding, body).unwrap_err().to_string(), text);
    }
}

#[test]
fn unreal_times_are_refused() {
    let body = |seconds, nanos| {
        let entry = oracle::Entry { timestamp: Some(oracle::Time { seconds, nanos }), ..oracle::Entry::default() };
        let stream = oracle::Stream { entries: vec![entry], ..oracle::Stream::default() };
        decode(oracle::PushRequest { streams: vec![stream], ..oracle::PushRequest::default() }.encode_to_vec())
    };
    assert_eq!(body(1, 5).unwrap().entries[0].timestamp, 1_000_000_005);
    assert_eq!(body(-1, 999_999_999).unwrap().entries[0].timestamp, -1);
    assert_eq!(body(253_402_300_799, 0).unwrap().entries[0].timestamp, i64::MAX);
    assert_eq!(body(-62_135_596_800, 10).unwrap().entries[0].timestamp, NO_TIMESTAMP);
    assert_eq!(body(-9_223_372_037, 500_000_000).unwrap().entries[0].timestamp, -9_223_372_036_500_000_000);
    for (seconds, nanos) in
        [(253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000), (i64::MIN, i32::MIN)]
    {
        assert!(body(seconds, nanos).is_err(), "{seconds} {nanos}");
    }
}

#[test]
fn labels_are_bounded() {
    let stream = |len| oracle::Stream { labels: vec![b'a'; len].into(), ..oracle::Stream::default() };
    let body =
        |len| oracle::PushRequest { streams: vec![stream(len)], ..oracle::PushRequest::default() }.encode_to_vec();
    assert!(decode(body(MAX_LABELS_BYTES)).is_ok());
    assert_eq!(decode(body(MAX_LABELS_BYTES + 1)).unwrap_err().kind(), crate::Kind::TooLarge);
}

#[test]
fn records_are_counted() {
    // Empty streams of two bytes each.
    let body = [0x0a, 0x00].repeat(MAX_RECORDS + 1);
    assert_eq!(decode(body).unwrap_err().kind(), crate::Kind::TooLarge);
}

#[test]
fn spans_of_another_push_give_nothing_instead_of_a_panic() {
    let push = v1(r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x",{"k":"v"}]]}]}"#).unwrap();
    let none = Push::default();
    assert!(none.labels(&push.streams[0]).is_empty() && none.entries(&push.streams[0]).is_empty());
    assert!(none.line(&push.entries[0]).is_empty() && none.metadata(&push.entries[0]).len() == 0);
}
