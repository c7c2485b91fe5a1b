use std::collections::BTreeMap;

use serde_json::{Value, json};
use tailwater_model::LabelPair;

use super::*;

fn set(pairs: &[(&str, &str, Category)]) -> LabelSet {
    let pair = |(n, v, c): &(&str, &str, Category)| LabelPair { name: (*n).into(), value: (*v).into(), category: *c };
    LabelSet::from_pairs(pairs.iter().map(pair).collect())
}

fn sample() -> LabelSet {
    set(&[
        ("app", "a", Category::Stream),
        ("trace_id", "t\"1", Category::Metadata),
        ("detected_level", "info", Category::Metadata),
        ("status", "500", Category::Parsed),
    ])
}

fn encoder(flags: &str) -> FrameEncoder {
    FrameEncoder::new(TailEncoding::v1([flags]))
}

fn read(frame: &Bytes) -> Value {
    serde_json::from_slice(frame).unwrap()
}

#[test]
fn without_the_flag_the_stream_holds_all_labels() {
    let mut frames = encoder("");
    frames.push(Timestamp(12), b"one \"line\"\n", &sample());
    assert_eq!(frames.lines(), 1);
    let text = frames.finish(&[], &Extras::default());
    let labels = r#"{"app":"a","detected_level":"info","status":"500","trace_id":"t\"1"}"#;
    let want = format!(r#"{{"streams":[{{"stream":{labels},"values":[["12","one \"line\"\n"]]}}]}}"#);
    assert_eq!(text, want.as_bytes());
}

#[test]
fn with_the_flag_each_entry_has_its_own_labels() {
    let mut frames = encoder(" categorize-labels, other");
    frames.push(Timestamp(1), b"x", &sample());
    frames.push(Timestamp(2), b"y", &set(&[("app", "a", Category::Stream)]));
    frames.push(Timestamp(3), b"z", &set(&[("app", "b", Category::Stream), ("p", "q", Category::Parsed)]));
    let own =
        json!({"structuredMetadata": {"detected_level": "info", "trace_id": "t\"1"}, "parsed": {"status": "500"}});
    let want = json!({
        "streams": [
            {"stream": {"app": "a"}, "values": [["1", "x", own], ["2", "y", {}]]},
            {"stream": {"app": "b"}, "values": [["3", "z", {"parsed": {"p": "q"}}]]},
        ],
        "encodingFlags": ["categorize-labels", "other"],
    });
    assert_eq!(read(&frames.finish(&[], &Extras::default())), want);
}

#[test]
fn order_is_kept_and_only_neighbours_share_a_stream_object() {
    let (a, b) = (set(&[("s", "a", Category::Stream)]), set(&[("s", "b", Category::Stream)]));
    let mut frames = encoder("");
    for (ts, labels) in [(5, &a), (4, &a.clone()), (3, &b), (2, &set(&[("s", "b", Category::Stream)])), (1, &a)] {
        frames.push(Timestamp(ts), b"l", labels);
    }
    let want = json!({"streams": [
        {"stream": {"s": "a"}, "values": [["5", "l"], ["4", "l"]]},
        {"stream": {"s": "b"}, "values": [["3", "l"], ["2", "l"]]},
        {"stream": {"s": "a"}, "values": [["1", "l"]]},
    ]});
    assert_eq!(read(&frames.finish(&[], &Extras::default())), want);
    assert_eq!((frames.lines(), frames.len_bytes()), (0, 0));
    assert_eq!(&frames.finish(&[], &Extras::default())[..], HEARTBEAT_JSON.as_bytes());
}

#[test]
fn the_legacy_form_has_text_labels_and_rfc3339() {
    let mut frames = FrameEncoder::new(TailEncoding::Legacy);
    frames.push(Timestamp(1_793_534_400_000_000_001), b"l", &sample());
    let labels = r#"{app="a", detected_level="info", status="500", trace_id="t\"1"}"#;
    let stream = json!({"labels": labels, "entries": [{"ts": "2026-11-01T12:00:00.000000001Z", "line": "l"}]});
    assert_eq!(read(&frames.finish(&[], &Extras::default())), json!({"streams": [stream], "dropped_entries": null}));
    let lost = Dropped { timestamp: Timestamp(0), labels: set(&[("s", "a", Category::Stream)]) };
    let want =
        json!({"streams": [], "dropped_entries": [{"Timestamp": "1970-01-01T00:00:00Z", "Labels": "{s=\"a\"}"}]});
    assert_eq!(read(&frames.finish(&[lost], &Extras::default())), want);
}

#[test]
fn what_was_dropped_is_told() {
    let mut frames = encoder("");
    frames.push(Timestamp(1), b"l", &set(&[]));
    let lost = Dropped { timestamp: Timestamp(7), labels: set(&[("s", "a", Category::Stream)]) };
    let want = json!([{"timestamp": "7", "labels": {"s": "a"}}, {"timestamp": "7", "labels": {"s": "a"}}]);
    assert_eq!(read(&frames.finish(&[lost.clone(), lost], &Extras::default()))["dropped_entries"], want);
}

#[test]
fn what_is_told_of_tokens_has_a_type_of_its_own() {
    let notices = [Notice::NoToken { reason: "\"long\"".to_owned() }];
    let frame = encoder("").finish(&[], &Extras { notices: &notices, ..Extras::default() });
    assert_eq!(read(&frame)["notices"], json!([{"type": "no_token", "reason": "\"long\""}]));
}

#[test]
fn any_bytes_make_a_valid_frame() {
    let mut frames = encoder("");
    let all: Vec<u8> = (0..=255).collect();
    frames.push(Timestamp(i64::MIN), &all, &set(&[]));
    let frame = decode_tail(&frames.finish(&[], &Extras::default())).unwrap();
    assert_eq!(
        frame.streams[0].entries[0].line,
        all.utf8_chunks().fold(String::new(), |s, c| { s + c.valid() + &"\u{fffd}".repeat(c.invalid().len()) })
    );
    assert_eq!(frame.streams[0].entries[0].timestamp, Timestamp(i64::MIN));
}

#[test]
fn the_cache_stays_bounded_and_right_when_it_overflows() {
    let mut frames = encoder("");
    for round in 0..3 {
        for i in 0..5000 {
            let value = format!("{round}-{i}-{}", "x".repeat(100));
            frames.push(Timestamp(1), b"l", &set(&[("i", &value, Category::Stream)]));
        }
        assert!(frames.cached_bytes <= MAX_CACHED_BYTES && frames.cache.len() <= MAX_CACHED_SETS);
        let streams = decode_tail(&frames.finish(&[], &Extras::default())).unwrap().streams;
        let seen = streams.iter().map(|s| s.labels["i"].clone()).collect::<Vec<_>>();
        let want = (0..5000).map(|i| format!("{round}-{i}-{}", "x".repeat(100))).collect::<Vec<_>>();
        assert_eq!(seen, want);
    }
    let huge = "y".repeat(MAX_CACHED_BYTES);
    frames.push(Timestamp(1), b"l", &set(&[("i", &huge, Category::Stream)]));
    assert_eq!(decode_tail(&frames.finish(&[], &Extras::default())).unwrap().streams[0].labels["i"], huge);
    assert!(frames.cached_bytes <= MAX_CACHED_BYTES);
}

#[test]
fn both_forms_read_back() {
    for encoding in [TailEncoding::v1([""]), TailEncoding::v1([CATEGORIZE_LABELS]), TailEncoding::Legacy] {
        let categorized = encoding.flags().len() == 1;
        let mut frames = FrameEncoder::new(encoding);
        frames.push(Timestamp(1_793_534_400_123_456_789), "zwölf".as_bytes(), &sample());
        let lost = Dropped { timestamp: Timestamp(7), labels: sample() };
        let frame = decode_tail(&frames.finish(&[lost], &Extras::default())).unwrap();
        let all: BTreeMap<_, _> = sample().pairs().iter().map(|p| (p.name.to_string(), p.value.to_string())).collect();
        let [stream] = &frame.streams[..] else { panic!("{frame:?}") };
        assert_eq!(stream.entries[0].line, "zwölf");
        assert_eq!(stream.entries[0].timestamp, Timestamp(1_793_534_400_123_456_789));
        assert_eq!(frame.dropped[0], DroppedEntry { timestamp: Timestamp(7), labels: all.clone() });
        let mut seen = stream.labels.clone();
        assert_eq!(seen.len(), if categorized { 1 } else { 4 });
        seen.extend(stream.entries[0].metadata.clone());
        seen.extend(stream.entries[0].parsed.clone());
        assert_eq!(seen, all);
    }
}

#[test]
fn frames_of_other_servers_are_read_or_refused() {
    assert_eq!(decode_tail(b"{}").unwrap(), TailFrame::default());
    assert_eq!(decode_tail(br#"{"streams":null,"dropped_entries":null,"new":1}"#).unwrap(), TailFrame::default());
    for bad in ["", "null x", r#"{"streams":[{}]}"#, r#"{"streams":[{"stream":{},"values":[["x","l"]]}]}"#] {
        assert!(decode_tail(bad.as_bytes()).is_err(), "{bad}");
    }
}
