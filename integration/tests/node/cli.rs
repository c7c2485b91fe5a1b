//! The commands, as people and scripts use them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use tailwater_integration::lines::awkward;
use tailwater_integration::server::{command, signal};
use tailwater_integration::{Batch, Client, Server, eventually, now_ns, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::texts;

async fn run(args: &[&str]) -> Output {
    within("a command", command(args).stdin(Stdio::null()).output()).await.unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Pushed lines come back byte for byte from a tail and from a query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_come_back_byte_for_byte() {
    let server = Server::start_wide().await;
    let url = server.url();
    let file = server.folder().join("lines.log");
    let mut bytes = awkward(1, 3000).join("\n").into_bytes();
    bytes.push(b'\n');
    std::fs::write(&file, &bytes).unwrap();
    let mut tail = command(["tail", "--addr", &url, "--limit", "100000", "--output", "raw", r#"{job="cli"}"#])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tailed = tail.stdout.take().unwrap();
    out(&run(&["push", "--addr", &url, "--label", "job=cli", file.to_str().unwrap()]).await);
    let mut live = vec![0; bytes.len()];
    within("the tailed lines", tailed.read_exact(&mut live)).await.unwrap();
    assert_same(&live, &bytes);
    let queried =
        run(&["query", "--addr", &url, "--limit", "5000", "--forward", "--output", "raw", r#"{job="cli"}"#]).await;
    assert_same(&queried.stdout, &bytes);
    // Ctrl-C: the ledger on stderr, success.
    signal(tail.id().unwrap(), "INT").await;
    let ended = within("the tail to end", tail.wait_with_output()).await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(
        said.contains("3000 lines") && said.contains("0 dropped"),
        "the ledger does not say how many lines came: {said}"
    );
}

fn assert_same(found: &[u8], wanted: &[u8]) {
    let lines = |bytes: &[u8]| bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    for (i, (found, wanted)) in lines(found).iter().zip(&lines(wanted)).enumerate() {
        assert_eq!(String::from_utf8_lossy(found), String::from_utf8_lossy(wanted), "line {i}");
    }
    assert!(found == wanted, "{} bytes instead of {}", found.len(), wanted.len());
}

#[tokio::test]
async fn push_reads_standard_input_and_several_files() {
    let server = Server::start().await;
    let url = server.url();
    let mut child = command(["push", "--addr", &url, "--label", "job=stdin", "--label", "env=test"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The last line has no line feed.
    stdin.write_all(b"one\ntwo\nthree").await.unwrap();
    drop(stdin);
    let output = within("push", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(texts(&server.client().lines(r#"{job="stdin", env="test"}"#).await), ["one", "two", "three"]);
    let files: Vec<_> = ["a", "b"].iter().map(|name| server.folder().join(name)).collect();
    for file in &files {
        std::fs::write(file, format!("in {}\n", file.file_name().unwrap().display())).unwrap();
    }
    let [a, b] = [files[0].to_str().unwrap(), files[1].to_str().unwrap()];
    out(&run(&["push", "--addr", &url, "--label", "job=files", a, b]).await);
    let lines = server.client().lines(r#"{job="files"}"#).await;
    let mut found = texts(&lines);
    found.sort_unstable();
    assert_eq!(found, ["in a", "in b"]);
}

#[tokio::test]
async fn outputs_are_plain_when_nobody_looks() {
    let server = Server::start().await;
    let url = server.url();
    let at = now_ns();
    server.client().push_ok(&Batch::new().line(r#"{app="o"}"#, at, "level=error \u{1b}[31mmsg")).await;
    let query = r#"{app="o"}"#;
    let default = out(&run(&["query", "--addr", &url, query]).await);
    assert!(default.contains("level=error") && default.lines().count() == 1, "{default:?}");
    assert!(!default.starts_with('\u{1b}'), "coloured although not a terminal: {default:?}");
    let jsonl = out(&run(&["query", "--addr", &url, "--output", "jsonl", query]).await);
    let entry: serde_json::Value = serde_json::from_str(jsonl.trim_end()).unwrap();
    assert_eq!(
        (entry["line"].as_str(), entry["labels"]["app"].as_str()),
        (Some("level=error \u{1b}[31mmsg"), Some("o"))
    );
    let raw = out(&run(&["query", "--addr", &url, "--output", "raw", query]).await);
    assert_eq!(raw, "level=error \u{1b}[31mmsg\n");
}

#[tokio::test]
async fn failures_are_explained_and_have_their_exit_codes() {
    let server = Server::start().await;
    let url = server.url();
    let refused = run(&["query", "--addr", &url, "{"]).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("parse error at line 1, col 2"), "{said}");
    let refused = run(&["tail", "--addr", &url, "{"]).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("parse error at line 1, col 2"), "{said}");
    let nobody = run(&["query", "--addr", "http://127.0.0.1:1", r#"{a="b"}"#]).await;
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert!(nobody.status.code() == Some(1) && said.contains("cannot connect to 127.0.0.1:1"), "{said}");
    assert_eq!(run(&["query"]).await.status.code(), Some(2));
    let missing = run(&["push", "--addr", &url, "--label", "a=b", "/does/not/exist"]).await;
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && said.contains("/does/not/exist"), "{said}");
    assert!(out(&run(&["--version"]).await).starts_with("tailwater "));
    let help = out(&run(&["--help"]).await);
    for subcommand in ["serve", "demo", "tail", "query", "push", "bench"] {
        assert!(help.contains(subcommand), "{help}");
    }
}

/// A port that is free now.
async fn free_port() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Whether a server answers at `addr`.
async fn is_up(addr: SocketAddr) -> bool {
    Client::new(addr).try_send("GET", "/ready", &[], bytes::Bytes::new()).await.is_ok_and(|reply| reply.status == 200)
}

#[tokio::test]
async fn push_waits_for_a_server_that_went_away() {
    let folder = tempfile::tempdir().unwrap();
    let addr = free_port().await;
    let mut serve = serve_at(&addr.to_string(), folder.path());
    eventually("the first server", async || is_up(addr).await).await;
    let url = format!("http://{addr}");
    let mut push = command(["push", "--addr", &url, "--label", "job=late", "--batch-wait", "10ms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = push.stdin.take().unwrap();
    let mut said = BufReader::new(push.stderr.take().unwrap()).lines();
    let client = Client::new(addr);
    input.write_all(b"one\n").await.unwrap();
    eventually("the first line", async || client.lines(r#"{job="late"}"#).await.len() == 1).await;
    serve.kill().await.unwrap();
    input.write_all(b"two\n").await.unwrap();
    within("a word about trying again", said.next_line()).await.unwrap().unwrap();
    let mut serve = serve_at(&addr.to_string(), folder.path());
    eventually("the second server", async || is_up(addr).await).await;
    eventually("both lines", async || texts(&client.lines(r#"{job="late"}"#).await) == ["one", "two"]).await;
    drop(input);
    assert!(within("the push", push.wait()).await.unwrap().success());
    serve.kill().await.unwrap();
}

fn serve_at(addr: &str, folder: &Path) -> tokio::process::Child {
    let mut command = command(["serve", "--http-listen", addr, "--data-dir"]);
    command.arg(folder.join("data")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A tail comes back by itself after its server was away, and misses nothing that is pushed from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_reconnects() {
    let folder = tempfile::tempdir().unwrap();
    let addr = free_port().await;
    let client = Client::new(addr);
    let mut serve = serve_at(&addr.to_string(), folder.path());
    eventually("the first server", async || is_up(addr).await).await;
    let url = format!("http://{addr}");
    let mut tail = command(["tail", "--addr", &url, "--output", "raw", r#"{app="again"}"#])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    client.push_ok(&Batch::one(r#"{app="again"}"#, "before")).await;
    assert_eq!(within("a line", lines.next_line()).await.unwrap().as_deref(), Some("before"));
    serve.kill().await.unwrap();
    let mut serve = serve_at(&addr.to_string(), folder.path());
    eventually("the second server", async || is_up(addr).await).await;
    client.push_ok(&Batch::one(r#"{app="again"}"#, "after")).await;
    assert_eq!(within("a line", lines.next_line()).await.unwrap().as_deref(), Some("after"));
    signal(tail.id().unwrap(), "INT").await;
    assert!(within("the tail to end", tail.wait()).await.unwrap().success());
    serve.kill().await.unwrap();
}

#[tokio::test]
async fn the_demo_runs_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = command(["demo", "--rate", "200"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(demo.stdout.take().unwrap()).lines();
    for _ in 0..20 {
        let line = within("a line of the demo", shown.next_line()).await.unwrap();
        assert!(line.is_some_and(|line| !line.contains('\u{1b}')), "plain when not a terminal");
    }
    signal(demo.id().unwrap(), "INT").await;
    let drain = async { while matches!(shown.next_line().await, Ok(Some(_))) {} };
    let (status, ()) = within("the demo to stop", async { tokio::join!(demo.wait(), drain) }).await;
    assert_eq!(status.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_checks_what_it_measures() {
    let server = Server::start_wide().await;
    let pid = server.pid().to_string();
    let url = server.url();
    let output = run(&[
        "bench",
        "--addr",
        &url,
        "--rate",
        "2000",
        "--duration",
        "2s",
        "--tails",
        "3",
        "--streams",
        "5",
        "--pid",
        &pid,
    ])
    .await;
    let text = out(&output);
    for word in ["lost", "dup", "p50", "p99", "lines/s"] {
        assert!(text.to_lowercase().contains(word), "bench does not report {word}:\n{text}");
    }
}
