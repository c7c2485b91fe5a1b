//! What a line is worth after a 204: the real binary, killed, starved of disk, with damaged files and a failing object store. A
//! module per kind of trouble.
//!
//! Tests that choose at random print their seed; `TAILWATER_TEST_SEED` repeats one, `seeds.txt` lists those that failed once, and
//! `TAILWATER_TEST_LONG=1` makes the tests run longer.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod damaged_blocks;
mod damaged_wal;
mod disk_full;
mod history;
mod kills;
mod late_tail;
mod store_faults;
mod store_kills;
mod stores;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tailwater_integration::ledger::Scope;
use tailwater_integration::lines::Numbers;
use tailwater_integration::load::Shared;
use tailwater_integration::read::Query;
use tailwater_integration::tail::Delivered;
use tailwater_integration::{Client, Home, Ledger, Server, Tail, eventually, now_ns};

/// The object store's program.
const S3_SERVER: &str = env!("CARGO_BIN_EXE_s3-server");

/// Everything that the pushers push.
const LOAD: &str = r#"{app="load"}"#;

/// A configuration with limits that no test meets; each line of `ingester` is a setting of the ingester.
fn config(ingester: &[&str]) -> String {
    let settings: String = ingester.iter().map(|setting| format!("  {setting}\n")).collect();
    format!("{}ingester:\n{settings}", tailwater_integration::server::WIDE_LIMITS)
}

/// Settings that make everything happen early: blocks of 1 MiB, segments of 1 MiB of which none is kept.
const SMALL: [&str; 3] = ["target_block_mb: 1", "max_block_age: 2s", "log_memory_mb: 8"];

/// The WAL's settings, in one line.
fn wal(sync: &str, segment_mb: u32, keep_mb: u32) -> String {
    format!("wal: {{sync: {sync}, segment_mb: {segment_mb}, keep_mb: {keep_mb}}}")
}

fn shared(seed: u64) -> Shared {
    Arc::new(parking_lot::Mutex::new(Ledger::new(seed)))
}

/// Has blocks cut of everything up to now.
async fn flush(client: &Client) {
    let reply = client.send("POST", "/flush", &[], "").await;
    assert_eq!(reply.status, 204, "{}", reply.text());
}

/// Fails unless every tenant's query gives what the ledger says, and nothing is said to be missing. Pushes may go on meanwhile.
async fn assert_all_there(when: &str, server: &Server, ledger: &Shared) {
    let warnings = all_there(when, server, ledger).await;
    assert!(warnings.is_empty(), "{when}: {warnings:?}");
}

/// Fails unless every tenant's query gives what the ledger says; answers the warnings.
async fn all_there(when: &str, server: &Server, ledger: &Shared) -> Vec<String> {
    let before = ledger.lock().clone();
    let mut warnings = Vec::new();
    for tenant in before.tenants() {
        let answer = match Query::all(LOAD).read(&server.tenant(tenant)).await {
            Ok(answer) => answer,
            Err(reply) => panic!("{when}, tenant {tenant}: {} {}", reply.status, reply.text()),
        };
        let as_of = ledger.lock().as_of(&before);
        as_of.assert_exact(when, tenant, &answer.lines, &Scope::ALL);
        warnings.extend(answer.warnings);
    }
    warnings
}

/// The bytes of the files below a folder whose names end so.
fn bytes_of(folder: &Path, ends: &str) -> u64 {
    let files = tailwater_integration::s3::files(folder, ends);
    files.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum()
}

/// The segments of a WAL.
fn segments(home: &Home) -> Vec<std::path::PathBuf> {
    tailwater_integration::s3::files(&home.data().join("wal"), ".wal")
}

/// Waits until the ledger has so many acknowledged lines more than now.
async fn acknowledged_more(ledger: &Shared, lines: usize) {
    let before = ledger.lock().counts().1;
    eventually("acknowledged lines", async || ledger.lock().counts().1 >= before + lines).await;
}

/// Says something that is shown beside a failure, or when the tests are asked to show what they say.
#[expect(clippy::print_stdout, reason = "the test harness shows it beside a failure")]
fn note(text: &str) {
    println!("{text}");
}

/// Pushes a last line to the part `mark` and reads a tail until it comes, and a little longer in case that something comes twice.
async fn read_to_mark(tail: &mut Tail, server: &Server, ledger: &Shared, tenant: &str, mark: &str) -> Vec<Delivered> {
    let (batch, receipt) = ledger.lock().push(tenant, &[(mark, now_ns())], 1, &mut Numbers::new(0));
    server.tenant(tenant).push_ok(&batch).await;
    ledger.lock().acknowledge(&receipt);
    let last = format!("part={mark} ");
    let mut lines = Vec::new();
    while !lines.iter().rev().take(1_000).any(|line: &Delivered| line.line.starts_with(&last)) {
        lines.extend(tail.lines(1).await);
    }
    lines.extend(tail.silent(Duration::from_millis(200)).await);
    lines
}
