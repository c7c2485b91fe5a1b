//! A log with a known number of records, and nodes that take them in, die, stall and dawdle.

use futures_util::stream::unfold;
use parking_lot::Mutex;
use tailwater_model::{LogId, TenantId, Timestamp};
use tailwater_wire::host::{CopiedRecord, CopyBegin, CopyState, Records};
use tailwater_wire::node::{Answer, NodeError};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::member::{Role, State};
use crate::testing::{member, members};

const LOG: LogId = LogId::from_u128(9);

/// A log of batches 1 to `head`.
struct Log {
    head: watch::Sender<u64>,
    in_blocks: watch::Sender<u64>,
    payload: usize,
    told: watch::Sender<(Vec<CopyState>, usize)>,
}

impl Log {
    fn new(head: u64, payload: usize) -> Arc<Self> {
        let (head, in_blocks) = (watch::Sender::new(head), watch::Sender::new(0));
        Arc::new(Self { head, in_blocks, payload, told: watch::Sender::new((Vec::new(), 99)) })
    }

    /// Waits until these nodes have everything, and nobody else has anything.
    async fn is_on(&self, names: &[&str]) {
        let head = *self.head.borrow();
        let mut told = self.told.subscribe();
        let all = told.wait_for(|(copies, _)| {
            copies.iter().map(|copy| copy.node.as_str()).eq(names.iter().copied())
                && copies.iter().all(|c| c.through == head)
        });
        if timeout(Duration::from_secs(100), all).await.is_err() {
            panic!("{names:?} do not have {head}: {:?}", self.told.borrow());
        }
    }
}

impl Copied for Log {
    fn log_id(&self) -> LogId {
        LOG
    }

    fn in_blocks(&self) -> u64 {
        *self.in_blocks.borrow()
    }

    fn records(&self, after: u64) -> Records {
        let (head, payload) = (self.head.subscribe(), self.payload);
        Box::pin(unfold((head, after), move |(mut head, after)| async move {
            let last = *head.wait_for(|head| *head > after).await.ok()?;
            let last = last.min(after + 3);
            let record = |seq| CopiedRecord::Batch {
                seq,
                accepted_at: Timestamp::MIN,
                tenant: TenantId::parse("t").unwrap(),
                tenant_lines: seq,
                min: 0,
                max: 0,
                lines: 1,
                payload: vec![0; payload].into(),
            };
            Some((Ok((after + 1..=last).map(record).collect()), (head, last)))
        }))
    }

    fn acknowledged_by(&self, copies: &[CopyState], quorum: usize) {
        self.told.send_replace((copies.to_vec(), quorum));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// Cannot be reached; open streams break.
    Dead,
    /// Takes nothing in.
    Stalled,
    /// Takes so long for each piece.
    Slow(Duration),
}

#[derive(Default)]
struct Copy {
    first: Option<u64>,
    head: u64,
    in_blocks: u64,
}

struct Peer {
    mood: watch::Sender<Mood>,
    copy: Arc<Mutex<Copy>>,
}

#[derive(Default)]
struct Net(BTreeMap<String, Peer>);

impl Net {
    fn of(names: &[&str]) -> Arc<Self> {
        let peer = || Peer { mood: watch::Sender::new(Mood::Well), copy: Arc::default() };
        Arc::new(Self(names.iter().map(|name| ((*name).to_owned(), peer())).collect()))
    }

    fn set(&self, name: &str, mood: Mood) {
        self.0[name].mood.send_replace(mood);
    }
}

enum Sent {
    Records(Vec<CopiedRecord>),
    InBlocks(u64),
}

struct Pipe(mpsc::Sender<Sent>);

impl Pipe {
    fn put(&self, sent: Sent) -> Answer<()> {
        let pipe = self.0.clone();
        Box::pin(async move { pipe.send(sent).await.map_err(|_| gone()) })
    }
}

impl CopySink for Pipe {
    fn send(&mut self, records: Vec<CopiedRecord>) -> Answer<()> {
        self.put(Sent::Records(records))
    }

    fn in_blocks(&mut self, through: u64) -> Answer<()> {
        self.put(Sent::InBlocks(through))
    }
}

fn gone() -> NodeError {
    NodeError::Unavailable { log: LOG, reason: "gone".to_owned() }
}

impl Courier for Net {
    fn copy(&self, to: &Member, begin: CopyBegin) -> Answer<CopyStream> {
        let peer = &self.0[&to.name];
        let (mut mood, copy) = (peer.mood.subscribe(), Arc::clone(&peer.copy));
        Box::pin(async move {
            if *mood.borrow() == Mood::Dead {
                return Err(gone());
            }
            {
                let mut copy = copy.lock();
                if copy.first.is_none() {
                    (copy.first, copy.head) = (Some(begin.in_blocks + 1), begin.in_blocks);
                }
            }
            let head = copy.lock().head;
            let (pipe, mut sent) = mpsc::channel(4);
            let (ack, acks) = mpsc::channel(64);
            tokio::spawn(async move {
                let mut alive = mood.clone();
                let serve = async {
                    while let Some(sent) = sent.recv().await {
                        mood.wait_for(|mood| *mood != Mood::Stalled).await.unwrap();
                        let now = *mood.borrow();
                        if let Mood::Slow(pause) = now {
                            sleep(pause).await;
                        }
                        match sent {
                            Sent::InBlocks(through) => copy.lock().in_blocks = through,
                            Sent::Records(records) => {
                                let through = {
                                    let mut copy = copy.lock();
                                    for record in &records {
                                        assert_eq!(record.last(), copy.head + 1, "a record does not follow");
                                        copy.head = record.last();
                                    }
                                    copy.head
                                };
                                if ack.send(Ok(through)).await.is_err() {
                                    return;
                                }
                            }
                        }
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = alive.wait_for(|mood| *mood == Mood::Dead) => {}
                }
            });
            let acks = unfold(acks, |mut acks| async move { Some((acks.recv().await?, acks)) });
            Ok(CopyStream { head, sink: Box::new(Pipe(pipe)), acks: Box::pin(acks) })
        })
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// All of them, each in its own zone unless told otherwise; the best first.
fn candidates(zone: impl Fn(&str) -> Option<String>) -> Vec<Member> {
    let mut all: Vec<_> =
        NAMES.iter().map(|name| Member { zone: zone(name), ..member(name, Role::All, None, &[]) }).collect();
    all.sort_by_key(|member| std::cmp::Reverse(choose::score(LOG, &member.name)));
    all
}

fn me() -> Member {
    member("me", Role::All, Some("mine"), &[9])
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

async fn on(log: &Log, all: &[&str]) {
    let names = sorted(all);
    log.is_on(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn the_best_get_copies_and_the_next_one_does_when_one_dies_or_is_stuck() {
    let all = candidates(|name| Some(name.to_owned()));
    let [n0, n1, n2, n3] = [0, 1, 2, 3].map(|at: usize| all[at].name.as_str());
    let (log, net) = (Log::new(100, 10), Net::of(&NAMES));
    log.in_blocks.send_replace(40);
    let (tx, rx) = watch::channel(members(&all));
    let metrics = ReplicatorMetrics::default();
    let replicator = Replicator::start(Arc::clone(&log) as _, rx, me(), Arc::clone(&net) as _, 3, metrics.clone());
    on(&log, &[n0, n1]).await;
    assert_eq!(log.told.borrow().1, 1, "the quorum of three is the owner and one more");
    // A new copy begins after what is in blocks, and hears when more is.
    assert_eq!(net.0[n0].copy.lock().first, Some(41));
    log.in_blocks.send_replace(60);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(net.0[n0].copy.lock().in_blocks, 60);

    net.set(n0, Mood::Dead);
    log.head.send_replace(120);
    let died = Instant::now();
    on(&log, &[n1, n2]).await;
    assert!(died.elapsed() < Duration::from_millis(100), "gossip is not waited for: {:?}", died.elapsed());

    net.set(n1, Mood::Stalled);
    // Who has nothing to acknowledge is not stuck.
    sleep(Duration::from_secs(10)).await;
    let names = || replicator.state().followers.into_iter().map(|follower| follower.node).collect::<Vec<_>>();
    assert_eq!(names(), sorted(&[n1, n2]));
    log.head.send_replace(130);
    let stalled = Instant::now();
    on(&log, &[n2, n3]).await;
    assert!(stalled.elapsed() <= line::STUCK + Duration::from_millis(100), "{:?}", stalled.elapsed());
    assert_eq!(metrics.stuck.get(), 1);

    // They come back: not at once, but when they have been well for a while. What they have already is not sent again.
    net.set(n0, Mood::Well);
    net.set(n1, Mood::Well);
    sleep(STABLE / 2).await;
    assert_eq!(names(), sorted(&[n2, n3]));
    sleep(STABLE).await;
    on(&log, &[n0, n1]).await;

    // One says that it leaves: a new copy is made first.
    let mut fewer = all.clone();
    fewer[0].state = State::Leaving;
    tx.send_replace(members(&fewer));
    log.head.send_replace(140);
    on(&log, &[n1, n2]).await;
    // One falls silent in gossip only: nothing happens.
    fewer[1].alive = false;
    tx.send_replace(members(&fewer));
    sleep(STABLE).await;
    on(&log, &[n1, n2]).await;
    drop(replicator);
}

#[tokio::test(start_paused = true)]
async fn other_zones_come_first_also_afterwards() {
    let all = candidates(|_| Some("mine".to_owned()));
    let mut zoned = all.clone();
    zoned[4].zone = Some("other".to_owned());
    let (log, net) = (Log::new(5, 10), Net::of(&NAMES));
    let (tx, rx) = watch::channel(members(&all));
    let _replicator = Replicator::start(Arc::clone(&log) as _, rx, me(), net, 2, ReplicatorMetrics::default());
    on(&log, &[&all[0].name]).await;
    // It was there all the time, but says only now where it is.
    sleep(STABLE).await;
    tx.send_replace(members(&zoned));
    on(&log, &[&all[4].name]).await;
}

#[tokio::test(start_paused = true)]
async fn without_candidates_nothing_is_acknowledged_until_there_is_one() {
    let all = candidates(|_| None);
    let (log, net) = (Log::new(5, 10), Net::of(&NAMES));
    let mut unfit = all.clone();
    unfit[0].role = Role::Querier;
    unfit[1].alive = false;
    unfit[2].state = State::Joining;
    unfit[3].state = State::Leaving;
    unfit.truncate(4);
    unfit.push(me());
    let (tx, rx) = watch::channel(members(&unfit));
    let metrics = ReplicatorMetrics::default();
    let _replicator = Replicator::start(Arc::clone(&log) as _, rx, me(), net, 2, metrics.clone());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(*log.told.borrow(), (Vec::new(), 1));
    assert_eq!(metrics.missing.get(), 1);
    unfit.push(all[4].clone());
    tx.send_replace(members(&unfit));
    on(&log, &[&all[4].name]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((metrics.missing.get(), metrics.copies.get()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn one_node_that_comes_back_gets_the_rest_and_one_that_is_slow_is_not_given_up() {
    let all = candidates(|_| None);
    let name = all[0].name.as_str();
    // 40 MiB: many times what may be under way.
    let (log, net) = (Log::new(40, 1 << 20), Net::of(&NAMES));
    net.set(name, Mood::Slow(Duration::from_millis(900)));
    let (_tx, rx) = watch::channel(members(&all[..1]));
    let metrics = ReplicatorMetrics::default();
    let _replicator = Replicator::start(Arc::clone(&log) as _, rx, me(), Arc::clone(&net) as _, 2, metrics.clone());
    sleep(Duration::from_secs(3)).await;
    assert!(metrics.in_flight_bytes.get() <= (line::MAX_IN_FLIGHT + (4 << 20)) as i64);
    on(&log, &[name]).await;
    assert_eq!((metrics.breaks.get(), metrics.in_flight_bytes.get()), (0, 0));
    net.set(name, Mood::Dead);
    log.head.send_replace(41);
    sleep(Duration::from_secs(30)).await;
    assert!(log.told.borrow().0.is_empty());
    assert!(metrics.breaks.get() < 20, "it is not tried too often: {}", metrics.breaks.get());
    net.set(name, Mood::Well);
    on(&log, &[name]).await;
    assert_eq!(net.0[name].copy.lock().first, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_log_of_one_copy_waits_for_nobody() {
    let (log, net) = (Log::new(5, 10), Net::of(&NAMES));
    let (_tx, rx) = watch::channel(members(&candidates(|_| None)));
    let replicator = Replicator::start(Arc::clone(&log) as _, rx, me(), net, 1, ReplicatorMetrics::default());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(*log.told.borrow(), (Vec::new(), 0));
    assert_eq!(replicator.state(), Replication { factor: 1, quorum: 0, followers: Vec::new() });
}
