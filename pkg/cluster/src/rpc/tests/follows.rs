use super::*;

fn request(after: u64) -> FollowRequest {
    FollowRequest { tenant: tenant(), query: query(r#"{a="1"}"#), detect_level: false, after }
}

async fn next(follow: &mut Follow) -> FollowEvent {
    soon(follow.next()).await.expect("an event")
}

#[tokio::test]
async fn events_come_as_they_are() {
    let mut world = world();
    let mut follow = world.far().follow(request(7));
    assert!(matches!(next(&mut follow).await, FollowEvent::Idle { through: 7, watermark: Timestamp(1) }));
    assert_eq!(world.metrics.follows.get(), 1);
    let large = "x".repeat(3 << 20);
    let events = [
        FollowEvent::Lines(Arc::new(batch(8, &["one", "two", ""]))),
        FollowEvent::Gap(Gap { after: 8, through: 10, lines: 4 }),
        FollowEvent::Lines(Arc::new(batch(11, &[&large, "small", &large]))),
        FollowEvent::Away { reason: "the disk".into() },
        FollowEvent::Lines(Arc::new(batch(12, &["three"]))),
        FollowEvent::Idle { through: 13, watermark: Timestamp(i64::MIN) },
    ];
    let mut sets = Vec::new();
    for event in events {
        world.node.events.send(event.clone()).unwrap();
        let got = next(&mut follow).await;
        assert_eq!(format!("{got:?}"), format!("{event:?}"));
        if let FollowEvent::Lines(batch) = got {
            sets.extend(batch.lines.iter().map(|line| line.labels.clone()));
        }
    }
    assert!(sets.len() == 7 && sets.iter().all(|set| set.ptr_eq(&sets[0])), "equal label sets are one");

    // The node goes down: the follow says so and ends.
    world.stop.take().unwrap().send(()).unwrap();
    let FollowEvent::Away { reason } = next(&mut follow).await else { panic!("no end") };
    assert!(reason.contains("ingester a at 127.0.0.1:9: the node is going down"), "{reason}");
    assert!(soon(follow.next()).await.is_none());
    drop(follow);
    soon(world.served).await.unwrap();
    assert_eq!((world.metrics.follows.get(), world.node.dropped.load(Relaxed)), (0, 1));
}

#[tokio::test]
async fn a_follow_over_a_connection_that_breaks_is_away_and_ends() {
    let world = world();
    let mut follow = world.far().follow(request(7));
    next(&mut follow).await;
    world.served.abort();
    let FollowEvent::Away { reason } = next(&mut follow).await else { panic!("no end") };
    assert!(reason.contains("ingester a"), "{reason}");
    assert!(soon(follow.next()).await.is_none());
    // A new one cannot begin; it says why and ends, too.
    let mut follow = world.far().follow(request(7));
    assert!(matches!(next(&mut follow).await, FollowEvent::Away { .. }));
    assert!(soon(follow.next()).await.is_none());
}

#[tokio::test]
async fn many_follows_come_and_go_on_one_connection() {
    let world = world();
    let (begun, dropped) = (Arc::clone(&world.node.begun), Arc::clone(&world.node.dropped));
    let mut count = 0;
    for _ in 0..8 {
        let mut follows: Vec<_> = (0..100).map(|n| world.far().follow(request(n))).collect();
        for follow in &mut follows {
            next(follow).await;
        }
        // They are dropped with something under way.
        for n in 0..20 {
            let _ = world.node.events.send(FollowEvent::Lines(Arc::new(batch(n, &["x"; 50]))));
        }
        count += follows.len();
        drop(follows);
        until(|| dropped.load(Relaxed) == count).await;
    }
    assert_eq!((begun.load(Relaxed), world.metrics.connections.get(), world.metrics.errors.get()), (800, 1, 0));
    soon(world.far().state(StateRequest::default())).await.unwrap();
}

#[tokio::test]
async fn a_follow_that_nobody_takes_from_holds_up_no_other_call() {
    let world = world();
    let mut stuck: Vec<_> = (0..10).map(|n| world.far().follow(request(n))).collect();
    for follow in &mut stuck {
        next(follow).await;
    }
    let large = "x".repeat(1 << 20);
    for n in 0..10 {
        world.node.events.send(FollowEvent::Lines(Arc::new(batch(n, &[&large])))).unwrap();
    }
    soon(world.far().state(StateRequest::default())).await.unwrap();
    let mut other = world.far().follow(request(1));
    next(&mut other).await;
    // And it is late, but loses nothing.
    for follow in &mut stuck {
        for n in 0..10 {
            assert!(matches!(next(follow).await, FollowEvent::Lines(batch) if batch.through == n));
        }
    }
}
