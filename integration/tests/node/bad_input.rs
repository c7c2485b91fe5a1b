//! Input that nobody should send. Each kind gets an error of the contract's form, costs bounded memory, and harms nobody else.

use std::io::Write as _;

use bytes::Bytes;
use tailwater_integration::lines::Numbers;
use tailwater_integration::push::{label_text, snappy};
use tailwater_integration::server::command;
use tailwater_integration::{Batch, Client, Pairs, Server, now_ns, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PUSH: &str = "/loki/api/v1/push";
const PROTOBUF: (&str, &str) = ("Content-Type", "application/x-protobuf");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Asks for something ordinary: the server works.
async fn assert_serves(client: &Client) {
    let label = format!("{{app=\"alive-{}\"}}", now_ns());
    client.push_ok(&Batch::one(&label, "alive")).await;
    assert_eq!(client.lines(&label).await.len(), 1);
}

#[tokio::test]
async fn bombs_are_refused_before_they_go_off() {
    let yaml = "distributor:\n  max_recv_msg_size: 1MB\n  max_decompressed_size: 8MB\n";
    let mut server = Server::with_config(yaml).await;
    let client = server.client();
    assert_serves(&client).await;
    let before = server.resident_bytes();
    let zeros = vec![0_u8; 64 << 20];
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    // Nothing but a header that claims 4 GiB.
    let claims = b"\xff\xff\xff\xff\x0f\x00".to_vec();
    let cases: [(&str, &str, Pairs<'_>, Vec<u8>); 6] = [
        ("snappy", PUSH, &[PROTOBUF], snappy(&zeros[..16 << 20])),
        ("snappy that claims", PUSH, &[PROTOBUF], claims),
        ("gzip of JSON", PUSH, &[JSON, ("Content-Encoding", "gzip")], gzip.clone()),
        ("deflate of JSON", PUSH, &[JSON, ("Content-Encoding", "deflate")], deflate),
        ("gzip of protobuf", PUSH, &[PROTOBUF, ("Content-Encoding", "gzip")], gzip.clone()),
        ("gzip of OTLP", "/otlp/v1/logs", &[PROTOBUF, ("Content-Encoding", "gzip")], gzip),
    ];
    for (kind, path, headers, body) in cases {
        assert!(body.len() < 1 << 20, "{kind} is larger than a body may be");
        for _ in 0..3 {
            let reply = client.send("POST", path, headers, body.clone()).await;
            assert_eq!(reply.status, 413, "{kind}: {}", reply.text());
            assert!(reply.text().contains("message size too large than max"), "{kind}: {}", reply.text());
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    // Eighteen bombs of 16 to 64 MiB: what is allowed of one, and what the allocator keeps of that.
    assert!(grown < 128 << 20, "{grown} bytes more after refusing bombs");
    assert_serves(&client).await;
    server.assert_well();
}

#[tokio::test]
async fn oversized_bodies_are_refused() {
    let mut server = Server::with_config("distributor:\n  max_recv_msg_size: 1MB\n").await;
    let client = server.client();
    let body = Bytes::from(vec![b'x'; 2 << 20]);
    for path in [PUSH, "/api/prom/push", "/otlp/v1/logs"] {
        // The server may answer before all is sent, and close: then the client sees a broken connection.
        if let Ok(reply) = within("an answer", client.try_send("POST", path, &[PROTOBUF], body.clone())).await {
            assert_eq!(reply.status, 413, "{path}: {}", reply.text());
        }
    }
    let line = format!("/{}", "x".repeat(1 << 20));
    if let Ok(reply) = within("an answer", client.try_send("GET", &line, &[], Bytes::new())).await {
        assert!((400..500).contains(&reply.status), "{}", reply.status);
    }
    assert_serves(&client).await;
    server.assert_well();
}

#[tokio::test]
async fn garbage_and_truncated_bodies_are_refused_or_read_never_fatal() {
    let mut server = Server::start().await;
    let client = server.client();
    let mut batch = Batch::new();
    for i in 0..20 {
        batch =
            batch.with_metadata(r#"{app="fuzz", pod="p"}"#, now_ns(), &format!("line {i} \"x\" \\"), &[("trace", "t")]);
    }
    let otlp = tailwater_integration::push::otlp_protobuf(&[("service.name", "s")], &[(now_ns(), "b", &[("a", "b")])]);
    let otlp_json = tailwater_integration::push::otlp_json(&[("service.name", "s")], &[(now_ns(), "b", &[("a", "b")])]);
    let bodies = [
        (PUSH, PROTOBUF, batch.protobuf(), true),
        (PUSH, JSON, batch.json().to_string().into_bytes(), false),
        ("/api/prom/push", JSON, batch.legacy_json().to_string().into_bytes(), false),
        ("/otlp/v1/logs", PROTOBUF, otlp, false),
        ("/otlp/v1/logs", JSON, otlp_json.to_string().into_bytes(), false),
    ];
    let mut numbers = Numbers::new(42);
    for (path, content_type, body, compress) in bodies {
        for round in 0..60 {
            let mut bad = body.clone();
            if round % 3 == 0 {
                bad.truncate(numbers.below(body.len() as u64) as usize);
            } else {
                for _ in 0..=numbers.below(6) {
                    let at = numbers.below(bad.len() as u64) as usize;
                    bad[at] = numbers.next() as u8;
                }
            }
            let bad = if compress { snappy(&bad) } else { bad };
            let reply = client.send("POST", path, &[content_type], bad).await;
            let fine = [204, 400, 413, 422].contains(&reply.status)
                || (reply.status == 500 && reply.text().contains("label name"));
            assert!(fine, "{path} round {round}: {} {}", reply.status, reply.text());
            assert!(reply.status == 204 || !reply.body.is_empty(), "{path} round {round}: refused without a reason");
        }
    }
    assert_serves(&client).await;
    server.assert_well();
}

#[tokio::test]
async fn absurd_labels_are_refused() {
    let mut server = Server::start().await;
    let client = server.client();
    let many: Vec<_> = (0..10_000).map(|i| (format!("l{i}"), "v".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let long = "v".repeat(1 << 20);
    let texts = [
        label_text(&many),
        label_text(&[("app", &long)]),
        label_text(&[(&long, "x")]),
        "{".repeat(100_000),
        format!("{{a=\"{}", "\\".repeat(100_000)),
        "{\u{0}=\"x\"}".to_owned(),
        "{\"a.b\"=\"c\"}".to_owned(),
        "{a=\"\u{0}\", __name__=\"\"}}".to_owned(),
        "{__stream_shard__=~\"x\"}".to_owned(),
    ];
    for text in texts {
        let reply = client.push(&Batch::one(&text, "x")).await;
        let shown: String = text.chars().take(60).collect();
        assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
        assert!(reply.body.len() < 4 << 20, "{shown}: the refusal has {} bytes", reply.body.len());
    }
    let mut bad_utf8 = Batch::one(r#"{app="XX"}"#, "x").protobuf();
    let at = bad_utf8.windows(2).position(|w| w == b"XX").unwrap();
    bad_utf8[at] = 0xff;
    let reply = client.send("POST", PUSH, &[PROTOBUF], snappy(&bad_utf8)).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("invalid UTF-8 rune"), "{}", reply.text());
    assert_serves(&client).await;
    server.assert_well();
}

#[tokio::test]
async fn absurd_queries_are_refused_quickly() {
    let mut server = Server::start().await;
    let client = server.client();
    let megabyte = format!("{{app=\"{}\"}}", "x".repeat(1 << 20));
    let selector = r#"{app="a"}"#;
    let queries = [
        (megabyte.clone(), "parse error : input size too long (1048584 > 131072)"),
        (format!("{}{selector}{}", "(".repeat(10_000), ")".repeat(10_000)), "parse error"),
        (format!("{selector} | {}a=\"b\"{}", "(".repeat(10_000), ")".repeat(10_000)), "parse error"),
        (format!("{selector} | a=\"b\"{}", " or a=\"b\"".repeat(10_000)), ""),
        (format!("{}{selector}[1m]{}", "sum(".repeat(10_000), ")".repeat(10_000)), "parse error"),
        (format!("{selector} |= \"a\"{}", " or \"b\"".repeat(10_000)), ""),
        (format!("{selector}{}", " |= \"a\"".repeat(10_000)), ""),
        (format!("{selector} |~ \"{}\"", "(".repeat(10_000)), "parse error"),
        (format!("{selector} |~ \"{}{}\"", "(".repeat(5_000), ")".repeat(5_000)), ""),
        (format!("{selector} |~ \"(((a{{1,1000}}){{1,1000}}){{1,1000}})\""), "parse error"),
        (format!("{selector} | line_format \"{}\"", "{{if .a}}".repeat(5_000)), "parse error"),
        (format!("{selector} | line_format `{{{{{} .a {}}}}}`", "(".repeat(5_000), ")".repeat(5_000)), ""),
        (format!("{}1", "-".repeat(100_000)), ""),
        (format!("1{}", " + 1".repeat(10_000)), ""),
        (format!("{selector} | json a=\"{}\"", "[0]".repeat(10_000)), ""),
        ("{\u{0}}".to_owned(), "parse error"),
        ("\u{feff}{".to_owned(), "parse error"),
    ];
    for (query, text) in &queries {
        let shown: String = query.chars().take(60).collect();
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let body = format!("query={}", tailwater_integration::client::encode(query));
        let reply = client.send("POST", "/loki/api/v1/query_range", &form, body.clone()).await;
        assert!(
            reply.status == 400 || (text.is_empty() && reply.status < 500),
            "{shown}: {} {}",
            reply.status,
            reply.text()
        );
        assert!(reply.text().starts_with(text) || reply.status == 200, "{shown}: {:.300}", reply.text());
        let reply = client.send("POST", "/loki/api/v1/format_query", &form, body).await;
        assert!([200, 400].contains(&reply.status), "{shown}: {}", reply.status);
        // Where the request line can hold it, the tail refuses it before the upgrade.
        if query.len() < 30_000 && text.starts_with("parse error") {
            let Err(refused) = client.try_tail(&[("query", query)]).await else { panic!("{shown}: tailed") };
            assert!((400..500).contains(&refused.status), "{shown}: {}", refused.status);
        }
    }
    assert_serves(&client).await;
    server.assert_well();
}

#[tokio::test]
async fn random_queries_never_hurt() {
    let mut server = Server::start().await;
    let client = server.client();
    client.push_ok(&Batch::one(r#"{app="a"}"#, r#"{"a":{"b":[1,2]},"level":"warn"} k=v 10.0.0.1"#)).await;
    let pieces = [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "app",
        "=",
        "!=",
        "=~",
        "!~",
        "|=",
        "|~",
        "|>",
        "!>",
        "|",
        "json",
        "logfmt",
        "regexp",
        "pattern",
        "unpack",
        "line_format",
        "label_format",
        "drop",
        "keep",
        "decolorize",
        "unwrap",
        "\"a\"",
        "`(?P<x>.)`",
        "\"{{.a}}\"",
        "ip(",
        "\"10.0.0.0/8\"",
        ",",
        "or",
        "and",
        "unless",
        "sum",
        "by",
        "rate",
        "count_over_time",
        "5m",
        "1",
        "-",
        "+",
        "*",
        "/",
        "%",
        "^",
        ">",
        "<=",
        "==",
        "bool",
        "offset",
        "vector(",
        "topk",
        "on",
        "ignoring",
        "group_left",
        "\\",
        "\"",
        "`",
        "#",
        "é",
        "\u{0}",
        " ",
        "{app=\"a\"}",
        "{app=\"a\"} | json | ",
    ];
    let mut numbers = Numbers::new(7);
    for _ in 0..400 {
        let mut query = if numbers.below(2) == 0 { "{app=\"a\"} ".to_owned() } else { String::new() };
        for _ in 0..numbers.below(12) {
            query.push_str(pieces[numbers.below(pieces.len() as u64) as usize]);
            if numbers.below(3) > 0 {
                query.push(' ');
            }
        }
        let reply = client.get_with("/loki/api/v1/query_range", &[("query", &query), ("since", "1h")]).await;
        assert!([200, 400, 500].contains(&reply.status), "{query}: {}", reply.status);
        assert!(!reply.body.is_empty(), "{query}");
    }
    assert_serves(&client).await;
    server.assert_well();
}

#[tokio::test]
async fn bad_parameters_and_headers_are_refused() {
    let mut server = Server::start().await;
    let client = server.client();
    let good = ("query", r#"{a="b"}"#);
    let digits = "9".repeat(1000);
    for value in [
        "",
        "x",
        "-",
        "NaN",
        "1e400",
        "99999999999999999999",
        "-99999999999999999999",
        "2026-13-45T99:99:99Z",
        "\u{0}",
        &digits,
    ] {
        for name in ["start", "end", "since", "step", "interval", "limit", "direction", "time"] {
            for path in [
                "/loki/api/v1/query_range",
                "/loki/api/v1/query",
                "/loki/api/v1/labels",
                "/loki/api/v1/series",
                "/api/prom/query",
            ] {
                let reply = client.get_with(path, &[good, (name, value)]).await;
                assert!(
                    [200, 400].contains(&reply.status),
                    "{path} {name}={value:.30}: {} {}",
                    reply.status,
                    reply.text()
                );
            }
        }
    }
    for target in [
        "/loki/api/v1/query_range?query=%",
        "/loki/api/v1/query_range?query=%zz",
        "/loki/api/v1/query_range?%ff=%ff&query=%ff",
        "/loki/api/v1/label/%2e%2e%2f/values",
        "/loki/api/v1/label/%ff/values",
    ] {
        let reply = client.get(target).await;
        assert!([200, 400, 404].contains(&reply.status), "{target}: {}", reply.status);
    }
    let long = "x".repeat(10_000);
    let reply = server.tenant(&long).get("/loki/api/v1/labels").await;
    assert!((400..500).contains(&reply.status), "{}", reply.status);
    server.assert_well();
}

#[tokio::test]
async fn broken_http_ends_that_connection_only() {
    let mut server = Server::start().await;
    let requests: [&[u8]; 6] = [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nshort",
        b"GET /loki/api/v1/tail?query=%7Ba%3D%22b%22%7D HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n",
    ];
    for request in requests {
        let mut socket = TcpStream::connect(server.addr()).await.unwrap();
        socket.write_all(request).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good an end as an answer.
        let _ = within("the end of a broken request", socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Clients that connect and say nothing, or never finish.
    let mut idle = Vec::new();
    for i in 0..200 {
        let mut socket = TcpStream::connect(server.addr()).await.unwrap();
        if i % 2 == 0 {
            socket.write_all(b"POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Le").await.unwrap();
        }
        idle.push(socket);
    }
    assert_serves(&server.client()).await;
    server.assert_well();
}

/// Exit code 2 and a text that names the place and what was probably meant.
#[tokio::test]
async fn a_bad_configuration_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let cases: [(&str, &[&str]); 7] = [
        ("serverr:\n  http_listen_port: 1\n", &["serverr", "server"]),
        ("server:\n  http_listen_prt: 1\n", &["http_listen_prt", "http_listen_port"]),
        ("limits_config:\n  max_line_sise: 1\n", &["max_line_sise", "max_line_size"]),
        ("server:\n  http_listen_port: many\n", &["http_listen_port", "many"]),
        ("querier:\n  tail_max_duration: soon\n", &["tail_max_duration", "soon"]),
        ("auth_enabled: [\n", &["config.yaml"]),
        ("- a\n- b\n", &["config.yaml"]),
    ];
    for (yaml, words) in cases {
        std::fs::write(&file, yaml).unwrap();
        let args = ["serve", "--http-listen", "127.0.0.1:0", "--config", file.to_str().unwrap()];
        let output = within("serve to refuse", command(args).current_dir(folder.path()).output()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{yaml}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{yaml}: {text}");
        assert!(!text.contains("panicked") && !text.contains("listening"), "{yaml}: {text}");
    }
    let args: [&[&str]; 5] = [
        &["serve", "--config", "/does/not/exist.yaml"],
        &["serve", "--http-listen", "nonsense"],
        &["serve", "--no-such-flag"],
        &["serv"],
        &["serve", "--target", "everything"],
    ];
    for args in args {
        let output = within("a refusal", command(args).current_dir(folder.path()).output()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(!text.is_empty() && !text.contains("panicked"), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn a_loki_users_file_largely_works() {
    let yaml = "\
auth_enabled: false
server:
  http_listen_port: 3100
  grpc_listen_port: 9096
common:
  path_prefix: /loki
  replication_factor: 1
  ring:
    kvstore:
      store: inmemory
schema_config:
  configs:
    - from: 2020-10-24
      store: tsdb
      object_store: filesystem
      schema: v13
      index: {prefix: index_, period: 24h}
limits_config:
  retention_period: 168h
  max_line_size: 64KB
ruler:
  alertmanager_url: http://localhost:9093
";
    let server = Server::with_config(yaml).await;
    let log = server.log();
    for key in ["schema_config", "ruler", "common", "limits_config.retention_period"] {
        assert!(log.contains(key), "no warning names {key}:\n{log}");
    }
    let config = server.client().get("/config").await.text();
    assert!(
        config.contains("max_line_size: 64KB") || config.contains("max_line_size: 65536") || config.contains("64KiB"),
        "{config}"
    );
}
