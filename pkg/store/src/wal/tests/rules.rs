//! What the log promises when nothing is wrong.

use super::*;

#[test]
fn what_is_appended_reads_back_across_segments_and_restarts() {
    let disk = FakeDisk::default();
    let opened = open(&disk);
    assert_eq!(opened.found, Found { clean: true, ..Found::default() });
    let mut all = append_some(&opened.wal, 12);
    assert!(opened.wal.segments().len() > 2);
    drop(opened);
    let opened = open(&disk);
    assert_eq!((opened.next, opened.found.records, opened.found.clean), (13, 12, false));
    all.extend(append_some(&opened.wal, 3));
    opened.wal.close().unwrap();
    drop(opened);
    let opened = open(&disk);
    assert_eq!((opened.next, opened.found.clean, opened.found.lost_records), (16, true, 0));
    assert_eq!(recovered(&opened.wal, 0), all.iter().cloned().map(Item::Record).collect::<Vec<_>>());
    for after in 0..15 {
        assert_eq!(records(&recovered(&opened.wal, after)), all[after as usize..]);
    }
}

#[test]
fn nobody_shares_a_folder() {
    let disk = FakeDisk::default();
    let opened = open(&disk);
    assert_eq!(open_as(&disk, config(SyncPolicy::Os)).unwrap_err().kind(), crate::Kind::Unavailable);
    drop(opened);
    open(&disk);
}

#[test]
fn an_append_is_one_call_however_many_parts_it_has() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open(&disk);
    let before = disk.appends();
    let parts: Vec<Vec<u8>> = (0..40).map(|i| vec![i; 3]).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let tenant = tenant("a");
    let record =
        Record { seq: 1, accepted_at: Timestamp(0), tenant: &tenant, tenant_lines: 1, min: 0, max: 0, lines: 1 };
    wal.append(&record, &parts).unwrap();
    assert_eq!(disk.appends() - before, 1);
    assert_eq!(records(&recovered(&wal, 0))[0].payload, parts.concat());
}

#[test]
fn only_the_next_number_is_taken() {
    let Opened { wal, .. } = open(&FakeDisk::default());
    append(&wal, b"1");
    let tenant = tenant("a");
    for seq in [0, 1, 3, u64::MAX] {
        let record =
            Record { seq, accepted_at: Timestamp(0), tenant: &tenant, tenant_lines: 1, min: 0, max: 0, lines: 1 };
        assert_eq!(wal.append(&record, &[b"x"]).unwrap_err().kind(), crate::Kind::Io);
    }
    assert_eq!(wal.next(), 2);
}

#[test]
fn nothing_is_appended_after_the_end() {
    let Opened { wal, .. } = open(&FakeDisk::default());
    wal.close().unwrap();
    assert_eq!(append_as(&wal, &tenant("a"), b"").unwrap_err().kind(), crate::Kind::Unavailable);
    wal.close().unwrap();
}

#[test]
fn reads_stop_at_bytes_and_bounds_and_skip_other_tenants() {
    let disk = FakeDisk::default();
    let opened = open_as(&disk, Config { segment_bytes: 1 << 30, ..config(SyncPolicy::Os) }).unwrap();
    let wal = opened.wal;
    let (a, b) = (tenant("a"), tenant("b"));
    for _ in 0..10 {
        append_as(&wal, &a, &[1; 100]).unwrap();
        append_as(&wal, &b, &[2; 100_000]).unwrap();
    }
    let of_a = |tenant: &TenantId| *tenant == a;
    let read = wal.read(0, 20, 0, of_a).unwrap();
    assert_eq!((read.records.len(), read.through, read.missing), (1, 1, None));
    let read = wal.read(1, 20, 250, of_a).unwrap();
    assert_eq!((read.records.len(), read.through), (3, 7));
    let read = wal.read(7, 12, 10_000, of_a).unwrap();
    assert_eq!((read.records.iter().map(|r| r.seq).collect::<Vec<_>>(), read.through), (vec![9, 11], 12));
    let before = disk.read_bytes();
    let read = wal.read(0, 20, 1 << 20, of_a).unwrap();
    assert_eq!((read.records.len(), read.through), (10, 20));
    assert!(disk.read_bytes() - before < 200_000, "payloads of others were read");
    assert_eq!(wal.read(20, 20, 1, of_a).unwrap(), Read { through: 20, ..Read::default() });
}

#[test]
fn scans_find_what_may_lie_in_a_stretch_of_time() {
    let Opened { wal, .. } = open(&FakeDisk::default());
    append_some(&wal, 20);
    let mut found = Vec::new();
    for segment in wal.segments().iter() {
        assert!(segment.min() <= segment.max());
        let scan = segment.scan((3, 18), (450, 1_200), &tenant("a"), |item| {
            found.push(item);
            ControlFlow::Continue(())
        });
        scan.unwrap();
    }
    assert_eq!(records(&found).iter().map(|r| r.seq).collect::<Vec<_>>(), (4..=12).collect::<Vec<_>>());
    assert_eq!(missing(&found), []);
}

#[test]
fn trimming_deletes_what_is_covered_but_keeps_some_for_late_readers() {
    let disk = FakeDisk::default();
    let keep_bytes = 2 * SEGMENT_BYTES;
    let Opened { wal, .. } = open_as(&disk, Config { keep_bytes, ..config(SyncPolicy::Os) }).unwrap();
    append_some(&wal, 40);
    let held = wal.segments();
    wal.trim(0);
    assert_eq!(wal.first(), 1);
    let second = held[1].first();
    wal.trim(held[1].last() - 1);
    assert_eq!(wal.first(), second);
    wal.trim(40);
    assert!(wal.bytes() >= keep_bytes && wal.bytes() < keep_bytes + SEGMENT_BYTES, "{}", wal.bytes());
    let first = wal.first();
    assert_eq!(segment_files(&disk)[0], first);
    // Trimming less than before brings nothing back and takes nothing.
    wal.trim(1);
    assert_eq!(wal.first(), first);
    let read = wal.read(0, 40, 1 << 20, |_| true).unwrap();
    assert_eq!(read.missing, Some(Missing { first: 1, last: first - 1, why: Why::Trimmed }));
    assert_eq!((read.records[0].seq, read.through), (first, 40));
    // Who holds a segment reads it still.
    let mut found = 0;
    let scan = held[0].scan((0, 40), (i64::MIN, i64::MAX), &tenant("a"), |_| {
        found += 1;
        ControlFlow::Continue(())
    });
    scan.unwrap();
    assert_eq!(found, second - 1);
    drop(wal);
    let opened = open(&disk);
    assert_eq!((opened.wal.first(), opened.next, opened.found.lost_records), (first, 41, 0));
}

#[test]
fn the_newest_segment_stays_so_that_the_next_number_is_known() {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open(&disk);
    append_some(&wal, 7);
    wal.trim(7);
    assert_eq!(wal.segments().len(), 1);
    drop(wal);
    assert_eq!(open(&disk).next, 8);
}

#[test]
fn progress_ends_at_the_total() {
    let Opened { wal, .. } = open(&FakeDisk::default());
    append_some(&wal, 20);
    let mut seen = Vec::new();
    wal.recover(0, |_| ControlFlow::Continue(()), |progress| seen.push(progress)).unwrap();
    assert_eq!(seen, [Progress { done: wal.bytes(), total: wal.bytes() }]);
    let mut count = 0;
    let f = |_| {
        count += 1;
        if count == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    wal.recover(5, f, |_| {}).unwrap();
    assert_eq!(count, 3);
}
