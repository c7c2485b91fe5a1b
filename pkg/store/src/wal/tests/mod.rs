//! Tests of the log.

mod copy;
mod corrupt;
mod failures;
mod fake;
mod local;
mod model;
mod retire;
mod rules;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_model::{TenantId, Timestamp};

use super::*;
use fake::FakeDisk;

const DIR: &str = "/wal";

/// Segments small enough that a few records fill one.
const SEGMENT_BYTES: u64 = 600;

fn config(sync: SyncPolicy) -> Config {
    Config { dir: PathBuf::from(DIR), sync, segment_bytes: SEGMENT_BYTES, keep_bytes: 0, max_bytes: 0 }
}

fn open_as(disk: &FakeDisk, config: Config) -> Result<Opened, crate::Error> {
    Wal::open(config, Arc::new(disk.clone()), Metrics::default())
}

fn open(disk: &FakeDisk) -> Opened {
    open_as(disk, config(SyncPolicy::Os)).unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

/// What is appended under a number: everything differs from number to number.
fn stored(seq: u64, tenant: &TenantId, payload: &[u8]) -> Stored {
    Stored {
        seq,
        accepted_at: Timestamp(1_000 + seq as i64),
        tenant: tenant.clone(),
        tenant_lines: seq * 10,
        min: seq as i64 * 100,
        max: seq as i64 * 100 + 50,
        lines: seq as u32,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn append_as(wal: &Wal, tenant: &TenantId, payload: &[u8]) -> Result<Stored, crate::Error> {
    let stored = stored(wal.next(), tenant, payload);
    let Stored { seq, accepted_at, tenant_lines, min, max, lines, .. } = stored;
    let record = Record { seq, accepted_at, tenant, tenant_lines, min, max, lines };
    let (left, right) = payload.split_at(payload.len() / 3);
    wal.append(&record, &[left, &[], right]).map(|()| stored)
}

fn append(wal: &Wal, payload: &[u8]) -> Stored {
    append_as(wal, &tenant("a"), payload).unwrap()
}

/// Appends records of 100 bytes and somewhat, five to a segment.
fn append_some(wal: &Wal, count: u64) -> Vec<Stored> {
    (0..count).map(|i| append(wal, &[i as u8; 60])).collect()
}

fn recovered(wal: &Wal, after: u64) -> Vec<Item> {
    let mut items = Vec::new();
    let f = |item| {
        items.push(item);
        ControlFlow::Continue(())
    };
    wal.recover(after, f, |_| {}).unwrap();
    items
}

fn records(items: &[Item]) -> Vec<Stored> {
    let records = items.iter().filter_map(|item| match item {
        Item::Record(stored) => Some(stored.clone()),
        Item::Missing(_) => None,
    });
    records.collect()
}

fn missing(items: &[Item]) -> Vec<Missing> {
    let missing = items.iter().filter_map(|item| match item {
        Item::Record(_) => None,
        Item::Missing(missing) => Some(*missing),
    });
    missing.collect()
}

fn segment_path(first: u64) -> PathBuf {
    Path::new(DIR).join(segment::file_name(first))
}

fn segment_files(disk: &FakeDisk) -> Vec<u64> {
    let names = disk.names();
    names.iter().filter_map(|path| segment::number_in(path.file_name()?.to_str()?)).collect()
}
