//! Who is a member: whoever knows the label and the secret, and nobody else.

use std::collections::BTreeSet;

use tailwater_integration::Batch;
use tailwater_integration::cluster::{Cluster, Role, Settings, active};

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
