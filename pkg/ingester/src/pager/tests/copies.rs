//! Several nodes put the same log into blocks: its own node, and those that have copies of it.

use tailwater_wire::host::{Copied as _, CopyBegin, Copying};

use super::*;
use crate::{Copies, CopiesConfig};

/// A node that keeps a copy.
struct Keeper {
    dir: tempfile::TempDir,
    copies: Copies,
}

impl Keeper {
    async fn new(bench: &Bench) -> (Self, Arc<dyn Copying>) {
        let dir = tempfile::tempdir().unwrap();
        let wal = WalConfig {
            dir: dir.path().to_owned(),
            sync: SyncPolicy::Os,
            segment_bytes: 2 << 10,
            keep_bytes: 0,
            max_bytes: 0,
        };
        let config = CopiesConfig { wal, memory_bytes: 8 << 10, max_bytes: 0 };
        let limits = Arc::new(Arc::new(Limits::default()));
        let copies = Copies::open(dir.path(), config, limits, Arc::<TestClock>::clone(&bench.clock)).unwrap();
        let log = bench.ingester.log.id();
        let begin = CopyBegin { log, owner: "owner".to_owned(), in_blocks: bench.ingester.log.covered() };
        let copy = copies.begin(begin).await.unwrap();
        (Self { dir, copies }, copy)
    }

    fn log(&self, bench: &Bench) -> Arc<crate::log::ArrivalLog> {
        Arc::clone(&self.copies.copy_of(bench.ingester.log.id()).log)
    }
}

async fn carry(bench: &Bench, copy: &Arc<dyn Copying>, upto: u64) {
    use futures_util::StreamExt;
    let mut records = bench.ingester.records(copy.head());
    while copy.head() < upto {
        let mut piece = records.next().await.unwrap().unwrap();
        piece.retain(|record| record.last() <= upto);
        copy.append(piece).await.unwrap();
    }
}

impl Bench {
    /// What cuts the log as a node has it, through a catalog of that node's own.
    fn cutter_of(&self, log: Arc<crate::log::ArrivalLog>, probe: Option<Probe>) -> Cutter {
        let mut cutter = Cutter::new(
            log,
            Arc::<TestClock>::clone(&self.clock),
            Arc::new(Catalog::new(self.objects.clone(), Refresh::Shared { max_age: Duration::from_secs(3600) })),
            Options { page_bytes: 256, ..Options::default() },
            PagerMetrics::new(),
            Arc::new(AtomicBool::new(false)),
        );
        cutter.probe = probe;
        cutter
    }

    async fn assert_once(&self, when: &str) {
        assert_eq!(self.seen().await, self.expected(), "{when}");
        let mut all = self.in_blocks(|_, _| true).await;
        all.sort();
        all.dedup_by(|a, b| a == b && panic!("{when}: {a:?} is in two blocks"));
    }
}

async fn cut_all(cutter: &Cutter, log: &crate::log::ArrivalLog, max_bytes: u64) -> Result<(), Error> {
    while log.covered() < log.head() {
        cutter.cut(log.head(), max_bytes).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_ends_at_whatever_step_no_line_is_in_two_blocks_or_in_none() {
    for step in (0..).step_by(3) {
        let mut bench = Bench::new();
        bench.push_much().await;
        let head = bench.ingester.log.head();
        let ((near, one), (far, two)) = (Keeper::new(&bench).await, Keeper::new(&bench).await);
        carry(&bench, &one, head - 3).await;
        carry(&bench, &two, head).await;
        drop((one, two));
        // The log's own node ends in the middle of a cut, and so does the first who goes on for it.
        let (probe, _) = failing_at(step % 5);
        let _ends = bench.cutter_of(Arc::clone(&bench.ingester.log), Some(probe)).cut(head / 2, u64::MAX).await;
        let (log, (probe, _)) = (near.log(&bench), failing_at(step));
        let ended = cut_all(&bench.cutter_of(Arc::clone(&log), Some(probe)), &log, 2_000).await;
        bench.assert_once("after the first copy").await;
        // The second goes on, or the node itself comes back before that.
        if step % 2 == 0 {
            let log = far.log(&bench);
            cut_all(&bench.cutter_of(Arc::clone(&log), None), &log, 1_500).await.unwrap();
            bench.assert_once("after the second copy").await;
            assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
        }
        let mut bench = bench.crash();
        bench.assert_once("when the node is back").await;
        bench.push("a", &[("later", NOW, "later", &[])]).await;
        cut_all(&bench.cutter_of(Arc::clone(&bench.ingester.log), None), &bench.ingester.log, 3_000).await.unwrap();
        cut_all(&bench.cutter_of(Arc::clone(&log), None), &log, 3_000).await.unwrap();
        bench.assert_once("when everybody is done").await;
        assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
        if ended.is_ok() {
            assert!(step > 20);
            return;
        }
    }
}

#[tokio::test]
async fn while_a_copy_cuts_the_node_comes_back_and_cuts_too() {
    for at in [Step::Fetched, Step::Asked, Step::Uploaded, Step::Committed] {
        for copy_first in [true, false] {
            let mut bench = Bench::new();
            bench.push_much().await;
            let (keeper, copy) = Keeper::new(&bench).await;
            let head = bench.ingester.log.head();
            carry(&bench, &copy, head - 2).await;
            let (own, theirs) = (Arc::clone(&bench.ingester.log), keeper.log(&bench));
            let (first, second) = if copy_first { (theirs, own) } else { (own, theirs) };
            // Every time the one comes to the step, the other makes a cut.
            let (other, log) = (Arc::new(bench.cutter_of(Arc::clone(&second), None)), Arc::clone(&second));
            let probe: Probe = Arc::new(move |step| {
                let (other, log) = (Arc::clone(&other), Arc::clone(&log));
                Box::pin(async move {
                    if step == at && log.covered() < log.head() {
                        other.cut(log.head(), 1_200).await?;
                    }
                    Ok(())
                })
            });
            cut_all(&bench.cutter_of(Arc::clone(&first), Some(probe)), &first, 2_500).await.unwrap();
            bench.assert_once("while both cut").await;
            cut_all(&bench.cutter_of(Arc::clone(&second), None), &second, u64::MAX).await.unwrap();
            cut_all(&bench.cutter_of(Arc::clone(&bench.ingester.log), None), &bench.ingester.log, 999).await.unwrap();
            bench.assert_once("when both are done").await;
            assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_adopted_is_put_into_blocks_until_somebody_writes_to_it() {
    let mut bench = Bench::new();
    bench.push_much().await;
    let (keeper, copy) = Keeper::new(&bench).await;
    let (head, id) = (bench.ingester.log.head(), bench.ingester.log.id());
    carry(&bench, &copy, head).await;
    let adopt = || keeper.copies.adopt(id, Arc::clone(&bench.catalog), PagerConfig::default());
    assert!(!adopt(), "its node writes to it");
    drop(copy);
    assert!(adopt() && adopt());
    until(|| keeper.copies.state()[0].in_blocks == head).await;
    assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
    assert!(adopt(), "there is nothing to do");
    keeper.copies.abandon(id);
    assert!(!keeper.copies.adopt(LogId::generate(), Arc::clone(&bench.catalog), PagerConfig::default()));
    // The node finds that it is done.
    let mut bench = bench.crash();
    bench.cut_all(&bench.cutter(None), u64::MAX).await.unwrap();
    bench.push("a", &[("x", NOW, "goes on", &[])]).await;
    bench.cut_all(&bench.cutter(None), u64::MAX).await.unwrap();
    bench.assert_once("after all").await;
    assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
}

#[tokio::test]
async fn what_only_the_copy_has_lost_is_not_passed_over() {
    let mut bench = Bench::new();
    bench.push_much().await;
    let (mut keeper, copy) = Keeper::new(&bench).await;
    let id = bench.ingester.log.id();
    carry(&bench, &copy, bench.ingester.log.head()).await;
    drop(copy);
    keeper.copies.end_abruptly();
    let folder = keeper.dir.path().join(id.to_string());
    let mut segments: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    segments.sort();
    let damaged = &segments[1];
    let mut bytes = std::fs::read(damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(damaged, bytes).unwrap();
    let wal = WalConfig {
        dir: keeper.dir.path().to_owned(),
        sync: SyncPolicy::Os,
        segment_bytes: 2 << 10,
        keep_bytes: 0,
        max_bytes: 0,
    };
    let config = CopiesConfig { wal, memory_bytes: 8 << 10, max_bytes: 0 };
    let limits = Arc::new(Arc::new(Limits::default()));
    keeper.copies = Copies::open(keeper.dir.path(), config, limits, Arc::<TestClock>::clone(&bench.clock)).unwrap();
    until(|| keeper.copies.state().iter().any(|copy| copy.is_ready)).await;
    let log = keeper.log(&bench);
    let failed = cut_all(&bench.cutter_of(Arc::clone(&log), None), &log, u64::MAX).await.unwrap_err();
    assert!(failed.to_string().contains("the log itself may have it"), "{failed}");
    assert!(log.covered() > 0 && log.covered() < log.head(), "what is before it is in blocks");
    bench.assert_once("as far as the copy can").await;
    bench.cut_all(&bench.cutter(None), u64::MAX).await.unwrap();
    bench.assert_once("and the node has all of it").await;
    assert_eq!(bench.in_blocks(|_, _| true).await.len(), bench.pushed.len());
}
