//! Nodes in network namespaces of their own, joined by a bridge, between which packets get lost.
//!
//! Needs Linux, the right to make namespaces (root), and `ip` and `tc`; [`Net::new`] says what is missing. Losing is done by an HTB
//! queue on the bridge's side of each node's cable: filters put packets into a class that holds none. That is in every kernel that has
//! `tc` at all, and whoever sent the packet is not told.
//!
//! Invariants:
//! * Packets to and from the test itself are never lost, so it sees what clients see whose own network is sound.
//! * Everything is removed when the [`Net`] is dropped. What a killed test has left is removed by the next one: names hold the id of
//!   the process that made them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::Places;

/// The class of packets that get lost.
const LOST: &str = "1:20";

/// All names begin so.
const PREFIX: &str = "tw";

/// Nodes and the bridge between them.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    /// `tw<process id>n<number>`, the name of the bridge; those of namespaces add `-<node>`, those of cables `v<node>`.
    name: String,
    subnet: u8,
    nodes: usize,
}

impl Net {
    /// A network of so many nodes, at most 9.
    ///
    /// # Errors
    /// What is missing here.
    pub fn new(nodes: usize) -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        assert!(nodes <= 9, "names have room for one digit");
        remove_stale();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let taken = run("ip", "-4 -o addr show")?;
        let free = |subnet: &u8| !taken.contains(&format!(" 10.213.{subnet}."));
        let first = (std::process::id() % 250) as u8;
        let subnet = (first..250).chain(0..first).find(free).ok_or("no free network in 10.213.0.0/16")?;
        // From here on what was made is removed, also if the rest fails.
        let net = Self(Arc::new(Inner { name: format!("{PREFIX}{}n{number}", std::process::id()), subnet, nodes }));
        net.make()?;
        Ok(net)
    }

    fn make(&self) -> Result<(), String> {
        let bridge = &self.0.name;
        run("ip", &format!("link add {bridge} type bridge"))?;
        run("ip", &format!("addr add {}/24 dev {bridge}", self.outside()))?;
        run("ip", &format!("link set {bridge} up"))?;
        for node in 0..self.0.nodes {
            let (space, cable) = (self.space(node), self.cable(node));
            run("ip", &format!("netns add {space}"))?;
            run("ip", &format!("link add {cable} type veth peer name eth0 netns {space}"))?;
            run("ip", &format!("link set {cable} master {bridge} up"))?;
            run("ip", &format!("-n {space} addr add {}/24 dev eth0", self.ip(node)))?;
            run("ip", &format!("-n {space} link set eth0 up"))?;
            run("ip", &format!("-n {space} link set lo up"))?;
            run("tc", &format!("qdisc add dev {cable} root handle 1: htb default 10"))?;
            for class in ["1:10", LOST] {
                run("tc", &format!("class add dev {cable} parent 1: classid {class} htb rate 10gbit quantum 60000"))?;
            }
            run("tc", &format!("qdisc add dev {cable} parent {LOST} pfifo limit 0"))?;
        }
        // Proves that filters work, too.
        self.lose(50)?;
        self.heal()
    }

    /// The address of the test itself.
    #[must_use]
    pub fn outside(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 213, self.0.subnet, 254))
    }

    /// The address of a node.
    #[must_use]
    pub fn ip(&self, node: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 213, self.0.subnet, node as u8 + 1))
    }

    /// Loses so many in a hundred of all packets between nodes, at random.
    ///
    /// # Errors
    /// If this kernel cannot.
    pub fn lose(&self, percent: u32) -> Result<(), String> {
        // BPF: load a random number; if it is greater than the bound then no match (0), else the filter's class (-1).
        let bound = u64::from(u32::MAX) * u64::from(percent) / 100;
        let program = format!("4,32 0 0 4294963256,37 1 0 {bound},6 0 0 4294967295,6 0 0 0");
        for node in 0..self.0.nodes {
            let filter = format!("filter add dev {} parent 1: protocol ip", self.cable(node));
            run("tc", &format!("{filter} prio 1 u32 match ip src {}/32 flowid 1:10", self.outside()))?;
            let bytecode = ["prio", "3", "bpf", "bytecode", &program, "flowid", LOST];
            run_words("tc", filter.split(' ').chain(bytecode))?;
        }
        Ok(())
    }

    /// Loses every packet from one node to another; those of the other direction arrive.
    ///
    /// # Errors
    /// If this kernel cannot.
    pub fn cut(&self, from: usize, to: usize) -> Result<(), String> {
        let filter = format!("filter add dev {} parent 1: protocol ip", self.cable(to));
        run("tc", &format!("{filter} prio 2 u32 match ip src {}/32 flowid {LOST}", self.ip(from))).map(drop)
    }

    /// Loses every packet between a node and all others.
    ///
    /// # Errors
    /// If this kernel cannot.
    pub fn isolate(&self, node: usize) -> Result<(), String> {
        for other in (0..self.0.nodes).filter(|other| *other != node) {
            self.cut(node, other)?;
            self.cut(other, node)?;
        }
        Ok(())
    }

    /// Loses nothing any more.
    ///
    /// # Errors
    /// If this kernel cannot.
    pub fn heal(&self) -> Result<(), String> {
        (0..self.0.nodes)
            .try_for_each(|node| run("tc", &format!("filter del dev {} parent 1:", self.cable(node))).map(drop))
    }

    fn space(&self, node: usize) -> String {
        format!("{}-{node}", self.0.name)
    }

    fn cable(&self, node: usize) -> String {
        format!("{}v{node}", self.0.name)
    }
}

impl Places for Net {
    fn place(&self, number: usize) -> (IpAddr, Vec<String>) {
        let words = ["ip", "netns", "exec"].map(str::to_owned);
        (self.ip(number), words.into_iter().chain([self.space(number)]).collect())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            // A cable goes with either of its ends; what was not made cannot be removed.
            let _ = run("ip", &format!("link del {}v{node}", self.name));
            let _ = run("ip", &format!("netns del {}-{node}", self.name));
        }
        let _ = run("ip", &format!("link del {}", self.name));
    }
}

/// Removes what processes have made that are no more.
fn remove_stale() {
    let stale = |name: &str| {
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('n')).map(|(id, _)| id);
        id.is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(id).exists()
        })
    };
    // Nothing to be listed means nothing to be removed.
    for line in run("ip", "netns list").unwrap_or_default().lines() {
        if let Some(name) = line.split(' ').next().filter(|name| stale(name)) {
            let _ = run("ip", &format!("netns del {name}"));
        }
    }
    for line in run("ip", "-o link show").unwrap_or_default().lines() {
        let name = line.split(' ').nth(1).map(|name| name.trim_end_matches(':').split('@').next().unwrap_or(name));
        if let Some(name) = name.filter(|name| stale(name)) {
            let _ = run("ip", &format!("link del {name}"));
        }
    }
}

fn run(program: &str, words: &str) -> Result<String, String> {
    run_words(program, words.split(' '))
}

fn run_words<'a>(program: &str, words: impl Iterator<Item = &'a str>) -> Result<String, String> {
    let words: Vec<_> = words.collect();
    let output = Command::new(program).args(&words).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::*;

    /// Datagrams of a node that arrive at the test, of a hundred.
    fn arrive(net: &Net, node: usize) -> usize {
        let socket = UdpSocket::bind((net.outside(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let SocketAddr::V4(addr) = socket.local_addr().unwrap() else { panic!("not IPv4") };
        let script = format!("for i in $(seq 100); do echo x > /dev/udp/{}/{}; done", addr.ip(), addr.port());
        run_words("ip", ["netns", "exec", &net.space(node), "bash", "-c", &script].into_iter()).unwrap();
        let mut buffer = [0; 16];
        (0..100).take_while(|_| socket.recv(&mut buffer).is_ok()).count()
    }

    #[test]
    fn a_network_is_made_and_nothing_of_it_is_left() {
        let Ok(net) = Net::new(2) else { return };
        let name = net.0.name.clone();
        net.lose(100).unwrap();
        net.heal().unwrap();
        net.isolate(1).unwrap();
        assert!(arrive(&net, 1) > 90, "the test itself hears a node that is alone");
        drop(net);
        for list in ["netns list", "-o link show"] {
            assert!(!run("ip", list).unwrap().contains(&name), "{list} still shows {name}");
        }
    }
}
