//! Nodes that gossip: fifty in a simulated network, two over the loopback.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use chitchat::transport::ChannelTransport;
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;

const CLUSTER: &str = "test";

fn address(node: usize) -> SocketAddr {
    ([10, 0, (node / 250) as u8, (node % 250) as u8 + 1], 7946).into()
}

fn config(node: usize, seeds: &[usize]) -> MembershipConfig {
    // Grows with every start, as a clock does.
    static GENERATION: AtomicU32 = AtomicU32::new(1);
    MembershipConfig {
        cluster_id: CLUSTER.to_owned(),
        name: format!("node-{node:02}"),
        generation: GENERATION.fetch_add(1, Ordering::Relaxed).into(),
        role: if node.is_multiple_of(5) { Role::Querier } else { Role::All },
        zone: Some(format!("z{}", node % 3)),
        version: "0.1.0".to_owned(),
        http: format!("http://node-{node}:3100"),
        grpc: ([10, 1, 0, 1], 9095).into(),
        gossip_listen: address(node),
        gossip_advertise: None,
        seeds: seeds.iter().map(|seed| address(*seed).to_string()).collect(),
        secret: None,
        gossip_interval: Duration::from_millis(200),
    }
}

async fn start(net: &ChannelTransport, config: MembershipConfig) -> Arc<Membership> {
    Membership::start_over(config, Arc::new(net.clone()), MembershipMetrics::default()).await.unwrap()
}

fn network() -> ChannelTransport {
    ChannelTransport::with_mtu(65_507)
}

/// Waits until what a node sees satisfies `what`. Answers how long that took.
async fn sees(node: &Membership, what: impl Fn(&Members) -> bool) -> Duration {
    let start = Instant::now();
    let mut members = node.members();
    let waited = timeout(Duration::from_secs(60), members.wait_for(|members| what(members))).await;
    if waited.is_err() {
        panic!("{} sees {:#?}", node.me().name, node.members().borrow());
    }
    start.elapsed()
}

fn state_of(members: &Members, node: usize) -> Option<(State, bool)> {
    members.get(&format!("node-{node:02}")).map(|member| (member.state, member.alive))
}

#[tokio::test(start_paused = true)]
async fn fifty_nodes_know_each_other_and_see_who_crashes_and_who_leaves() {
    let net = network();
    let start_of_all = Instant::now();
    let mut nodes = Vec::new();
    for node in 0..50 {
        let member = start(&net, config(node, &[0, 1, 2])).await;
        member.set_logs(vec![LogId::from_u128(node as u128)]);
        member.set_state(State::Active);
        nodes.push(member);
    }
    for node in &nodes {
        sees(node, |members| {
            members.members.len() == 50
                && members.members.iter().all(|m| m.alive && m.state == State::Active && m.logs.len() == 1)
        })
        .await;
    }
    assert!(start_of_all.elapsed() <= Duration::from_secs(3), "{:?}", start_of_all.elapsed());
    let seen = nodes[7].members().borrow().get("node-33").cloned().unwrap();
    assert_eq!(seen, nodes[33].me());

    // A crash: no word.
    drop(nodes.remove(49));
    let crash = Instant::now();
    for node in &nodes {
        sees(node, |members| state_of(members, 49) == Some((State::Active, false))).await;
    }
    assert!(crash.elapsed() <= Duration::from_secs(5), "{:?}", crash.elapsed());

    // A leave is known before the node is silent.
    let leaver = nodes.remove(48);
    let leave = Instant::now();
    let left = tokio::spawn(async move { leaver.leave().await });
    for node in &nodes {
        sees(node, |members| matches!(state_of(members, 48), Some((State::Leaving, _)))).await;
    }
    assert!(leave.elapsed() <= Duration::from_secs(1), "{:?}", leave.elapsed());
    left.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_forgotten_and_found_again() {
    let net = network();
    let a = start(&net, config(0, &[])).await;
    let b = start(&net, config(1, &[0])).await;
    sees(&a, |members| state_of(members, 1) == Some((State::Joining, true))).await;
    drop(b);
    sees(&a, |members| state_of(members, 1) == Some((State::Joining, false))).await;
    tokio::time::sleep(SILENT_GRACE + Duration::from_secs(2)).await;
    assert_eq!(a.members().borrow().members.len(), 1);
    // The same name from another address: a pod that was made anew.
    let b = start(&net, MembershipConfig { gossip_listen: address(200), ..config(1, &[0]) }).await;
    b.set_state(State::Active);
    sees(&a, |members| state_of(members, 1) == Some((State::Active, true))).await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_two_nodes_with_one_name_is_used_and_each_believes_in_itself() {
    let net = network();
    let a = start(&net, config(0, &[])).await;
    let old = start(&net, config(1, &[0])).await;
    sees(&a, |members| state_of(members, 1).is_some()).await;
    let new = start(&net, MembershipConfig { gossip_listen: address(201), ..config(1, &[0]) }).await;
    sees(&a, |members| members.get("node-01").is_some_and(|member| member.gossip == address(201))).await;
    tokio::time::sleep(CONFLICT_AFTER * 2).await;
    for (who, gossip) in [(&a, address(201)), (&new, address(201)), (&old, address(1))] {
        let members = who.members().borrow().clone();
        assert_eq!(members.members.len(), 2);
        assert_eq!(members.get("node-01").unwrap().gossip, gossip);
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_of_another_cluster_are_not_members() {
    let net = network();
    let metrics = MembershipMetrics::default();
    let a = Membership::start_over(config(0, &[]), Arc::new(net.clone()), metrics.clone()).await.unwrap();
    let other = start(&net, MembershipConfig { cluster_id: "other".to_owned(), ..config(1, &[0]) }).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(a.members().borrow().members.len(), 1);
    assert_eq!(other.members().borrow().members.len(), 1);
    assert!(metrics.dropped("other_cluster") > 0);
}

#[tokio::test(start_paused = true)]
async fn two_halves_that_forgot_each_other_find_each_other() {
    let net = network();
    let a = start(&net, config(0, &[0, 1])).await;
    let b = start(&net, config(1, &[0, 1])).await;
    for node in [&a, &b] {
        sees(node, |members| members.members.len() == 2 && members.members.iter().all(|m| m.alive)).await;
    }
    net.remove_link(address(0), address(1)).await;
    sleep(SILENT_GRACE).await;
    for node in [&a, &b] {
        sees(node, |members| members.members.len() == 1).await;
    }
    net.add_link(address(0), address(1)).await;
    for node in [&a, &b] {
        sees(node, |members| members.members.len() == 2 && members.members.iter().all(|m| m.alive)).await;
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_an_error() {
    let net = network();
    let start = |config| Membership::start_over(config, Arc::new(net.clone()), MembershipMetrics::default());
    let everywhere = MembershipConfig { gossip_listen: ([0, 0, 0, 0], 7946).into(), ..config(0, &[]) };
    assert!(matches!(start(everywhere.clone()).await, Err(Error::Advertise { .. })));
    let advertised = start(MembershipConfig { gossip_advertise: Some(([10, 0, 0, 9], 0).into()), ..everywhere }).await;
    assert_eq!(advertised.ok().unwrap().me().gossip, ([10, 0, 0, 9], 7946).into());
    let nameless = MembershipConfig { name: String::new(), ..config(1, &[]) };
    assert!(matches!(start(nameless).await, Err(Error::Name { .. })));
    let taken =
        Membership::start_over(config(2, &[]), Arc::new(net.clone()), MembershipMetrics::default()).await.unwrap();
    assert!(matches!(start(config(2, &[])).await, Err(Error::Gossip { .. })));
    drop(taken);
}

/// Over real sockets: with the secret a node is a member; with another one, or without, it is not.
#[tokio::test]
async fn only_who_knows_the_secret_is_a_member() {
    let local = |node, secret: Option<&str>, seed: Option<SocketAddr>| MembershipConfig {
        gossip_listen: ([127, 0, 0, 1], 0).into(),
        gossip_interval: Duration::from_millis(50),
        secret: secret.map(|secret| Secret::new(secret).unwrap()),
        seeds: seed.iter().map(SocketAddr::to_string).collect(),
        ..config(node, &[])
    };
    let metrics = MembershipMetrics::default();
    let a = Membership::start(local(0, Some("correct horse"), None), metrics.clone()).await.unwrap();
    let seed = Some(a.gossip_addr());
    let begin = |config| Membership::start(config, MembershipMetrics::default());
    let b = begin(local(1, Some("correct horse"), seed)).await.unwrap();
    let wrong = begin(local(2, Some("correct house"), seed)).await.unwrap();
    let none = begin(local(3, None, seed)).await.unwrap();
    b.set_state(State::Active);
    sees(&a, |members| state_of(members, 1) == Some((State::Active, true))).await;
    sees(&b, |members| matches!(state_of(members, 0), Some((_, true)))).await;
    let start = Instant::now();
    while metrics.dropped("forged") < 3 || metrics.dropped("malformed") < 3 {
        assert!(start.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(20)).await;
    }
    for (node, known) in [(&a, 2), (&b, 2), (&wrong, 1), (&none, 1)] {
        assert_eq!(node.members().borrow().members.len(), known, "{}", node.me().name);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Start(usize),
    Crash(usize),
    Leave(usize),
    State(usize, State),
    Logs(usize, u8),
    Cut(usize, usize),
    Mend(usize, usize),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..4_usize;
    let state = prop_oneof![Just(State::Joining), Just(State::Active), Just(State::Leaving)];
    prop_oneof![
        4 => node.clone().prop_map(Step::Start),
        1 => node.clone().prop_map(Step::Crash),
        1 => node.clone().prop_map(Step::Leave),
        2 => (node.clone(), state).prop_map(|(node, state)| Step::State(node, state)),
        2 => (node.clone(), 0..5_u8).prop_map(|(node, logs)| Step::Logs(node, logs)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => (node.clone(), node).prop_map(|(a, b)| Step::Mend(a, b)),
        3 => (0..3000_u16).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever happens: when it is quiet again, everybody sees of everybody what they last said, and nobody else alive.
    #[test]
    fn in_the_end_everybody_agrees(steps in proptest::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let net = network();
            let mut nodes: BTreeMap<usize, Arc<Membership>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Start(node) if !nodes.contains_key(&node) => {
                        // What was there before may need a moment to let go of its address.
                        sleep(Duration::from_millis(1)).await;
                        nodes.insert(node, start(&net, config(node, &[0, 1, 2, 3])).await);
                    }
                    Step::Crash(node) => drop(nodes.remove(&node)),
                    Step::Leave(node) => if let Some(gone) = nodes.remove(&node) { gone.leave().await },
                    Step::State(node, state) => if let Some(node) = nodes.get(&node) { node.set_state(state) },
                    Step::Logs(node, count) => if let Some(node) = nodes.get(&node) {
                        node.set_logs((0..count).map(|log| LogId::from_u128(log.into())).collect());
                    },
                    Step::Cut(a, b) => net.remove_link(address(a), address(b)).await,
                    Step::Mend(a, b) => net.add_link(address(a), address(b)).await,
                    Step::Wait(millis) => sleep(Duration::from_millis(millis.into())).await,
                    Step::Start(_) => {}
                }
            }
            for (a, b) in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
                net.add_link(address(a), address(b)).await;
            }
            for node in nodes.values() {
                sees(node, |members| {
                    let alive: Vec<_> = members.members.iter().filter(|member| member.alive).cloned().collect();
                    alive == nodes.values().map(|node| node.me()).collect::<Vec<_>>()
                }).await;
            }
        });
    }
}
