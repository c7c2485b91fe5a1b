//! The log on the file system of this machine.

use std::time::Duration;

use super::*;

fn config_in(dir: &Path, sync: SyncPolicy) -> Config {
    Config { dir: dir.join("wal"), sync, segment_bytes: 1 << 16, keep_bytes: 0, max_bytes: 0 }
}

#[test]
fn a_log_lives_in_a_folder() {
    for sync in [SyncPolicy::Os, SyncPolicy::Interval(Duration::from_millis(5)), SyncPolicy::Always] {
        let dir = tempfile::tempdir().unwrap();
        let open = || Wal::open(config_in(dir.path(), sync), Arc::new(LocalDisk), Metrics::default());
        let Opened { wal, log, .. } = open().unwrap();
        assert_eq!(open().unwrap_err().kind(), crate::Kind::Unavailable);
        let mut all: Vec<_> = (0..50).map(|i| append(&wal, &vec![i; 5000])).collect();
        wal.sync_up_to(50).unwrap();
        assert!(wal.segments().len() > 3);
        drop(wal);

        let opened = open().unwrap();
        assert_eq!((opened.log, opened.next, opened.found.records), (log, 51, 50));
        all.push(append(&opened.wal, b"more"));
        opened.wal.close().unwrap();
        drop(opened);

        let opened = open().unwrap();
        assert!(opened.found.clean);
        assert_eq!(records(&recovered(&opened.wal, 0)), all);
        let held = opened.wal.segments();
        opened.wal.trim(51);
        assert_eq!(opened.wal.segments().len(), 1);
        let mut found = Vec::new();
        let scan = held[0].scan((0, 51), (i64::MIN, i64::MAX), &tenant("a"), |item| {
            found.push(item);
            ControlFlow::Continue(())
        });
        scan.unwrap();
        assert_eq!(records(&found), all[..held[0].last() as usize], "an open segment is read after it was deleted");
    }
}

#[test]
fn a_torn_end_is_cut_off_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Wal::open(config_in(dir.path(), SyncPolicy::Os), Arc::new(LocalDisk), Metrics::default()).unwrap();
    let Opened { wal, .. } = open();
    let mut all: Vec<_> = (0..5).map(|i| append(&wal, &[i; 100])).collect();
    drop(wal);
    let path = dir.path().join("wal").join(segment::file_name(1));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 10).unwrap();
    let opened = open();
    assert_eq!((opened.next, opened.found.skipped), (5, 0));
    all[4] = append(&opened.wal, b"again");
    assert_eq!(records(&recovered(&opened.wal, 0)), all);
}
