//! What is accepted of a push and what is answered (contract, Loki API §2.5-2.7).

use super::*;
use crate::PushErrorKind;

const A: &str = r#"{app="a"}"#;
const A_FULL: &str = r#"{app="a", service_name="a"}"#;

fn text(result: Result<Accepted, PushError>) -> (PushErrorKind, String) {
    let error = result.unwrap_err();
    (error.kind, error.text)
}

async fn stored_lines(bench: &Bench) -> Vec<String> {
    bench.stored().await.into_iter().map(|(_, _, line)| line).collect()
}

#[tokio::test]
async fn a_push_needs_a_stream_but_streams_need_no_entries() {
    let bench = Bench::new(no_limits());
    assert_eq!(
        text(bench.push(&[])),
        (PushErrorKind::NoStreams, "error at least one valid stream is required for ingestion".into())
    );
    assert_eq!(bench.push(&[(A, &[])]), Ok(Accepted::default()));
    assert_eq!(bench.push(&[("{bad", &[])]), Ok(Accepted::default()), "nobody looks at a stream without entries");
    let accepted = bench.push(&[(A, &[(NOW, "line", &[("k", "v")])])]).unwrap();
    assert_eq!(accepted, Accepted { lines: 1, bytes: 6, seq: Some(1) });
    let labels = r#"{app="a", k="v", service_name="a"}"#.to_owned();
    assert_eq!(bench.stored().await, [(NOW, labels, "line".to_owned())]);
}

#[tokio::test]
async fn entries_outside_the_window_of_time_are_refused() {
    let bench = Bench::new(Limits { reject_old_samples: true, ..no_limits() });
    let (week, grace) = (7 * 24 * 3600 * SECOND, 600 * SECOND);
    assert!(bench.push(&[(A, &[(NOW + grace, "newest", &[])])]).is_ok());
    assert_eq!(
        text(bench.push(&[(A, &[(NOW + grace + 1, "x", &[])])])),
        (PushErrorKind::BadRequest, format!("entry for stream '{A_FULL}' has timestamp too new: 2027-01-15T08:10:00Z"))
    );
    let bench = Bench::new(Limits { reject_old_samples: true, ..no_limits() });
    assert!(bench.push(&[(A, &[(NOW - week, "oldest", &[])])]).is_ok());
    assert_eq!(
        text(bench.push(&[(A, &[(NOW - week - 1, "x", &[]), (i64::MIN, "y", &[])])])).1,
        format!(
            "1 errors like: entry for stream '{A_FULL}' has timestamp too old: 2027-01-08T07:59:59Z, oldest acceptable timestamp \
             is: 2027-01-08T08:00:00Z; 1 errors like: entry for stream '{A_FULL}' has timestamp too old: 1677-09-21T00:12:43Z, \
             oldest acceptable timestamp is: 2027-01-08T08:00:00Z"
        )
    );
    let bench = Bench::new(Limits { reject_old_samples: false, ..no_limits() });
    assert!(bench.push(&[(A, &[(0, "any age", &[])])]).is_ok());
}

#[tokio::test]
async fn lines_that_are_too_long_are_refused_or_cut() {
    let bench = Bench::new(Limits { max_line_size: 5, ..no_limits() });
    let refused = bench.push(&[(A, &[(NOW, "12345", &[]), (NOW, "123456", &[]), (NOW + 1, "1234567", &[])])]);
    let of_length = |len| {
        format!(
            "1 errors like: max entry size '5' bytes exceeded for stream '{A_FULL}' while adding an entry with length '{len}' bytes"
        )
    };
    assert_eq!(text(refused), (PushErrorKind::BadRequest, format!("{}; {}", of_length(6), of_length(7))));
    assert_eq!(stored_lines(&bench).await, ["12345"]);

    let bench = Bench::new(Limits { max_line_size: 5, max_line_size_truncate: true, ..no_limits() });
    bench.push(&[(A, &[(NOW, "12345678", &[]), (NOW + 1, "1234ä6", &[]), (NOW + 2, "äää", &[])])]).unwrap();
    assert_eq!(stored_lines(&bench).await, ["12345", "1234", "ää"]);

    let bench = Bench::new(Limits { max_line_size: 0, ..no_limits() });
    assert!(bench.push(&[(A, &[(NOW, &"x".repeat(1 << 20), &[])])]).is_ok());
}

#[tokio::test]
async fn metadata_is_limited_and_made_canonical() {
    let refused_with = |limits: Limits, metadata: &[(&str, &str)]| {
        let bench = Bench::new(limits);
        text(bench.push(&[(A, &[(NOW, "fine", &[]), (NOW, "bad", metadata)])])).1
    };
    assert_eq!(
        refused_with(Limits { allow_structured_metadata: false, ..no_limits() }, &[("k", "v")]),
        format!(
            "stream '{A_FULL}' includes structured metadata, but this feature is disallowed. Please see \
             `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it"
        )
    );
    assert_eq!(
        refused_with(Limits { max_structured_metadata_size: 9, ..no_limits() }, &[("key", "value"), ("k", "v")]),
        format!(
            "stream '{A_FULL}' has structured metadata too large: '10' bytes, limit: '9' bytes. Please see \
             `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it"
        )
    );
    assert_eq!(
        refused_with(Limits { max_structured_metadata_entries_count: 1, ..no_limits() }, &[("a", "1"), ("b", "2")]),
        format!(
            "stream '{A_FULL}' has too many structured metadata labels: '2', limit: '1'. Please see \
             `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator to increase it"
        )
    );
    assert_eq!(refused_with(no_limits(), &[("", "v")]), "label name is empty");
    assert_eq!(
        refused_with(no_limits(), &[("ok", "v"), ("__", "v")]),
        r#"normalization for label name "__" resulted in invalid name "_""#
    );

    let bench = Bench::new(no_limits());
    bench.push(&[(A, &[(NOW, "l", &[("trace-id", "1"), ("gone", ""), ("2x", "3")])])]).unwrap();
    let labels = r#"{app="a", key_2x="3", service_name="a", trace_id="1"}"#.to_owned();
    assert_eq!(bench.stored().await, [(NOW, labels, "l".to_owned())]);
}

#[tokio::test]
async fn what_is_good_is_stored_beside_what_is_bad() {
    let bench = Bench::new(Limits { max_line_size: 5, max_label_names_per_series: 2, ..no_limits() });
    let result = bench.push(&[
        (A, &[(NOW, "one", &[]), (NOW, "too long", &[]), (NOW + 1, "two", &[])]),
        (r#"{a="1",b="2",c="3"}"#, &[(NOW, "lost", &[])]),
        (r#"{"#, &[(NOW, "lost", &[]), (NOW, "lost", &[])]),
        (r#"{app="b"}"#, &[(NOW + 2, "three", &[("bad-key", "v")]), (NOW + 3, "four", &[("", "v")])]),
    ]);
    let (kind, text) = text(result);
    assert_eq!(kind, PushErrorKind::BadRequest);
    for part in [
        "1 errors like: max entry size '5' bytes exceeded for stream '{app=\"a\", service_name=\"a\"}'",
        "1 errors like: entry for stream '{a=\"1\", b=\"2\", c=\"3\", service_name=\"unknown_service\"}' has 3 label names; limit 2",
        "1 errors like: couldn't parse labels: 1:",
        "1 errors like: label name is empty",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(stored_lines(&bench).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn the_tenants_rate_takes_all_of_a_push_or_nothing() {
    let bench = Bench::new(Limits { ingestion_rate_mb: 1.0, ingestion_burst_size_mb: 2.0, ..no_limits() });
    let mib = "x".repeat(1 << 20);
    let half = &mib[..1 << 19];
    assert!(bench.push(&[(A, &[(NOW, &mib, &[])])]).is_ok());
    assert!(bench.push(&[(A, &[(NOW + 1, half, &[("k", &half[2..]), ("l", "")])])]).is_ok(), "1 MiB less a byte");
    let refused = bench.push(&[(A, &[(NOW + 2, "ab", &[])]), ("{", &[(NOW, "c", &[])])]);
    let told = "ingestion rate limit exceeded for user t (limit: 1048576 bytes/sec) while attempting to ingest '1' lines totaling '2' \
                bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased";
    assert_eq!(text(refused), (PushErrorKind::RateLimited, told.to_owned()));
    assert_eq!(stored_lines(&bench).await.len(), 2);
    bench.advance(SECOND);
    assert!(bench.push(&[(A, &[(NOW + 3, &mib, &[])])]).is_ok());
    assert!(bench.push(&[(A, &[(NOW + 4, &mib, &[])])]).is_err());
}

#[tokio::test]
async fn a_streams_rate_takes_all_of_its_part_or_nothing() {
    let limits = Limits { per_stream_rate_limit: 1 << 10, per_stream_rate_limit_burst: 2 << 10, ..no_limits() };
    let bench = Bench::new(limits);
    let kib = "x".repeat(1 << 10);
    assert!(bench.push(&[(A, &[(NOW, &kib, &[]), (NOW + 1, &kib[..1000], &[])])]).is_ok());
    let refused =
        bench.push(&[(A, &[(NOW + 2, &kib, &[]), (NOW + 3, "0123456789", &[])]), (r#"{app="b"}"#, &[(NOW, "b", &[])])]);
    let reason = |size| {
        format!(
            "reason: 'Per stream rate limit exceeded (limit: 1KB/sec) while attempting to ingest for stream '{A_FULL}' totaling {size}, \
             consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased'"
        )
    };
    let told = format!(
        "entry with timestamp 2027-01-15 08:00:00.000000002 +0000 UTC ignored, {},\nentry with timestamp 2027-01-15 \
         08:00:00.000000003 +0000 UTC ignored, {},\nuser 't', total ignored: 2 out of 2 for stream: {A_FULL}",
        reason("1KB"),
        reason("10B")
    );
    assert_eq!(text(refused), (PushErrorKind::RateLimited, told));
    assert_eq!(stored_lines(&bench).await.len(), 3, "other streams are not concerned");
    bench.advance(SECOND);
    assert!(bench.push(&[(A, &[(NOW + 4, &kib, &[])])]).is_ok());
}

#[tokio::test]
async fn entries_far_behind_the_newest_of_their_stream_are_refused() {
    let bench = Bench::new(no_limits());
    let hour = 3600 * SECOND;
    assert!(bench.push(&[(A, &[(NOW - 3 * hour, "the first sets no window", &[])])]).is_ok());
    let entries: &[TestEntry<'_>] = &[
        (NOW, "newest", &[]),
        (NOW - hour, "just inside", &[]),
        (NOW - hour - 1, "outside", &[]),
        (NOW - 2 * hour + SECOND / 2, "far outside", &[]),
        (NOW - 1, "inside", &[]),
    ];
    // The last stream of the push is fine; the refusal of an earlier one is told all the same.
    let (kind, text) = text(bench.push(&[(A, entries), (r#"{app="b"}"#, &[(NOW - 5 * hour, "b", &[])])]));
    assert_eq!(kind, PushErrorKind::BadRequest);
    assert_eq!(
        text,
        format!(
            "entry with timestamp 2027-01-15 06:59:59.999999999 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: \
             2027-01-15T06:59:59Z, oldest acceptable timestamp is: 2027-01-15T07:00:00Z',\nentry with timestamp 2027-01-15 \
             06:00:00.5 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2027-01-15T06:00:00Z, oldest acceptable \
             timestamp is: 2027-01-15T07:00:00Z',\nuser 't', total ignored: 2 out of 5 for stream: {A_FULL}"
        )
    );
    assert_eq!(stored_lines(&bench).await, ["b", "the first sets no window", "just inside", "inside", "newest"]);
    let wide = Bench::new(Limits { out_of_order_window: std::time::Duration::from_secs(24 * 3600), ..no_limits() });
    assert!(wide.push(&[(A, entries)]).is_ok());
}

#[tokio::test]
async fn at_most_ten_ignored_entries_are_listed() {
    let bench = Bench::new(no_limits());
    let mut entries: Vec<TestEntry<'_>> = vec![(NOW, "newest", &[])];
    entries.extend((0..25).map(|i| (NOW - 2 * 3600 * SECOND + i, "old", &[][..])));
    let (_, text) = text(bench.push(&[(A, &entries)]));
    assert_eq!(text.matches("entry with timestamp").count(), 10);
    assert!(text.ends_with(&format!("user 't', total ignored: 25 out of 26 for stream: {A_FULL}")), "{text}");
}

#[tokio::test]
async fn an_entry_equal_to_the_one_before_it_is_dropped_silently() {
    let bench = Bench::new(no_limits());
    let m: &[(&str, &str)] = &[("k", "v")];
    let accepted = bench
        .push(&[(
            A,
            &[
                (NOW, "same", &[]),
                (NOW, "same", &[]),
                (NOW, "other", &[]),
                (NOW, "same", m),
                (NOW, "same", m),
                (NOW + 1, "same", m),
            ],
        )])
        .unwrap();
    assert_eq!(accepted.lines, 4);
    assert_eq!(bench.push(&[(A, &[(NOW + 1, "same", m)])]), Ok(Accepted::default()), "also across pushes");
    assert_eq!(bench.push(&[(A, &[(NOW + 1, "same", &[("k", "w")])])]).unwrap().lines, 1);
    assert_eq!(bench.push(&[(r#"{app="b"}"#, &[(NOW + 1, "same", m)])]).unwrap().lines, 1, "another stream");
}

#[tokio::test]
async fn repeated_timestamps_move_on_if_wanted() {
    let bench = Bench::new(Limits { increment_duplicate_timestamp: true, ..no_limits() });
    let entries: &[TestEntry<'_>] = &[
        (NOW, "a", &[]),
        (NOW, "a", &[]),
        (NOW, "c", &[]),
        (NOW + 1, "d", &[]),
        (NOW + 9, "e", &[]),
        (NOW - 5, "f", &[]),
    ];
    bench.push(&[(A, entries)]).unwrap();
    let stored: Vec<_> = bench.stored().await.into_iter().map(|(at, _, line)| (at - NOW, line)).collect();
    let want = [(-5, "f"), (0, "a"), (1, "a"), (2, "c"), (3, "d"), (9, "e")].map(|(at, line)| (at, line.to_owned()));
    assert_eq!(stored, want);
}

#[tokio::test]
async fn streams_are_limited_until_others_are_idle() {
    let bench = Bench::new(Limits { max_global_streams_per_user: 2, ..no_limits() });
    let one = |app: &str, at: i64| bench.push(&[(&format!(r#"{{app="{app}"}}"#), &[(at, "x", &[])])]);
    assert!(one("a", NOW).is_ok() && one("b", NOW).is_ok());
    let told = "maximum active stream limit exceeded when trying to create stream {app=\"c\", service_name=\"c\"}, reduce the number of \
                active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be \
                increased, user: 't'";
    assert_eq!(text(one("c", NOW)), (PushErrorKind::RateLimited, told.to_owned()));
    assert!(one("a", NOW + 1).is_ok(), "streams that are there go on");
    bench.advance(31 * 60 * SECOND);
    assert!(one("a", NOW + 2).is_ok());
    assert!(one("c", NOW + 2).is_ok(), "b is idle and makes room");
    assert!(one("b", NOW + 3).is_err());
    assert_eq!(stored_lines(&bench).await.len(), 5, "what a forgotten stream has left in the log stays");
}

#[tokio::test]
async fn label_texts_lead_to_one_stream_however_they_are_written() {
    let bench = Bench::new(Limits { max_global_streams_per_user: 1, ..no_limits() });
    for (i, text) in
        [r#"{a="1", b="2"}"#, r#"{b="2",a="1"}"#, "{b='2',a=`1`}", r#"{a="1", b="2"}"#, r#"{a="1",b="2",c=""}"#]
            .into_iter()
            .enumerate()
    {
        bench.push(&[(text, &[(NOW + i as i64, "x", &[])])]).unwrap();
    }
    let labels: Vec<_> = bench.stored().await.into_iter().map(|(_, labels, _)| labels).collect();
    assert_eq!(labels, vec![r#"{a="1", b="2", service_name="unknown_service"}"#; 5]);
}

#[tokio::test]
async fn a_push_larger_than_the_log_and_one_after_closing_are_refused() {
    let bench = Bench::with_memory(no_limits(), 10_000);
    let (kind, text) = text(bench.push(&[(A, &[(NOW, &"x".repeat(20_000), &[])])]));
    assert_eq!(kind, PushErrorKind::TooLarge);
    assert!(text.starts_with("push too large: it takes 20"), "{text}");
    bench.ingester.close();
    let error = bench.push(&[(A, &[(NOW, "x", &[])])]).unwrap_err();
    assert_eq!(error.kind, PushErrorKind::Unavailable);
}

#[test]
fn everything_is_counted() {
    let bench = Bench::new(Limits { max_line_size: 5, ..no_limits() });
    let _ = bench.push(&[(A, &[(NOW, "12", &[("k", "v")]), (NOW, "123456", &[]), (NOW, "1234567", &[])])]);
    let mut registry = prometheus_client::registry::Registry::default();
    bench.ingester.register_metrics(&mut registry);
    let mut out = String::new();
    prometheus_client::encoding::text::encode(&mut out, &registry).unwrap();
    for line in [
        r#"tailwater_ingester_lines_total{tenant="t"} 1"#,
        r#"tailwater_ingester_bytes_total{tenant="t"} 4"#,
        r#"loki_distributor_lines_received_total{tenant="t"} 1"#,
        r#"loki_discarded_samples_total{reason="line_too_long",tenant="t"} 2"#,
        r#"loki_discarded_bytes_total{reason="line_too_long",tenant="t"} 13"#,
        r#"loki_ingester_memory_streams{tenant="t"} 1"#,
        r#"loki_ingester_streams_created_total{tenant="t"} 1"#,
        "tailwater_log_head 1",
        "tailwater_log_trimmed_lines_total 0",
    ] {
        assert!(out.lines().any(|l| l == line), "{line} in\n{out}");
    }
}

#[test]
fn a_tiny_push_costs_little_and_the_log_keeps_its_bound() {
    let bench = Bench::with_memory(no_limits(), 100_000);
    let mut most = 0;
    for i in 0..2_000 {
        bench
            .push(&[(
                A,
                &[(
                    NOW + i,
                    "a line of a hundred bytes, as a canary sends it; it goes on for a while, until it ends.",
                    &[],
                )],
            )])
            .unwrap();
        most = most.max(bench.ingester.log.size().bytes);
    }
    let size = bench.ingester.log.size();
    assert!(most <= 100_000, "{most}");
    assert_eq!((size.head, size.trimmed.batches), (2_000, 2_000 - size.batches));
    assert!(size.bytes / size.batches < 700, "{size:?}");
}

#[tokio::test]
async fn idle_streams_and_tenants_are_forgotten() {
    let bench = Bench::with_memory(no_limits(), 3_000);
    let ingester = &bench.ingester;
    let one = |t: &str| bench.push_to(&tenant(t), push_of(&[(A, &[(NOW, "x", &[])])])).unwrap();
    one("gone");
    for i in 0..20 {
        bench.push(&[(A, &[(NOW + i, "fills the log", &[])])]).unwrap();
    }
    assert!(ingester.tenants.get(&tenant("gone")).is_some());
    bench.advance(31 * 60 * SECOND);
    bench.push(&[(A, &[(NOW + 99, "looks for idle ones", &[])])]).unwrap();
    assert!(ingester.tenants.get(&tenant("gone")).is_none());
    assert!(ingester.tenants.get(&tenant("t")).is_some());
}

#[test]
fn tenants_are_bounded() {
    let bench = Bench::new(no_limits());
    let one = |t: &str| bench.push_to(&tenant(t), push_of(&[(A, &[(NOW, "x", &[])])]));
    for i in 0..16 {
        assert!(one(&format!("t{i}")).is_ok());
    }
    assert_eq!(
        text(one("one-too-many")),
        (PushErrorKind::RateLimited, "too many active tenants, user: 'one-too-many'".into())
    );
    assert!(one("t3").is_ok());
}

#[test]
fn label_texts_of_any_kind_are_cached_within_bounds() {
    let bench = Bench::new(Limits { max_global_streams_per_user: 3, ..no_limits() });
    for i in 0..2_000_i64 {
        let padded = format!("{{app{}=\"{}\"}}", " ".repeat(i as usize), i % 3);
        bench.push(&[(&padded, &[(NOW + i, "x", &[])])]).unwrap();
    }
    assert_eq!(bench.ingester.log.head(), 2_000);
}
