use tailwater_logql::matchers::Matchers;

use super::*;

fn select(limit: usize) -> SelectRequest {
    SelectRequest {
        tenant: tenant(),
        part: Part::Log { after: 3 },
        query: query(r#"{a="1"} | size > 1234B"#),
        detect_level: true,
        as_of: 9,
        start: Timestamp(-5),
        end: Timestamp(1 << 60),
        direction: Direction::Backward,
        limit,
    }
}

fn samples(max_bytes: usize) -> SamplesRequest {
    let query = sample_query(r#"sum by (x) (quantile_over_time(0.5, {a="1"} | unwrap v [1m] offset 3s))"#);
    SamplesRequest {
        tenant: tenant(),
        part: Part::Whole,
        grid: query.grid(steps(1000)),
        query,
        detect_level: false,
        after: 1,
        as_of: 7,
        from: Timestamp(-1),
        settled: Some(Timestamp(77)),
        max_bytes,
    }
}

fn series() -> SeriesRequest {
    let matchers = |text: &str| Arc::new(Matchers::new(&tailwater_logql::parse_match(text).unwrap()).unwrap());
    SeriesRequest {
        tenant: tenant(),
        part: Part::Log { after: 0 },
        matchers: vec![matchers(r#"{a=~"b|c", d!="e"}"#), matchers("{}")],
        start: Timestamp(5),
        end: Timestamp(50),
    }
}

/// The same asked near and far.
macro_rules! same {
    ($world:ident, $method:ident, $request:expr) => {{
        let near = $world.node.$method($request).await;
        let far = soon($world.far().$method($request)).await;
        assert_eq!(format!("{far:?}"), format!("{near:?}"), stringify!($method));
        far
    }};
}

#[tokio::test]
async fn every_answer_is_the_same_near_and_far() {
    let world = world();
    for age in [None, Some(Duration::from_millis(17))] {
        same!(world, state, StateRequest { age }).unwrap();
    }
    let read = |after, max_bytes| ReadRequest {
        tenant: tenant(),
        query: query(r#"{a="1"} |= "\xff""#),
        detect_level: false,
        after,
        through: 8,
        max_bytes,
    };
    same!(world, read, read(0, 0)).unwrap();
    same!(world, read, read(0, 10)).unwrap();
    same!(world, read, read(1, 10)).unwrap_err();
    for limit in [0, 1, 5000] {
        same!(world, select, select(limit)).unwrap();
    }
    let sampled = same!(world, samples, samples(1 << 30)).unwrap();
    assert!(sampled.series.iter().map(|(_, column)| column.memory()).sum::<usize>() > 4 * PIECE_BYTES);
    same!(world, samples, samples(1)).unwrap_err();
    let labels = |name: Option<&str>| {
        let SeriesRequest { tenant, part, matchers, start, end } = series();
        let matchers = name.is_some().then(|| Arc::clone(&matchers[0]));
        LabelsRequest { tenant, part, matchers, start, end, name: name.map(str::to_owned) }
    };
    same!(world, labels, labels(None)).unwrap();
    same!(world, labels, labels(Some("x"))).unwrap();
    same!(world, series, series()).unwrap();
    same!(world, stats, series()).unwrap();
    for step in [None, Some(60)] {
        same!(world, volume, VolumeRequest { series: series(), step }).unwrap();
    }
    same!(world, patterns, PatternsRequest { series: series(), step: 5, detect_level: true, limit: 3 }).unwrap();
    assert_eq!(world.metrics.connections.get(), 1);
    assert!(world.metrics.received.get() > 1 << 20);
}

#[tokio::test]
async fn a_query_without_matchers_arrives() {
    let world = world();
    let all = tailwater_logql::ast::LogExpr { selector: Vec::new(), stages: Vec::new() };
    let request = || SelectRequest { query: Arc::new(LogQuery::compile(&all).unwrap()), ..select(2) };
    let selected = same!(world, select, request()).unwrap();
    assert_eq!(selected.lines[1].1, "{}");
}

#[tokio::test]
async fn answers_that_are_larger_than_was_allowed_are_refused() {
    // The node answers all the same.
    let error = soon(world().far().samples(samples(2))).await.unwrap_err();
    assert!(matches!(error, NodeError::TooLarge { limit: 2 }), "{error}");
    let mut joined = pieces::Joined::new(10);
    assert!(joined.push(&vec![0; 10].into()).is_ok());
    assert!(matches!(joined.push(&vec![0; 1].into()), Err(pieces::Unjoined::TooMuch)));
    // A record that says it is larger than what may still come is refused at once.
    let mut joined = pieces::Joined::new(1000);
    joined.push(&vec![0xff, 0xff, 0x7f].into()).unwrap();
    assert!(matches!(joined.next(), Err(pieces::Unjoined::TooMuch)));
}

#[tokio::test]
async fn a_log_that_is_not_there_is_unavailable() {
    let world = world();
    let error = soon(world.peer.node(LogId::from_u128(99), "b").state(StateRequest::default())).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, NodeError::Unavailable { log, .. } if log == LogId::from_u128(99)));
    assert!(text.contains("ingester b at 127.0.0.1:9: it does not have the log"), "{text}");
}

#[tokio::test]
async fn nodes_of_another_cluster_are_refused() {
    let world = world_of("theirs", "ours\u{1}");
    let error = soon(world.far().state(StateRequest::default())).await.unwrap_err();
    assert!(error.to_string().contains("it is of another cluster"), "{error}");
    let reason = match soon(
        world
            .far()
            .follow(FollowRequest { tenant: tenant(), query: query(r#"{a="1"}"#), detect_level: false, after: 0 })
            .next(),
    )
    .await
    {
        Some(FollowEvent::Away { reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason.contains("it is of another cluster"), "{reason}");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_dropped_there() {
    let world = world();
    world.node.hangs.store(true, Relaxed);
    let (begun, dropped) = (Arc::clone(&world.node.begun), Arc::clone(&world.node.dropped));
    let calls: Vec<_> = (0..50).map(|_| tokio::spawn(world.far().select(select(1)))).collect();
    until(|| begun.load(Relaxed) == 50).await;
    assert_eq!(dropped.load(Relaxed), 0);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until(|| dropped.load(Relaxed) == 50).await;
    world.node.hangs.store(false, Relaxed);
    soon(world.far().select(select(1))).await.unwrap();
    assert_eq!(world.metrics.connections.get(), 1, "the connection is fine");
}

#[tokio::test]
async fn a_connection_is_made_anew_when_it_broke() {
    let World { peer, served, stop: _stop, .. } = world();
    let far = peer.node(LOG, "a");
    soon(far.state(StateRequest::default())).await.unwrap();
    served.abort();
    until(|| served.is_finished()).await;
    let error = soon(far.state(StateRequest::default())).await.unwrap_err();
    assert!(matches!(error, NodeError::Unavailable { .. }), "{error}");

    let host = host();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peers = Peers::new(Arc::new(Tcp), "c".into(), RpcMetrics::default());
    let far = peers.peer(address).node(LOG, "a");
    for _ in 0..2 {
        let (io, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            answer = async { loop {
                if far.state(StateRequest::default()).await.is_ok() { break }
                tokio::time::sleep(Duration::from_millis(50)).await;
            } } => panic!("{answer:?} without a connection"),
        };
        let incoming = futures_util::stream::iter([Ok(Box::new(io) as Io)]).chain(futures_util::stream::pending());
        let served = tokio::spawn(serve(
            incoming,
            Arc::clone(&host) as _,
            "c".into(),
            ServeMetrics::default(),
            std::future::pending(),
        ));
        soon(async {
            while far.state(StateRequest::default()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        served.abort();
        until(|| served.is_finished()).await;
    }
}

/// Connects to what does something else than to answer.
struct Odd(fn(tokio::io::DuplexStream));

impl Connect for Odd {
    fn connect(&self, _: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        let (near, far) = tokio::io::duplex(1 << 20);
        (self.0)(far);
        Box::pin(async { Ok(Box::new(near) as Io) })
    }
}

struct Nowhere;

impl Connect for Nowhere {
    fn connect(&self, _: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_is_gone() {
    let metrics = RpcMetrics::default();
    let peers = Peers::new(Arc::new(Nowhere), "c".into(), metrics.clone());
    let far = peers.peer(address()).node(LOG, "a");
    let begun = tokio::time::Instant::now();
    let calls = futures_util::future::join_all((0..10).map(|_| far.state(StateRequest::default())));
    assert!(calls.await.iter().all(Result::is_err));
    assert!(begun.elapsed() < 2 * CONNECT_TIMEOUT, "all of them wait for one attempt");
    assert_eq!((metrics.connections.get(), metrics.errors.get()), (1, 10));

    // It takes the connection and then does nothing.
    let silent = Odd(|far| {
        tokio::spawn(async move {
            let _held = far;
            std::future::pending::<()>().await;
        });
    });
    let peers = Peers::new(Arc::new(silent), "c".into(), RpcMetrics::default());
    let far = peers.peer(address()).node(LOG, "a");
    let begun = tokio::time::Instant::now();
    let error = far.state(StateRequest::default()).await.unwrap_err();
    assert!(begun.elapsed() < 3 * KEEPALIVE, "{error}");
}

#[tokio::test]
async fn garbage_is_an_error() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 5000], &[0; 64]] {
        static GARBAGE: parking_lot::Mutex<Vec<u8>> = parking_lot::Mutex::new(Vec::new());
        garbage.clone_into(&mut GARBAGE.lock());
        let odd = Odd(|mut far| {
            tokio::spawn(async move {
                let garbage = GARBAGE.lock().clone();
                let _ = tokio::io::AsyncWriteExt::write_all(&mut far, &garbage).await;
                let _ = tokio::io::AsyncReadExt::read(&mut far, &mut [0; 1000]).await;
            });
        });
        let peers = Peers::new(Arc::new(odd), "c".into(), RpcMetrics::default());
        let error = soon(peers.peer(address()).node(LOG, "a").state(StateRequest::default())).await.unwrap_err();
        assert!(matches!(error, NodeError::Unavailable { .. }), "{error}");
    }
}

#[tokio::test]
async fn pushes_are_handed_over() {
    let world = world();
    let push = |bytes: usize| ForwardedPush { tenant: tenant(), body: vec![7; bytes].into() };
    let answer = soon(world.peer.push(push(5 << 20))).await.unwrap();
    assert_eq!(answer, PushAnswer { status: 429, message: format!("one {}", 5 << 20) });
    soon(world.peer.push(push(MAX_PUSH_BYTES))).await.unwrap();
    let error = soon(world.peer.push(push(MAX_PUSH_BYTES + 1))).await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    let info = soon(world.peer.info()).await.unwrap();
    assert_eq!(info, HostInfo { name: "a".into(), logs: vec![LOG, LogId::from_u128(8)] });
}

#[tokio::test]
async fn calls_are_counted_where_they_are_answered() {
    use super::super::metrics::Method;
    let world = world();
    let of = |method| Method { method };
    for _ in 0..3 {
        soon(world.far().state(StateRequest::default())).await.unwrap();
    }
    let unknown = soon(world.peer.node(LogId::from_u128(8), "a").state(StateRequest::default())).await;
    assert!(matches!(unknown, Err(NodeError::Unavailable { .. })), "{unknown:?}");
    let ServeMetrics { calls, refused, connections, sent, received, .. } = &world.answered;
    assert_eq!(calls.get_or_create(&of("State")).get(), 4);
    assert_eq!(refused.get_or_create(&of("State")).get(), 1);
    assert_eq!(calls.get_or_create(&of("unknown")).get(), 0);
    assert_eq!(connections.get(), 1);
    assert!(sent.get() > 0 && received.get() > 0);
    assert!(world.metrics.sent.get() > 0);
}

#[tokio::test]
async fn a_node_that_is_taken_for_an_owner_answers_only_for_its_own_log() {
    let world = world();
    let state = async |log| soon(world.peer.owner(log, "a").state(StateRequest::default())).await;
    assert_eq!(state(LOG).await.unwrap().head, 9);
    let error = state(LogId::from_u128(8)).await.unwrap_err();
    assert!(matches!(&error, NodeError::Unavailable { reason, .. } if reason.contains("not the owner")), "{error}");
}
