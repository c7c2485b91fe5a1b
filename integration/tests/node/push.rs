//! Every way in: three endpoints, each content type and encoding, what is derived, and what a partly good push leaves behind.

use std::io::Write as _;

use serde_json::json;
use tailwater_integration::push::{otlp_json, otlp_protobuf, rfc3339};
use tailwater_integration::{Batch, Pairs, Server, now_ns};

use crate::texts;

const V1: &str = "/loki/api/v1/push";
const LEGACY: &str = "/api/prom/push";
const OTLP: &str = "/otlp/v1/logs";

fn gzip(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

fn deflate(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_content_type_and_encoding_leads_to_the_same_line() {
    let server = Server::start().await;
    let client = server.client();
    let protobuf = ("Content-Type", "application/x-protobuf");
    let json = ("Content-Type", "application/json");
    for (i, path) in [V1, LEGACY].into_iter().enumerate() {
        let app = format!("encodings-{i}");
        let labels = format!("{{app=\"{app}\"}}");
        let text = |kind: &str| format!("{kind} \"quoted\" \\ grüße\n");
        let batch = |kind: &str| Batch::one(&labels, &text(kind));
        let as_json = |kind: &str| {
            let batch = batch(kind);
            let value = if path == V1 { batch.json() } else { batch.legacy_json() };
            value.to_string().into_bytes()
        };
        let pushes = [
            ("protobuf", vec![protobuf], batch("protobuf").snappy()),
            ("unknown type", vec![("Content-Type", "text/plain")], batch("unknown type").snappy()),
            ("snappy named", vec![protobuf, ("Content-Encoding", "snappy")], batch("snappy named").snappy()),
            ("gzip around", vec![protobuf, ("Content-Encoding", "gzip")], gzip(&batch("gzip around").snappy())),
            (
                "deflate around",
                vec![protobuf, ("Content-Encoding", "deflate")],
                deflate(&batch("deflate around").snappy()),
            ),
            ("json", vec![json], as_json("json")),
            ("json utf-8", vec![("Content-Type", "application/json; charset=utf-8")], as_json("json utf-8")),
            ("json gzip", vec![json, ("Content-Encoding", "gzip")], gzip(&as_json("json gzip"))),
            ("json deflate", vec![json, ("Content-Encoding", "deflate")], deflate(&as_json("json deflate"))),
            ("json snappy", vec![json, ("Content-Encoding", "snappy")], as_json("json snappy")),
        ];
        let mut wanted = Vec::new();
        for (kind, headers, body) in pushes {
            let reply = client.send("POST", path, &headers, body).await;
            assert_eq!((reply.status, reply.text().as_str()), (204, ""), "{path} {kind}");
            wanted.push(text(kind));
        }
        let lines = client.lines(&labels).await;
        assert_eq!(texts(&lines), wanted, "{path}");
        let labels = format!("{{app=\"{app}\", detected_level=\"unknown\", service_name=\"{app}\"}}");
        assert!(lines.iter().all(|line| line.labels == labels), "{lines:?}");
    }
}

#[tokio::test]
async fn otlp_arrives_from_both_encodings() {
    let server = Server::start().await;
    let client = server.client();
    let resource = [("service.name", "shop"), ("k8s.pod.name", "shop-1"), ("host.name", "h1")];
    let now = now_ns();
    let records = |kind: &'static str| [(now, kind, &[("order.id", "o-1")][..])];
    let pushes = [
        ("protobuf", "application/x-protobuf", "", otlp_protobuf(&resource, &records("protobuf"))),
        ("protobuf gzip", "application/x-protobuf", "gzip", gzip(&otlp_protobuf(&resource, &records("protobuf gzip")))),
        ("json", "application/json", "", otlp_json(&resource, &records("json")).to_string().into_bytes()),
    ];
    let mut wanted = Vec::new();
    for (kind, content_type, encoding, body) in pushes {
        let mut headers = vec![("Content-Type", content_type)];
        if !encoding.is_empty() {
            headers.push(("Content-Encoding", encoding));
        }
        let reply = client.send("POST", OTLP, &headers, body).await;
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{kind}: {}", reply.text());
        wanted.push(kind);
    }
    let mut lines =
        client.lines(r#"{service_name="shop", k8s_pod_name="shop-1"} | order_id="o-1" | host_name="h1""#).await;
    lines.sort_by_key(|line| wanted.iter().position(|kind| *kind == line.line));
    assert_eq!(texts(&lines), wanted);
    assert!(lines.iter().all(|line| line.timestamp == now), "{lines:?}");
    // Resource attributes outside the list are metadata, not labels.
    let series = client.get_with("/loki/api/v1/series", &[("match[]", r#"{service_name="shop"}"#)]).await.json();
    assert_eq!(series["data"], json!([{"service_name": "shop", "k8s_pod_name": "shop-1"}]));
}

#[tokio::test]
async fn otlp_refuses_in_its_own_form() {
    let server = Server::start().await;
    let client = server.client();
    let wrong = [("Content-Type", "application/json; charset=utf-8")];
    let reply = client.send("POST", OTLP, &wrong, "{}").await;
    assert_eq!(reply.status, 400);
    // google.rpc.Status: field 2 is the message.
    let message = "content type: application/json; charset=utf-8 is not supported";
    let mut status = vec![0x12, message.len() as u8];
    status.extend(message.as_bytes());
    assert!(reply.body.ends_with(&status), "{:?}", reply.text());
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "deflate")];
    let reply = client.send("POST", OTLP, &headers, "").await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("only gzip, lz4 and zstd are supported"), "{}", reply.text());
    let reply = client.send("POST", OTLP, &[("Content-Type", "application/json")], r#"{"resourceLogs":[]}"#).await;
    assert_eq!(reply.status, 422, "{}", reply.text());
}

#[tokio::test]
async fn good_entries_of_a_partly_bad_push_are_stored() {
    let server = Server::start().await;
    let client = server.client();
    let now = now_ns();
    let week = 8 * 24 * 3_600_000_000_000_i64;
    let good = r#"{app="partial"}"#;
    let cases = [
        ("too old", Batch::new().line(good, now - week, "old").line(good, now, "kept 0"), "has timestamp too old: "),
        ("too new", Batch::new().line(good, now + week, "new").line(good, now, "kept 1"), "has timestamp too new: "),
        (
            "too long",
            Batch::new().line(good, now, &"x".repeat(262_145)).line(good, now, "kept 2"),
            "max entry size '262144' bytes exceeded for stream '{app=\"partial\", service_name=\"partial\"}' while adding an entry with length '262145' bytes",
        ),
        (
            "too many labels",
            {
                let pairs: Vec<_> = (0..16).map(|i| format!("l{i}=\"v\"")).collect();
                Batch::new().line(&format!("{{{}}}", pairs.join(",")), now, "lost").line(good, now, "kept 3")
            },
            "has 16 label names; limit 15",
        ),
        (
            "long value",
            Batch::new().line(&format!("{{app=\"{}\"}}", "v".repeat(2049)), now, "lost").line(good, now, "kept 4"),
            "has label value too long: ",
        ),
        (
            "long name",
            Batch::new().line(&format!("{{{}=\"v\"}}", "n".repeat(1025)), now, "lost").line(good, now, "kept 5"),
            "has label name too long: ",
        ),
        (
            "reserved",
            Batch::new().with_metadata(good, now, "lost", &vec![("k", "v"); 129]).line(good, now, "kept 6"),
            "has too many structured metadata labels: '129', limit: '128'",
        ),
    ];
    let mut wanted = Vec::new();
    for (i, (kind, batch, text)) in cases.into_iter().enumerate() {
        let reply = client.push(&batch).await;
        assert_eq!(reply.status, 400, "{kind}: {}", reply.text());
        assert!(reply.text().contains(text), "{kind}: {}", reply.text());
        assert!(reply.text().ends_with('\n'), "{kind}: push errors end with a line feed");
        assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
        wanted.push(format!("kept {i}"));
    }
    let mut lines = client.lines(good).await;
    lines.sort_by(|a, b| a.line.cmp(&b.line));
    assert_eq!(texts(&lines), wanted);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason() {
    let server = Server::start().await;
    let client = server.client();
    let json = [("Content-Type", "application/json")];
    let protobuf = [("Content-Type", "application/x-protobuf")];
    let ts = now_ns().to_string();
    let one = |entry: serde_json::Value| json!({"streams": [{"stream": {"app": "x"}, "values": [entry]}]}).to_string();
    let zstd = [("Content-Type", "application/json"), ("Content-Encoding", "zstd")];
    let zlib = [("Content-Type", "application/json"), ("Content-Encoding", "deflate")];
    let cases: [(&str, Pairs<'_>, Vec<u8>, u16, &str); 16] = [
        ("no media type", &[], Batch::one("{a=\"b\"}", "x").snappy(), 400, "mime: no media type\n"),
        ("not snappy", &protobuf, b"garbage".to_vec(), 400, "snappy: corrupt input\n"),
        (
            "cut off",
            &protobuf,
            tailwater_integration::push::snappy(&Batch::one("{a=\"b\"}", "hello").protobuf()[..20]),
            400,
            "unexpected EOF\n",
        ),
        ("no streams", &json, b"{}".to_vec(), 422, "error at least one valid stream is required for ingestion\n"),
        (
            "empty streams",
            &json,
            b"{\"streams\":[]}".to_vec(),
            422,
            "error at least one valid stream is required for ingestion\n",
        ),
        ("unknown encoding", &zstd, b"{}".to_vec(), 400, "Content-Encoding \"zstd\" not supported\n"),
        ("zlib is not deflate", &zlib, vec![0x78, 0x9c, 0xab, 0xae, 0x05, 0x00, 0x01, 0x75, 0x00, 0xf9], 400, ""),
        ("a list", &json, b"[]".to_vec(), 400, "readObjectStart: expect { or n, but found ["),
        ("timestamp is a number", &json, one(json!([1, "x"])).into_bytes(), 400, ""),
        ("timestamp is a fraction", &json, one(json!(["1.5", "x"])).into_bytes(), 400, ""),
        ("line is a number", &json, one(json!([ts, 5])).into_bytes(), 400, ""),
        ("metadata is null", &json, one(json!([ts, "x", null])).into_bytes(), 400, ""),
        ("metadata value is a number", &json, one(json!([ts, "x", {"a": 1}])).into_bytes(), 400, ""),
        (
            "illegal label name",
            &json,
            json!({"streams": [{"stream": {"app-x": "y"}, "values": [[ts, "x"]]}]}).to_string().into_bytes(),
            400,
            "couldn't parse labels: 1:5: parse error: unexpected character inside braces: '-'",
        ),
        ("unparsable labels", &protobuf, Batch::one("{a=\"b\"", "x").snappy(), 400, "couldn't parse labels: "),
        (
            "duplicate label",
            &protobuf,
            Batch::one("{a=\"1\", a=\"2\"}", "x").snappy(),
            400,
            "has duplicate label name: 'a'",
        ),
    ];
    for (kind, headers, body, status, text) in cases {
        let reply = client.send("POST", V1, headers, body).await;
        assert_eq!(reply.status, status, "{kind}: {}", reply.text());
        assert!(reply.text().contains(text), "{kind}: {}", reply.text());
        assert!(reply.text().len() > 1, "{kind}: no reason given");
    }
    assert_eq!(client.get(V1).await.status, 405);
    assert!(client.lines(r#"{service_name=~".+"}"#).await.is_empty(), "a refused push left something");
}

#[tokio::test]
async fn odd_but_legal_json_is_accepted() {
    let server = Server::start().await;
    let client = server.client();
    let ts = now_ns().to_string();
    let body = json!({"other": 1, "streams": [
        {"stream": {"app": "odd", "n": 5, "o": {"q": 1}, "z": null, "e": ""}, "values": [[ts, "labels"]]},
        {"stream": {"app": "odd"}, "values": null},
        {"stream": {"app": "odd"}, "values": [[ts]]},
        {"stream": {"app": "odd"}, "values": [[ts, "fourth", {"trace-id": "t"}, "ignored"]], "x": []},
        {"stream": {}, "values": [[ts, "nameless"]]},
    ]});
    let reply = client.send("POST", V1, &[("Content-Type", "application/json")], body.to_string()).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(texts(&client.lines(r#"{app="odd", n="5", o="{\"q\":1}", z="null"}"#).await), ["labels"]);
    assert_eq!(texts(&client.lines(r#"{app="odd", n=""} | trace_id="t""#).await), ["fourth"]);
    assert_eq!(texts(&client.lines(r#"{app="odd", n=""} | trace_id="""#).await), [""]);
    assert_eq!(texts(&client.lines(r#"{service_name="unknown_service"}"#).await), ["nameless"]);
}

#[tokio::test]
async fn the_level_and_the_service_are_found() {
    let server = Server::start().await;
    let client = server.client();
    let now = now_ns();
    let a = r#"{container="api"}"#;
    let batch = Batch::new()
        .line(a, now, r#"{"level":"WARN","msg":"x"}"#)
        .line(a, now + 1, "ts=1 level=dbg msg=x")
        .line(a, now + 2, "it is an error, they say")
        .line(a, now + 3, "nothing to see")
        .with_metadata(a, now + 4, "by metadata", &[("severity", "err")])
        .with_metadata(a, now + 5, "given", &[("detected_level", "custom")]);
    client.push_ok(&batch).await;
    let lines = client.lines(r#"{service_name="api"}"#).await;
    let levels: Vec<_> =
        lines.iter().map(|l| l.labels.split("detected_level=\"").nth(1).unwrap().split('"').next().unwrap()).collect();
    assert_eq!(levels, ["warn", "debug", "error", "unknown", "error", "custom"]);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_kept_and_shown_replaced() {
    let server = Server::start().await;
    let client = server.client();
    let mut tail = client.tail(&[("query", r#"{app="bytes"}"#)]).await;
    let batch = Batch::new().bytes(r#"{app="bytes"}"#, now_ns(), b"ok \xff\xfe end\x00\n");
    client.push_ok(&batch).await;
    let live = tail.lines(1).await;
    let stored = client.lines(r#"{app="bytes"} |~ "ok .+ end""#).await;
    for line in [&live[0].line, &stored[0].line] {
        assert!(line.starts_with("ok \u{fffd}") && line.ends_with(" end\0\n"), "{line:?}");
    }
}

#[tokio::test]
async fn equal_neighbours_count_once_and_equal_times_keep_their_order() {
    let server = Server::start().await;
    let client = server.client();
    let (s, now) = (r#"{app="dup"}"#, now_ns());
    let mut tail = client.tail(&[("query", s)]).await;
    client.push_ok(&Batch::new().line(s, now, "b").line(s, now, "b").line(s, now, "a").line(s, now, "c")).await;
    client.push_ok(&Batch::new().line(s, now, "c").line(s, now, "end")).await;
    let live: Vec<_> = tail.lines_until("end").await.into_iter().map(|l| l.line).collect();
    assert_eq!(live, ["b", "a", "c", "end"]);
    assert_eq!(texts(&client.lines(s).await), ["b", "a", "c", "end"]);
}

#[tokio::test]
async fn timestamps_keep_their_nanoseconds_on_both_paths() {
    let server = Server::start().await;
    let client = server.client();
    let at = now_ns() / 1000 * 1000 + 123;
    client.push_ok(&Batch::new().line(r#"{app="ns"}"#, at, "v1")).await;
    let body =
        json!({"streams": [{"labels": r#"{app="ns"}"#, "entries": [{"ts": rfc3339(at + 1), "line": "legacy"}]}]});
    let reply = client.send("POST", LEGACY, &[("Content-Type", "application/json")], body.to_string()).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    let lines = client.lines(r#"{app="ns"}"#).await;
    assert_eq!(lines.iter().map(|l| l.timestamp).collect::<Vec<_>>(), [at, at + 1]);
}
