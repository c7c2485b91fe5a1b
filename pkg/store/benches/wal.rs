//! The write-ahead log: appending records of the size of 1,000 compressed lines, and reading them back.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use tailwater_model::{TenantId, Timestamp};
use tailwater_store::wal::{Config, LocalDisk, Metrics, Opened, Record, SyncPolicy, Wal};
use tempfile::TempDir;

/// A push of 1,000 lines of 180 bytes, compressed.
const PAYLOAD_BYTES: usize = 50_000;

/// Records to recover.
const RECORDS: u64 = 10_000;

fn open(dir: &TempDir, sync: SyncPolicy, keep_bytes: u64) -> Wal {
    let dir: PathBuf = dir.path().join("wal");
    let config = Config { dir, sync, segment_bytes: 64 << 20, keep_bytes, max_bytes: 0 };
    let Opened { wal, .. } = Wal::open(config, Arc::new(LocalDisk), Metrics::default()).expect("the log opens");
    wal
}

fn append(wal: &Wal, seq: u64, tenant: &TenantId, payload: &[u8]) {
    let record = Record { seq, accepted_at: Timestamp(0), tenant, tenant_lines: seq, min: 0, max: 1, lines: 1000 };
    let (head, body) = payload.split_at(16);
    wal.append(&record, &[head, body]).expect("there is room");
}

#[divan::bench(args = ["os", "interval", "always"], sample_count = 200, sample_size = 10)]
fn append_1000_lines(bencher: Bencher<'_, '_>, policy: &str) {
    let sync = match policy {
        "os" => SyncPolicy::Os,
        "interval" => SyncPolicy::Interval(Duration::from_millis(100)),
        _ => SyncPolicy::Always,
    };
    let dir = TempDir::new().expect("a folder");
    let (wal, tenant) = (open(&dir, sync, 256 << 20), TenantId::parse("a").expect("an id"));
    let payload = vec![7; PAYLOAD_BYTES];
    let mut seq = 0;
    bencher.counter(BytesCount::new(PAYLOAD_BYTES)).bench_local(|| {
        seq += 1;
        append(&wal, seq, &tenant, &payload);
        if sync == SyncPolicy::Always {
            wal.sync_up_to(seq).expect("it can be synced");
        }
        if seq % 1000 == 0 {
            wal.trim(seq);
        }
    });
}

fn filled(dir: &TempDir) -> Wal {
    let wal = open(dir, SyncPolicy::Os, u64::MAX);
    let tenants = ["a", "b", "c", "d"].map(|name| TenantId::parse(name).expect("an id"));
    let payload: Vec<u8> = (0..PAYLOAD_BYTES).map(|i| (i * 7) as u8).collect();
    for seq in 1..=RECORDS {
        append(&wal, seq, &tenants[(seq % 4) as usize], &payload);
    }
    wal
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn recover(bencher: Bencher<'_, '_>) {
    let dir = TempDir::new().expect("a folder");
    let wal = filled(&dir);
    bencher.counter(BytesCount::new(wal.bytes())).bench_local(|| {
        let mut bytes = 0;
        let sum = |item| {
            if let tailwater_store::wal::Item::Record(stored) = item {
                bytes += stored.payload.len();
            }
            ControlFlow::Continue(())
        };
        wal.recover(0, sum, |_| {}).expect("it can be read");
        black_box(bytes)
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn open_after_a_kill(bencher: Bencher<'_, '_>) {
    let dir = TempDir::new().expect("a folder");
    let wal = filled(&dir);
    let bytes = wal.bytes();
    drop(wal);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| open(&dir, SyncPolicy::Os, u64::MAX));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn read_one_tenant_of_four(bencher: Bencher<'_, '_>) {
    let dir = TempDir::new().expect("a folder");
    let wal = filled(&dir);
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let mut after = 0;
        while after < RECORDS {
            let read = wal.read(after, RECORDS, 1 << 20, |tenant| tenant.as_str() == "a").expect("it can be read");
            after = read.through;
        }
    });
}
