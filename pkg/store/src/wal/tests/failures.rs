//! What the log does when the disk refuses, and when power is lost.

use std::time::Duration;

use super::*;
use crate::Kind;

fn append_err(wal: &Wal) -> Kind {
    append_as(wal, &tenant("a"), &[9; 60]).unwrap_err().kind()
}

#[test]
fn a_full_disk_leaves_no_trace_and_heals() {
    for room in 0..200 {
        let disk = FakeDisk::default();
        let Opened { wal, .. } = open(&disk);
        let mut all = append_some(&wal, 4);
        disk.faults(|faults| faults.room = Some(room));
        all.extend(append_as(&wal, &tenant("a"), &[9; 200]).ok());
        if all.len() == 4 {
            assert_eq!((append_err(&wal), wal.next()), (Kind::Full, 5), "{room}");
        }
        disk.heal();
        all.extend(append_some(&wal, 4));
        assert_eq!(records(&recovered(&wal, 0)), all);
        drop(wal);
        let opened = open(&disk);
        assert_eq!(records(&recovered(&opened.wal, 0)), all);
        assert_eq!(opened.found.cut_bytes, 0);
    }
}

#[test]
fn a_full_disk_takes_what_was_kept_for_late_readers() {
    let disk = FakeDisk::default();
    let max_bytes = 4 * SEGMENT_BYTES;
    let config = Config { keep_bytes: u64::MAX, max_bytes, ..config(SyncPolicy::Os) };
    let Opened { wal, .. } = open_as(&disk, config).unwrap();
    while append_as(&wal, &tenant("a"), &[9; 60]).is_ok() {
        assert!(wal.bytes() <= max_bytes);
    }
    assert_eq!(append_err(&wal), Kind::Full);
    let last = wal.next() - 1;
    wal.trim(last);
    assert_eq!(wal.first(), 1);
    append(&wal, &[9; 60]);
    assert!(wal.first() > 1);
    assert!(wal.bytes() <= max_bytes);
}

#[test]
fn nothing_is_appended_behind_a_torn_record() {
    let disk = FakeDisk::default();
    let metrics = Metrics::default();
    let Opened { wal, .. } = Wal::open(config(SyncPolicy::Os), Arc::new(disk.clone()), metrics.clone()).unwrap();
    let mut all = append_some(&wal, 2);
    disk.faults(|faults| (faults.writes, faults.cuts) = (1, 3));
    assert_eq!(append_err(&wal), Kind::Io);
    // The cut after the failure took one; two more appends fail at it.
    assert_eq!(append_err(&wal), Kind::Io);
    assert_eq!(append_err(&wal), Kind::Io);
    all.extend(append_some(&wal, 2));
    assert_eq!(metrics.append_failures.get(), 3);
    assert_eq!(records(&recovered(&wal, 0)), all);
    drop(wal);
    assert_eq!(records(&recovered(&open(&disk).wal, 0)), all);
}

#[test]
fn short_writes_are_gone_on_with() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open(&disk);
    disk.faults(|faults| faults.short = Some(7));
    let all = append_some(&wal, 20);
    drop(wal);
    assert_eq!(records(&recovered(&open(&disk).wal, 0)), all);
}

#[test]
fn one_sync_serves_all_who_have_appended() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open_as(&disk, config(SyncPolicy::Always)).unwrap();
    append_some(&wal, 3);
    assert_eq!(wal.synced(), 0);
    let before = disk.syncs();
    wal.sync_up_to(1).unwrap();
    assert_eq!((wal.synced(), disk.syncs() - before), (3, 1));
    wal.sync_up_to(3).unwrap();
    assert_eq!(disk.syncs() - before, 1);
    assert_eq!(wal.sync_up_to(4).unwrap_err().kind(), Kind::Io);
}

#[test]
fn many_wait_at_once_and_each_is_served() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open_as(&disk, config(SyncPolicy::Always)).unwrap();
    let turn = parking_lot::Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let seq = {
                        let _turn = turn.lock();
                        append(&wal, b"x").seq
                    };
                    wal.sync_up_to(seq).unwrap();
                    assert!(wal.synced() >= seq);
                }
            });
        }
    });
    assert_eq!(wal.synced(), 400);
    drop(wal);
    disk.lose_power(|_| 0);
    assert_eq!(records(&recovered(&open(&disk).wal, 0)).len(), 400);
}

#[test]
fn with_always_what_could_not_be_synced_is_void() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open_as(&disk, config(SyncPolicy::Always)).unwrap();
    let mut all = append_some(&wal, 7);
    wal.sync_up_to(7).unwrap();
    append_some(&wal, 8);
    disk.faults(|faults| faults.syncs = 1);
    assert!(wal.sync_up_to(9).is_err());
    for seq in 8..=15 {
        assert!(wal.sync_up_to(seq).is_err(), "{seq}");
    }
    assert_eq!((wal.synced(), wal.next()), (7, 16));
    all.extend(append_some(&wal, 2));
    wal.sync_up_to(17).unwrap();
    assert!(wal.sync_up_to(8).is_err(), "a later success is taken for an earlier failure");
    let void = Missing { first: 8, last: 15, why: Why::Failed };
    for _ in 0..2 {
        let opened = wal.segments();
        assert!(opened.windows(2).all(|two| two[0].last() < two[1].first()));
        let items = recovered(&wal, 0);
        assert_eq!((records(&items), missing(&items)), (all.clone(), vec![void]));
    }
    drop(wal);
    disk.lose_power(|_| 0);
    let items = recovered(&open(&disk).wal, 0);
    assert_eq!((records(&items), missing(&items)[0]), (all, void));
}

#[test]
fn with_always_nothing_is_appended_until_it_is_said_what_is_void() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open_as(&disk, config(SyncPolicy::Always)).unwrap();
    let mut all = append_some(&wal, 2);
    wal.sync_up_to(2).unwrap();
    append(&wal, b"void");
    disk.faults(|faults| (faults.syncs, faults.creates) = (1, 2));
    assert!(wal.sync_up_to(3).is_err());
    assert_eq!(append_err(&wal), Kind::Io);
    assert_eq!(records(&recovered(&wal, 0)), all);
    all.push(append(&wal, b"four"));
    assert_eq!(all[2].seq, 4);
    wal.sync_up_to(4).unwrap();
    drop(wal);
    disk.lose_power(|_| 0);
    assert_eq!(records(&recovered(&open(&disk).wal, 0)), all);
}

#[test]
fn what_was_accepted_is_copied_when_it_cannot_be_synced() {
    let disk = FakeDisk::default();
    let hour = SyncPolicy::Interval(Duration::from_secs(3600));
    let metrics = Metrics::default();
    let Opened { wal, .. } = Wal::open(config(hour), Arc::new(disk.clone()), metrics.clone()).unwrap();
    let mut all = append_some(&wal, 2);
    wal.sync().unwrap();
    all.extend(append_some(&wal, 9));
    let held = wal.segments();
    // The sync of the first dirty segment and the sync of its copy.
    disk.faults(|faults| faults.syncs = 2);
    assert!(wal.sync().is_err());
    assert_eq!(wal.synced(), 2);
    all.extend(append_some(&wal, 1));
    assert_eq!(records(&recovered(&wal, 0)), all);
    wal.sync().unwrap();
    assert_eq!((wal.synced(), metrics.sync_failures.get(), metrics.lost_records.get()), (12, 2, 0));
    assert_eq!(records(&recovered(&wal, 0)), all);
    all.extend(append_some(&wal, 3));
    wal.sync().unwrap();
    let mut early = Vec::new();
    for segment in held.iter() {
        let scan = segment.scan((0, 11), (i64::MIN, i64::MAX), &tenant("a"), |item| {
            early.push(item);
            ControlFlow::Continue(())
        });
        scan.unwrap();
    }
    assert_eq!(records(&early), all[..11], "who held segments reads them still");
    drop(wal);
    disk.lose_power(|_| 0);
    let opened = open(&disk);
    assert_eq!(records(&recovered(&opened.wal, 0)), all);
    assert_eq!(opened.found.lost_records, 0);
}

#[test]
fn numbers_are_skipped_after_a_loss_of_power_and_only_then() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open(&disk);
    append_some(&wal, 20);
    drop(wal);
    disk.lose_power(|most| most);
    let opened = open(&disk);
    assert_eq!((opened.next, opened.found.skipped), (21 + SKIP, SKIP));
    drop(opened);
    // Killed before the first append: the numbers stay skipped, no others are.
    let opened = open(&disk);
    assert_eq!((opened.next, opened.found.skipped), (21 + SKIP, 0));
    let new = append(&opened.wal, b"new");
    opened.wal.close().unwrap();
    drop(opened);
    disk.lose_power(|_| 0);
    let opened = open(&disk);
    assert_eq!(opened.next, 22 + SKIP);
    let items = recovered(&opened.wal, 20);
    assert_eq!(items, [Item::Missing(Missing { first: 21, last: 20 + SKIP, why: Why::Crash }), Item::Record(new)]);
    let read = opened.wal.read(20, 21 + SKIP, 1, |_| true).unwrap();
    assert_eq!((read.missing.unwrap().why, read.records.len()), (Why::Crash, 1));
}

#[test]
fn a_loss_of_power_while_numbers_are_skipped_skips_them_again() {
    for written in 0..8 {
        let disk = FakeDisk::default();
        let Opened { wal, .. } = open(&disk);
        append_some(&wal, 3);
        wal.close().unwrap();
        drop(wal);
        let Opened { wal, .. } = open(&disk);
        let seen = append(&wal, b"seen").seq;
        drop(wal);
        disk.lose_power(|_| 0);
        disk.faults(|faults| faults.syncs = written);
        let _ = open_as(&disk, config(SyncPolicy::Os));
        disk.heal();
        disk.lose_power(|most| most.min(written as usize));
        let opened = open(&disk);
        assert!(opened.next > seen + SKIP / 2, "{written}: {}", opened.next);
    }
}

#[test]
fn a_log_on_a_full_disk_can_be_opened_and_read() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open(&disk);
    let all = append_some(&wal, 8);
    drop(wal);
    disk.lose_power(|most| most);
    disk.faults(|faults| faults.room = Some(0));
    let opened = open(&disk);
    assert_eq!(records(&recovered(&opened.wal, 0)), all);
    assert_eq!(append_err(&opened.wal), Kind::Full);
    assert!(opened.wal.close().is_err());
    drop(opened);
    let opened = open(&disk);
    disk.heal();
    assert!(append(&opened.wal, b"x").seq >= 9 + SKIP);
}

#[test]
fn an_interval_syncs_by_itself_and_ends_with_the_log() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open_as(&disk, config(SyncPolicy::Interval(Duration::ZERO))).unwrap();
    append_some(&wal, 9);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while wal.synced() < 9 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    drop(wal);
    disk.lose_power(|_| 0);
    assert_eq!(records(&recovered(&open(&disk).wal, 0)).len(), 9);
}

#[test]
fn a_clean_end_survives_a_loss_of_power_whatever_the_policy() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open(&disk);
    let all = append_some(&wal, 9);
    wal.close().unwrap();
    drop(wal);
    disk.lose_power(|_| 0);
    let opened = open(&disk);
    assert_eq!((opened.next, opened.found.clean, opened.found.skipped), (10, true, 0));
    assert_eq!(records(&recovered(&opened.wal, 0)), all);
}
