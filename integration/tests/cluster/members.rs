//! Who is a member: whoever knows the label and the secret, and nobody else.

use std::collections::BTreeSet;

use tailwater_integration::cluster::{Cluster, Role, Settings, active};
use tailwater_integration::{Batch, Home, binary};

use crate::{S3_SERVER, pause};

/// Ten rounds of gossip.
const A_WHILE: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_no_members() {
    let mut cluster = Cluster::start(S3_SERVER, Settings::new(), 1, 1).await;
    let members: BTreeSet<_> = ["i0".to_owned(), "q0".to_owned()].into();
    let strangers = [
        ("wrong", Settings::default().set("cluster", "secret: another-secret")),
        ("none", Settings::default().set("cluster", "secret: ''")),
        ("elsewhere", Settings::default().set("memberlist", "cluster_label: another-cluster")),
    ];
    for (name, settings) in strangers {
        cluster.define(name, Role::All, &settings);
        cluster.run(name).await;
    }
    pause(A_WHILE).await;
    for name in &members {
        assert_eq!(active(&cluster.server(name).client()).await, members, "at {name}");
    }
    let stream = r#"{app="stranger"}"#;
    for name in ["wrong", "none", "elsewhere"] {
        assert_eq!(active(&cluster.server(name).client()).await, [name.to_owned()].into(), "at {name}");
        cluster.tenant(name, "a").push_ok(&Batch::one(stream, "not for everybody")).await;
    }
    assert!(cluster.tenant("q0", "a").lines(stream).await.is_empty(), "lines of strangers");
    cluster.assert_well();
}

/// The example is what people start from: every key of it is known, and a node starts with it.
#[tokio::test]
async fn the_example_is_a_configuration() {
    let path = binary::workspace().join("docker/cluster/tailwater.yaml");
    let yaml = std::fs::read_to_string(path).unwrap();
    let home = Home::new(&yaml);
    let home = home.arg("--target").arg("all");
    let server = home.arg("--grpc-listen").arg("127.0.0.1:0").arg("--gossip-listen").arg("127.0.0.1:0").launch().await;
    let log = server.log();
    for word in ["nearest known key", "no effect", "not supported"] {
        assert!(!log.contains(word), "{log}");
    }
    assert!(server.listening().gossip.is_some() && server.listening().grpc.is_some(), "{log}");
}
