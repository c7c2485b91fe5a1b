//! Each backend by the same expectations, then what only a server can do to us.

#![expect(clippy::single_range_in_vec_init, reason = "one range is asked for")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::TryStreamExt;

use super::metrics::Operation;
use super::s3::{Fault, Server};
use super::{Fresh, Objects, Options, Put, Timing};
use crate::Error;

/// A store of each kind, and what has to outlive it.
async fn all() -> Vec<(Objects, Option<tempfile::TempDir>, Option<Server>)> {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    vec![
        (Objects::open("memory:", &Options::default()).unwrap(), None, None),
        (Objects::open(folder.path().to_str().unwrap(), &Options::default()).unwrap(), Some(folder), None),
        (server.objects("s3://logs/a/prefix"), None, Some(server)),
    ]
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Of a server built for debugging, many megabytes take their time.
fn patient(server: &Server) -> Objects {
    let options = Options { timing: Timing::default(), ..server.options() };
    Objects::open("s3://logs", &options).unwrap()
}

async fn paths(objects: &Objects, folder: &str) -> Vec<String> {
    let mut paths: Vec<_> = objects.list(folder).map_ok(|o| o.path).try_collect().await.unwrap();
    paths.sort();
    paths
}

#[tokio::test]
async fn what_is_written_is_read_in_whole_and_in_parts() {
    for (objects, _folder, _server) in all().await {
        objects.put("t/2024-01-01/x.blk", vec![bytes("01234"), Bytes::new(), bytes("56789")]).await.unwrap();
        let (whole, _) = objects.get("t/2024-01-01/x.blk").await.unwrap().unwrap();
        assert_eq!(whole, "0123456789", "{objects:?}");
        let parts = objects.ranges("t/2024-01-01/x.blk", &[8..10, 0..2, 5..5, 1..3]).await.unwrap();
        assert_eq!(parts, ["89", "01", "", "12"]);
        assert_eq!(objects.tail("t/2024-01-01/x.blk", 3).await.unwrap(), (bytes("789"), 10));
        assert_eq!(objects.tail("t/2024-01-01/x.blk", 99).await.unwrap(), (bytes("0123456789"), 10));
        objects.put("t/2024-01-01/x.blk", vec![bytes("new")]).await.unwrap();
        assert_eq!(objects.get("t/2024-01-01/x.blk").await.unwrap().unwrap().0, "new");
        objects.delete("t/2024-01-01/x.blk").await.unwrap();
        objects.delete("t/2024-01-01/x.blk").await.unwrap();
        assert_eq!(objects.get("t/2024-01-01/x.blk").await.unwrap(), None);
        for missing in [objects.ranges("x", &[0..1]).await.err(), objects.tail("x", 1).await.err()] {
            assert!(matches!(missing, Some(Error::NotFound { .. })), "{objects:?}: {missing:?}");
        }
    }
}

#[tokio::test]
async fn ranges_that_an_object_does_not_have_are_damage() {
    #[expect(clippy::reversed_empty_ranges, reason = "what a damaged footer might say")]
    let bad = [vec![0..3, 8..11], vec![20..30], vec![5..2], vec![0..u64::MAX], vec![u64::MAX - 1..u64::MAX]];
    for (objects, _folder, _server) in all().await {
        objects.put("x.blk", vec![bytes("0123456789")]).await.unwrap();
        objects.put("empty.blk", vec![]).await.unwrap();
        for ranges in &bad {
            let error = objects.ranges("x.blk", ranges).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{objects:?} {ranges:?}: {error}");
        }
        let error = objects.tail("empty.blk", 4).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{objects:?}: {error}");
        assert!(objects.get("../x.blk").await.is_err());
    }
}

#[tokio::test]
async fn only_the_first_of_two_conditional_writes_happens() {
    for (objects, _folder, _server) in all().await {
        let Put::Done(first) = objects.put_if("m.json", bytes("1"), None).await.unwrap() else { panic!() };
        assert_eq!(objects.put_if("m.json", bytes("2"), None).await.unwrap(), Put::Conflict, "{objects:?}");
        assert_eq!(objects.get("m.json").await.unwrap().unwrap(), (bytes("1"), first.clone()));
        assert_eq!(objects.get_unless("m.json", &first).await.unwrap(), Fresh::Same);
        let Put::Done(second) = objects.put_if("m.json", bytes("3"), Some(&first)).await.unwrap() else { panic!() };
        assert_eq!(objects.put_if("m.json", bytes("4"), Some(&first)).await.unwrap(), Put::Conflict);
        assert_eq!(objects.put_if("none.json", bytes("4"), Some(&first)).await.unwrap(), Put::Conflict);
        assert_eq!(objects.get_unless("m.json", &first).await.unwrap(), Fresh::Changed(bytes("3"), second.clone()));
        objects.delete("m.json").await.unwrap();
        assert_eq!(objects.get_unless("m.json", &first).await.unwrap(), Fresh::Missing);
        assert_eq!(objects.put_if("m.json", bytes("5"), Some(&second)).await.unwrap(), Put::Conflict);
    }
}

#[tokio::test]
async fn counters_raced_for_lose_nothing() {
    for (objects, _folder, _server) in all().await {
        let count = || {
            let objects = objects.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    loop {
                        let found = objects.get("n.json").await.unwrap();
                        let n: u32 = found.as_ref().map_or(0, |(b, _)| String::from_utf8_lossy(b).parse().unwrap());
                        let next = Bytes::from((n + 1).to_string());
                        match objects.put_if("n.json", next, found.as_ref().map(|(_, v)| v)).await.unwrap() {
                            Put::Done(_) => break,
                            Put::Conflict => {}
                        }
                    }
                }
            })
        };
        let counters: Vec<_> = (0..4).map(|_| count()).collect();
        for counter in counters {
            counter.await.unwrap();
        }
        assert_eq!(objects.get("n.json").await.unwrap().unwrap().0, "20", "{objects:?}");
    }
}

#[tokio::test]
async fn listings_name_objects_and_folders() {
    for (objects, _folder, _server) in all().await {
        assert_eq!(paths(&objects, "").await, Vec::<String>::new());
        assert_eq!(objects.list_folders("").await.unwrap(), Vec::<String>::new());
        for path in ["it's-(a)!*.b/2024-01-01/1.blk", "t/1970-01-01/1.blk", "t/tenant.json", "tt/x.json"] {
            objects.put(path, vec![bytes("x")]).await.unwrap();
        }
        assert_eq!(
            paths(&objects, "").await,
            ["it's-(a)!*.b/2024-01-01/1.blk", "t/1970-01-01/1.blk", "t/tenant.json", "tt/x.json"]
        );
        assert_eq!(paths(&objects, "t").await, ["t/1970-01-01/1.blk", "t/tenant.json"]);
        assert_eq!(paths(&objects, "none").await, Vec::<String>::new());
        assert_eq!(objects.list_folders("").await.unwrap(), ["it's-(a)!*.b", "t", "tt"]);
        assert_eq!(objects.list_folders("t").await.unwrap(), ["1970-01-01"]);
        objects.probe().await.unwrap();
        let listed: Vec<_> = objects.list("tt").try_collect().await.unwrap();
        assert_eq!(listed[0].size, 1);
        assert!(listed[0].modified.nanos() > 0);
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let objects = Objects::open(root.to_str().unwrap(), &Options::default()).unwrap();
    objects.put("t/x.blk", vec![bytes("x")]).await.unwrap();
    let beside = Objects::open_read_only(root.to_str().unwrap(), &Options::default()).unwrap();
    assert_eq!(beside.get("t/x.blk").await.unwrap().unwrap().0, "x");
    assert!(beside.put("t/y.blk", vec![bytes("y")]).await.is_err());
    assert!(beside.delete("t/x.blk").await.is_err());
    assert!(beside.put_if("t/x.blk", bytes("y"), None).await.is_err());
    std::fs::rename(&root, folder.path().join("elsewhere")).unwrap();
    for error in [
        objects.get("t/x.blk").await.err(),
        objects.tail("t/x.blk", 1).await.err(),
        objects.probe().await.err(),
        beside.get("t/x.blk").await.err(),
    ] {
        let error = error.unwrap();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("mounted"), "{error}");
    }
}

#[tokio::test]
async fn large_objects_go_in_parts() {
    let server = Server::start().await;
    let objects = patient(&server);
    let content: Vec<_> = (0..35_u8).map(|n| Bytes::from(vec![n; 1 << 20])).collect();
    // The beginning, the first part and whatever else is in flight have to be repeated.
    server.next([Fault::Status(503), Fault::None, Fault::Broken, Fault::Status(500), Fault::DoneBroken]);
    objects.put("t/big.blk", content.clone()).await.unwrap();
    let (found, _) = objects.get("t/big.blk").await.unwrap().unwrap();
    assert!(found == content.concat());
    assert!(objects.0.metrics.retries(Operation::Put) >= 4);
    let read = objects.ranges("t/big.blk", &[0..1, 20 << 20..(20 << 20) + 1]).await.unwrap();
    assert_eq!(read, [&[0][..], &[20][..]]);
}

#[tokio::test]
async fn the_end_of_an_upload_may_lose_its_answer() {
    for lost in [Fault::DoneBroken, Fault::DoneStatus] {
        let server = Server::start().await;
        let objects = patient(&server);
        let content = vec![Bytes::from(vec![7; 17 << 20])];
        server.next([Fault::None, Fault::None, Fault::None, lost]);
        objects.put("t/big.blk", content).await.unwrap();
        assert_eq!(objects.tail("t/big.blk", 1).await.unwrap(), (Bytes::from_static(&[7]), 17 << 20));
    }
}

#[tokio::test]
async fn faults_that_pass_are_not_seen() {
    let server = Server::start().await;
    let objects = server.objects("s3://logs/p");
    let faults = [
        Fault::Status(500),
        Fault::Broken,
        Fault::Status(429),
        Fault::DoneShort,
        Fault::Slow(Duration::from_millis(1500)),
    ];
    for fault in faults {
        server.next([fault]);
        objects.put("x.blk", vec![bytes("0123")]).await.unwrap();
        server.next([fault]);
        assert_eq!(objects.get("x.blk").await.unwrap().unwrap().0, "0123", "{fault:?}");
        server.next([fault]);
        assert_eq!(objects.ranges("x.blk", &[1..2]).await.unwrap(), ["1"]);
        server.next([fault]);
        assert_eq!(objects.tail("x.blk", 1).await.unwrap().0, "3");
        server.next([fault]);
        assert_eq!(paths(&objects, "").await, ["x.blk"]);
        server.next([fault]);
        objects.delete("x.blk").await.unwrap();
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_known_again() {
    let server = Server::start().await;
    let objects = server.objects("s3://logs");
    for lost in [Fault::DoneBroken, Fault::DoneStatus] {
        let path = format!("{lost:?}.json");
        server.next([lost]);
        let Put::Done(first) = objects.put_if(&path, bytes("1"), None).await.unwrap() else { panic!("{lost:?}") };
        assert_eq!(objects.get(&path).await.unwrap().unwrap(), (bytes("1"), first.clone()));
        server.next([lost]);
        let Put::Done(second) = objects.put_if(&path, bytes("2"), Some(&first)).await.unwrap() else { panic!() };
        assert_eq!(objects.get(&path).await.unwrap().unwrap(), (bytes("2"), second));
        server.next([Fault::Broken]);
        let found = objects.get_unless(&path, &first).await.unwrap();
        assert!(matches!(found, Fresh::Changed(..)), "{found:?}");
        // Somebody else's content is never taken for one's own, even after an attempt that failed.
        server.next([Fault::Status(500)]);
        assert_eq!(objects.put_if(&path, bytes("3"), Some(&first)).await.unwrap(), Put::Conflict);
    }
}

#[tokio::test]
async fn a_busy_answer_to_a_conditional_write_is_no_conflict() {
    let server = Server::start().await;
    let objects = server.objects("s3://logs");
    server.next([Fault::Status(409)]);
    let Put::Done(first) = objects.put_if("m.json", bytes("1"), None).await.unwrap() else { panic!() };
    server.next([Fault::Status(409)]);
    assert!(matches!(objects.put_if("m.json", bytes("2"), Some(&first)).await.unwrap(), Put::Done(_)));
    assert_eq!(objects.get("m.json").await.unwrap().unwrap().0, "2");
}

#[tokio::test]
async fn a_server_that_does_not_come_back_is_told_in_time() {
    let server = Server::start().await;
    let objects = server.objects("s3://logs/p");
    let gone = {
        let mut options = server.options();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        options.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        drop(listener);
        Objects::open("s3://logs/p", &options).unwrap()
    };
    let cases = [
        (&objects, Fault::Status(503), "503"),
        (&objects, Fault::Broken, "connection"),
        (&objects, Fault::Slow(Duration::from_secs(60)), "in time"),
        (&gone, Fault::None, "cannot connect"),
    ];
    for (objects, fault, said) in cases {
        server.always(fault);
        let began = Instant::now();
        let (get, put, put_if, list) = tokio::join!(
            objects.get("t/x.blk"),
            objects.put("t/x.blk", vec![bytes("x")]),
            objects.put_if("t/x.blk", bytes("x"), None),
            objects.list_folders("t"),
        );
        let errors = [get.unwrap_err(), put.unwrap_err(), put_if.unwrap_err(), list.unwrap_err()];
        assert!(began.elapsed() < Duration::from_secs(10), "{fault:?}: {:?}", began.elapsed());
        for (error, operation) in errors.into_iter().zip(["get", "put", "put_if", "list"]) {
            let text = error.to_string();
            assert!(matches!(error, Error::Unavailable { .. }), "{text}");
            assert!(text.starts_with(&format!("{operation} s3://logs/p/t")), "{text}");
            assert!(text.contains(said) && text.contains("attempts"), "{fault:?}: {text}");
        }
    }
    server.always(Fault::None);
    assert_eq!(objects.get("t/none").await.unwrap(), None);
}

#[tokio::test]
async fn what_will_not_work_is_told_at_once_with_a_hint() {
    let server = Server::start().await;
    let requests = server.requests();
    let missing = server.objects("s3://nobucket");
    server.next([Fault::NoBucket; 3]);
    let errors =
        [missing.get("x").await.err(), missing.probe().await.err(), missing.put("x", vec![bytes("x")]).await.err()];
    for error in errors {
        let error = error.unwrap();
        assert!(
            matches!(error, Error::Unavailable { .. }) && error.to_string().contains("bucket does not exist"),
            "{error}"
        );
    }
    let mut options = server.options();
    options.secret_access_key = Some(super::Secret("wrong".to_owned()));
    assert!(!format!("{options:?}").contains("wrong"));
    let denied = Objects::open("s3://logs", &options).unwrap().get("x").await.unwrap_err();
    assert!(denied.to_string().contains("check the credentials"), "{denied}");
    assert!(server.requests() - requests <= 5, "{}", server.requests());

    options.allow_http = None;
    let plain = Objects::open("s3://logs", &options).unwrap_err();
    assert!(matches!(plain, Error::Config { .. }) && plain.to_string().contains("allow_http"), "{plain}");
    options.endpoint = Some("127.0.0.1:9000".to_owned());
    assert!(Objects::open("s3://logs", &options).unwrap_err().to_string().contains("https://"));
}

#[tokio::test]
async fn root_certificates_are_found() {
    let options = Options {
        access_key_id: Some("key".to_owned()),
        secret_access_key: Some(super::Secret("secret".to_owned())),
        ..Options::default()
    };
    Objects::open("s3://logs", &options).unwrap();
    Objects::open("s3://logs", &options).unwrap();
}
