//! How small lines become: `cargo run --release -p tailwater-store --example block_sizes -- [-t] FILE…`. Makes a block of which each file
//! is a stream, one of all lines in many streams, and one of lines as `tailwater bench` makes them. `-t`: with an index of words.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::time::Instant;

use tailwater_model::{Labels, LogId, Timestamp};
use tailwater_store::block::{Entry, Options, Writer};
use tailwater_store::entries::Place;

type Lines = Vec<Vec<u8>>;

fn labels(i: usize) -> Labels {
    let pairs = [("app", format!("app-{}", i % 10)), ("env", "prod".into()), ("pod", format!("app-{i:06}"))];
    Labels::from_pairs(pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
}

/// Makes a block and prints what became of it. `step`: nanoseconds from line to line; `jitter`: at most so much more.
fn measure(name: &str, streams: &[Lines], step: i64, jitter: u64, options: Options) {
    let started = Instant::now();
    let mut writer = Writer::new(options);
    for (i, lines) in streams.iter().enumerate() {
        writer.stream(&labels(i), LogId::from_u128(1));
        let mut random = i as u64 + 1;
        for (j, line) in lines.iter().enumerate() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let late = if jitter == 0 { 0 } else { (random >> 33) % jitter };
            let timestamp = 1_790_000_000_000_000_000 + j as i64 * step + late as i64;
            let batch = j / 50;
            let accepted =
                (batch as i64 + 1) * 50 * step + ((batch as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i64;
            let accepted_at = Timestamp(1_790_000_000_000_000_000 + accepted);
            let place = Place { seq: batch as u64, index: (j % 50) as u32, accepted_at };
            writer.entry(&Entry { timestamp, line, metadata: &[], place });
        }
    }
    let summary = match writer.finish() {
        Ok(built) => built.summary,
        Err(error) => return println!("{name}: {error}"),
    };
    let seconds = started.elapsed().as_secs_f64();
    let raw = summary.raw_bytes as f64;
    let percent = |bytes: u64| bytes as f64 * 100.0 / raw;
    let sizes = summary.sizes;
    println!(
        "{name:28} {:8} KiB {:5} pages {:5.1} %: lines {:5.2} columns {:5.2} grams {:5.2} index {:5.2} footer {:5.2}   {:4.0} MB/s",
        summary.raw_bytes >> 10,
        summary.pages,
        percent(summary.bytes),
        percent(sizes.lines),
        percent(sizes.columns),
        percent(sizes.grams),
        percent(sizes.index),
        percent(sizes.footer),
        raw / 1e6 / seconds,
    );
}

/// Lines as `tailwater bench` makes them.
fn generated(streams: usize, each: usize) -> Vec<Lines> {
    let padding = "level=info caller=handler.go:217 method=GET path=/api/v1/orders status=200 duration=12.7ms \
                   user=u48151623 msg=request_completed region=eu-west-1 ";
    let line = |stream: usize, number: usize| {
        let time = 1_790_000_000_000_000_000_u64 + (number * 4_000_000 + stream * 40_000) as u64;
        let mut line = format!("tw:0123abcd:{stream:05}:{number:010}:{time:019} ").into_bytes();
        line.extend(padding.bytes().cycle().take(180 - line.len()));
        line
    };
    (0..streams).map(|stream| (0..each).map(|number| line(stream, number)).collect()).collect()
}

fn main() {
    let mut options = Options::default();
    let mut files: Vec<(String, Lines)> = Vec::new();
    for argument in std::env::args().skip(1) {
        if argument == "-t" {
            options.full_text = true;
        } else if let Some(level) = argument.strip_prefix("-l") {
            options.level = level.parse().unwrap_or(options.level);
        } else {
            match std::fs::read(&argument) {
                Ok(text) => files.push((argument, text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect())),
                Err(error) => println!("{argument}: {error}"),
            }
        }
    }
    files.sort();
    let all: Vec<Lines> = files.iter().map(|(_, lines)| lines.clone()).collect();
    for (name, lines) in &files {
        let name = name.rsplit('/').next().unwrap_or(name);
        measure(name, std::slice::from_ref(lines), 1_000_000, 0, options);
    }
    measure("all, a stream per file", &all, 1_000_000, 0, options);
    measure("all, jitter of 1 ms in ns", &all, 1_000_000, 1_000_000, options);
    let mut ten = all.clone();
    (0..9).for_each(|_| ten.iter_mut().zip(&all).for_each(|(t, a)| t.extend_from_slice(a)));
    measure("all, ten times", &ten, 1_000_000, 0, options);
    for each in [500, 100, 20] {
        let many: Vec<Lines> = all.iter().flat_map(|lines| lines.chunks(each).map(<[_]>::to_vec)).collect();
        measure(&format!("streams of {each} lines"), &many, 1_000_000, 0, options);
    }
    measure("generated, 100 streams", &generated(100, 4000), 4_000_000, 0, options);
    measure("generated, 1000 streams", &generated(1000, 400), 4_000_000, 0, options);
    measure("generated, jitter", &generated(100, 4000), 4_000_000, 100_000, options);
}
