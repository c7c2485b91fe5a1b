//! What the write-ahead log keeps of a batch is all of it, whatever was pushed and however little of it was accepted.

use proptest::collection::vec;
use proptest::prelude::*;
use tailwater_wire::push::pack;

use super::*;
use crate::batch::Batch;
use crate::{SyncPolicy, WalConfig};

/// Timestamp, line, metadata.
type Raw = (i64, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

/// A push as sent: texts of labels and entries; whether it came as the log would keep it.
type Sent = (Vec<(String, Vec<Raw>)>, bool);

fn text() -> impl Strategy<Value = String> {
    let pair = (0..5_usize, 0..6_usize, any::<bool>()).prop_map(|(name, value, raw)| {
        let name = ["app", "job", "service_name", "x", "_"][name];
        let value = ["a", "", "ünï", "q\"\\\n", "service_name", "b"][value];
        if raw && !value.contains('`') { format!("{name}=`{value}`") } else { format!("{name}={value:?}") }
    });
    vec(pair, 0..4).prop_map(|pairs| format!("{{{}}}", pairs.join(", ")))
}

fn entry() -> impl Strategy<Value = Raw> {
    let timestamp = prop_oneof![
        8 => (0..4_i64).prop_map(|i| NOW + i),
        1 => Just(NOW - 2 * 3600 * SECOND),
        1 => i64::MIN..NOW,
        1 => Just(i64::MIN),
    ];
    let line = prop_oneof![vec(any::<u8>(), 0..30), "[a-c]{0,3}".prop_map(String::into_bytes)];
    let name = (0..6_usize).prop_map(|i| ["k", "a.b", "1", "__x__", "", "level"][i].as_bytes().to_vec());
    (timestamp, line, vec((name, vec(any::<u8>(), 0..4)), 0..3))
}

fn sent() -> impl Strategy<Value = Sent> {
    (vec((text(), vec(entry(), 0..5)), 1..5), any::<bool>())
}

fn limits() -> impl Strategy<Value = Limits> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(cut, increment, discover)| Limits {
        max_line_size: if cut { 12 } else { 0 },
        max_line_size_truncate: true,
        increment_duplicate_timestamp: increment,
        discover_service_name: if discover { Limits::default().discover_service_name } else { Vec::new() },
        ..no_limits()
    })
}

fn push_of_raw(streams: &[(String, Vec<Raw>)]) -> Push {
    let (mut push, mut body) = (Push::default(), Vec::new());
    let mut add = |bytes: &[u8]| {
        let offset = body.len() as u32;
        body.extend_from_slice(bytes);
        (offset, bytes.len() as u32)
    };
    for (text, entries) in streams {
        let (labels_offset, labels_len) = add(text.as_bytes());
        let (entries_start, entries_len) = (push.entries.len() as u32, entries.len() as u32);
        for (timestamp, line, metadata) in entries {
            let (line_offset, line_len) = add(line);
            let (metadata_start, metadata_len) = (push.metadata.len() as u32, metadata.len() as u32);
            for (name, value) in metadata {
                let ((name_offset, name_len), (value_offset, value_len)) = (add(name), add(value));
                push.metadata.push(PairSpan { name_offset, name_len, value_offset, value_len });
            }
            push.entries.push(EntrySpan { timestamp: *timestamp, line_offset, line_len, metadata_start, metadata_len });
        }
        push.streams.push(StreamSpan { labels_offset, labels_len, entries_start, entries_len });
    }
    push.body = body.into();
    extract(&push, push.streams.iter().map(|stream| (push.labels(stream), push.entries(stream)))).unwrap()
}

/// All that a batch is, but for how it lies in memory.
fn shown(batch: &Batch) -> String {
    let run = |run: &tailwater_store::entries::Run| {
        let entries = batch.entries(run).iter().map(|entry| {
            let metadata: Vec<_> = batch.metadata(entry).iter().map(|(n, v)| format!("{n}={v}")).collect();
            (entry.timestamp, batch.line(entry).to_vec(), metadata)
        });
        let entries: Vec<_> = entries.collect();
        ((run.stream.labels.clone(), run.stream.hash), (run.first, run.len, run.min, run.max, run.bytes), entries)
    };
    let runs: Vec<_> = batch.runs.iter().map(run).collect();
    let place = (batch.seq, batch.accepted_at, batch.tenant_lines, batch.account.tenant.clone());
    format!("{place:?} {:?} {runs:?}", (batch.min, batch.max, batch.lines(), batch.line_bytes))
}

fn all(bench: &Bench) -> Vec<String> {
    let (batches, through) = bench.ingester.log.stretch(0, u64::MAX, u64::MAX).unwrap();
    assert_eq!(through, bench.ingester.log.head());
    batches.iter().map(|batch| shown(batch)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn batches_come_back_as_they_were(before in limits(), after in limits(), pushes in vec(sent(), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let wal = WalConfig { dir: dir.path().to_owned(), sync: SyncPolicy::Os, segment_bytes: 2000, keep_bytes: 0, max_bytes: 0 };
        let disk = Arc::<Faulty>::default();
        let open = |limits: &Limits, memory| {
            let bench = Bench::open(limits.clone(), memory, &wal, &disk, NOW);
            bench.ingester.recover().unwrap();
            bench
        };
        let bench = open(&before, 64 << 20);
        for (i, (streams, came_packed)) in pushes.iter().enumerate() {
            let push = push_of_raw(streams);
            let packed = came_packed.then(|| pack(&push).unwrap());
            bench.advance(i as i64);
            let of = tenant(if i % 3 == 2 { "else" } else { "t" });
            let _partly_refused = bench.ingester.push(&of, push, packed.as_deref()).now_or_never().unwrap();
        }
        let expected = all(&bench);
        drop(bench);
        let bench = open(&after, 64 << 20);
        prop_assert_eq!(all(&bench), expected);
        let expected = all(&bench);
        drop(bench);
        // From disk, not from memory.
        prop_assert_eq!(all(&open(&before, 1)), expected);
    }

    #[test]
    fn no_payload_makes_a_reader_panic(payload in vec(any::<u8>(), 0..200), version in any::<bool>()) {
        let mut payload = payload;
        if version && let Some(first) = payload.first_mut() {
            *first = 1;
        }
        let _ = crate::log::decode(&payload, |_, _| Err(tailwater_wire::Error::Labels("none".into())));
    }
}
