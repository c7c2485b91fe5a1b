//! Several processes over one storage: each adds blocks, two do housekeeping at a time, all search.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tailwater_model::{Clock, Limits, Timestamp};

use super::{CANCEL, DAY, HOUR, House, Line, Turned, memory, some_lines, tenant};
use crate::catalog::Refresh;
use crate::deletes::{NewRequest, STAYS_ACTIVE, Status};
use crate::housekeeping::Settings;

/// How old what a process knows of the catalog may be. Real time, unlike the clock: for the length of a test.
const LONG: Duration = Duration::from_secs(3600);

fn settings() -> Settings {
    Settings { block_bytes: 1 << 20, retention: true, ..Settings::default() }
}

/// Processes over one storage. Those that search know what they have read.
fn houses(count: usize, settings: &Settings, limits: &Limits, now: i64) -> Vec<Arc<House>> {
    let (objects, clock) = (memory(), Arc::new(Turned(AtomicI64::new(now))));
    let house = |n: usize| {
        let max_age = if n == 0 { LONG } else { Duration::ZERO };
        let (refresh, settings, limits) = (Refresh::Shared { max_age }, settings.clone(), limits.clone());
        Arc::new(House::of(objects.clone(), refresh, settings, limits, clock.clone()))
    };
    (0..count).map(house).collect()
}

/// What a process does.
#[derive(Clone, Debug)]
enum Step {
    /// Adds a block of lines of its log on a day.
    Add { house: usize, day: i64, lines: usize },
    /// Two do a round at a time.
    Rounds { one: usize, other: usize },
    /// Asks for lines to be deleted: those of a day whose text says so.
    Delete { house: usize, day: i64, what: u64 },
    /// Time passes.
    Wait { minutes: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_usize, 0..2_i64, 1..6_usize).prop_map(|(house, day, lines)| Step::Add { house, day, lines }),
        3 => (1..4_usize, 1..4_usize).prop_map(|(one, other)| Step::Rounds { one, other }),
        1 => (1..4_usize, 0..2_i64, 0..4_u64).prop_map(|(house, day, what)| Step::Delete { house, day, what }),
        2 => (1..90_u32).prop_map(|minutes| Step::Wait { minutes }),
    ];
    prop::collection::vec(step, 1..24)
}

/// Everything that a process finds in blocks, also where what it knows is old; and what it would leave out of it.
async fn found(house: &House) -> Vec<Line> {
    let t = tenant("t");
    let deletions = house.deletes.filter(&t).await.unwrap();
    let deleted = |line: &Line| {
        deletions.iter().any(|d| d.overlaps(line.timestamp, line.timestamp) && d.query.canonical().contains(&line.text))
    };
    let mut lines = Vec::new();
    for block in house.catalog.blocks(&t, i64::MIN, i64::MAX).await.unwrap().blocks {
        let (object, _) = house.objects.get(&block.path(&t)).await.unwrap().expect("what is listed, or was, is there");
        lines.extend(super::read(&object).into_iter().filter(|line| !deleted(line)));
    }
    lines.sort();
    lines
}

async fn run(steps: Vec<Step>) {
    let now = 20_000 * DAY;
    let houses = houses(4, &settings(), &Limits::default(), now);
    let (mut lines, mut seqs): (BTreeSet<Line>, _) = (BTreeSet::new(), [0_u64; 4]);
    let mut requests: Vec<String> = Vec::new();
    for step in steps {
        match step {
            Step::Add { house, day, lines: count } => {
                seqs[house] += 1;
                let times: Vec<i64> = (0..count as i64).map(|n| now - day * DAY + n).collect();
                let mut new = some_lines("a", seqs[house], &times);
                for (n, line) in (0..).zip(&mut new) {
                    line.log = house as u128;
                    line.text = format!("kind {}-{}", requests.len(), (seqs[house] + n) % 5);
                }
                houses[house].add("t", &new).await;
                lines.extend(new);
            }
            Step::Rounds { one, other } => {
                let round = |n: usize| {
                    let house = Arc::clone(&houses[n]);
                    tokio::spawn(async move { house.keeping.round().await.unwrap() })
                };
                let both = (round(one), round(other));
                both.0.await.unwrap();
                both.1.await.unwrap();
            }
            Step::Delete { house, day, what } => {
                let (start, end) = (Timestamp(now - day * DAY), Timestamp(now - day * DAY + HOUR));
                // Lines that come later are not meant.
                let text = format!("kind {}-{what}", requests.len());
                let query = format!(r#"{{app="a"}} |= "{text}""#);
                let new = NewRequest { start, end, query };
                let id = houses[house].deletes.add(&tenant("t"), new).await.unwrap();
                requests.push(id);
                lines
                    .retain(|line| line.text != text || line.timestamp < start.nanos() || line.timestamp > end.nanos());
                houses[0].wait(CANCEL);
                // Within seconds all know it.
                houses[0].wait(Duration::from_secs(11));
                let unsettled: Vec<_> = houses.iter().map(|house| house.keeping.round()).collect();
                for round in unsettled {
                    round.await.unwrap();
                }
            }
            Step::Wait { minutes } => houses[0].wait(Duration::from_secs(60) * minutes),
        }
        let want: Vec<Line> = lines.iter().cloned().collect();
        for house in &houses[1..] {
            assert_eq!(found(house).await, want);
        }
        // One that has looked a while ago reads what it knows of as long as a search may take.
        found(&houses[0]).await;
        houses[0]
            .catalog
            .blocks_since(&tenant("t"), i64::MIN, i64::MAX, Some(std::time::Instant::now()))
            .await
            .unwrap();
        assert_eq!(found(&houses[0]).await, want);
    }
    // What was deleted is gone from blocks.
    houses[1].keeping.round().await.unwrap();
    let listed = houses[1].deletes.list(&tenant("t")).await.unwrap();
    assert_eq!(listed.iter().map(|request| request.request_id.clone()).collect::<Vec<_>>(), requests);
    assert!(listed.iter().all(|request| request.status == Status::Processed));
    assert_eq!(houses[1].lines("t").await, lines.into_iter().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whoever_adds_merges_and_deletes_each_line_is_found_once(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test]
async fn who_does_not_lead_does_nothing() {
    let houses = houses(2, &settings(), &Limits::default(), 20_000 * DAY + HOUR);
    for seq in 1..12 {
        houses[1].add("t", &some_lines("a", seq, &[20_000 * DAY - 3 * DAY])).await;
    }
    houses[1].leads.store(false, Ordering::Relaxed);
    houses[1].round().await;
    assert_eq!(houses[1].objects().await, 11);
    houses[1].leads.store(true, Ordering::Relaxed);
    houses[1].round().await;
    assert!(houses[1].objects().await > 11, "they were merged, and stay for a while");
}

#[tokio::test]
async fn what_another_has_removed_stays_as_long_by_the_own_clock_too() {
    let houses = houses(3, &settings(), &Limits::default(), 20_000 * DAY + HOUR);
    for seq in 1..12 {
        houses[1].add("t", &some_lines("a", seq, &[20_000 * DAY - 3 * DAY])).await;
    }
    houses[1].round().await;
    let all = houses[1].objects().await;
    // Another takes over whose clock is far ahead.
    houses[1].wait(Duration::from_secs(16 * 60));
    houses[2].round().await;
    assert_eq!(houses[2].objects().await, all);
    houses[2].wait(Duration::from_secs(15 * 60));
    houses[2].round().await;
    assert_eq!(houses[2].objects().await, all - 11);
}

#[tokio::test]
async fn a_block_that_is_about_to_be_listed_is_no_orphan_by_the_clock_of_the_storage() {
    let settings = Settings { orphan_interval: Duration::ZERO, ..settings() };
    let houses = houses(2, &settings, &Limits::default(), Timestamp::now().nanos());
    let lines = some_lines("a", 1, &[Timestamp::now().nanos()]);
    houses[1].add("t", &lines).await;
    let built = super::build(&some_lines("a", 2, &[Timestamp::now().nanos()]));
    let day = crate::catalog::Day::of(built.summary.min);
    let block = crate::catalog::BlockMeta::new(day, &built.summary, 0, houses[1].clock.now());
    houses[1].objects.put(&block.path(&tenant("t")), built.parts).await.unwrap();
    // A clock that is a week ahead is no reason.
    houses[1].wait(STAYS_ACTIVE * 24 * 7);
    houses[1].round().await;
    assert_eq!(houses[1].objects().await, 2);
}
