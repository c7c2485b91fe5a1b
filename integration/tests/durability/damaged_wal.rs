//! Segments of the WAL that were cut, overwritten, emptied or removed: the server starts, says what is lost, and everything that was
//! not touched is there.
//!
//! What is touched is known from outside: a segment holds the bodies of pushes as they came, in their order, so the place of each is
//! found by searching for it. What lies between two bodies belongs to the second.

use std::ops::Range;
use std::path::{Path, PathBuf};

use tailwater_integration::ledger::{Receipt, Scope};
use tailwater_integration::lines::Numbers;
use tailwater_integration::load::Shared;
use tailwater_integration::read::Query;
use tailwater_integration::{Home, Ledger, Server, now_ns, seeds};

use crate::{LOAD, all_there, assert_all_there, config, flush, segments, shared, wal};

/// Largest gap between two bodies that is searched for the second.
const GAP_MAX: usize = 1024;

/// A push and where it lies: the name of the segment, and the bytes from the end of the push before to its own end.
struct Placed {
    receipt: Receipt,
    segment: String,
    bytes: Range<usize>,
}

fn yaml() -> String {
    config(&["target_block_mb: 1024", "max_block_age: 1h", &wal("os", 1, 64)])
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Pushes one batch and answers what it sent.
async fn push(server: &Server, ledger: &Shared, count: usize, numbers: &mut Numbers) -> (Receipt, Vec<u8>) {
    let part = format!("s{}", numbers.below(4));
    let (batch, receipt) = ledger.lock().push("t", &[(&part, now_ns())], count, numbers);
    let body = batch.snappy();
    let headers = [("Content-Type", "application/x-protobuf")];
    let reply = server.tenant("t").send("POST", "/loki/api/v1/push", &headers, body.clone()).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    (receipt, body)
}

/// Where the bodies lie.
fn place(home: &Home, pushed: Vec<(Receipt, Vec<u8>)>) -> Vec<Placed> {
    let mut segments = segments(home).into_iter();
    let mut path = segments.next().expect("there is a segment");
    let mut bytes = std::fs::read(&path).unwrap();
    let mut end = 0;
    let mut placed = Vec::new();
    for (receipt, body) in pushed {
        let start = loop {
            let gap = bytes[end..].windows(body.len()).take(GAP_MAX).position(|window| window == body);
            if let Some(gap) = gap {
                break end + gap;
            }
            path = segments.next().expect("every body lies in a segment as it came");
            bytes = std::fs::read(&path).unwrap();
            end = 0;
        };
        placed.push(Placed { receipt, segment: name(&path), bytes: end..start + body.len() });
        end = start + body.len();
    }
    placed
}

/// A copy of a home, whose files may be damaged.
fn copy(of: &Home) -> Home {
    let home = Home::new(&yaml());
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        std::fs::create_dir_all(home.data().join(&folder)).unwrap();
        for entry in std::fs::read_dir(of.data().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                std::fs::copy(entry.path(), home.data().join(path)).unwrap();
            }
        }
    }
    home
}

#[derive(Debug)]
enum Damage {
    Flip(String, Vec<usize>),
    Cut(String, usize),
    Removed(String),
    Garbage(String, usize, u8),
}

impl Damage {
    fn at_random(numbers: &mut Numbers, segments: &[(String, usize)]) -> Self {
        let last = segments.last().unwrap().0.clone();
        let (name, length) = segments[numbers.below(segments.len() as u64) as usize].clone();
        match numbers.below(8) {
            0..=2 => {
                let places = 1 + numbers.below(3);
                Self::Flip(name, (0..places).map(|_| numbers.below(length as u64) as usize).collect())
            }
            3 => Self::Cut(name, numbers.below(length as u64) as usize),
            4 => Self::Cut(last, numbers.below(segments.last().unwrap().1 as u64) as usize),
            5 => Self::Cut(name, 0),
            6 => Self::Removed(name),
            _ => Self::Garbage(
                last,
                1 + numbers.below(5000) as usize,
                [0, numbers.next() as u8][numbers.below(2) as usize],
            ),
        }
    }

    fn inflict(&self, wal: &Path) {
        match self {
            Self::Flip(name, places) => {
                let mut bytes = std::fs::read(wal.join(name)).unwrap();
                for &place in places {
                    bytes[place] ^= 1 << (place % 8);
                }
                std::fs::write(wal.join(name), bytes).unwrap();
            }
            Self::Cut(name, length) => {
                let file = std::fs::File::options().write(true).open(wal.join(name)).unwrap();
                file.set_len(*length as u64).unwrap();
            }
            Self::Removed(name) => std::fs::remove_file(wal.join(name)).unwrap(),
            Self::Garbage(name, length, byte) => {
                let mut bytes = std::fs::read(wal.join(name)).unwrap();
                bytes.extend((0..*length).map(|i| byte.wrapping_mul(i as u8)));
                std::fs::write(wal.join(name), bytes).unwrap();
            }
        }
    }

    fn touches(&self, placed: &Placed) -> bool {
        match self {
            Self::Flip(name, places) => {
                *name == placed.segment && places.iter().any(|place| placed.bytes.contains(place))
            }
            Self::Cut(name, length) => *name == placed.segment && placed.bytes.end > *length,
            Self::Removed(name) => *name == placed.segment,
            Self::Garbage(..) => false,
        }
    }

    /// Whether the rest of the log shows that something is missing: the end of a log that is gone was maybe never there.
    fn shows(&self, last: &str) -> bool {
        match self {
            Self::Flip(..) => true,
            Self::Cut(name, _) | Self::Removed(name) => name != last,
            Self::Garbage(..) => false,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_touched_is_there() {
    for seed in seeds::of("damaged-wal") {
        damage_at_random(seed, if seeds::long() { 100 } else { 12 }).await;
    }
}

async fn damage_at_random(seed: u64, trials: u64) {
    let mut numbers = Numbers::new(seed);
    let home = Home::new(&yaml());
    let ledger = shared(seed);
    let server = home.start().await;
    let mut pushed = Vec::new();
    for _ in 0..150 {
        let count = 1 + numbers.below(200) as usize;
        pushed.push(push(&server, &ledger, count, &mut numbers).await);
    }
    server.kill().await;
    let placed = place(&home, pushed);
    let sizes: Vec<_> =
        segments(&home).iter().map(|path| (name(path), path.metadata().unwrap().len() as usize)).collect();
    let used: Vec<_> = sizes.into_iter().filter(|(name, _)| placed.iter().any(|p| p.segment == *name)).collect();
    assert!(used.len() > 2, "several segments are needed: {used:?}");
    let pristine = ledger.lock().clone();
    for trial in 0..trials {
        let damage = Damage::at_random(&mut numbers, &used);
        let when = format!("seed {seed}, trial {trial}, {damage:?}");
        let home = copy(&home);
        damage.inflict(&home.data().join("wal"));
        let untouched: Vec<_> = placed.iter().filter(|placed| !damage.touches(placed)).collect();
        let mut left: Ledger = pristine.clone();
        untouched.iter().for_each(|placed| left.acknowledge(&placed.receipt));
        let ledger = std::sync::Arc::new(parking_lot::Mutex::new(left));
        let mut server = home.start().await;
        let answer =
            Query::all(LOAD).read(&server.tenant("t")).await.unwrap_or_else(|e| panic!("{when}: {}", e.text()));
        let verdict = ledger.lock().judge("t", &answer.lines, &Scope::ALL);
        assert!(verdict.is_clean(), "{when}: {verdict}");
        let log = server.log();
        let told = ["lost", "corrupt", "damaged", "missing"].iter().any(|word| log.to_lowercase().contains(word));
        let lost = untouched.len() < placed.len() && verdict.delivered < pristine.counts().0;
        assert!(told || !lost || !damage.shows(&used.last().unwrap().0), "{when}: nothing is said: {log}");
        // What comes now is kept as if nothing had been.
        for _ in 0..3 {
            let (receipt, _) = push(&server, &ledger, 20, &mut numbers).await;
            ledger.lock().acknowledge(&receipt);
        }
        all_there(&when, &server, &ledger).await;
        server.assert_well();
        server.kill().await;
        let server = home.start().await;
        all_there(&format!("{when}, started again"), &server, &ledger).await;
        if trial % 3 == 0 {
            flush(&server.client()).await;
            all_there(&format!("{when}, in blocks"), &server, &ledger).await;
        }
    }
}

/// Whatever is in blocks is there without the WAL, and what comes then is not taken for what was there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wal_that_is_gone_takes_only_what_was_not_in_blocks() {
    let mut numbers = Numbers::new(5);
    let home = Home::new(&yaml());
    let ledger = shared(5);
    for round in 0..4 {
        let server = home.start().await;
        assert_all_there(&format!("round {round}"), &server, &ledger).await;
        for _ in 0..=numbers.below(10) {
            let (receipt, _) = push(&server, &ledger, 20, &mut numbers).await;
            ledger.lock().acknowledge(&receipt);
        }
        assert_all_there(&format!("round {round}, pushed"), &server, &ledger).await;
        flush(&server.client()).await;
        assert_all_there(&format!("round {round}, in blocks"), &server, &ledger).await;
        server.kill().await;
        if round % 2 == 0 {
            std::fs::remove_dir_all(home.data().join("wal")).unwrap();
        } else {
            segments(&home).iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }
    }
}
