//! A cluster over a simulated network: ingesters with write-ahead logs, calls between nodes, a querier's directory and feeds. Networks are cut
//! (both ways, one way), messages held, nodes crash and come back, clocks are off by minutes, membership flaps. Whatever happens, when it is
//! over every line that was acknowledged has been delivered once, each pusher's lines in order, and the ledger balances.
//!
//! Each scenario runs with some seeds; a failing one is printed and can be had again with `TAILWATER_TEST_SEED`, more of them with
//! `TAILWATER_TEST_SEEDS`.

#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped fails the test")]

mod world;

use std::time::Duration;

use world::{INGESTERS, QUERIER, World};

/// Seeds per scenario if not told otherwise.
const SEEDS: u64 = 1;

fn ingester(random: &mut fastrand::Rng) -> &'static str {
    INGESTERS[random.usize(..INGESTERS.len())]
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[expect(clippy::print_stdout, reason = "the seed of a test that failed")]
fn tell(text: &str) {
    println!("{text}");
}

/// Runs a scenario with its seeds: a quiet time, what it does, a quiet time; then the books are checked.
fn scenario(name: &str, skews: [i64; 3], act: impl Fn(&mut World<'_>, &mut fastrand::Rng)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("TAILWATER_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = fastrand::u64(..1 << 32);
            first..first + number("TAILWATER_TEST_SEEDS").unwrap_or(SEEDS)
        }
    };
    for seed in seeds {
        tell(&format!("{name}: TAILWATER_TEST_SEED={seed}"));
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(seed, skews);
        world.run(seconds(2));
        act(&mut world, &mut random);
        world.heal();
        world.run(seconds(8));
        world.stop_pushing();
        world.run(seconds(8));
        world.check();
    }
}

#[test]
fn partitions() {
    scenario("partitions", [0; 3], |world, random| {
        for _ in 0..4 {
            let cut = ingester(random);
            world.sim.partition(QUERIER, cut);
            world.run(Duration::from_millis(random.u64(100..6000)));
            world.sim.repair(QUERIER, cut);
            world.run(Duration::from_millis(random.u64(0..2000)));
        }
    });
}

#[test]
fn partitions_of_one_way() {
    scenario("partitions_of_one_way", [0; 3], |world, random| {
        for _ in 0..4 {
            let (from, to) = if random.bool() { (QUERIER, ingester(random)) } else { (ingester(random), QUERIER) };
            world.sim.partition_oneway(from, to);
            world.run(Duration::from_millis(random.u64(100..6000)));
            world.sim.repair_oneway(from, to);
            world.run(Duration::from_millis(random.u64(0..2000)));
        }
    });
}

#[test]
fn a_slow_ingester() {
    scenario("a_slow_ingester", [0; 3], |world, random| {
        let slow = ingester(random);
        world.sim.set_link_latency(QUERIER, slow, Duration::from_millis(700));
        world.run(seconds(5));
        // Nothing arrives, nothing is lost either.
        world.sim.hold(QUERIER, slow);
        world.run(Duration::from_millis(random.u64(500..2500)));
        world.sim.release(QUERIER, slow);
        world.run(seconds(2));
        world.sim.set_link_latency(QUERIER, slow, Duration::from_millis(1));
    });
}

#[test]
fn a_member_that_flaps() {
    scenario("a_member_that_flaps", [0; 3], |world, random| {
        for _ in 0..20 {
            let name = ingester(random);
            let alive = random.bool();
            world.gossip(name, |member| member.alive = alive);
            world.run(Duration::from_millis(random.u64(50..800)));
        }
    });
}

#[test]
fn clocks_that_are_wrong() {
    let minutes = 60_000_000_000;
    scenario("clocks_that_are_wrong", [10 * minutes, -10 * minutes, 0], |world, random| {
        let crashed = ingester(random);
        world.crash(crashed);
        world.run(seconds(2));
        world.bounce(crashed);
        world.run(seconds(3));
    });
}

#[test]
fn a_rolling_restart() {
    scenario("a_rolling_restart", [0; 3], |world, random| {
        for name in INGESTERS {
            world.crash(name);
            world.run(Duration::from_millis(random.u64(200..4000)));
            world.bounce(name);
            world.run(Duration::from_millis(random.u64(500..2500)));
        }
    });
}

#[test]
fn everything_at_once() {
    scenario("everything_at_once", [1_000_000_000, 0, -3_000_000_000], |world, random| {
        for _ in 0..12 {
            let name = ingester(random);
            match random.u8(..6) {
                0 => world.crash(name),
                1 => world.bounce(name),
                2 => world.sim.partition(QUERIER, name),
                3 => world.sim.repair(QUERIER, name),
                4 => world.gossip(name, |member| member.alive = !member.alive),
                _ => world.sim.partition_oneway(name, QUERIER),
            }
            world.run(Duration::from_millis(random.u64(50..3000)));
        }
    });
}
