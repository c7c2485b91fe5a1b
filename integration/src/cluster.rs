//! Clusters of real processes: each node is a [`Server`] with a folder and a port of its own, all keep their blocks in one object store.
//!
//! Invariants:
//! * A node is known by its name, through all its restarts. A restart gets other ports, unless the node has a place of its own in a
//!   network ([`Places`]); whoever talks to nodes looks on the [`Board`] where they are now.
//! * Every cluster has a label and a secret of its own, so that tests at the same time never meet.
//! * All processes are killed when the [`Cluster`] is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitStatus;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::s3::S3;
use crate::server::{self, WIDE_LIMITS};
use crate::{Client, Home, Server, eventually};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// Keeps a log; answers as well.
    Ingester,
    /// Keeps nothing.
    Querier,
}

impl Role {
    /// The value of `--target`.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Ingester => "ingester",
            Self::Querier => "querier",
        }
    }
}

/// A configuration: sections and their settings, each a line of YAML.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    /// Limits that no test meets, and logs that are written when the system likes: no test of a cluster takes the power away.
    #[must_use]
    pub fn new() -> Self {
        let mut settings = Self::default();
        for line in WIDE_LIMITS.lines().skip(1) {
            settings = settings.set("limits_config", line.trim());
        }
        settings
            .set("ingester", "wal: {sync: os, segment_mb: 1, keep_mb: 64}")
            .set("ingester", "log_memory_mb: 32")
            .set("querier", "resume_secret: tailwater-test-resume-secret-0123456789")
            .set("cluster", "secret: tailwater-test-secret")
    }

    /// The same with one more setting of a section.
    #[must_use]
    pub fn set(mut self, section: &str, line: &str) -> Self {
        let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        let lines = self.0.entry(section.to_owned()).or_default();
        lines.retain(|there| name(there) != name(line));
        lines.push(line.to_owned());
        self
    }

    /// As a configuration file.
    #[must_use]
    pub fn yaml(&self) -> String {
        let section = |(name, lines): (&String, &Vec<String>)| {
            let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
            format!("{name}:\n{lines}")
        };
        self.0.iter().map(section).collect()
    }
}

/// Where nodes live that have an address of their own.
pub trait Places: Send {
    /// The address of the `number`th node, and the command by which it is run there.
    fn place(&self, number: usize) -> (IpAddr, Vec<String>);
}

/// A node as clients find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Its number, from 1 on, the same after a restart.
    pub number: u32,
    /// Where it answers now, or did last.
    pub addr: SocketAddr,
}

/// Where the nodes are; shared by all who talk to them.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Vec<Entry>>>);

impl Board {
    /// The nodes of these names, in that order; all if none is named.
    #[must_use]
    pub fn of(&self, names: &[String]) -> Vec<Entry> {
        let entries = self.0.lock();
        if names.is_empty() {
            return entries.clone();
        }
        let named = |name: &String| entries.iter().find(|entry| entry.name == *name).cloned();
        names.iter().filter_map(named).collect()
    }

    fn put(&self, new: Entry) {
        let mut entries = self.0.lock();
        match entries.iter_mut().find(|entry| entry.name == new.name) {
            Some(entry) => *entry = new,
            None => entries.push(new),
        }
    }

    fn forget(&self, name: &str) {
        self.0.lock().retain(|entry| entry.name != name);
    }
}

struct Member {
    name: String,
    role: Role,
    number: usize,
    home: Home,
    server: Option<Server>,
}

/// A running cluster.
pub struct Cluster {
    store: S3,
    label: String,
    settings: Settings,
    places: Option<Box<dyn Places>>,
    nodes: Vec<Member>,
    made: usize,
    board: Board,
}

impl Cluster {
    /// A cluster without nodes, with a store of its own.
    #[must_use]
    pub fn new(store: S3, settings: Settings) -> Self {
        // Unlike that of any other cluster at this time on this machine.
        let label = format!("test-{}-{}", std::process::id(), crate::now_ns());
        let board = Board::default();
        Self { store, label, settings, places: None, nodes: Vec::new(), made: 0, board }
    }

    /// The same, whose nodes have addresses of their own.
    #[must_use]
    pub fn in_places(mut self, places: impl Places + 'static) -> Self {
        self.places = Some(Box::new(places));
        self
    }

    /// A cluster of ingesters `i0`, `i1`… and queriers `q0`, `q1`…, everybody of whom knows everybody.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn start(s3_program: &str, settings: Settings, ingesters: usize, queriers: usize) -> Self {
        let mut cluster = Self::new(S3::start(s3_program).await, settings);
        cluster.populate(ingesters, queriers).await;
        cluster
    }

    /// Adds ingesters `i0`, `i1`… and queriers `q0`, `q1`… and waits until everybody knows everybody.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn populate(&mut self, ingesters: usize, queriers: usize) {
        for number in 0..ingesters {
            self.define(&format!("i{number}"), Role::Ingester, &Settings::default());
        }
        for number in 0..queriers {
            self.define(&format!("q{number}"), Role::Querier, &Settings::default());
        }
        self.start_all().await;
    }

    /// Makes a node known that does not run yet; its settings come before the cluster's.
    pub fn define(&mut self, name: &str, role: Role, own: &Settings) {
        let mut settings = self.settings.clone();
        for (section, lines) in &own.0 {
            for line in lines {
                settings = settings.set(section, line);
            }
        }
        settings = settings.set("memberlist", &format!("node_name: {name}"));
        if !own.0.get("memberlist").is_some_and(|lines| lines.iter().any(|line| line.starts_with("cluster_label:"))) {
            settings = settings.set("memberlist", &format!("cluster_label: {}", self.label));
        }
        let mut home = self.store.home(&settings.yaml()).arg("--target").arg(role.target());
        let (mut grpc, mut gossip) = ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned());
        if let Some(places) = &self.places {
            let (ip, runner) = places.place(self.made);
            home = home.http_on(SocketAddr::new(ip, 3100)).run_by(runner);
            (grpc, gossip) = (SocketAddr::new(ip, 9095).to_string(), SocketAddr::new(ip, 7946).to_string());
        }
        home = home.arg("--grpc-listen").arg(grpc).arg("--gossip-listen").arg(gossip);
        self.nodes.push(Member { name: name.to_owned(), role, number: self.made, home, server: None });
        self.made += 1;
    }

    /// Defines a node, runs it and waits until everybody knows it.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn add(&mut self, name: &str, role: Role) {
        self.define(name, role, &Settings::default());
        self.run(name).await;
        self.complete().await;
    }

    /// Runs every node that does not run, and waits until everybody knows everybody.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn start_all(&mut self) {
        let mut seeds = self.seeds();
        let mut starting = Vec::new();
        for number in 0..self.nodes.len() {
            if self.nodes[number].server.is_some() {
                continue;
            }
            let join =
                |home: &Home| seeds.iter().fold(home.clone(), |home, seed| home.arg("--join").arg(seed.to_string()));
            let home = join(&self.nodes[number].home);
            if seeds.is_empty() {
                let server = home.launch().await;
                seeds.extend(server.listening().gossip);
                self.runs(number, server);
            } else {
                starting.push((number, home.spawn()));
            }
        }
        for (number, starting) in starting {
            let server = starting.listening().await;
            self.runs(number, server);
        }
        self.complete().await;
    }

    /// Runs a node that does not run, and waits until it listens.
    ///
    /// # Panics
    /// If it runs already or does not start.
    pub async fn run(&mut self, name: &str) {
        let number = self.at(name);
        assert!(self.nodes[number].server.is_none(), "{name} runs");
        let home = self.nodes[number].home.clone();
        let home = self.seeds().iter().fold(home, |home, seed| home.arg("--join").arg(seed.to_string()));
        let server = home.launch().await;
        self.runs(number, server);
    }

    fn runs(&mut self, number: usize, server: Server) {
        let node = &mut self.nodes[number];
        let (name, addr) = (node.name.clone(), server.addr());
        self.board.put(Entry { name, role: node.role, number: node.number as u32 + 1, addr });
        node.server = Some(server);
    }

    /// Where those gossip that run.
    #[must_use]
    pub fn seeds(&self) -> Vec<SocketAddr> {
        let servers = self.nodes.iter().filter_map(|node| node.server.as_ref());
        servers.filter_map(|server| server.listening().gossip).collect()
    }

    /// Waits until everybody who runs is ready and knows that everybody is active who runs, and nobody else.
    ///
    /// # Panics
    /// If it does not come to that.
    pub async fn complete(&self) {
        let running: BTreeSet<_> = self.running().map(|(name, _)| name.to_owned()).collect();
        for (name, server) in self.running() {
            let client = server.client();
            eventually(&format!("{name} to be ready and to know {running:?}"), async || {
                let Ok(ready) = client.try_send("GET", "/ready", &[], bytes::Bytes::new()).await else { return false };
                ready.status == 200 && active(&client).await == running
            })
            .await;
        }
    }

    /// Those who run, with their servers.
    pub fn running(&self) -> impl Iterator<Item = (&str, &Server)> {
        self.nodes.iter().filter_map(|node| Some((node.name.as_str(), node.server.as_ref()?)))
    }

    /// The server of a node.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn server(&self, name: &str) -> &Server {
        let server = self.nodes[self.at(name)].server.as_ref();
        server.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// A client of a node for one tenant, or for several (`a|b`).
    #[must_use]
    pub fn tenant(&self, name: &str, tenant: &str) -> Client {
        self.server(name).tenant(tenant)
    }

    /// Where the nodes are.
    #[must_use]
    pub const fn board(&self) -> &Board {
        &self.board
    }

    /// The object store.
    pub const fn store(&mut self) -> &mut S3 {
        &mut self.store
    }

    /// The number of a node as routes of a ledger name it.
    #[must_use]
    pub fn number(&self, name: &str) -> u32 {
        self.nodes[self.at(name)].number as u32 + 1
    }

    /// Kills a node with SIGKILL.
    ///
    /// # Panics
    /// If it had ended before, or had panicked.
    pub async fn kill(&mut self, name: &str) {
        self.take(name).kill().await;
    }

    /// Kills all nodes at once.
    ///
    /// # Panics
    /// If one had ended before, or had panicked.
    pub async fn kill_all(&mut self) {
        let servers: Vec<_> = self.nodes.iter_mut().filter_map(|node| node.server.take()).collect();
        futures_util::future::join_all(servers.into_iter().map(Server::kill)).await;
    }

    /// Sends SIGTERM to a node and waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn terminate(&mut self, name: &str) -> (ExitStatus, String) {
        self.take(name).terminate().await
    }

    /// Stops a node (SIGSTOP): it keeps its connections and does nothing.
    ///
    /// # Panics
    /// If it has ended.
    pub async fn pause(&self, name: &str) {
        server::signal(self.server(name).pid(), "STOP").await;
    }

    /// Lets a node go on (SIGCONT).
    ///
    /// # Panics
    /// If it has ended.
    pub async fn unpause(&self, name: &str) {
        server::signal(self.server(name).pid(), "CONT").await;
    }

    /// Forgets a node that does not run; its folder is deleted.
    ///
    /// # Panics
    /// If it runs.
    pub fn forget(&mut self, name: &str) {
        let number = self.at(name);
        assert!(self.nodes[number].server.is_none(), "{name} runs");
        self.nodes.remove(number);
        self.board.forget(name);
    }

    /// Fails if a node has ended or has panicked.
    ///
    /// # Panics
    /// Then, with its log.
    pub fn assert_well(&mut self) {
        self.nodes.iter_mut().filter_map(|node| node.server.as_mut()).for_each(Server::assert_well);
    }

    fn take(&mut self, name: &str) -> Server {
        let number = self.at(name);
        self.nodes[number].server.take().unwrap_or_else(|| panic!("{name} does not run"))
    }

    fn at(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }
}

/// Whom a node takes for active and alive, itself included; nobody if it does not answer.
pub async fn active(client: &Client) -> BTreeSet<String> {
    let Ok(reply) = client.try_send("GET", "/ring?format=json", &[], bytes::Bytes::new()).await else {
        return BTreeSet::new();
    };
    if reply.status != 200 {
        return BTreeSet::new();
    }
    let ring = reply.json();
    let active = |member: &&Value| member["state"] == "active" && member["alive"] == true;
    members(&ring).iter().filter(active).map(|member| crate::client::text(&member["name"])).collect()
}

/// The members in an answer of `/ring?format=json`.
fn members(ring: &Value) -> &[Value] {
    ring["members"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_yaml_and_the_last_of_a_name_counts() {
        let settings = Settings::default().set("b", "x: 1").set("a", "y: {z: 1}").set("b", "x: 2").set("b", "w: 3");
        assert_eq!(settings.yaml(), "a:\n  y: {z: 1}\nb:\n  x: 2\n  w: 3\n");
    }
}
