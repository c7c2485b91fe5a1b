//! Copies: numbers that another log gives out.

use tailwater_model::LogId;

use super::*;

const LOG: LogId = LogId::from_u128(77);

fn open_copy(disk: &FakeDisk, sync: SyncPolicy, after: u64) -> Result<Opened, crate::Error> {
    let origin = Origin { log: LOG, after };
    Wal::open_copy(config(sync), Arc::new(disk.clone()), Metrics::default(), origin)
}

#[test]
fn a_copy_begins_anywhere_and_passes_over_numbers() {
    let disk = FakeDisk::default();
    let opened = open_copy(&disk, SyncPolicy::Os, 41).unwrap();
    assert_eq!((opened.log, opened.next), (LOG, 42));
    let wal = opened.wal;
    // Before there is any record, and twice in a row.
    wal.skip(50, Why::Failed).unwrap();
    wal.skip(60, Why::Crash).unwrap();
    wal.skip(55, Why::Failed).unwrap();
    assert_eq!(wal.next(), 61);
    let mut all = append_some(&wal, 7);
    wal.skip(99, Why::Trimmed).unwrap();
    all.extend(append_some(&wal, 2));
    let want = [(1, 41, Why::Trimmed), (42, 50, Why::Failed), (51, 60, Why::Crash), (68, 99, Why::Trimmed)]
        .map(|(first, last, why)| Missing { first, last, why });
    assert_eq!(missing(&recovered(&wal, 0)), want);
    assert_eq!(records(&recovered(&wal, 0)), all);
    drop(wal);
    for _ in 0..2 {
        // What it begins after does not matter any more.
        let opened = open_copy(&disk, SyncPolicy::Os, 7000).unwrap();
        assert_eq!((opened.next, opened.found.lost_records), (102, 0));
        assert_eq!(missing(&recovered(&opened.wal, 0)), want);
        assert_eq!(records(&recovered(&opened.wal, 0)), all);
        opened.wal.close().unwrap();
    }
}

#[test]
fn a_copy_goes_on_where_it_ends_also_after_a_loss_of_power() {
    for sync in [SyncPolicy::Os, SyncPolicy::Always] {
        let disk = FakeDisk::default();
        let wal = open_copy(&disk, sync, 9).unwrap().wal;
        append_some(&wal, 3);
        wal.skip(20, Why::Crash).unwrap();
        append_some(&wal, 3);
        if sync == SyncPolicy::Always {
            wal.sync_up_to(23).unwrap();
        }
        append_some(&wal, 3);
        drop(wal);
        disk.lose_power(|_| 0);
        let opened = open_copy(&disk, sync, 9).unwrap();
        assert_eq!(opened.found.skipped, 0);
        let items = recovered(&opened.wal, 0);
        let last = records(&items).last().map_or(9, |record| record.seq);
        assert_eq!(opened.next, last + 1, "numbers are not skipped");
        if sync == SyncPolicy::Always {
            assert!(opened.next >= 24);
        }
        assert_eq!(append(&opened.wal, b"again").seq, last + 1);
    }
}

#[test]
fn a_folder_with_another_log_is_refused() {
    let disk = FakeDisk::default();
    drop(open(&disk));
    assert_eq!(open_copy(&disk, SyncPolicy::Os, 0).unwrap_err().kind(), crate::Kind::Config);
}
