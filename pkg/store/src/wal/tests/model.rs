//! Random histories of a log on a disk that fails, against what may be expected of it.
//!
//! * What was acknowledged survives the death of the process; what was synced survives a loss of power.
//! * Numbers are never used again for something else.
//! * What is read is what was appended, in order; every number is a record or told to be missing, once.
//! * A flipped bit costs at most one record.
//! * When the disk works again, so does the log.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Action {
    Append { tenant: bool, size: usize },
    Sync,
    Trim(Index),
    Close,
    Kill,
    LosePower(u64),
    Flip(Index, Index, u8),
    Room(u64),
    FailWrites(u32),
    FailSyncs(u32),
    FailCuts(u32),
    FailCreates(u32),
    Short(usize),
    Heal,
    Read { from: Index, upto: Index, max_bytes: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        30 => (any::<bool>(), prop_oneof![4 => 0..200usize, 1 => 200..2000usize])
            .prop_map(|(tenant, size)| Action::Append { tenant, size }),
        8 => Just(Action::Sync),
        3 => any::<Index>().prop_map(Action::Trim),
        1 => Just(Action::Close),
        3 => Just(Action::Kill),
        3 => any::<u64>().prop_map(Action::LosePower),
        2 => (any::<Index>(), any::<Index>(), 0..8u8).prop_map(|(file, at, bit)| Action::Flip(file, at, 1 << bit)),
        2 => (0..500u64).prop_map(Action::Room),
        2 => (1..3u32).prop_map(Action::FailWrites),
        3 => (1..4u32).prop_map(Action::FailSyncs),
        1 => (1..3u32).prop_map(Action::FailCuts),
        1 => (1..3u32).prop_map(Action::FailCreates),
        1 => (1..100usize).prop_map(Action::Short),
        6 => Just(Action::Heal),
        5 => (any::<Index>(), any::<Index>(), 0..1000usize)
            .prop_map(|(from, upto, max_bytes)| Action::Read { from, upto, max_bytes }),
    ]
}

fn policy() -> impl Strategy<Value = SyncPolicy> {
    // The interval never ends: rounds are actions.
    prop_oneof![Just(SyncPolicy::Os), Just(SyncPolicy::Interval(Duration::from_secs(3600))), Just(SyncPolicy::Always)]
}

/// What may be expected of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Acknowledged.
    Appended,
    /// Survives a loss of power too.
    Synced,
    /// May be there or not.
    Maybe,
}

struct Model {
    disk: FakeDisk,
    config: Config,
    opened: Option<Opened>,
    log: LogId,
    records: BTreeMap<u64, (Stored, Expect)>,
    /// Records that may be missing because of flipped bits.
    flips: usize,
    /// Bits flipped ever.
    flipped: usize,
    /// Whether syncs failed ever.
    failed: bool,
    covered: u64,
    /// A sync failed, and what it was to write is not known to be on disk.
    suspect: bool,
}

impl Model {
    fn new(sync: SyncPolicy) -> Self {
        let disk = FakeDisk::default();
        let config = config(sync);
        let opened = open_as(&disk, config.clone()).unwrap();
        let log = opened.log;
        assert!(opened.found.clean);
        assert_eq!(opened.next, 1);
        Self {
            disk,
            config,
            opened: Some(opened),
            log,
            records: BTreeMap::new(),
            flips: 0,
            flipped: 0,
            failed: false,
            covered: 0,
            suspect: false,
        }
    }

    fn wal(&self) -> &Wal {
        &self.opened.as_ref().unwrap().wal
    }

    fn works(&self) -> bool {
        self.disk
            .faults(|faults| faults.room.is_none() && faults.writes + faults.syncs + faults.cuts + faults.creates == 0)
    }

    fn reopen(&mut self) {
        let works = self.works();
        let opened = open_as(&self.disk, self.config.clone()).or_else(|error| {
            assert!(!works, "the disk works, but: {error}");
            self.disk.heal();
            open_as(&self.disk, self.config.clone())
        });
        let opened = opened.unwrap();
        if opened.log != self.log {
            // Meta was hit, and so was the only header that could have told; or it was never written although a later sync said so.
            assert!(self.flipped > 1 || (self.flipped == 1 && self.failed));
            self.log = opened.log;
            self.records.clear();
            self.covered = 0;
        }
        let last = self.records.keys().next_back().copied().unwrap_or(0);
        assert!(opened.next > last, "{} was given out already, and is next again", opened.next);
        assert_eq!(opened.next, opened.wal.next());
        self.opened = Some(opened);
        self.check();
    }

    /// Everything is there that must be.
    fn check(&mut self) {
        let wal = self.wal();
        let items = recovered(wal, 0);
        let mut next = 1;
        let mut found = BTreeMap::new();
        for item in &items {
            match item {
                Item::Record(stored) => {
                    assert_eq!(stored.seq, next);
                    let (expected, _) = self.records.get(&next).unwrap_or_else(|| panic!("{next} was never appended"));
                    assert_eq!(stored, expected);
                    found.insert(next, ());
                    next += 1;
                }
                Item::Missing(missing) => {
                    assert_eq!(missing.first, next);
                    assert!(missing.last >= missing.first);
                    next = missing.last + 1;
                }
            }
        }
        assert_eq!(next, wal.next(), "{items:?}");
        let required =
            self.records.iter().filter(|(seq, (_, expect))| *expect != Expect::Maybe && **seq > self.covered);
        let lost: Vec<u64> = required.map(|(seq, _)| *seq).filter(|seq| !found.contains_key(seq)).collect();
        assert!(lost.len() <= self.flips, "lost: {lost:?} of {:?}", self.records.keys());
        self.flips -= lost.len();
        for seq in lost {
            self.records.get_mut(&seq).unwrap().1 = Expect::Maybe;
        }
        // By time, segment by segment, it is the same.
        for tenant in [tenant("a"), tenant("b")] {
            let mut scanned = Vec::new();
            for segment in self.wal().segments().iter() {
                let scan = segment.scan((0, u64::MAX), (i64::MIN, i64::MAX), &tenant, |item| {
                    scanned.push(item);
                    ControlFlow::Continue(())
                });
                scan.unwrap();
            }
            let expected: Vec<_> = records(&items).into_iter().filter(|stored| stored.tenant == tenant).collect();
            assert_eq!(records(&scanned), expected);
        }
    }

    fn read(&self, from: Index, upto: Index, max_bytes: usize) {
        let wal = self.wal();
        let upto = upto.index(wal.next() as usize) as u64;
        let mut after = from.index(upto as usize + 1) as u64;
        let mut expected = records(&recovered(wal, after));
        expected.retain(|stored| stored.seq <= upto && stored.tenant == tenant("a"));
        let mut found = Vec::new();
        while after < upto {
            let read = wal.read(after, upto, max_bytes, |tenant| tenant.as_str() == "a").unwrap();
            assert!(read.through > after && read.through <= upto, "{read:?}");
            if let Some(missing) = read.missing {
                assert_eq!(missing.first, after + 1);
                assert!(missing.last <= read.through);
            }
            after = read.through;
            found.extend(read.records);
        }
        assert_eq!(found, expected);
    }

    fn sync(&mut self) {
        let wal = self.wal();
        let last = wal.next() - 1;
        let result = if self.config.sync == SyncPolicy::Always { wal.sync_up_to(last) } else { wal.sync() };
        assert!(result.is_err() || wal.synced() >= last);
        self.synced(result.is_ok());
    }

    /// Learns what was synced, and what is void.
    fn synced(&mut self, fine: bool) {
        let wal = &self.opened.as_ref().unwrap().wal;
        let synced = wal.synced();
        let syncs = wal.shared.syncs.lock();
        for (seq, (_, expect)) in &mut self.records {
            match expect {
                Expect::Appended if syncs.has_failed(*seq) => *expect = Expect::Maybe,
                Expect::Appended if *seq <= synced => *expect = Expect::Synced,
                _ => {}
            }
        }
        self.suspect = !fine;
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Append { tenant: which, size } => {
                let works = self.works();
                let wal = self.wal();
                let tenant = tenant(if which { "a" } else { "b" });
                let payload = vec![wal.next() as u8; size];
                match append_as(wal, &tenant, &payload) {
                    Ok(stored) => {
                        let before = self.records.insert(stored.seq, (stored, Expect::Appended));
                        assert!(before.is_none(), "a number was used again");
                    }
                    Err(error) => assert!(!works, "the disk works, but: {error}"),
                }
            }
            Action::Sync => self.sync(),
            Action::Trim(at) => {
                let covered = at.index(self.wal().next() as usize) as u64;
                self.covered = self.covered.max(covered);
                self.wal().trim(covered);
            }
            Action::Close => {
                let works = self.works();
                let result = self.wal().close();
                if let Err(error) = &result {
                    assert!(!works, "the disk works, but: {error}");
                }
                self.synced(result.is_ok());
                self.kill();
            }
            Action::Kill => self.kill(),
            Action::LosePower(mut seed) => {
                self.opened = None;
                self.disk.lose_power(|most| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (seed >> 33) as usize % (most + 1)
                });
                for (_, expect) in self.records.values_mut() {
                    if *expect == Expect::Appended {
                        *expect = Expect::Maybe;
                    }
                }
                self.reopen();
                self.sync_of_open();
            }
            Action::Flip(file, at, bit) => {
                self.opened = None;
                let mut names = self.disk.names();
                names.retain(|name| name.extension().is_none_or(|e| e == "wal"));
                let path = file.get(&names);
                self.disk.edit(path, |content| {
                    if !content.is_empty() {
                        let at = at.index(content.len());
                        content[at] ^= bit;
                    }
                });
                self.flips += 1;
                self.flipped += 1;
                self.kill();
            }
            Action::Room(room) => self.disk.faults(|faults| faults.room = Some(room)),
            Action::FailWrites(n) => self.disk.faults(|faults| faults.writes = n),
            Action::FailSyncs(n) => {
                self.failed = true;
                self.disk.faults(|faults| faults.syncs = n);
            }
            Action::FailCuts(n) => self.disk.faults(|faults| faults.cuts = n),
            Action::FailCreates(n) => self.disk.faults(|faults| faults.creates = n),
            Action::Short(n) => self.disk.faults(|faults| faults.short = Some(n)),
            Action::Heal => self.disk.heal(),
            Action::Read { from, upto, max_bytes } => self.read(from, upto, max_bytes),
        }
    }

    fn kill(&mut self) {
        self.opened = None;
        if self.suspect {
            // The next process cannot know that a sync failed, and syncs what is taken for clean.
            for (_, expect) in self.records.values_mut() {
                if *expect == Expect::Appended {
                    *expect = Expect::Maybe;
                }
            }
            self.suspect = false;
        }
        self.reopen();
        self.sync_of_open();
    }

    /// What was found was synced, unless that failed.
    fn sync_of_open(&mut self) {
        if self.config.sync == SyncPolicy::Os {
            return;
        }
        let wal = self.wal();
        self.suspect = wal.synced() < wal.next() - 1;
        if !self.suspect {
            for (_, expect) in self.records.values_mut() {
                if *expect == Expect::Appended {
                    *expect = Expect::Synced;
                }
            }
        }
    }
}

/// Histories to try; more with `PROPTEST_CASES`.
fn cases() -> u32 {
    ProptestConfig::default().cases.max(400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn nothing_is_lost_that_must_not_be(sync in policy(), actions in prop::collection::vec(action(), 1..60)) {
        let mut model = Model::new(sync);
        for action in actions {
            model.run(action);
        }
        model.kill();
    }
}
