use std::net::Ipv4Addr;

use super::*;

/// Connects within the simulated network.
struct Simulated;

impl Connect for Simulated {
    fn connect(&self, to: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<Io>> + Send>> {
        Box::pin(async move { Ok(Box::new(turmoil::net::TcpStream::connect(to).await?) as Io) })
    }
}

fn follow(peer: &Arc<Peer>) -> Follow {
    let (tenant, query) = (tenant(), query(r#"{a="1"}"#));
    peer.node(LOG, "a").follow(FollowRequest { tenant, query, detect_level: false, after: 0 })
}

/// A follow crosses the network; when that is cut for good the follow is away within the keepalive, and a new one begins after it is mended.
#[test]
fn a_follow_crosses_a_network_that_is_cut() {
    let mut sim = turmoil::Builder::new().simulation_duration(Duration::from_secs(120)).build();
    let served = host();
    let events = served.node.events.clone();
    sim.host("ingester", move || {
        let served = Arc::clone(&served);
        async move {
            let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9095)).await?;
            let incoming = futures_util::stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await.map(|(io, _)| Box::new(io) as Io);
                Some((accepted, listener))
            });
            serve(incoming, served, "c".into(), ServeMetrics::default(), std::future::pending()).await;
            Ok(())
        }
    });
    sim.client("querier", async move {
        let to = SocketAddr::new(turmoil::lookup("ingester"), 9095);
        let peer = Peers::new(Arc::new(Simulated), "c".into(), RpcMetrics::default()).peer(to);
        for round in 1..4 {
            let mut following = follow(&peer);
            assert!(matches!(following.next().await, Some(FollowEvent::Idle { .. })));
            let sent = batch(round, &["one", "two"]);
            events.send(FollowEvent::Lines(Arc::new(sent.clone()))).unwrap();
            let Some(FollowEvent::Lines(got)) = following.next().await else { panic!("no lines") };
            assert_eq!(format!("{got:?}"), format!("{sent:?}"));
            let cut = tokio::time::Instant::now();
            turmoil::partition("querier", "ingester");
            let Some(FollowEvent::Away { reason }) = following.next().await else { panic!("not away") };
            assert!(cut.elapsed() < 3 * KEEPALIVE, "{reason}");
            assert!(follow(&peer).next().await.is_some_and(|event| matches!(event, FollowEvent::Away { .. })));
            turmoil::repair("querier", "ingester");
            tokio::time::sleep(2 * RETRY_AFTER).await;
        }
        Ok(())
    });
    sim.run().unwrap();
}
