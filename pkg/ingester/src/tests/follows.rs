//! Follows: live lines, sharing, catching up, gaps.

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use tailwater_wire::node::{Gap, HEARTBEAT};

const A: &str = r#"{app="a"}"#;
const B: &str = r#"{app="b"}"#;

impl Bench {
    fn line(&self, stream: &str, line: &str) {
        let at = NOW + self.ingester.log.head() as i64;
        self.push(&[(stream, &[(at, line, &[])])]).unwrap();
    }

    fn has_groups(&self) -> bool {
        let tenant = self.ingester.tenants.get(&tenant("t")).unwrap();
        !tenant.tails.is_empty()
    }
}

/// The first event of a follow that has caught up is a sign of life.
async fn caught_up(follow: &mut Follow) -> (u64, Timestamp) {
    match follow.next().await {
        Some(FollowEvent::Idle { through, watermark }) => (through, watermark),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn lines_come_as_they_are_accepted_and_signs_of_life_in_between() {
    let bench = Bench::new(no_limits());
    let mut follow = bench.follow(&app("a"), 0);
    assert_eq!(caught_up(&mut follow).await, (0, Timestamp(NOW)));
    bench.line(A, "one");
    bench.line(B, "not this");
    bench.line(A, "two");
    let event = ready(&mut follow).unwrap();
    assert_eq!(lines(&event), ["one", "two"]);
    let FollowEvent::Lines(batch) = event else { unreachable!() };
    assert_eq!((batch.through, batch.watermark), (3, Timestamp(NOW)));
    assert_eq!(batch.lines.iter().map(|l| (l.seq, l.index)).collect::<Vec<_>>(), [(1, 0), (3, 0)]);
    assert_eq!(batch.lines[0].labels.to_string(), r#"{app="a", service_name="a"}"#);

    bench.line(B, "not this");
    bench.advance(5);
    assert!(ready(&mut follow).is_none());
    let before = tokio::time::Instant::now();
    assert_eq!(caught_up(&mut follow).await, (4, Timestamp(NOW + 5)));
    assert!(before.elapsed() <= HEARTBEAT);
    let before = tokio::time::Instant::now();
    caught_up(&mut follow).await;
    assert!(before.elapsed() <= HEARTBEAT);
}

#[tokio::test(start_paused = true)]
async fn a_follow_begins_where_it_is_told() {
    let bench = Bench::new(no_limits());
    for i in 1..=5 {
        bench.line(A, &i.to_string());
    }
    for after in 0..=5 {
        let mut follow = bench.follow(&app("a"), after);
        let want: Vec<_> = (after + 1..=5).map(|i| i.to_string()).collect();
        match follow.next().await.unwrap() {
            FollowEvent::Idle { through, .. } => assert_eq!((after, through), (5, 5)),
            event => assert_eq!(lines(&event), want),
        }
    }
    let mut follow = bench.follow(&app("a"), u64::MAX);
    assert_eq!(caught_up(&mut follow).await.0, 5, "there is nothing after the end");
    bench.line(A, "six");
    assert_eq!(lines(&next(&mut follow).await.unwrap()), ["six"]);
}

#[tokio::test(start_paused = true)]
async fn no_batch_is_accepted_before_a_watermark() {
    let bench = Bench::new(no_limits());
    let mut follow = bench.follow(&app("a"), 0);
    bench.advance(100);
    let (_, watermark) = caught_up(&mut follow).await;
    assert_eq!(watermark, Timestamp(NOW + 100));
    // The clock jumps back.
    bench.advance(-1000);
    bench.line(A, "x");
    let Some(FollowEvent::Lines(batch)) = next(&mut follow).await else { panic!() };
    assert!(batch.lines[0].accepted_at >= watermark);
}

#[tokio::test(start_paused = true)]
async fn equal_queries_share_and_see_the_same() {
    let bench = Bench::new(no_limits());
    let mut first = bench.follow(&app("a"), 0);
    caught_up(&mut first).await;
    bench.line(A, "before");
    let mut second = bench.follow(&app("a"), 0);
    let mut third = bench.follow(&app("a"), bench.ingester.log.head());
    bench.line(A, "after");
    for (follow, want) in
        [(&mut first, vec!["before", "after"]), (&mut second, vec!["before", "after"]), (&mut third, vec!["after"])]
    {
        let mut got = Vec::new();
        while let Some(event) = ready(follow) {
            if matches!(event, FollowEvent::Lines(_)) {
                got.extend(lines(&event));
            }
        }
        assert_eq!(got, want);
    }
    // Live lines are evaluated once.
    bench.line(A, "shared");
    let (Some(FollowEvent::Lines(one)), Some(FollowEvent::Lines(two))) = (ready(&mut first), ready(&mut second)) else {
        panic!()
    };
    assert!(Arc::ptr_eq(&one, &two));
    let mut other = bench.follow(&app("b"), bench.ingester.log.head());
    caught_up(&mut other).await;
    assert!(bench.has_groups());
    drop((first, second, third, other));
    assert!(!bench.has_groups(), "nothing is left of a group without followers");
    assert_eq!(bench.ingester.metrics_of_tails(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_takes_nothing_is_late_not_lossy() {
    let bench = Bench::with_memory(no_limits(), 64 << 20);
    let mut quick = bench.follow(&app("a"), 0);
    let mut slow = bench.follow(&app("a"), 0);
    caught_up(&mut quick).await;
    // Far more than a group's ring holds.
    let filler = "x".repeat(100_000);
    for i in 0..200 {
        bench.line(A, &format!("{i} {filler}"));
        assert_eq!(lines(&next(&mut quick).await.unwrap()).len(), 1);
    }
    let mut got = Vec::new();
    while let Some(event) = ready(&mut slow) {
        if let FollowEvent::Lines(_) = &event {
            got.extend(lines(&event));
        }
    }
    assert!(got.iter().enumerate().all(|(i, line)| line.starts_with(&format!("{i} "))), "each line once and in order");
    assert_eq!(got.len(), 200);
    bench.line(A, "both are live again");
    assert!(ready(&mut quick).is_some());
    assert_eq!(lines(&next(&mut slow).await.unwrap()), ["both are live again"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_is_told_with_its_size() {
    let bench = Bench::with_memory(no_limits(), 20_000);
    let mut follow = bench.follow(&app("a"), 0);
    let mut others = bench.follow(&app("b"), 0);
    let ingester = &bench.ingester;
    for i in 0..100 {
        bench.push(&[(A, &[(NOW + i, "1", &[]), (NOW + i, "2", &[])])]).unwrap();
        let other = push_of(&[(B, &[(NOW + i, "of somebody else", &[])])]);
        bench.push_to(&tenant("else"), other).unwrap();
    }
    let first = 200 - ingester.log.size().batches + 1;
    let lost = (1..first).filter(|seq| seq % 2 == 1).count() as u64 * 2;
    let want = Gap { after: 0, through: first - 1, lines: lost };
    let Some(FollowEvent::Gap(gap)) = ready(&mut follow) else { panic!() };
    assert_eq!(gap, want);
    // It is certain that nothing of this one was lost: no stream of its was pushed to.
    assert!(matches!(ready(&mut others), Some(FollowEvent::Idle { through: 200, .. })));
    let event = next(&mut follow).await.unwrap();
    assert_eq!(lines(&event).len() as u64 + lost, 200);
}

#[tokio::test(start_paused = true)]
async fn a_gap_of_others_lines_is_none() {
    let bench = Bench::with_memory(no_limits(), 20_000);
    let mut follow = bench.follow(&app("a"), 0);
    for i in 0..100 {
        bench.push_to(&tenant("else"), push_of(&[(A, &[(NOW + i, "x", &[])])])).unwrap();
    }
    bench.line(A, "mine");
    assert_eq!(lines(&next(&mut follow).await.unwrap()), ["mine"]);
}

#[tokio::test(start_paused = true)]
async fn of_very_old_gaps_the_certain_part_is_told() {
    let bench = Bench::with_memory(no_limits(), 10_000);
    for i in 0..500 {
        bench.line(A, &i.to_string());
    }
    let mut follow = bench.follow(&app("a"), 3);
    let Some(FollowEvent::Gap(gap)) = ready(&mut follow) else { panic!() };
    let really = gap.through - gap.after;
    assert!(gap.after == 3 && gap.lines >= 64 && gap.lines <= really, "{gap:?}");
    let recent = gap.through - 10;
    let mut follow = bench.follow(&app("a"), recent);
    let want = Gap { after: recent, through: gap.through, lines: 10 };
    assert!(matches!(ready(&mut follow), Some(FollowEvent::Gap(gap)) if gap == want));
}

#[tokio::test(start_paused = true)]
async fn follows_end_when_everything_was_handed_over() {
    let bench = Bench::new(no_limits());
    let mut follow = bench.follow(&app("a"), 0);
    let mut idle = bench.follow(&app("b"), 0);
    caught_up(&mut idle).await;
    let waiting = tokio::spawn(async move { next(&mut idle).await.is_none() });
    tokio::task::yield_now().await;
    bench.line(A, "last");
    bench.ingester.close();
    assert_eq!(lines(&next(&mut follow).await.unwrap()), ["last"]);
    assert!(next(&mut follow).await.is_none());
    assert!(waiting.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn metadata_and_filters_are_seen_by_the_query() {
    let bench = Bench::new(no_limits());
    let query = query_of(vec![matcher("app", MatchOp::Eq, "a")], Some("needle"));
    let mut follow = bench.follow(&query, 0);
    let entries: Vec<_> =
        (0..50).map(|i| (NOW + i, if i == 20 { "a needle" } else { "hay" }, &[("k", "v")][..])).collect();
    bench.push(&[(A, &entries), (B, &[(NOW, "a needle too", &[])])]).unwrap();
    bench.push(&[(A, &entries[..10])]).unwrap();
    let Some(FollowEvent::Lines(batch)) = next(&mut follow).await else { panic!() };
    assert_eq!(batch.lines.len(), 1);
    assert_eq!((batch.lines[0].index, &batch.line(&batch.lines[0])[..]), (20, &b"a needle"[..]));
    assert_eq!(batch.lines[0].labels.to_string(), r#"{app="a", k="v", service_name="a"}"#);
}

#[tokio::test(start_paused = true)]
async fn an_idle_follow_is_small() {
    let bench = Bench::new(no_limits());
    let mut follow = bench.follow(&app("a"), 0);
    caught_up(&mut follow).await;
    let bytes = size_of_val(&*follow) + size_of::<crate::group::Group>();
    assert!(bytes <= 2048, "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_and_followers_at_once_lose_and_repeat_nothing() {
    const SENDERS: usize = 4;
    const PUSHES: usize = 300;
    let bench = Arc::new(Bench::new(no_limits()));
    let total = SENDERS * PUSHES * 2;
    let followers: Vec<_> = (0..6)
        .map(|i| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                // They come while lines are coming, some late, and hold on at times.
                tokio::time::sleep(Duration::from_millis(i * 3)).await;
                let query = if i % 2 == 0 { everything() } else { app("a") };
                let mut follow = bench.follow(&query, 0);
                let mut got = Vec::new();
                let want = if i % 2 == 0 { total } else { total / 2 };
                while got.len() < want {
                    let Some(FollowEvent::Lines(batch)) = next(&mut follow).await else { panic!() };
                    got.extend(batch.lines.iter().map(|l| ((l.seq, l.index), l.labels.to_string(), batch.line(l))));
                    if got.len() % 7 == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                got
            })
        })
        .collect();
    let senders: Vec<_> = (0..SENDERS)
        .map(|s| {
            let bench = Arc::clone(&bench);
            tokio::task::spawn(async move {
                for i in 0..PUSHES {
                    let at = NOW + i as i64;
                    let line = format!("{s} {i}");
                    let own = format!(r#"{{app="b", sender="{s}"}}"#);
                    bench.push(&[(A, &[(at, &line, &[])]), (&own, &[(at, &line, &[])])]).unwrap();
                    if i % 10 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    for (i, follower) in followers.into_iter().enumerate() {
        let got = tokio::time::timeout(Duration::from_secs(60), follower).await.unwrap().unwrap();
        assert!(got.is_sorted_by_key(|(place, ..)| *place), "log order");
        let places: HashSet<_> = got.iter().map(|(place, ..)| *place).collect();
        assert_eq!(places.len(), got.len(), "no line twice");
        assert_eq!(got.len(), if i % 2 == 0 { total } else { total / 2 });
        for s in 0..SENDERS {
            let of_sender = got.iter().filter(|(_, labels, _)| labels.contains(&format!("sender=\"{s}\"")));
            let want: Vec<_> = (0..if i % 2 == 0 { PUSHES } else { 0 }).map(|i| format!("{s} {i}")).collect();
            assert!(of_sender.map(|(_, _, line)| &line[..]).eq(want.iter().map(String::as_bytes)), "order per stream");
        }
    }
}
