//! Logs that may lack records, and are moved.

use tailwater_model::LogId;

use super::*;

const AWAY: &str = "/copies/77";

/// What happens to a disk, and how it is called.
type Way = (&'static str, fn(&FakeDisk));

fn begin(disk: &FakeDisk) -> Begun {
    Wal::begin(config(SyncPolicy::Os), Arc::new(disk.clone()), Metrics::default()).unwrap()
}

fn sound(disk: &FakeDisk) -> Opened {
    match begin(disk) {
        Begun::Sound(opened) => *opened,
        Begun::Doubtful(doubtful) => panic!("{doubtful:?}"),
    }
}

fn doubtful(disk: &FakeDisk) -> Doubtful {
    match begin(disk) {
        Begun::Sound(opened) => panic!("{:?}", opened.found),
        Begun::Doubtful(doubtful) => doubtful,
    }
}

/// A log with two segments, left as a process leaves it that is killed; with all of it on the platter.
fn killed(disk: &FakeDisk) -> (LogId, Vec<Stored>) {
    let Opened { wal, log, .. } = sound(disk);
    let all = append_some(&wal, 8);
    wal.sync_up_to(8).unwrap();
    (log, all)
}

fn copy_of(disk: &FakeDisk, log: LogId) -> Opened {
    let config = Config { dir: PathBuf::from(AWAY), ..config(SyncPolicy::Os) };
    Wal::open_copy(config, Arc::new(disk.clone()), Metrics::default(), Origin { log, after: 0 }).unwrap()
}

fn meta_path() -> PathBuf {
    Path::new(DIR).join("meta")
}

#[test]
fn a_log_that_lacks_nothing_goes_on() {
    let disk = FakeDisk::default();
    let (log, all) = killed(&disk);
    // Killed in an append: nobody was told.
    let path = segment_path(6);
    disk.edit(&path, |bytes| bytes.truncate(bytes.len() - 10));
    for _ in 0..2 {
        let opened = sound(&disk);
        assert_eq!((opened.log, opened.next), (log, 8), "killed");
        assert!(records(&recovered(&opened.wal, 0)) == all[..7], "killed");
    }
    sound(&disk).wal.close().unwrap();
    disk.lose_power(|_| 0);
    let opened = sound(&disk);
    assert_eq!((opened.log, opened.next), (log, 8), "closed before the machine was");
    // A folder without segments is that of a new log.
    drop(opened);
    for first in segment_files(&disk) {
        disk.remove(&segment_path(first)).unwrap();
    }
    let opened = sound(&disk);
    assert_ne!(opened.log, log);
    assert_eq!(opened.next, 1);
}

#[test]
fn a_log_that_may_lack_records_is_moved_as_a_whole_and_a_new_one_begins() {
    let ways: [Way; 6] = [
        ("another start of the machine", |disk| disk.lose_power(|_| 0)),
        ("no meta", |disk| disk.remove(&meta_path()).unwrap()),
        ("a corrupt meta", |disk| disk.edit(&meta_path(), |bytes| bytes[20] ^= 1)),
        ("garbage at the end", |disk| disk.edit(&segment_path(6), |bytes| bytes.extend_from_slice(&[7; 300]))),
        ("fewer records than there were", |disk| {
            drop(open(disk));
            disk.edit(&segment_path(6), |bytes| bytes.truncate(bytes.len() - 10));
        }),
        ("a segment of nothing", |disk| disk.edit(&segment_path(6), |bytes| bytes.fill(0))),
    ];
    for (way, lose) in ways {
        let disk = FakeDisk::default();
        let (log, mut all) = killed(&disk);
        lose(&disk);
        match way {
            "fewer records than there were" => all.truncate(7),
            "a segment of nothing" => all.truncate(5),
            _ => {}
        }
        // However often it is begun.
        for _ in 0..3 {
            let found = doubtful(&disk);
            assert_eq!(found.log(), log, "{way}");
            let config = config(SyncPolicy::Os);
            let other = Wal::begin(config, Arc::new(disk.clone()), Metrics::default());
            assert_eq!(other.unwrap_err().kind(), crate::Kind::Unavailable, "{way}: it is locked");
        }
        doubtful(&disk).move_to(Path::new(AWAY)).unwrap();
        disk.lose_power(|_| 0);
        let new = sound(&disk);
        assert_ne!(new.log, log, "{way}");
        assert_eq!((new.next, new.found.records, new.found.skipped), (1, 0, 0), "{way}");
        let copy = copy_of(&disk, log);
        assert_eq!(records(&recovered(&copy.wal, 0)), all, "{way}");
        assert_eq!((copy.next, copy.found.skipped), (all.len() as u64 + 1, 0), "{way}");
        // Both go on, each with its numbers.
        assert_eq!((append(&new.wal, b"new").seq, append(&copy.wal, b"got again").seq), (1, all.len() as u64 + 1));
    }
}

#[test]
fn a_log_that_nobody_can_name_is_opened() {
    let disk = FakeDisk::default();
    killed(&disk);
    disk.remove(&meta_path()).unwrap();
    for first in segment_files(&disk) {
        disk.edit(&segment_path(first), |bytes| bytes[20] ^= 1);
    }
    assert!(sound(&disk).next > SKIP);
}

#[test]
fn what_cannot_be_moved_stays_as_it_was() {
    let fails: [Way; 5] = [
        ("something is in the way", |disk| disk.put(&Path::new(AWAY).join("x"), b"")),
        ("it cannot be renamed", |disk| disk.faults(|faults| faults.renames = 1)),
        ("the first sync fails", |disk| disk.faults(|faults| faults.syncs = 1)),
        ("all syncs fail", |disk| disk.faults(|faults| faults.syncs = 9)),
        ("neither forth nor back", |disk| disk.faults(|faults| (faults.renames, faults.syncs) = (2, 9))),
    ];
    for (why, fail) in fails {
        let disk = FakeDisk::default();
        let (log, all) = killed(&disk);
        disk.lose_power(|_| 0);
        let found = doubtful(&disk);
        fail(&disk);
        found.move_to(Path::new(AWAY)).unwrap_err();
        disk.heal();
        let opened = open(&disk);
        assert_eq!((opened.log, opened.next), (log, 9 + SKIP), "{why}: as without any copies");
        assert_eq!(records(&recovered(&opened.wal, 0)), all, "{why}");
    }
}

#[test]
fn a_loss_of_power_leaves_it_in_one_of_two_places() {
    for (syncs, written) in [(0, 0), (9, 0), (9, 1), (9, 2), (9, 3)] {
        let disk = FakeDisk::default();
        let (log, all) = killed(&disk);
        disk.lose_power(|_| 0);
        let found = doubtful(&disk);
        // The second sync is that of the move.
        disk.sync_dir(Path::new("/")).unwrap();
        let moved = if syncs == 0 {
            found.move_to(Path::new(AWAY))
        } else {
            disk.rename(Path::new(DIR), Path::new(AWAY)).map_err(|error| crate::Error::io("", error))
        };
        moved.unwrap();
        disk.lose_power(|outstanding| outstanding.min(written));
        match begin(&disk) {
            Begun::Doubtful(found) => {
                assert_eq!((found.log(), syncs > 0), (log, true));
                found.move_to(Path::new(AWAY)).unwrap();
            }
            Begun::Sound(new) => assert_ne!(new.log, log),
        }
        assert_eq!(records(&recovered(&copy_of(&disk, log).wal, 0)), all, "{syncs} {written}");
    }
}
