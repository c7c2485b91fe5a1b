use serde_json::{Value, json};
use tailwater_model::LabelPair;

use super::*;

fn set(pairs: &[(&str, &str, Category)]) -> LabelSet {
    let pair = |(n, v, c): &(&str, &str, Category)| LabelPair { name: (*n).into(), value: (*v).into(), category: *c };
    LabelSet::from_pairs(pairs.iter().map(pair).collect())
}

fn labels_of(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
}

fn read(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// The answer up to its statistics, as text: the order of keys counts.
fn head(body: Vec<u8>) -> String {
    let text = String::from_utf8(body).unwrap();
    text.split(r#","stats":"#).next().unwrap().to_owned()
}

fn entries(sets: &[LabelSet; 3]) -> Vec<Entry<'_>> {
    let entry = |timestamp, line, labels| Entry { timestamp: Timestamp(timestamp), line, labels };
    vec![
        entry(30, b"three", &sets[1]),
        entry(20, b"t\"wo", &sets[0]),
        entry(10, b"one", &sets[2]),
        entry(5, b"zero", &sets[1]),
    ]
}

fn sets() -> [LabelSet; 3] {
    [
        set(&[("app", "a", Category::Stream), ("level", "x", Category::Metadata)]),
        set(&[("app", "b", Category::Stream), ("n", "1", Category::Parsed)]),
        set(&[("app", "b", Category::Stream), ("n", "0", Category::Metadata)]),
    ]
}

#[test]
fn streams_are_sorted_by_text_and_entries_keep_their_order() {
    let sets = sets();
    let body = streams(entries(&sets), &TailEncoding::v1([]), &[], &Stats::default());
    let want = concat!(
        r#"{"status":"success","data":{"resultType":"streams","result":["#,
        r#"{"stream":{"app":"a","level":"x"},"values":[["20","t\"wo"]]},"#,
        r#"{"stream":{"app":"b","n":"0"},"values":[["10","one"]]},"#,
        r#"{"stream":{"app":"b","n":"1"},"values":[["30","three"],["5","zero"]]}]"#,
    );
    assert_eq!(head(body), want);
}

#[test]
fn categorised_entries_regroup_under_their_stream() {
    let sets = sets();
    let encoding = TailEncoding::v1(["categorize-labels"]);
    let body = streams(entries(&sets), &encoding, &["careful".to_owned()], &Stats::default());
    let want = concat!(
        r#"{"status":"success","warnings":["careful"],"data":{"resultType":"streams","encodingFlags":["categorize-labels"],"#,
        r#""result":[{"stream":{"app":"a"},"values":[["20","t\"wo",{"structuredMetadata":{"level":"x"}}]]},"#,
        r#"{"stream":{"app":"b"},"values":[["30","three",{"parsed":{"n":"1"}}],"#,
        r#"["10","one",{"structuredMetadata":{"n":"0"}}],["5","zero",{"parsed":{"n":"1"}}]]}]"#,
    );
    assert_eq!(head(body), want);
}

#[test]
fn equal_labels_of_different_allocations_are_one_stream() {
    let (a, b) = (sets(), sets());
    let all = entries(&a).into_iter().chain(entries(&b));
    let body = read(&streams(all, &TailEncoding::v1([]), &[], &Stats::default()));
    let result = body["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), 3);
    assert_eq!(result[2]["values"].as_array().unwrap().len(), 4);
}

#[test]
fn legacy_answers_have_text_labels() {
    let sets = sets();
    let body = read(&streams(entries(&sets), &TailEncoding::Legacy, &[], &Stats::default()));
    let first = json!({"labels": "{app=\"a\", level=\"x\"}", "entries": [{"ts": "1970-01-01T00:00:00.00000002Z", "line": "t\"wo"}]});
    assert_eq!((&body["streams"][0], body["stats"].is_object()), (&first, true));
    // What was parsed is said again in each entry.
    assert_eq!(body["streams"][2]["entries"][1]["parsed"], json!({"n": "1"}));
    assert!(body["streams"][1]["entries"][0].get("parsed").is_none());
}

#[test]
fn nothing_found_is_an_empty_array() {
    let none: [Entry<'_>; 0] = [];
    let want = r#"{"status":"success","data":{"resultType":"streams","result":[]"#;
    assert_eq!(head(streams(none, &TailEncoding::v1([]), &[], &Stats::default())), want);
    let want = r#"{"status":"success","data":{"resultType":"vector","result":[]"#;
    assert_eq!(head(vector(&[], &[], &Stats::default())), want);
}

#[test]
fn samples_are_seconds_and_text() {
    let sample = |ns, value| Sample { timestamp: Timestamp(ns), value };
    let one = labels_of(&[("a", "b")]);
    let body = vector(&[(one.clone(), sample(1_795_201_620_628_999_999, 2.0))], &[], &Stats::default());
    let want = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1795201620.628,"2"]}]"#;
    assert_eq!(head(body), want);
    let samples =
        vec![sample(1_795_201_800_000_000_000, f64::NAN), sample(1_795_201_800_120_000_000, f64::NEG_INFINITY)];
    let body = matrix(&[(one, samples)], &["w".to_owned()], &Stats::default());
    let text = String::from_utf8(body.clone()).unwrap();
    assert!(text.contains(r#""values":[[1795201800,"NaN"],[1795201800.12,"-Inf"]]"#), "{text}");
    assert!(text.ends_with(r#","warnings":["w"]}"#));
    assert!(read(&body)["data"]["stats"].is_object());
    let body = scalar(sample(-1_500_000_000, 1e21), &[], &Stats::default());
    let want = r#"{"status":"success","data":{"resultType":"scalar","result":[-1.5,"1000000000000000000000"]"#;
    assert_eq!(head(body), want);
}

#[test]
fn small_answers() {
    assert_eq!(labels::<&str>(&[], &[]), br#"{"status":"success"}"#);
    assert_eq!(labels(&["a", "b\""], &[]), br#"{"status":"success","data":["a","b\""]}"#);
    assert_eq!(labels::<&str>(&[], &["w".into()]), br#"{"status":"success","warnings":["w"]}"#);
    assert_eq!(series(&[], &[]), br#"{"status":"success","data":[]}"#);
    assert_eq!(series(&[], &["w".into()]), br#"{"status":"success","data":[],"warnings":["w"]}"#);
    assert_eq!(
        read(&series(&[labels_of(&[("a", "b")]), labels_of(&[])], &[])),
        json!({"status": "success", "data": [{"a": "b"}, {}]})
    );
    let stats = crate::node::Stats { streams: 1, chunks: 2, bytes: 3, entries: 4 };
    assert_eq!(index_stats(&stats), br#"{"streams":1,"chunks":2,"bytes":3,"entries":4}"#);
}

#[test]
fn statistics_carry_the_figures() {
    let stats = Stats {
        bytes: 1000,
        lines: 10,
        matched: 4,
        returned: 3,
        took: std::time::Duration::from_millis(500),
        nodes: 2,
        batches: 5,
        ..Stats::default()
    };
    let body = read(&vector(&[], &[], &stats));
    let stats = &body["data"]["stats"];
    assert_eq!(stats["summary"]["totalBytesProcessed"], 1000);
    assert_eq!(stats["summary"]["bytesProcessedPerSecond"], 2000);
    assert_eq!(stats["summary"]["execTime"], 0.5);
    assert_eq!(stats["ingester"]["store"]["chunk"]["headChunkLines"], 10);
    assert_eq!(stats["querier"]["store"]["chunk"]["headChunkLines"], 0);
    assert_eq!(stats["cache"]["taskResult"]["requests"], 0);
    for part in ["summary", "querier", "ingester", "cache", "index"] {
        assert!(stats[part].is_object(), "{part}");
    }
}

#[test]
fn steps_begin_as_instant_answers_do_and_say_their_time() {
    let time = Timestamp(1_793_534_400_250_000_000);
    let samples = [(labels_of(&[("level", "error")]), Sample { timestamp: time, value: 2.5 })];
    let text = |body: Vec<u8>| String::from_utf8(body).unwrap();
    let step = text(step_vector(time, &samples, &[]));
    assert_eq!(step, head(vector(&samples, &[], &Stats::default())) + r#"},"time":1793534400.25}"#);
    let warned = text(step_vector(time, &[], &["2 lines".to_owned()]));
    let want = r#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["2 lines"],"time":1793534400.25}"#;
    assert_eq!(warned, want);
    let want =
        r#"{"status":"success","data":{"resultType":"scalar","result":[1793534400.25,"7"]},"time":1793534400.25}"#;
    assert_eq!(text(step_scalar(Sample { timestamp: time, value: 7.0 }, &[])), want);
    let want = r#"{"status":"error","errorType":"execution","error":"a \"b\"","warnings":["w"],"time":1793534400.25}"#;
    assert_eq!(text(step_error(time, "execution", "a \"b\"", &["w".to_owned()])), want);
}
