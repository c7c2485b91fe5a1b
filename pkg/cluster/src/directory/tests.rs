//! A log on several nodes that come and go, followed and asked all the while. No network.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use proptest::prelude::*;
use tailwater_logql::LogQuery;
use tailwater_logql::patterns::Pattern;
use tailwater_model::{LabelSet, Labels, TenantId, Timestamp};
use tailwater_wire::host::{CopyBegin, Copying, ForwardedPush, PushAnswer};
use tailwater_wire::node::{
    Answer, Follow, FollowEvent, FollowRequest, HEARTBEAT, LabelsRequest, LogState, MatchedBatch, MatchedLine,
    NodeError, Partial, PatternsRequest, ReadChunk, ReadRequest, Sampled, SamplesRequest, SelectRequest, Selected,
    SeriesRequest, StateRequest, Stats, StreamVolume, VolumeRequest,
};
use tokio::time::{sleep, timeout};

use super::*;
use crate::member::{Member, Role, State};
use crate::testing::{member, members};

const LOG: LogId = LogId::from_u128(1);

/// A log as one node has it: batches 1 to `head`, of one line each.
struct Place {
    name: String,
    head: watch::Sender<u64>,
    up: watch::Sender<bool>,
    /// It says how far it is, but nothing else.
    mute: watch::Sender<bool>,
}

/// That place, seen over the network.
struct Remote(Arc<Place>);

impl Remote {
    fn ask<T: Send + 'static>(&self, answer: impl FnOnce(u64) -> T + Send + 'static) -> Answer<T> {
        let place = Arc::clone(&self.0);
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            if !*place.up.borrow() {
                return Err(NodeError::Unavailable { log: LOG, reason: format!("{} is down", place.name) });
            }
            let head = *place.head.borrow();
            Ok(answer(head))
        })
    }
}

fn batch(seq: u64) -> MatchedBatch {
    let labels = LabelSet::default();
    let line = MatchedLine {
        timestamp: Timestamp::MIN,
        accepted_at: Timestamp::MIN,
        seq,
        index: 0,
        offset: 0,
        len: 0,
        labels,
        stream_hash: 0,
    };
    MatchedBatch { through: seq, watermark: Timestamp::MIN, text: Bytes::new(), lines: vec![line] }
}

impl Node for Remote {
    fn log_id(&self) -> LogId {
        LOG
    }

    fn state(&self, _: StateRequest) -> Answer<LogState> {
        self.ask(|head| LogState { head, whole: head, before: head, in_blocks: 0, watermark: Timestamp::MIN })
    }

    fn follow(&self, request: FollowRequest) -> Follow {
        let place = Arc::clone(&self.0);
        let (head, up) = (place.head.subscribe(), place.up.subscribe());
        Box::pin(unfold((head, up, request.after, false), move |(mut head, mut up, after, done)| {
            let name = place.name.clone();
            async move {
                if done {
                    return None;
                }
                if !*up.borrow() {
                    let reason = format!("{name} is down").into();
                    return Some((FollowEvent::Away { reason }, (head, up, after, true)));
                }
                let event = tokio::select! {
                    biased;
                    _ = up.wait_for(|up| !up) => None,
                    more = async { head.wait_for(|head| *head > after).await.map(|_| ()) } => more.ok().map(|()| after + 1),
                    () = sleep(HEARTBEAT) => Some(after),
                };
                Some(match event {
                    None => {
                        let reason = format!("{name} went down").into();
                        (FollowEvent::Away { reason }, (head, up, after, true))
                    }
                    Some(through) if through == after => {
                        (FollowEvent::Idle { through, watermark: Timestamp::MIN }, (head, up, after, false))
                    }
                    Some(through) => (FollowEvent::Lines(Arc::new(batch(through))), (head, up, through, false)),
                })
            }
        }))
    }

    fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
        self.ask(move |head| ReadChunk { through: head.min(request.through), gap: None, batch: batch(head) })
    }

    fn select(&self, _: SelectRequest) -> Answer<Selected> {
        self.ask(|_| Selected::default())
    }

    fn samples(&self, _: SamplesRequest) -> Answer<Sampled> {
        self.ask(|_| panic!("not asked here"))
    }

    fn labels(&self, _: LabelsRequest) -> Answer<Partial<Vec<String>>> {
        let name = self.0.name.clone();
        if *self.0.mute.borrow() {
            let reason = format!("{name} is mute");
            return Box::pin(async move { Err(NodeError::Unavailable { log: LOG, reason }) });
        }
        self.ask(|_| Partial::whole(vec![name]))
    }

    fn series(&self, _: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
        self.ask(|_| Partial::default())
    }

    fn stats(&self, _: SeriesRequest) -> Answer<Partial<Stats>> {
        self.ask(|_| Partial::default())
    }

    fn volume(&self, _: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
        self.ask(|_| Partial::default())
    }

    fn patterns(&self, _: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
        self.ask(|_| Partial::default())
    }
}

/// Nodes that all have the log, the first one being its owner.
struct World {
    places: BTreeMap<String, Arc<Place>>,
    members: watch::Sender<Arc<Members>>,
    known: Vec<Member>,
}

struct Carried(BTreeMap<String, Arc<Place>>);

impl Carrier for Carried {
    fn node(&self, _: LogId, member: &Member, _: bool) -> Arc<dyn Node> {
        Arc::new(Remote(Arc::clone(&self.0[&member.name])))
    }
}

/// A node without logs, or with this one.
struct Own(Option<Arc<Place>>);

impl Host for Own {
    fn log(&self, _: LogId) -> Option<Arc<dyn Node>> {
        let place = self.0.clone()?;
        Some(Arc::new(Remote(place)))
    }

    fn logs(&self) -> Vec<LogId> {
        self.0.iter().map(|_| LOG).collect()
    }

    fn push(&self, _: ForwardedPush) -> Answer<PushAnswer> {
        Box::pin(std::future::pending())
    }

    fn copy(&self, _: CopyBegin) -> Answer<Arc<dyn Copying>> {
        Box::pin(std::future::pending())
    }
}

impl World {
    fn new(names: &[&str]) -> (Self, Arc<Directory>) {
        Self::new_as(names, false)
    }

    /// `certain`: answers that may lack something are none.
    fn new_as(names: &[&str], certain: bool) -> (Self, Arc<Directory>) {
        let place = |name: &str| {
            let (head, up, mute) = (watch::Sender::new(0), watch::Sender::new(true), watch::Sender::new(false));
            (name.to_owned(), Arc::new(Place { name: name.to_owned(), head, up, mute }))
        };
        let places: BTreeMap<_, _> = names.iter().map(|name| place(name)).collect();
        let known: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, name)| member(name, Role::All, None, if at == 0 { &[1] } else { &[2, 1] }))
            .map(|mut member| {
                // Their own logs are of no interest here.
                if member.logs.len() == 2 {
                    member.role = Role::Querier;
                    member.logs.remove(0);
                }
                member
            })
            .collect();
        let (sender, receiver) = watch::channel(members(&known));
        let carrier = Arc::new(Carried(places.clone()));
        let directory = Directory::new(
            receiver,
            "me".to_owned(),
            certain,
            Arc::new(Own(None)),
            carrier,
            DirectoryMetrics::default(),
        );
        (Self { places, members: sender, known }, directory)
    }

    fn push(&self, names: &[&str], head: u64) {
        for name in names {
            self.places[*name].head.send_replace(head);
        }
    }

    fn up(&self, name: &str, up: bool) {
        self.places[name].up.send_replace(up);
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Member)) {
        change(self.known.iter_mut().find(|member| member.name == name).unwrap());
        self.members.send_replace(members(&self.known));
    }
}

fn node(directory: &Directory) -> Arc<dyn Node> {
    let nodes = directory.nodes();
    let nodes = nodes.borrow();
    assert_eq!(nodes.len(), 1);
    Arc::clone(&nodes[0])
}

fn follow(node: &Arc<dyn Node>, after: u64) -> Follow {
    let query = Arc::new(LogQuery::parse(r#"{a="b"}"#).unwrap());
    node.follow(FollowRequest { tenant: TenantId::parse("t").unwrap(), query, detect_level: false, after })
}

fn labels() -> LabelsRequest {
    LabelsRequest {
        tenant: TenantId::parse("t").unwrap(),
        part: Default::default(),
        matchers: None,
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        name: None,
    }
}

/// The positions of the lines up to and including `last`, and how often it said that it was away meanwhile.
async fn lines(follow: &mut Follow, last: u64) -> (Vec<u64>, usize) {
    let (mut seqs, mut away) = (Vec::new(), 0);
    while seqs.last() != Some(&last) {
        match timeout(Duration::from_secs(30), follow.next()).await.expect("an event").expect("no end") {
            FollowEvent::Lines(batch) => seqs.extend(batch.lines.iter().map(|line| line.seq)),
            FollowEvent::Away { .. } => away += 1,
            FollowEvent::Idle { .. } => {}
            FollowEvent::Gap(gap) => panic!("{gap:?}"),
        }
    }
    (seqs, away)
}

async fn who(node: &Arc<dyn Node>) -> Result<String, NodeError> {
    node.labels(labels()).await.map(|answer| answer.value.concat())
}

#[tokio::test(start_paused = true)]
async fn a_follow_goes_from_the_owner_to_the_furthest_copy_and_back() {
    let (world, directory) = World::new(&["owner", "behind", "copy"]);
    let node = node(&directory);
    let mut tail = follow(&node, 0);
    world.push(&["owner", "copy"], 3);
    world.push(&["behind"], 1);
    assert_eq!(lines(&mut tail, 3).await, (vec![1, 2, 3], 0));
    world.up("owner", false);
    let down = Instant::now();
    world.push(&["copy"], 5);
    assert_eq!(lines(&mut tail, 5).await, (vec![4, 5], 0));
    assert!(down.elapsed() <= Duration::from_secs(1), "{:?}", down.elapsed());
    assert_eq!(who(&node).await.unwrap(), "copy");
    // The owner is back, with more than the copy has.
    world.push(&["owner"], 9);
    world.up("owner", true);
    assert_eq!(lines(&mut tail, 9).await, (vec![6, 7, 8, 9], 0));
    assert_eq!(who(&node).await.unwrap(), "owner");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_ends_before_the_position_is_not_taken_for_the_truth() {
    let (world, directory) = World::new(&["owner", "copy"]);
    let node = node(&directory);
    let mut tail = follow(&node, 0);
    world.push(&["owner"], 5);
    world.push(&["copy"], 4);
    lines(&mut tail, 5).await;
    world.up("owner", false);
    let event = async {
        loop {
            if let Some(FollowEvent::Away { reason }) = tail.next().await {
                return reason;
            }
        }
    };
    assert!(event.await.contains("ends at 4"));
    let query = Arc::new(LogQuery::parse(r#"{a="b"}"#).unwrap());
    let read = |through| {
        node.read(ReadRequest {
            tenant: TenantId::parse("t").unwrap(),
            query: Arc::clone(&query),
            detect_level: false,
            after: 0,
            through,
            max_bytes: 1,
        })
    };
    assert!(matches!(read(5).await, Err(NodeError::Unavailable { .. })));
    assert_eq!(read(4).await.unwrap().through, 4);
    // It gets the rest, from the owner by another way: now it may be followed.
    world.push(&["copy"], 6);
    assert_eq!(lines(&mut tail, 6).await, (vec![6], 0));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_its_owner_has_given_up_is_followed_to_the_end_of_what_is_left() {
    let (mut world, directory) = World::new(&["owner", "behind", "copy"]);
    let node = node(&directory);
    let mut tail = follow(&node, 0);
    world.push(&["owner"], 4);
    world.push(&["copy"], 7);
    world.push(&["behind"], 3);
    assert_eq!(lines(&mut tail, 4).await, (vec![1, 2, 3, 4], 0));
    // It lost power, and what it had last; it names a new log first, and is one that has a copy.
    world.up("owner", false);
    world.places["owner"].head.send_replace(2);
    world.change("owner", |member| {
        (member.state, member.generation, member.logs) = (State::Joining, 9, vec![LogId::from_u128(99)]);
    });
    assert_eq!(lines(&mut tail, 7).await, (vec![5, 6, 7], 0));
    world.up("owner", true);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(who(&node).await.unwrap(), "copy");
    world.change("owner", |member| (member.state, member.logs) = (State::Active, vec![LogId::from_u128(99), LOG]));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(who(&node).await.unwrap(), "copy", "it is not asked first any more");

    // Somebody has seen more than anybody has now. As long as one that may have more is away it waits.
    world.up("behind", false);
    let mut tail = follow(&node, 9);
    let event = timeout(Duration::from_secs(30), tail.next()).await.unwrap();
    assert!(matches!(event, Some(FollowEvent::Away { .. })), "{event:?}");
    world.up("behind", true);
    let calm = async {
        loop {
            match tail.next().await {
                Some(FollowEvent::Idle { through: 9, .. }) => return,
                Some(FollowEvent::Away { .. }) => {}
                event => panic!("{event:?}"),
            }
        }
    };
    timeout(Duration::from_secs(30), calm).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_says_once_that_it_is_away_and_goes_on_when_the_log_is_back() {
    let (mut world, directory) = World::new(&["owner"]);
    let node = node(&directory);
    let mut tail = follow(&node, 0);
    world.push(&["owner"], 2);
    lines(&mut tail, 2).await;
    world.up("owner", false);
    world.push(&["owner"], 4);
    let mut away = 0;
    let quiet = timeout(Duration::from_secs(20), async {
        while let Some(event) = tail.next().await {
            away += usize::from(matches!(event, FollowEvent::Away { .. }));
        }
    });
    assert!(quiet.await.is_err(), "it does not end");
    assert_eq!(away, 1);
    assert!(matches!(who(&node).await, Err(NodeError::Unavailable { .. })));
    // It is back, at another address; gossip hears of it and nothing is waited for.
    world.change("owner", |member| (member.alive, member.state) = (false, State::Active));
    world.up("owner", true);
    world.change("owner", |member| (member.alive, member.generation) = (true, 2));
    assert_eq!(lines(&mut tail, 4).await, (vec![3, 4], 0));
    assert_eq!(directory.nodes().borrow().len(), 1);
    assert!(Arc::ptr_eq(&directory.nodes().borrow()[0], &node), "it stays the same object");
}

#[tokio::test(start_paused = true)]
async fn a_log_ends_when_everybody_has_left() {
    let (mut world, directory) = World::new(&["owner", "copy"]);
    let node = node(&directory);
    let mut tail = follow(&node, 0);
    world.push(&["owner", "copy"], 1);
    lines(&mut tail, 1).await;
    for name in ["owner", "copy"] {
        world.change(name, |member| member.state = State::Leaving);
        assert!(directory.pick(&[]).is_none_or(|pick| pick.member.name != name));
    }
    for name in ["owner", "copy"] {
        world.up(name, false);
        world.change(name, |member| member.alive = false);
    }
    let end = timeout(Duration::from_secs(20), async { while tail.next().await.is_some() {} });
    end.await.expect("it ends");
    assert!(directory.nodes().borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn new_logs_appear_and_own_ones_are_asked_here() {
    let (sender, receiver) = watch::channel(members(&[]));
    let place = Arc::new(Place {
        name: "me".to_owned(),
        head: watch::Sender::new(1),
        up: watch::Sender::new(true),
        mute: watch::Sender::new(false),
    });
    let me = member("me", Role::All, None, &[]);
    let own = Arc::new(Own(Some(place)));
    let carrier = Arc::new(Carried(BTreeMap::new()));
    let directory = Directory::new(receiver, "me".to_owned(), false, own, carrier, DirectoryMetrics::default());
    assert!(directory.nodes().borrow().is_empty());
    sender.send_replace(members(std::slice::from_ref(&me)));
    let mut nodes = directory.nodes();
    timeout(Duration::from_secs(1), nodes.wait_for(|nodes| nodes.len() == 1)).await.unwrap().unwrap();
    assert_eq!(who(&node(&directory)).await.unwrap(), "me");
    // Whoever follows when everything goes down is told that it ended.
    let mut tail = follow(&node(&directory), 0);
    lines(&mut tail, 1).await;
    drop(directory);
    let end = timeout(Duration::from_secs(5), async { while tail.next().await.is_some() {} });
    end.await.expect("it ends");
}

/// A copy that its owner has left is behind. While the one that is not cannot be asked, nobody takes its answer for all there is.
#[tokio::test(start_paused = true)]
async fn an_answer_that_may_lack_lines_says_so_or_is_none() {
    for certain in [false, true] {
        let (mut world, directory) = World::new_as(&["owner", "a", "b"], certain);
        let node = node(&directory);
        world.push(&["owner", "a", "b"], 3);
        world.push(&["owner", "b"], 9);
        world.up("owner", false);
        world.change("owner", |member| member.alive = false);
        let ask = async || node.labels(labels()).await;
        assert_eq!(ask().await.unwrap(), Partial::whole(vec!["b".to_owned()]));
        for dead in [false, true] {
            world.up("b", false);
            world.change("b", |member| member.alive = !dead);
            match ask().await {
                Ok(Partial { value, warnings }) => {
                    assert_eq!((certain, value), (false, vec!["a".to_owned()]));
                    let says = |what| warnings.len() == 1 && warnings[0].contains(what);
                    assert!(says("may be partial") && says("b did not answer"), "{warnings:?}");
                }
                Err(error) => assert!(certain && matches!(error, NodeError::Unavailable { .. }), "{error}"),
            }
            // Where the log is at least can be said.
            assert_eq!(node.state(StateRequest::default()).await.unwrap().head, 3);
            world.up("b", true);
            world.change("b", |member| member.alive = true);
            assert_eq!(ask().await.unwrap(), Partial::whole(vec!["b".to_owned()]));
        }
        // Nor is the next one's, when the furthest fails after it has said how far it is.
        world.places["b"].mute.send_replace(true);
        match ask().await {
            Ok(Partial { value, warnings }) => {
                assert_eq!((certain, value), (false, vec!["a".to_owned()]));
                assert!(warnings.len() == 1 && warnings[0].contains("b did not answer"), "{warnings:?}");
            }
            Err(error) => assert!(certain && matches!(error, NodeError::Unavailable { .. }), "{error}"),
        }
        world.places["b"].mute.send_replace(false);
        // Who says that it has it no more is not waited for.
        world.up("b", false);
        world.change("b", |member| member.logs.clear());
        sleep(Duration::from_secs(1)).await;
        assert_eq!(ask().await.unwrap(), Partial::whole(vec!["a".to_owned()]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_follow_of_a_copy_says_that_another_one_may_have_more() {
    let (mut world, directory) = World::new(&["owner", "a", "b"]);
    let mut tail = follow(&node(&directory), 0);
    world.push(&["owner", "a", "b"], 3);
    world.push(&["owner", "b"], 5);
    // It is late: the copy that is left behind has something for it.
    world.up("owner", false);
    world.up("b", false);
    world.change("owner", |member| member.alive = false);
    assert_eq!(lines(&mut tail, 3).await.0, [1, 2, 3]);
    let mut next = async || timeout(Duration::from_secs(30), tail.next()).await.expect("an event").expect("no end");
    let reason = loop {
        match next().await {
            FollowEvent::Away { reason } => break reason,
            FollowEvent::Idle { through: 3, .. } => {}
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(&*reason, "the copy on a may lack what b has, which does not answer");
    // Once, until something changes.
    assert!(timeout(Duration::from_secs(5), tail.next()).await.is_err());
    world.up("b", true);
    let (seqs, away) = lines(&mut tail, 5).await;
    assert_eq!((seqs, away), (vec![4, 5], 0));
    // One that has no more than is known is nothing to wait for.
    world.up("a", false);
    let mut away = 0;
    let until_away = async {
        while away == 0 {
            away += usize::from(matches!(tail.next().await, Some(FollowEvent::Away { .. })));
        }
    };
    timeout(Duration::from_secs(30), until_away).await.expect("a may have more");
    world.change("a", |member| member.logs.clear());
    let until_back = async { while !matches!(tail.next().await, Some(FollowEvent::Idle { through: 5, .. })) {} };
    timeout(Duration::from_secs(30), until_back).await.expect("nobody else has it");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_back_is_asked_before_gossip_knows() {
    let (mut world, directory) = World::new(&["owner", "copy"]);
    let node = node(&directory);
    world.push(&["owner", "copy"], 3);
    world.change("owner", |member| member.state = State::Joining);
    world.push(&["owner"], 9);
    assert_eq!(who(&node).await.unwrap(), "owner");
    assert_eq!(node.state(StateRequest::default()).await.unwrap().head, 9);
    world.up("owner", false);
    assert_eq!(who(&node).await.unwrap(), "copy");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_silent_is_left_for_a_copy() {
    // Its streams do not break and its calls do not fail: they hang.
    struct Hung(Arc<dyn Node>, bool);
    impl Node for Hung {
        fn log_id(&self) -> LogId {
            LOG
        }
        fn state(&self, request: StateRequest) -> Answer<LogState> {
            if self.1 { Box::pin(std::future::pending()) } else { self.0.state(request) }
        }
        fn follow(&self, request: FollowRequest) -> Follow {
            if self.1 { Box::pin(futures_util::stream::pending()) } else { self.0.follow(request) }
        }
        fn labels(&self, request: LabelsRequest) -> Answer<Partial<Vec<String>>> {
            if self.1 { Box::pin(std::future::pending()) } else { self.0.labels(request) }
        }
        fn read(&self, request: ReadRequest) -> Answer<ReadChunk> {
            self.0.read(request)
        }
        fn select(&self, request: SelectRequest) -> Answer<Selected> {
            self.0.select(request)
        }
        fn samples(&self, request: SamplesRequest) -> Answer<Sampled> {
            self.0.samples(request)
        }
        fn series(&self, request: SeriesRequest) -> Answer<Partial<Vec<Labels>>> {
            self.0.series(request)
        }
        fn stats(&self, request: SeriesRequest) -> Answer<Partial<Stats>> {
            self.0.stats(request)
        }
        fn volume(&self, request: VolumeRequest) -> Answer<Partial<Vec<StreamVolume>>> {
            self.0.volume(request)
        }
        fn patterns(&self, request: PatternsRequest) -> Answer<Partial<Vec<Pattern>>> {
            self.0.patterns(request)
        }
    }
    struct Hanging(Carried);
    impl Carrier for Hanging {
        fn node(&self, log: LogId, member: &Member, owner: bool) -> Arc<dyn Node> {
            Arc::new(Hung(self.0.node(log, member, owner), member.name == "owner"))
        }
    }
    let (mut world, _) = World::new(&["owner", "copy"]);
    world.push(&["owner", "copy"], 2);
    let carrier = Arc::new(Hanging(Carried(world.places.clone())));
    let members = world.members.subscribe();
    let directory =
        Directory::new(members, "me".to_owned(), false, Arc::new(Own(None)), carrier, DirectoryMetrics::default());
    let node = node(&directory);
    let mut tail = follow(&node, 0);
    assert_eq!(lines(&mut tail, 2).await, (vec![1, 2], 0));
    // A call waits, until gossip says that the node is dead.
    tokio::time::advance(Duration::from_secs(2)).await;
    let call = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { who(&node).await })
    };
    sleep(Duration::from_millis(100)).await;
    world.change("owner", |member| member.alive = false);
    assert_eq!(timeout(Duration::from_secs(2), call).await.unwrap().unwrap().unwrap(), "copy");
}

#[tokio::test(start_paused = true)]
async fn pushes_go_to_the_less_busy_of_two() {
    let mut all: Vec<_> = ["a", "b", "me"].iter().map(|name| member(name, Role::All, None, &[])).collect();
    for (name, change) in [("dead", 0), ("leaving", 1), ("querier", 2)] {
        let mut member = member(name, Role::All, None, &[]);
        match change {
            0 => member.alive = false,
            1 => member.state = State::Leaving,
            _ => member.role = Role::Querier,
        }
        all.push(member);
    }
    let (_sender, receiver) = watch::channel(members(&all));
    let carrier = Arc::new(Carried(BTreeMap::new()));
    let directory =
        Directory::new(receiver, "me".to_owned(), false, Arc::new(Own(None)), carrier, DirectoryMetrics::default());
    let mut held: Vec<Pick> = Vec::new();
    for round in 0..10 {
        held.push(directory.pick(&[]).unwrap());
        held.push(directory.pick(&[]).unwrap());
        let of_a = held.iter().filter(|pick| pick.member.name == "a").count();
        assert_eq!((of_a, held.len()), (round + 1, 2 * (round + 1)), "both alike");
    }
    held.clear();
    let firsts: Vec<_> = (0..200).map(|_| directory.pick(&[]).unwrap().member.name.clone()).collect();
    for name in ["a", "b"] {
        let count = firsts.iter().filter(|first| *first == name).count();
        assert!(count > 50, "{name} was picked {count} times of 200");
    }
    held.extend((0..10).map(|_| directory.pick(&[]).unwrap()));
    held.retain(|pick| pick.member.name == "a");
    assert_eq!(directory.pick(&[]).unwrap().member.name, "b");
    assert_eq!(directory.pick(&["b".to_owned()]).unwrap().member.name, "a");
    assert!(directory.pick(&["b".to_owned(), "a".to_owned()]).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Copy(usize),
    Up(usize, bool),
    Gossip(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..5_u64).prop_map(Step::Push),
        3 => (1..3_usize).prop_map(Step::Copy),
        3 => (0..3_usize, any::<bool>()).prop_map(|(at, up)| Step::Up(at, up)),
        2 => (0..3_usize, any::<bool>()).prop_map(|(at, alive)| Step::Gossip(at, alive)),
        3 => (0..2500_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whoever goes down when, whatever gossip thinks of it, and however far copies are behind: every line comes once and in order.
    #[test]
    fn a_follow_is_exact(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            const NAMES: [&str; 3] = ["owner", "b", "c"];
            let (mut world, directory) = World::new(&NAMES);
            let mut tail = follow(&node(&directory), 0);
            let (last, mut wanted) = watch::channel(None::<u64>);
            let tailing = tokio::spawn(async move {
                let mut seqs = Vec::new();
                while wanted.borrow_and_update().is_none_or(|last| seqs.last() != Some(&last)) {
                    tokio::select! {
                        event = tail.next() => if let FollowEvent::Lines(batch) = event.expect("no end") {
                            seqs.extend(batch.lines.iter().map(|line| line.seq));
                        },
                        _ = wanted.changed() => {}
                    }
                }
                seqs
            });
            let head = |world: &World| *world.places["owner"].head.borrow();
            for step in steps {
                match step {
                    Step::Push(more) if *world.places["owner"].up.borrow() => world.push(&["owner"], head(&world) + more),
                    Step::Push(_) => {}
                    Step::Copy(at) => world.push(&[NAMES[at]], head(&world)),
                    Step::Up(at, up) => world.up(NAMES[at], up),
                    Step::Gossip(at, alive) => world.change(NAMES[at], |member| member.alive = alive),
                    Step::Wait(millis) => sleep(Duration::from_millis(millis)).await,
                }
            }
            world.up("owner", true);
            let end = head(&world) + 1;
            world.push(&["owner"], end);
            last.send_replace(Some(end));
            let seqs = timeout(Duration::from_secs(60), tailing).await.expect("the last line").unwrap();
            assert_eq!(seqs, (1..=end).collect::<Vec<_>>());
        });
    }
}
