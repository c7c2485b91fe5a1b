//! What a line costs: `cargo bench -p tailwater-logql`. Each sample runs 1,000 lines of about 180 bytes, so microseconds per
//! sample are nanoseconds per line.

use std::sync::Arc;

use divan::{Bencher, black_box};
use tailwater_logql::{LogQuery, level};
use tailwater_model::{Labels, Timestamp};

/// Lines per sample.
const LINES: usize = 1_000;

fn main() {
    divan::main();
}

fn stream() -> Labels {
    let pair = |(n, v): (&str, &str)| (n.into(), v.into());
    Labels::from_pairs([("app", "api"), ("env", "prod"), ("pod", "api-7d9f"), ("service_name", "api")].map(pair).into())
}

fn plain() -> Vec<String> {
    (0..LINES)
        .map(|i| {
            format!(
                "2026-11-20T22:05:{:02}.{:03}Z 10.0.{}.{} handler finished request {i} for user {} after {} ms, upstream replied with status 200 and a body of {} bytes, trace 4bf92f3577b34da6a3ce929d0e0e{i:04x}",
                i % 60, i % 1000, i % 7, i % 251, i % 97, i % 311, i * 37 % 9000
            )
        })
        .collect()
}

fn logfmt() -> Vec<String> {
    (0..LINES)
        .map(|i| {
            let level = ["debug", "info", "warn", "error"][i % 4];
            format!("level={level} ts=2026-11-20T22:05:00Z method=GET path=/api/items/{} status={} duration={}ms size={} user=u{} msg=\"request done with care\" trace=t{:05}", i % 50, 200 + i % 5, i % 90, i % 1000, i % 13, i % 64)
        })
        .collect()
}

fn json() -> Vec<String> {
    (0..LINES)
        .map(|i| {
            let level = ["debug", "info", "warn", "error"][i % 4];
            format!("{{\"level\":\"{level}\",\"ts\":\"2026-11-20T22:05:00Z\",\"method\":\"GET\",\"req\":{{\"path\":\"/api/items/{}\",\"user\":\"u{}\"}},\"status\":{},\"duration_ms\":{},\"msg\":\"request done with care\",\"trace\":\"t{:05}\"}}", i % 50, i % 13, 200 + i % 5, i % 90, i % 64)
        })
        .collect()
}

fn run(bencher: Bencher<'_, '_>, query: &str, lines: &[String], detect_level: bool) {
    let query = Arc::new(LogQuery::parse(query).expect("the query is valid"));
    let stream = stream();
    let mut runner = query.runner(detect_level);
    runner.enter(&stream);
    bencher.bench_local(|| {
        let mut matched = 0;
        for line in lines {
            runner.enter(&stream);
            matched += usize::from(runner.run(Timestamp(0), black_box(line.as_bytes()), &[]).is_some());
        }
        matched
    });
}

#[divan::bench]
fn bare_selector(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"}"#, &plain(), false);
}

#[divan::bench]
fn bare_selector_with_level(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"}"#, &plain(), true);
}

#[divan::bench]
fn contains_miss(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} |= "out of memory""#, &plain(), true);
}

#[divan::bench]
fn contains_hit(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} |= "status 200""#, &plain(), false);
}

#[divan::bench]
fn any_case_miss(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} |~ "(?i)exception""#, &plain(), false);
}

#[divan::bench]
fn regex_miss(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} |~ "status 5\\d\\d.*(timeout|refused)""#, &plain(), false);
}

#[divan::bench]
fn regex_hit(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} |~ "user \\d+ after""#, &plain(), false);
}

#[divan::bench]
fn ip_hit(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} |= ip("10.0.0.0/16")"#, &plain(), false);
}

#[divan::bench]
fn json_all(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | json"#, &json(), false);
}

#[divan::bench]
fn json_then_filter_that_stops(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | json | level="fatal""#, &json(), false);
}

#[divan::bench]
fn json_one_expression(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | json user="req.user""#, &json(), false);
}

#[divan::bench]
fn logfmt_all(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | logfmt"#, &logfmt(), false);
}

#[divan::bench]
fn logfmt_then_filter_that_stops(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | logfmt | status >= 500"#, &logfmt(), false);
}

#[divan::bench]
fn logfmt_then_keep(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | logfmt | keep level, status"#, &logfmt(), false);
}

#[divan::bench]
fn pattern(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | pattern "<_> <ip> <_> user <user> after <ms> ms<_>" | user="none""#, &plain(), false);
}

#[divan::bench]
fn regexp(bencher: Bencher<'_, '_>) {
    run(bencher, r#"{app="api"} | regexp "user (?P<user>\\d+) after (?P<ms>\\d+) ms" | user="none""#, &plain(), false);
}

fn detect(bencher: Bencher<'_, '_>, lines: &[String]) {
    let stream = stream();
    bencher.bench_local(|| {
        for line in lines {
            black_box(level::detect(&stream, &[], black_box(line.as_bytes())));
        }
    });
}

#[divan::bench]
fn level_of_plain_text(bencher: Bencher<'_, '_>) {
    detect(bencher, &plain());
}

#[divan::bench]
fn level_of_logfmt(bencher: Bencher<'_, '_>) {
    detect(bencher, &logfmt());
}

#[divan::bench]
fn level_of_json(bencher: Bencher<'_, '_>) {
    detect(bencher, &json());
}

/// A region of all lines that holds none of the literals.
#[divan::bench]
fn may_match_miss(bencher: Bencher<'_, '_>) {
    let query = LogQuery::parse(r#"{app="api"} |= "out of memory" | json"#).expect("the query is valid");
    let region = plain().join("\n");
    bencher.bench_local(|| query.may_match(black_box(region.as_bytes())));
}
