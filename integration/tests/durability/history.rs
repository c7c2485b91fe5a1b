//! Blocks, WAL and memory are one history: what a tail begins with joins what comes, and every query sees each line once, wherever it
//! lies and while it moves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tailwater_integration::ledger::Scope;
use tailwater_integration::lines::Numbers;
use tailwater_integration::load::{Load, Shape, Shared};
use tailwater_integration::read::Query;
use tailwater_integration::{Client, Home, Server, now_ns, seeds, within};
use tokio::task::JoinHandle;

use crate::{LOAD, SMALL, acknowledged_more, assert_all_there, config, flush, note, read_to_mark, shared, wal};

const DAY: i64 = 86_400_000_000_000;
const S: i64 = 1_000_000_000;

/// Cuts blocks until told to stop.
fn keep_flushing(client: Client, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut flushes = 0;
        while !stop.load(Ordering::Relaxed) {
            flush(&client).await;
            flushes += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        flushes
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_joins_blocks_to_what_comes() {
    let home = Home::new(&config(&[&SMALL[..], &[&wal("interval", 1, 0)]].concat()));
    let ledger = shared(10);
    let start = (now_ns() - 2 * DAY).to_string();
    for round in 0..3 {
        let mut server = home.start().await;
        let stop = Arc::new(AtomicBool::new(false));
        let flushing = keep_flushing(server.client(), stop.clone());
        let shape = Shape { tenants: vec!["a".to_owned()], pause: Duration::from_millis(5), ..Shape::default() };
        let load = Load::start(&server.client(), &ledger, &shape, round);
        let mut tails = Vec::new();
        for i in 0..5 {
            acknowledged_more(&ledger, 300).await;
            // Every other query has a pipeline of its own.
            let query = if i % 2 == 0 { LOAD.to_owned() } else { format!("{LOAD} | label_format x=`{i}` | x = `{i}`") };
            let params = [("query", query.as_str()), ("start", &start), ("limit", "10000000")];
            tails.push(server.tenant("a").tail(&params).await);
        }
        acknowledged_more(&ledger, 300).await;
        let statuses = load.stop().await;
        assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [204]);
        for (i, mut tail) in tails.into_iter().enumerate() {
            let lines = read_to_mark(&mut tail, &server, &ledger, "a", &format!("z{round}{i}")).await;
            ledger.lock().assert_exact(&format!("round {round}, tail {i}"), "a", &lines, &Scope::ALL);
        }
        stop.store(true, Ordering::Relaxed);
        flushing.await.unwrap();
        assert_all_there(&format!("round {round}"), &server, &ledger).await;
        server.assert_well();
        if round == 0 {
            server.kill().await;
        } else {
            let (status, log) = server.terminate().await;
            assert_eq!(status.code(), Some(0), "{log}");
        }
    }
}

/// Pushes of known times within the last hour, in small steps, to the parts `m0` to `m3`; a third of them a day earlier.
async fn push_some(server: &Server, ledger: &Shared, begin: i64, pushes: Range<i64>, numbers: &mut Numbers) {
    for push in pushes {
        let at = begin + push * 5 * S;
        let part = format!("m{}", numbers.below(4));
        let parts = [(part.as_str(), at), ("mold", at - DAY)];
        let parts = if push % 3 == 0 { &parts[..] } else { &parts[..1] };
        let (batch, receipt) = ledger.lock().push("a", parts, 1 + numbers.below(60) as usize, numbers);
        server.tenant("a").push_ok(&batch).await;
        ledger.lock().acknowledge(&receipt);
    }
}

/// A query of a random window, limit and direction, against the ledger.
async fn check_page(when: &str, client: &Client, ledger: &Shared, begin: i64, numbers: &mut Numbers) {
    let origin = if numbers.below(3) == 0 { begin - DAY } else { begin };
    let start = origin + numbers.below(3_000) as i64 * S;
    let longest = if numbers.below(3) == 0 { 2 * DAY } else { 600 * S };
    let end = start + 1 + numbers.below(longest.cast_unsigned()) as i64;
    let limit = [1, 7, 100, 1_000, 5_000][numbers.below(5) as usize];
    let forward = numbers.below(2) == 0;
    let query = Query { query: r#"{app="load", part=~"m.*"}"#, start, end, limit, forward };
    let when = format!("{when}, {query:?}");
    let page = query.page(client).await.unwrap_or_else(|e| panic!("{when}: {} {}", e.status, e.text()));
    assert!(page.warnings.is_empty(), "{when}: {:?}", page.warnings);
    let ledger = ledger.lock();
    let all = ledger.acknowledged("a").filter(|(part, at)| part.starts_with('m') && (start..end).contains(at)).count();
    assert_eq!(page.lines.len(), all.min(limit), "{when}: of {all}");
    let scope = |time: Range<i64>| Scope { time, part: "m", backward: !forward, ..Scope::ALL };
    if all <= limit {
        ledger.assert_exact(&when, "a", &page.lines, &scope(start..end));
        return;
    }
    // Those at the last timestamp of a full page may be some of several; before it, all are there.
    let times = page.lines.iter().map(|line| line.timestamp);
    let (cut, rest) = if forward {
        let cut = times.max().unwrap();
        (cut, start..cut)
    } else {
        let cut = times.min().unwrap();
        (cut, cut + 1..end)
    };
    let verdict = ledger.judge("a", &page.lines, &scope(start..end));
    let sound = verdict.phantom.is_empty() && verdict.duplicated.is_empty() && verdict.disordered.is_empty();
    assert!(sound, "{when}: {verdict}");
    let before: Vec<_> = page.lines.iter().filter(|line| line.timestamp != cut).cloned().collect();
    ledger.assert_exact(&when, "a", &before, &scope(rest));
}

/// Series by their part, and their points.
fn series(answer: &Value) -> BTreeMap<String, Vec<(i64, f64)>> {
    let point = |pair: &Value| {
        let at = (pair[0].as_f64().unwrap() * 1e9).round() as i64;
        (at, pair[1].as_str().unwrap().parse::<f64>().unwrap())
    };
    let of = |series: &Value| {
        let points = match series["values"].as_array() {
            Some(points) => points.iter().map(point).collect(),
            None => vec![point(&series["value"])],
        };
        (series["metric"]["part"].as_str().unwrap_or_default().to_owned(), points)
    };
    answer["data"]["result"].as_array().unwrap().iter().map(of).collect()
}

/// A metric query of a random range, against a count of the ledger's own.
async fn check_count(when: &str, client: &Client, ledger: &Shared, begin: i64, numbers: &mut Numbers) {
    let range = [1, 10, 300, 3_600, 90_000][numbers.below(5) as usize];
    let step = 60 + numbers.below(600) as i64;
    // Steps are multiples of themselves since 1970, whatever the start.
    let at = (begin / S + numbers.below(4_000) as i64) / step * step;
    let (expression, by_part, per_second) = match numbers.below(4) {
        0 => ("sum(count_over_time(RANGE))", false, false),
        1 => ("sum by (part) (count_over_time(RANGE))", true, false),
        2 => ("sum(rate(RANGE))", false, true),
        _ => ("sum by (part) (rate(RANGE))", true, true),
    };
    let query = expression.replace("RANGE", &format!(r#"{{app="load", part=~"m.*"}}[{range}s]"#));
    let points = if numbers.below(2) == 0 { 1 } else { 1 + numbers.below(20) as i64 };
    let (start, end, step_text) = (at.to_string(), (at + (points - 1) * step).to_string(), step.to_string());
    let when = format!("{when}, {query} from {start}, {points} points of {step} s");
    let reply = if points == 1 {
        client.get_with("/loki/api/v1/query", &[("query", &query), ("time", &start)]).await
    } else {
        let params = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", &step_text)];
        client.get_with("/loki/api/v1/query_range", &params).await
    };
    assert_eq!(reply.status, 200, "{when}: {}", reply.text());
    let answer = reply.json();
    let found = series(&answer);
    let mut wanted: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    let ledger = ledger.lock();
    for step_number in 0..points {
        // A range ends with its own timestamp and begins after its start.
        let at = (at + step_number * step) * S;
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for (part, timestamp) in ledger.acknowledged("a") {
            if part.starts_with('m') && timestamp > at - range * S && timestamp <= at {
                *counts.entry(if by_part { part } else { "" }).or_default() += 1;
            }
        }
        for (part, count) in counts {
            let value = if per_second { f64::from(count) / range as f64 } else { f64::from(count) };
            wanted.entry(part.to_owned()).or_default().push((at, value));
        }
    }
    let same = found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|((a, found), (b, wanted))| {
            let close = |(a, b): (&(i64, f64), &(i64, f64))| a.0 == b.0 && (a.1 - b.1).abs() <= 1e-9 * b.1.abs();
            a == b && found.len() == wanted.len() && found.iter().zip(wanted).all(close)
        });
    assert!(same, "{when}: found {found:?}, wanted {wanted:?}");
}

async fn check_all(when: &str, server: &Server, ledger: &Shared, begin: i64, checks: usize, numbers: &mut Numbers) {
    let client = server.tenant("a");
    for _ in 0..checks {
        check_page(when, &client, ledger, begin, numbers).await;
        check_count(when, &client, ledger, begin, numbers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_sees_each_line_once_wherever_it_lies() {
    for seed in seeds::of("history") {
        queries_across(seed, if seeds::long() { 400 } else { 15 }).await;
    }
}

async fn queries_across(seed: u64, checks: usize) {
    let mut numbers = Numbers::new(seed);
    // Memory holds less than what is not in blocks, so queries read the WAL as well.
    let settings = ["target_block_mb: 1024", "max_block_age: 1h", "log_memory_mb: 1", &wal("interval", 1, 1)];
    let home = Home::new(&config(&settings));
    let ledger = shared(seed);
    let begin = now_ns() - 3_600 * S;
    let mut server = home.start().await;
    let phase = |name: &str| format!("seed {seed}, {name}");
    push_some(&server, &ledger, begin, 0..200, &mut numbers).await;
    check_all(&phase("in WAL and memory"), &server, &ledger, begin, checks, &mut numbers).await;
    flush(&server.client()).await;
    check_all(&phase("in blocks"), &server, &ledger, begin, checks, &mut numbers).await;
    push_some(&server, &ledger, begin, 200..400, &mut numbers).await;
    check_all(&phase("in blocks, WAL and memory"), &server, &ledger, begin, checks, &mut numbers).await;
    server.kill().await;
    server = home.start().await;
    check_all(&phase("started again"), &server, &ledger, begin, checks, &mut numbers).await;
    // Now everything moves while it is asked for: other lines come, and all are cut into blocks again and again.
    let stop = Arc::new(AtomicBool::new(false));
    let shape = Shape { tenants: vec!["a".to_owned()], prefix: "x".to_owned(), pushers: 2, ..Shape::default() };
    let others = Shape { pause: Duration::from_millis(10), ..shape };
    let load = Load::start(&server.client(), &ledger, &others, seed);
    let flushing = keep_flushing(server.client(), stop.clone());
    check_all(&phase("while blocks are cut"), &server, &ledger, begin, checks, &mut numbers).await;
    push_some(&server, &ledger, begin, 400..500, &mut numbers).await;
    check_all(&phase("while more blocks are cut"), &server, &ledger, begin, checks, &mut numbers).await;
    stop.store(true, Ordering::Relaxed);
    let flushes = within("the flushes", flushing).await.unwrap();
    load.stop().await;
    note(&format!("{flushes} flushes while {} queries ran", 4 * checks));
    assert!(flushes > 2, "too few flushes to prove anything");
    assert_all_there(&phase("at last"), &server, &ledger).await;
    server.assert_well();
}
