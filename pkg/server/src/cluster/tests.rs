//! Processes that are members of a cluster made by hand: real servers, real calls of hosts, no network between them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tailwater_cluster::{Member, Members, State};
use tailwater_model::Timestamp;
use tailwater_querier::Fixed;
use tailwater_wire::host::{ForwardedPush, Host};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::forward::{Lost, Taker};
use super::{Joined, Later};
use crate::{Addrs, Config, Server};

/// What never comes is waited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A member, and what it offers the others.
type Named = (String, Arc<dyn Host>);

/// The cluster: who is in it, and what each of them offers the others.
#[derive(Clone)]
struct World {
    members: Arc<watch::Sender<Arc<Members>>>,
    hosts: Arc<Mutex<Vec<Named>>>,
    /// What members have said of themselves.
    said: Arc<Mutex<Vec<(String, String)>>>,
    folder: Arc<tempfile::TempDir>,
}

struct Process {
    addrs: Addrs,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        Self {
            members: Arc::new(watch::Sender::new(Arc::default())),
            hosts: Arc::default(),
            said: Arc::default(),
            folder: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    fn set(&self, name: &str, change: impl Fn(&mut Member)) {
        self.members.send_modify(|members| {
            let mut all = Members::clone(members);
            all.members.iter_mut().filter(|member| member.name == name).for_each(change);
            *members = Arc::new(all);
        });
    }

    fn say(&self, name: &str, what: &dyn ToString) {
        self.said.lock().push((name.to_owned(), what.to_string()));
    }

    async fn start(&self, name: &str, target: &str) -> Process {
        self.start_with(name, target, "").await
    }

    /// Starts a member. Each ingester keeps its lines in a folder of its own; queriers read the blocks of the one called `i`.
    async fn start_with(&self, name: &str, target: &str, more: &str) -> Process {
        let at = self.folder.path().display();
        let of = if target == "querier" { "i" } else { name };
        let text = format!(
            "target: {target}\ndata_dir: '{at}/{name}'\nstorage: {{url: '{at}/{of}/store'}}\nserver: {{http_listen_port: 0, grpc_listen_port: 0}}\n\
             memberlist: {{node_name: '{name}', bind_addr: [127.0.0.1], bind_port: 0}}\n{more}"
        );
        let config = Config::parse(&text, "test").unwrap().config;
        let world = self.clone();
        let join = Box::new(move |plan: super::Plan, host: Arc<dyn Host>| {
            Box::pin(async move { Ok(world.join(&plan, host)) }) as Later<_>
        });
        let server = Box::pin(Server::start_in(config, join)).await.unwrap();
        let addrs = server.addrs();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run_until(async move {
            let _told = stopped.await;
        }));
        let process = Process { addrs, stop: Some(stop), running };
        let begun = tokio::time::Instant::now();
        while process.get("/ready").await.0 != 200 {
            assert!(begun.elapsed() < PATIENCE, "{:?}", process.get("/ready").await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process
    }

    fn join(&self, plan: &super::Plan, host: Arc<dyn Host>) -> Joined {
        let member = plan.member(1);
        assert_eq!(member.logs, host.logs());
        self.members.send_modify(|members| {
            let mut all = Members::clone(members);
            all.members.push(member);
            all.members.sort_by(|a, b| a.name.cmp(&b.name));
            *members = Arc::new(all);
        });
        self.hosts.lock().push((plan.name.clone(), host));
        let nodes = self
            .hosts
            .lock()
            .iter()
            .flat_map(|(_, host)| host.logs().into_iter().filter_map(|log| host.log(log)))
            .collect();
        let (world, me) = (self.clone(), plan.name.clone());
        let (of_state, state_of) = (self.clone(), plan.name.clone());
        let (of_leave, leave_of) = (self.clone(), plan.name.clone());
        Joined {
            members: self.members.subscribe(),
            nodes: Fixed::new(nodes),
            pick: Box::new(move || world.pick(&me)),
            set_state: Box::new(move |state| {
                of_state.set(&state_of, |member| member.state = state);
                of_state.say(&state_of, &state);
            }),
            leave: Box::new(move || {
                of_leave.say(&leave_of, &"left");
                Box::pin(async {})
            }),
            replication: Some(Box::new(|| json!({"copies": 0}))),
            register: Box::new(|_registry| {}),
        }
    }

    /// The first other member that takes pushes, also one that only gossip believes to be there.
    fn pick(&self, me: &str) -> Option<Taker> {
        let members = self.members.borrow().clone();
        let member = members.members.iter().find(|m| m.takes_pushes() && m.name != me)?;
        let host = self.hosts.lock().iter().find(|(name, _)| *name == member.name).map(|(_, host)| Arc::clone(host));
        let send = move |push: ForwardedPush| {
            Box::pin(async move {
                let host = host.ok_or(Lost::Before("connection refused".to_owned()))?;
                host.push(push).await.map_err(|error| Lost::After(error.to_string()))
            }) as Later<_>
        };
        Some(Taker { name: member.name.clone(), send: Box::new(send) })
    }
}

impl Process {
    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut tcp = TcpStream::connect(self.addrs.http).await.unwrap();
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        request += body;
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut raw = String::new();
        tokio::time::timeout(PATIENCE, tcp.read_to_string(&mut raw)).await.unwrap().unwrap();
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(&self, target: &str) -> (u16, String) {
        self.send("GET", target, &[], "").await
    }

    async fn push(&self, line: &str) -> (u16, String) {
        let at = Timestamp::now().nanos().to_string();
        let body = json!({"streams": [{"stream": {"app": "a"}, "values": [[at, line]]}]}).to_string();
        self.send("POST", "/loki/api/v1/push", &[("Content-Type", "application/json")], &body).await
    }

    async fn lines(&self) -> Vec<String> {
        let (status, body) = self.get("/loki/api/v1/query_range?query=%7Bapp%3D%22a%22%7D&direction=forward").await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let streams = answer["data"]["result"].as_array().unwrap().iter();
        let values = streams.flat_map(|stream| stream["values"].as_array().unwrap().clone());
        values.map(|value| value[1].as_str().unwrap().to_owned()).collect()
    }

    /// Opens a tail: the socket, or the refusal.
    async fn tail(&self, more: &str, headers: &str) -> Result<TcpStream, String> {
        let mut tcp = TcpStream::connect(self.addrs.http).await.unwrap();
        let request = format!(
            "GET /loki/api/v1/tail?query=%7Bapp%3D%22a%22%7D{more} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        if head.starts_with("HTTP/1.1 101") {
            return Ok(tcp);
        }
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap()];
        tcp.read_exact(&mut body).await.unwrap();
        Err(head + &String::from_utf8(body).unwrap())
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn pushes_to_a_querier_are_stored_by_an_ingester_and_answered_in_its_words() {
    let world = World::new();
    let ingester = world.start_with("i", "ingester", "limits_config: {max_line_size: 20B}").await;
    let querier = world.start("q", "querier").await;
    assert_eq!(querier.push("one").await, (204, String::new()));
    assert_eq!(ingester.push("two").await, (204, String::new()));
    assert_eq!(ingester.lines().await, ["one", "two"]);
    assert_eq!(querier.lines().await, ["one", "two"]);

    // What is wrong with the body is seen here, what is wrong with the lines there.
    let json = [("Content-Type", "application/json")];
    assert_eq!(querier.send("POST", "/loki/api/v1/push", &json, "{").await.0, 400);
    let (status, text) = querier.push("far too long for that ingester").await;
    assert!(status == 400 && text.starts_with("max entry size '20' bytes exceeded"), "{status} {text}");
    let none = "error at least one valid stream is required for ingestion\n";
    assert_eq!(querier.send("POST", "/loki/api/v1/push", &json, r#"{"streams":[]}"#).await, (422, none.to_owned()));
    let (status, text) = querier.send("POST", "/otlp/v1/logs", &json, r#"{"resourceLogs":[]}"#).await;
    assert!(status == 204 || status == 422, "{status} {text}");
    let metrics = querier.get("/metrics").await.1;
    assert!(metrics.contains("tailwater_forwarded_pushes_total{result=\"stored\"}"), "{metrics}");

    world.set("i", |member| member.alive = false);
    let text = "no ingester can be reached: there is none that takes pushes now\n";
    assert_eq!(querier.push("three").await, (503, text.to_owned()));
}

#[tokio::test]
async fn a_querier_answers_for_what_it_is() {
    let world = World::new();
    let _ingester = world.start("i", "all").await;
    let querier = world.start_with("q", "querier", "compactor: {retention_enabled: true}").await;
    let (status, text) = querier.send("POST", "/flush", &[], "").await;
    assert!(status == 404 && text.contains("/ring"), "{status} {text}");
    let services = querier.get("/services").await.1;
    assert!(services.contains("querier => Running") && !services.contains("ingester"), "{services}");
    assert_eq!(querier.get("/loki/api/v1/delete").await, (200, "[]\n".to_owned()));
    assert!(!world.folder.path().join("q").join("wal").exists(), "a querier keeps no log");
    assert_eq!(world.said.lock().last(), Some(&("q".to_owned(), "active".to_owned())));
}

#[tokio::test]
async fn who_leaves_tells_first_and_sends_everybody_elsewhere() {
    let world = World::new();
    let mut leaving = world.start("a", "all").await;
    let staying = world.start("b", "all").await;
    let other = format!("http://{}", staying.addrs.http);
    let mut open = leaving.tail("", "").await.unwrap();
    let mut explore = leaving.tail("", "User-Agent: Grafana/12\r\n").await.unwrap();
    let said = Arc::clone(&world.said);
    leaving.stop();
    while !said.lock().contains(&("a".to_owned(), "leaving".to_owned())) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Its last tails are still there, so it still answers.
    let plain = leaving.tail("", "").await.unwrap_err();
    assert!(plain.starts_with("HTTP/1.1 503") && plain.ends_with("Application is stopping"), "{plain}");
    for (more, headers) in [("&resume=true", ""), ("&notices=true", ""), ("", "X-Tailwater-Resume: x\r\n")] {
        let told = leaving.tail(more, headers).await.unwrap_err();
        let body = told.split("\r\n\r\n").nth(1).unwrap();
        assert!(told.starts_with("HTTP/1.1 503"), "{told}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["nodes"], json!([other]));
    }
    assert_eq!(leaving.get("/ready").await, (503, "Application is stopping\n".to_owned()));
    assert_eq!(leaving.push("late").await, (204, String::new()));
    assert_eq!(staying.lines().await, ["late"]);

    let mut last = Vec::new();
    let closing = async {
        open.read_to_end(&mut last).await.unwrap();
        let mut rest = Vec::new();
        let _reset = explore.read_to_end(&mut rest).await;
        rest
    };
    let rest = tokio::time::timeout(PATIENCE, closing).await.unwrap();
    let text = b"all ingesters closed the connection";
    assert!(last.windows(text.len()).any(|w| w == text), "a reason is given");
    assert!(!rest.windows(text.len()).any(|w| w == text), "Explore comes back only if there is none");
    leaving.stopped().await;
    let of_a: Vec<_> = said.lock().iter().filter(|(name, _)| name == "a").map(|(_, what)| what.clone()).collect();
    assert_eq!(of_a, ["active", "leaving", "left"]);
}

#[tokio::test]
async fn two_that_leave_do_not_send_a_push_in_circles() {
    let world = World::new();
    let mut one = world.start("a", "all").await;
    let mut two = world.start("b", "all").await;
    let _open = (one.tail("", "").await.unwrap(), two.tail("", "").await.unwrap());
    one.stop();
    two.stop();
    while world.said.lock().iter().filter(|(_, what)| what == "leaving").count() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Gossip is late: each believes that the other is there.
    world.set("a", |member| member.state = State::Active);
    world.set("b", |member| member.state = State::Active);
    let (status, text) = one.push("x").await;
    assert_eq!(
        (status, text.as_str()),
        (503, "no ingester can be reached: ingester b: this node takes no pushes now\n")
    );
}

#[tokio::test]
async fn the_ring_is_shown_to_people_and_to_programs() {
    let world = World::new();
    let node = world.start_with("<b>", "all", "common: {replication_factor: 2, instance_availability_zone: z1}").await;
    let (status, page) = node.get("/ring").await;
    assert!(status == 200 && page.starts_with("<!doctype html>"), "{page}");
    assert!(page.contains("<td>&lt;b&gt;<td class=\"active\">active<td>all<td>z1"), "{page}");
    assert!(page.contains("2 copies of each log") && !page.contains("<td><b>"), "{page}");
    for (target, headers) in [("/ring?format=json", ""), ("/memberlist", "application/json")] {
        let (status, body) = node.send("GET", target, &[("Accept", headers)], "").await;
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(told["cluster"], json!({"name": "tailwater", "me": "<b>", "replication_factor": 2}));
        assert_eq!(told["replication"], json!({"copies": 0}));
        let member = &told["members"][0];
        assert_eq!(
            (&member["state"], &member["alive"], &member["zone"]),
            (&json!("active"), &json!(true), &json!("z1"))
        );
        assert_eq!(member["http"], format!("http://{}", node.addrs.http));
        assert_eq!(member["grpc"], node.addrs.grpc.unwrap().to_string());
        assert_eq!(member["gossip"], node.addrs.gossip.unwrap().to_string());
        assert_eq!(member["logs"].as_array().unwrap().len(), 1);
    }
    world.set("<b>", |member| member.alive = false);
    assert!(node.get("/memberlist").await.1.contains("class=\"away\">not heard of (active)"));
    assert_eq!(node.get("/ring?format=xml").await.0, 400);
    let text = node.addrs.to_string();
    assert!(
        text.starts_with("http=127.0.0.1:") && text.contains(" grpc=127.0.0.1:") && text.contains(" gossip=127.0.0.1:")
    );
}
