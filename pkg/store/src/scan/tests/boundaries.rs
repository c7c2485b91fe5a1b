//! Blocks alone, of each log up to a position of its own.

use std::time::Instant;

use tailwater_model::LogId;
use tailwater_wire::node::{Blocks, MatchedLine, Node, ReadRequest, StateRequest};

use super::listed::catalog;
use super::world::{OWN, RUNTIME};
use super::*;
use crate::history::History;

const LOGS: [u128; 3] = [1, 2, OWN];

/// Up to where each log is read; none: all of it.
type Upto = [Option<u64>; 3];

fn upto() -> impl Strategy<Value = Upto> {
    [prop::option::of(9..16_u64), prop::option::of(9..16_u64), prop::option::of(0..14_u64)]
}

fn node(batches: &[Batch], upto: &Upto, together: usize) -> Arc<dyn Node> {
    let history = History::new(catalog(batches, together), None, 1 << 20, RUNTIME.handle().clone());
    let named = LOGS.iter().zip(upto).filter_map(|(log, upto)| Some((LogId::from_u128(*log), (*upto)?)));
    history.up_to(named.collect(), LogId::from_u128(OWN), Instant::now())
}

/// The batches that lie before the boundaries.
fn before(batches: &[Batch], upto: &Upto) -> Vec<Batch> {
    let is_before = |batch: &&Batch| {
        let of = LOGS.iter().zip(upto).find(|(log, _)| **log == batch.log);
        of.and_then(|(_, upto)| *upto).is_none_or(|upto| batch.log_seq <= upto)
    };
    batches.iter().filter(is_before).cloned().collect()
}

/// All that `read` answers between two positions, a piece at a time.
fn read_all(node: &Arc<dyn Node>, request: &ReadRequest) -> (Vec<(MatchedLine, String)>, u64) {
    let (mut after, mut all) = (request.after, Vec::new());
    let boundary = RUNTIME.block_on(node.state(StateRequest::default())).unwrap().head;
    while after < request.through.min(boundary) {
        let request = ReadRequest { after, ..request.clone() };
        let chunk = RUNTIME.block_on(node.read(request.clone())).unwrap();
        assert!(chunk.through > after && chunk.gap.is_none());
        let again = RUNTIME.block_on(node.read(request.clone())).unwrap();
        let text = |line: &MatchedLine| String::from_utf8_lossy(&chunk.batch.line(line)).into_owned();
        let lines: Vec<_> = chunk.batch.lines.iter().map(|line| (line.clone(), text(line))).collect();
        assert_eq!(
            (again.through, again.batch.lines.len(), again.batch.text),
            (chunk.through, lines.len(), chunk.batch.text.clone())
        );
        // All but the last batch have less than was asked for.
        let last = lines.last().map_or(0, |(line, _)| line.seq);
        let bytes = lines.iter().filter(|(line, _)| line.seq < last).map(|(_, text)| text.len()).sum::<usize>();
        assert!(bytes < request.max_bytes && last <= chunk.through, "{bytes}");
        all.extend(lines);
        after = chunk.through;
    }
    (all, after)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn of_each_log_only_lines_before_its_boundary_are_answered(
        batches in batches(),
        upto in upto(),
        together in 1..4_usize,
        requests in prop::collection::vec(asked(), 1..4),
        aggregations in prop::collection::vec(samples_asked(), 1..3),
        (after, through, max_bytes) in (0..6_u64, 0..16_u64, 1..60_usize),
    ) {
        let node = node(&batches, &upto, together);
        let before = before(&batches, &upto);
        for request in requests.into_iter().map(asks) {
            let found = RUNTIME.block_on(node.select(request.clone())).unwrap();
            prop_assert_eq!(answered(&found), naive(&before, &request, &[]), "{:?}", request.query.canonical());
            let read = ReadRequest {
                tenant: tenant(),
                query: Arc::clone(&request.query),
                detect_level: true,
                after,
                through,
                max_bytes,
            };
            // Every line of the own log, also those that equal others, in its order.
            let mut want = Vec::new();
            let mut runner = request.query.runner(true);
            for batch in before.iter().filter(|b| b.log == OWN && after < b.log_seq && b.log_seq <= through) {
                for (line, index) in batch.lines.iter().zip(0_u32..) {
                    let labels = labels(line.stream);
                    runner.enter(&labels);
                    let (text, metadata) = (LINES[line.line].as_bytes(), METADATA[line.metadata]);
                    if request.query.matchers().matches(&labels)
                        && let Some(hit) = runner.run(Timestamp(line.time), text, metadata)
                    {
                        let text = String::from_utf8_lossy(hit.line).into_owned();
                        want.push((batch.log_seq, index, batch.accepted_at, text, hit.labels.to_string()));
                    }
                }
            }
            let (read, end) = read_all(&node, &read);
            let read: Vec<_> = read
                .into_iter()
                .map(|(line, text)| (line.seq, line.index, line.accepted_at.nanos(), text, line.labels.to_string()))
                .collect();
            prop_assert_eq!(read, want);
            prop_assert_eq!(end, after.max(through.min(upto[2].unwrap_or(u64::MAX))));
        }
        let plain = Plain::new(&before);
        for request in aggregations.into_iter().map(asks_samples) {
            let found = RUNTIME.block_on(node.samples(request.clone())).unwrap();
            let known = Sampled { through: request.as_of, ..Sampled::default() };
            let want = samples(&plain, &request, known, 1, &Cancel::default()).unwrap();
            prop_assert_eq!(worth(&request, found.series), worth(&request, want.series));
            prop_assert_eq!((found.late, found.through), (want.late, request.as_of.min(upto[2].unwrap_or(u64::MAX))));
        }
        let of = SeriesRequest {
            tenant: tenant(),
            part: Part::Whole,
            matchers: Vec::new(),
            start: Timestamp::MIN,
            end: Timestamp::MAX,
        };
        let cancel = Cancel::default();
        let size = Stats { chunks: 0, ..RUNTIME.block_on(node.stats(of.clone())).unwrap().value };
        prop_assert_eq!(size, Stats { chunks: 0, ..stats(&plain, &of, &cancel).unwrap().value });
        let volumes = VolumeRequest { series: of, step: None };
        let found = RUNTIME.block_on(node.volume(volumes.clone())).unwrap();
        prop_assert_eq!(found, volume(&plain, &volumes, &cancel).unwrap());
    }
}

#[test]
fn a_damaged_part_ends_a_read_by_position() {
    let batch = |log_seq| Batch {
        log: OWN,
        log_seq,
        accepted_at: 7,
        lines: vec![super::world::Line { stream: 0, time: 5, line: 0, metadata: 0 }],
    };
    let catalog = catalog(&[batch(1), batch(2)], 1);
    let history = History::new(Arc::clone(&catalog), None, 1 << 20, RUNTIME.handle().clone());
    let node = history.up_to(Arc::default(), LogId::from_u128(OWN), Instant::now());
    let request = ReadRequest {
        tenant: tenant(),
        query: Arc::new(LogQuery::parse(QUERIES[0]).unwrap()),
        detect_level: false,
        after: 0,
        through: 2,
        max_bytes: 1 << 20,
    };
    assert_eq!(RUNTIME.block_on(node.read(request.clone())).unwrap().batch.lines.len(), 2);
    let block = RUNTIME.block_on(catalog.blocks(&tenant(), 0, 9)).unwrap().blocks[1].clone();
    RUNTIME.block_on(catalog.objects().put(&block.path(&tenant()), vec!["x".into()])).unwrap();
    let history = History::new(catalog, None, 1 << 20, RUNTIME.handle().clone());
    let node = history.up_to(Arc::default(), LogId::from_u128(OWN), Instant::now());
    assert!(RUNTIME.block_on(node.read(request.clone())).is_err(), "not a hole that looks like nothing");
    assert_eq!(RUNTIME.block_on(node.read(ReadRequest { through: 1, ..request })).unwrap().batch.lines.len(), 1);
}
