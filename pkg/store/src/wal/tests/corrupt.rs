//! Each kind of damage to what is on disk.

use super::*;
use crate::wal::format::{SEGMENT_HEADER, SegmentHeader};

/// A log of 20 records in several segments whose process died, and the first numbers of its segments.
fn dead() -> (FakeDisk, Vec<Stored>, Vec<u64>) {
    let disk = FakeDisk::default();
    let Opened { wal, .. } = open(&disk);
    let all = append_some(&wal, 20);
    drop(wal);
    let firsts = segment_files(&disk);
    assert!(firsts.len() > 3);
    (disk, all, firsts)
}

fn len(disk: &FakeDisk, first: u64) -> usize {
    disk.edit(&segment_path(first), |content| content.len())
}

/// Bytes of a record of [`append_some`], as long as numbers are small.
fn record_len(disk: &FakeDisk, firsts: &[u64]) -> usize {
    (len(disk, firsts[0]) - SEGMENT_HEADER as usize) / (firsts[1] - firsts[0]) as usize
}

#[test]
fn a_torn_record_at_the_end_is_cut_off_and_its_number_used() {
    for left in [1, 3, 4, 27, 35, 50, 90] {
        let (disk, all, firsts) = dead();
        let last = *firsts.last().unwrap();
        let whole = len(&disk, last);
        let record = (whole - SEGMENT_HEADER as usize) / (21 - last) as usize;
        disk.edit(&segment_path(last), |content| content.truncate(whole - record + left));
        let opened = open(&disk);
        assert_eq!(opened.found.cut_bytes, left as u64);
        assert_eq!(records(&recovered(&opened.wal, 0)), all[..19]);
        // Of one that ends within what a tenant's name and numbers take it cannot be told whether it was whole.
        let skipped = if left == 35 { SKIP } else { 0 };
        assert_eq!(
            (opened.next, opened.found.lost_records, opened.found.skipped),
            (20 + skipped, 0, skipped),
            "{left}"
        );
        let again = append(&opened.wal, &[19; 60]);
        drop(opened);
        assert_eq!(records(&recovered(&open(&disk).wal, 0)), [&all[..19], &[again]].concat());
    }
}

#[test]
fn an_end_that_no_append_leaves_is_cut_off_and_numbers_are_skipped() {
    for junk in [vec![0; 5], vec![0; 5000], b"\xc5TWx".to_vec(), vec![7; 100]] {
        let (disk, all, firsts) = dead();
        disk.edit(&segment_path(*firsts.last().unwrap()), |content| content.extend(&junk));
        let opened = open(&disk);
        assert_eq!(opened.found.cut_bytes, junk.len() as u64);
        assert_eq!((opened.next, opened.found.skipped), (21 + SKIP, SKIP));
        let new = append(&opened.wal, b"new");
        let items = recovered(&opened.wal, 0);
        assert_eq!(records(&items), [all, vec![new]].concat());
        assert_eq!(missing(&items), [Missing { first: 21, last: 20 + SKIP, why: Why::Crash }]);
    }
}

#[test]
fn the_last_record_with_a_bad_payload_is_lost_but_its_number_is_not_used_again() {
    let (disk, all, firsts) = dead();
    let last = *firsts.last().unwrap();
    disk.edit(&segment_path(last), |content| *content.last_mut().unwrap() ^= 1);
    let opened = open(&disk);
    assert_eq!((opened.next, opened.found.lost_records, opened.found.corrupt_segments), (21, 1, 1));
    let items = recovered(&opened.wal, 0);
    assert_eq!(records(&items), all[..19]);
    assert_eq!(missing(&items), [Missing { first: 20, last: 20, why: Why::Corrupt }]);
}

#[test]
fn a_flipped_bit_anywhere_costs_one_record_at_most() {
    let (pristine, all, firsts) = dead();
    drop(pristine);
    for segment in [0, 1, firsts.len() - 1] {
        let (disk, ..) = dead();
        let size = len(&disk, firsts[segment]);
        drop(disk);
        for at in (0..size).step_by(3) {
            let (disk, ..) = dead();
            disk.edit(&segment_path(firsts[segment]), |content| content[at] ^= 4);
            let opened = open(&disk);
            let items = recovered(&opened.wal, 0);
            let found = records(&items);
            assert!(found.len() >= 19, "{segment} {at}");
            assert!(found.iter().all(|stored| all.contains(stored)));
            assert!(found.windows(2).all(|two| two[0].seq < two[1].seq));
            assert!(opened.next > 20);
            let header = at < SEGMENT_HEADER as usize;
            assert_eq!(found.len() == 20, header, "{segment} {at}");
            assert_eq!(append(&opened.wal, b"more").seq, opened.next);
        }
    }
}

#[test]
fn a_hole_in_the_middle_is_told_to_each_reader_and_counted_once() {
    let (disk, all, firsts) = dead();
    let record = record_len(&disk, &firsts);
    // The second and the third record of the second segment.
    disk.edit(&segment_path(firsts[1]), |content| content[64 + record + 10..][..record].fill(0xff));
    let (first, last) = (firsts[1] + 1, firsts[1] + 2);
    let metrics = Metrics::default();
    let opened = Wal::open(config(SyncPolicy::Os), Arc::new(disk), metrics.clone()).unwrap();
    assert_eq!((opened.found.lost_records, opened.found.corrupt_segments, opened.next), (2, 1, 21));
    let hole = Missing { first, last, why: Why::Corrupt };
    for _ in 0..2 {
        let items = recovered(&opened.wal, 0);
        assert_eq!(missing(&items), [hole]);
        assert_eq!(records(&items).len(), 18);
    }
    assert_eq!((metrics.corrupt_stretches.get(), metrics.lost_records.get()), (1, 2));
    // A read stops before the hole, the next one begins with it.
    let read = opened.wal.read(0, 20, 1 << 20, |_| true).unwrap();
    assert_eq!((read.records.as_slice(), read.through, read.missing), (&all[..first as usize - 1], first - 1, None));
    let read = opened.wal.read(first - 1, 20, 1 << 20, |_| true).unwrap();
    assert_eq!((read.records.as_slice(), read.through, read.missing), (&all[last as usize..], 20, Some(hole)));
    // One that begins in it, and one that ends in it.
    let read = opened.wal.read(first, 20, 1 << 20, |_| true).unwrap();
    assert_eq!(read.missing, Some(Missing { first: last, ..hole }));
    let read = opened.wal.read(first - 1, first, 1 << 20, |_| true).unwrap();
    assert_eq!((read.missing, read.through), (Some(Missing { last: first, ..hole }), first));
    // A scan tells it too.
    let mut items = Vec::new();
    let f = |item| {
        items.push(item);
        ControlFlow::Continue(())
    };
    opened.wal.segments()[1].scan((0, 20), (i64::MIN, i64::MAX), &tenant("a"), f).unwrap();
    assert_eq!(missing(&items), [hole]);
}

#[test]
fn a_segment_that_ends_too_early_or_is_gone_is_a_hole() {
    for gone in [false, true] {
        let (disk, all, firsts) = dead();
        let record = record_len(&disk, &firsts);
        if gone {
            disk.remove(&segment_path(firsts[1])).unwrap();
        } else {
            disk.edit(&segment_path(firsts[1]), |content| content.truncate(64 + record + 5));
        }
        let first = if gone { firsts[1] } else { firsts[1] + 1 };
        let last = firsts[2] - 1;
        let opened = open(&disk);
        assert_eq!((opened.found.lost_records, opened.next), (last - first + 1, 21));
        let items = recovered(&opened.wal, 0);
        assert_eq!(missing(&items), [Missing { first, last, why: Why::Corrupt }]);
        assert_eq!(records(&items), [&all[..first as usize - 1], &all[last as usize..]].concat());
    }
}

#[test]
fn the_newest_segment_may_be_empty_or_not_even_that() {
    for left in [0, 1, 63, 64] {
        let (disk, all, firsts) = dead();
        let last = *firsts.last().unwrap();
        disk.edit(&segment_path(last), |content| content.truncate(left));
        let opened = open(&disk);
        assert_eq!(opened.next, last, "{left}");
        assert_eq!(opened.found.skipped, 0);
        assert_eq!(records(&recovered(&opened.wal, 0)), all[..last as usize - 1]);
        assert_eq!(append(&opened.wal, b"more").seq, last);
        drop(opened);
        assert_eq!(open(&disk).next, last + 1);
    }
}

#[test]
fn a_header_alone_may_be_corrupt() {
    for segment in [0, 1, 99] {
        let (disk, all, firsts) = dead();
        let first = *firsts.get(segment).unwrap_or(firsts.last().unwrap());
        disk.edit(&segment_path(first), |content| content[..64].fill(0x55));
        let opened = open(&disk);
        assert_eq!((opened.found.corrupt_segments, opened.found.lost_records, opened.next), (1, 0, 21));
        let more = append(&opened.wal, b"more");
        assert_ne!(opened.wal.segments().last().unwrap().first(), first, "appended behind a corrupt header");
        drop(opened);
        assert_eq!(records(&recovered(&open(&disk).wal, 0)), [all, vec![more]].concat());
    }
}

#[test]
fn files_of_others_are_set_aside_or_left_alone() {
    let (disk, all, _) = dead();
    let header = SegmentHeader { log: LogId::from_u128(1), first: 30, from: 30, why: Why::Trimmed };
    disk.put(&segment_path(30), &header.encode());
    disk.put(&segment_path(31), &[3; 1000]);
    disk.put(&Path::new(DIR).join("meta.tmp"), b"half");
    disk.put(&Path::new(DIR).join("rescue.tmp"), b"half");
    disk.put(&Path::new(DIR).join("notes.txt"), b"mine");
    let opened = open(&disk);
    assert_eq!(opened.found.corrupt_segments, 2);
    assert!(opened.next > 31, "a number in a name may have been given out");
    assert_eq!(records(&recovered(&opened.wal, 0)), all);
    let names: Vec<_> =
        disk.names().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(names.contains(&"notes.txt".to_owned()));
    assert!(names.contains(&"00000000000000000030.bad".to_owned()));
    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
}

#[test]
fn without_meta_the_log_is_known_from_its_segments() {
    for how in 0..2 {
        let (disk, all, _) = dead();
        let log = open(&disk).log;
        let meta = Path::new(DIR).join("meta");
        if how == 0 {
            disk.remove(&meta).unwrap();
        } else {
            disk.edit(&meta, |content| content[20] ^= 1);
        }
        let opened = open(&disk);
        assert_eq!((opened.log, opened.next), (log, 21 + SKIP));
        assert_eq!(records(&recovered(&opened.wal, 0)), all);
    }
}

#[test]
fn without_segments_a_log_goes_on_only_if_its_end_is_known() {
    let (disk, _, firsts) = dead();
    let log = open(&disk).log;
    firsts.iter().for_each(|first| disk.remove(&segment_path(*first)).unwrap());
    let opened = open(&disk);
    assert_ne!(opened.log, log);
    assert_eq!(opened.next, 1);
    append_some(&opened.wal, 3);
    opened.wal.close().unwrap();
    let log = opened.log;
    drop(opened);
    segment_files(&disk).iter().for_each(|first| disk.remove(&segment_path(*first)).unwrap());
    let opened = open(&disk);
    assert_eq!((opened.log, opened.next), (log, 4));
    let items = recovered(&opened.wal, 0);
    assert_eq!(missing(&items), [Missing { first: 1, last: 3, why: Why::Trimmed }]);
}

#[test]
fn a_newer_version_is_not_touched() {
    let (disk, _, firsts) = dead();
    disk.edit(&segment_path(firsts[0]), |content| {
        content[8] = 2;
        let crc = crc32c::crc32c(&content[..60]);
        content[60..64].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(open_as(&disk, config(SyncPolicy::Os)).unwrap_err().kind(), crate::Kind::Corrupt);
}

#[test]
fn what_the_disk_cannot_read_is_stepped_over_and_nothing_is_cut() {
    let disk = FakeDisk::default();
    let large = Config { segment_bytes: 100_000, ..config(SyncPolicy::Os) };
    let Opened { wal, .. } = open_as(&disk, large.clone()).unwrap();
    let all: Vec<_> = (0..30).map(|i| append(&wal, &[i; 3000])).collect();
    drop(wal);
    let size = len(&disk, 1);
    disk.faults(|faults| faults.unreadable = Some((segment_path(1), 80_000, u64::MAX)));
    let opened = open_as(&disk, large.clone()).unwrap();
    let last = records(&recovered(&opened.wal, 0)).last().unwrap().seq;
    assert!((24..=26).contains(&last), "{last}");
    assert!(opened.next > 30);
    assert_eq!(append(&opened.wal, b"more").seq, opened.next);
    assert_eq!(len(&disk, 1), size, "cut");
    // A reader is told that it failed, not that the records are gone.
    assert_eq!(opened.wal.read(last, 30, 1, |_| true).unwrap().records, []);
    drop(opened);
    disk.heal();
    let opened = open_as(&disk, large).unwrap();
    assert_eq!(records(&recovered(&opened.wal, 0))[..30], all);
}

#[test]
fn a_payload_that_holds_records_of_the_log_does_not_confuse_it() {
    let (disk, all, firsts) = dead();
    let shipped = disk.edit(&segment_path(firsts[0]), |content| content.clone());
    let opened = open(&disk);
    let big = append(&opened.wal, &shipped);
    let after = append(&opened.wal, b"after");
    let first = opened.wal.segments().iter().rev().find(|segment| segment.first() <= big.seq).unwrap().first();
    drop(opened);
    disk.edit(&segment_path(first), |content| content[64 + 5] ^= 1);
    let items = recovered(&open(&disk).wal, 0);
    assert_eq!(records(&items), [all, vec![after]].concat());
}
