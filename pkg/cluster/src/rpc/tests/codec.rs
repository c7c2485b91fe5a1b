use proptest::prelude::*;
use tailwater_logql::metric::Grid;

use super::lines::{LineReader, LineWriter, MAX_DICTIONARY_BYTES, MAX_ENTRIES, cost};
use super::proto::record::What;
use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,3}", "\\PC{0,12}"]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let pairs = prop::collection::vec((text(), text()), 0..4);
    pairs.prop_map(|pairs| Labels::keeping_empty(pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect()))
}

fn any_set() -> impl Strategy<Value = LabelSet> {
    let category = prop::sample::select(vec![Category::Stream, Category::Metadata, Category::Parsed]);
    prop::collection::btree_map("[a-d]{1,2}", (text(), category), 0..4).prop_map(|pairs| {
        let pair = |(name, (value, category)): (String, (String, Category))| LabelPair {
            name: name.into(),
            value: value.into(),
            category,
        };
        LabelSet::from_pairs(pairs.into_iter().map(pair).collect())
    })
}

prop_compose! {
    fn any_line()(
        timestamp in any::<i64>(), accepted_at in any::<i64>(), seq in any::<u64>(), index in any::<u32>(),
        offset in prop_oneof![0..50_u32, any::<u32>()], len in prop_oneof![0..50_u32, any::<u32>()],
        labels in any_set(), stream_hash in prop_oneof![0..3_u64, any::<u64>()],
    ) -> MatchedLine {
        let (timestamp, accepted_at) = (Timestamp(timestamp), Timestamp(accepted_at));
        MatchedLine { timestamp, accepted_at, seq, index, offset, len, labels, stream_hash }
    }
}

fn any_lines() -> impl Strategy<Value = Vec<MatchedLine>> {
    prop::collection::vec(any_line(), 0..40)
}

fn any_batch() -> impl Strategy<Value = MatchedBatch> {
    (any_lines(), any::<u64>(), any::<i64>()).prop_map(|(mut lines, through, watermark)| {
        lines.iter_mut().for_each(|line| (line.offset, line.len) = (line.offset % 40, line.len % 40));
        MatchedBatch { through, watermark: Timestamp(watermark), text: vec![7; 80].into(), lines }
    })
}

fn any_gap() -> impl Strategy<Value = Gap> {
    any::<(u64, u64, u64)>().prop_map(|(after, through, lines)| Gap { after, through, lines })
}

fn any_event() -> impl Strategy<Value = FollowEvent> {
    let lines = any_batch().prop_filter("lines", |batch| !batch.lines.is_empty());
    prop_oneof![
        lines.prop_map(|batch| FollowEvent::Lines(Arc::new(batch))),
        any::<(u64, i64)>().prop_map(|(through, at)| FollowEvent::Idle { through, watermark: Timestamp(at) }),
        any_gap().prop_map(FollowEvent::Gap),
        text().prop_map(|reason| FollowEvent::Away { reason: reason.into() }),
    ]
}

/// What is made of records that have been cut into pieces.
fn collected<C: answers::Collect>(records: pieces::Records) -> C::Answer {
    let mut joined = pieces::Joined::new(usize::MAX);
    let mut made = C::default();
    for piece in pieces::Pieces::new(records) {
        assert!(piece.data.len() <= PIECE_BYTES);
        joined.push(&piece.data).unwrap();
        while let Some(record) = joined.next().unwrap() {
            match record {
                What::End(end) => return made.finish(end).unwrap(),
                other => made.take(other).unwrap(),
            }
        }
    }
    panic!("no end")
}

fn shown(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

proptest! {
    #[test]
    fn lines_survive_and_equal_sets_are_one(batches in prop::collection::vec(any_lines(), 0..6)) {
        let (mut writer, mut reader) = (LineWriter::default(), LineReader::default());
        let written = || batches.iter().flatten();
        let fits = written().count() <= MAX_ENTRIES
            && written().map(|line| cost(&line.labels)).sum::<usize>() <= MAX_DICTIONARY_BYTES;
        let mut seen: Vec<LabelSet> = Vec::new();
        for lines in &batches {
            let bytes = writer.write(lines.iter());
            let read = reader.read(&bytes, None).unwrap();
            prop_assert_eq!(shown(&read), shown(lines));
            // A dictionary that is full is forgotten, and what comes after it is made anew.
            for line in read.iter().filter(|_| fits) {
                match seen.iter().find(|set| **set == line.labels) {
                    Some(set) => prop_assert!(set.ptr_eq(&line.labels)),
                    None => seen.push(line.labels.clone()),
                }
            }
        }
    }

    #[test]
    fn corrupt_lines_are_an_error_or_lines(
        lines in any_lines(), at in any::<prop::sample::Index>(), with in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = LineWriter::default().write(lines.iter());
        let at = at.index(bytes.len());
        bytes[at] = with;
        for bytes in [&bytes[..], &bytes[..at], &rest] {
            if let Ok(lines) = LineReader::default().read(bytes, Some(30)) {
                let batch = MatchedBatch { through: 0, watermark: Timestamp(0), text: vec![0; 30].into(), lines };
                batch.lines.iter().for_each(|line| drop(batch.line(line)));
            }
        }
    }

    #[test]
    fn events_survive(events in prop::collection::vec(any_event(), 0..5)) {
        use prost::Message as _;
        let (mut writer, mut reader) = (LineWriter::default(), LineReader::default());
        for event in events {
            let bytes = answers::put_event(&event, &mut writer).encode_to_vec();
            let message = proto::FollowEvent::decode(bytes::Bytes::from(bytes)).unwrap();
            prop_assert_eq!(shown(&answers::event(message, &mut reader).unwrap()), shown(&event));
        }
    }

    #[test]
    fn answers_survive(
        batch in any_batch(), gap in prop::option::of(any_gap()), lines in prop::collection::vec((any_line(), any::<Vec<u8>>()), 0..20),
        warnings in prop::collection::vec(text(), 0..3), streams in prop::collection::vec(any_labels(), 0..5),
        numbers in any::<[u32; 5]>(), amounts in prop::collection::vec(any::<(i64, u64)>(), 0..5),
    ) {
        let chunk = ReadChunk { through: batch.through, gap, batch };
        prop_assert_eq!(shown(&collected::<answers::Chunk>(answers::put_chunk(&chunk))), shown(&chunk));

        let [a, b, c, d, e] = numbers.map(u64::from);
        let blocks = BlocksScanned { blocks: a, pages: b, fetched_bytes: c, lines: d, cache_hits: e, ..Default::default() };
        let scanned = Scanned { lines: e, bytes: d, matched: c, batches: b, blocks };
        let lines = lines.into_iter().map(|(line, text)| (line, text.into())).collect();
        let selected = Selected { lines, warnings: warnings.clone(), scanned };
        prop_assert_eq!(shown(&collected::<answers::Lines>(answers::put_selected(selected.clone()))), shown(&selected));

        let mut column = sample_query(r#"avg_over_time({a="1"} | unwrap v [1m])"#).column();
        column.add(a, f64::NAN, Place::default(), &mut { usize::MAX }).unwrap();
        let late = Late { lines: a, oldest: Timestamp(-1) };
        let series = streams.iter().map(|labels| (labels.clone(), column.clone())).collect();
        let sampled =
            Sampled { series, through: b, watermark: Timestamp(-7), gap, late, warnings: warnings.clone(), scanned };
        prop_assert_eq!(shown(&collected::<answers::Columns>(answers::put_sampled(sampled.clone()))), shown(&sampled));

        let names = Partial { value: warnings.clone(), warnings: warnings.clone() };
        prop_assert_eq!(collected::<answers::Names>(answers::put_names(names.clone())), names);
        let all = Partial { value: streams.clone(), warnings: warnings.clone() };
        prop_assert_eq!(collected::<answers::Streams>(answers::put_streams(all.clone())), all);
        let stats = Partial { value: Stats { streams: a, chunks: b, bytes: c, entries: d }, warnings: warnings.clone() };
        prop_assert_eq!(collected::<answers::StatsOf>(answers::put_stats(stats.clone())), stats);
        let bytes: Vec<_> = amounts.iter().map(|(time, bytes)| (Timestamp(*time), *bytes)).collect();
        let volumes = streams.iter().map(|labels| StreamVolume { labels: labels.clone(), bytes: bytes.clone() }).collect();
        let volumes = Partial { value: volumes, warnings: warnings.clone() };
        prop_assert_eq!(collected::<answers::Volumes>(answers::put_volumes(volumes.clone())), volumes);
        let pattern = |text: &String| Pattern { text: text.clone(), level: text.clone(), samples: amounts.clone() };
        let patterns = Partial { value: warnings.iter().map(pattern).collect(), warnings };
        prop_assert_eq!(collected::<answers::Patterns>(answers::put_patterns(patterns.clone())), patterns);
    }

    #[test]
    fn no_bytes_make_answers_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), flip in any::<(prop::sample::Index, u8)>()) {
        fn all<C: answers::Collect>(bytes: &[u8]) {
            let (mut joined, mut made) = (pieces::Joined::new(1000), C::default());
            joined.push(&bytes::Bytes::copy_from_slice(bytes)).unwrap();
            while let Ok(Some(record)) = joined.next() {
                if made.take(record).is_err() {
                    return;
                }
            }
        }
        let chunk = ReadChunk { through: 1, gap: None, batch: batch(3, &["a", "b"]) };
        let mut good = pieces::Pieces::new(answers::put_chunk(&chunk)).next().unwrap().data.to_vec();
        let at = flip.0.index(good.len());
        good[at] = flip.1;
        for bytes in [&bytes, &good] {
            all::<answers::Chunk>(bytes);
            all::<answers::Lines>(bytes);
            all::<answers::Columns>(bytes);
            all::<answers::Volumes>(bytes);
            all::<answers::Patterns>(bytes);
        }
    }

    #[test]
    fn requests_survive(
        numbers in any::<[u64; 3]>(), times in any::<[i64; 3]>(), flag in any::<bool>(), after in prop::option::of(any::<u64>()),
        name in prop::option::of(text()), count in 1_u32..11_000, settled in prop::option::of(any::<i64>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let queries = queries::Queries::default();
        let part = after.map_or(Part::Whole, |after| Part::Log { after });
        let [start, end, other] = times.map(Timestamp);
        let (query, tenant, detect_level) = (query(r#"{a="1"} | size > 1234B"#), tenant(), flag);
        let sizes = numbers.map(|number| number as usize);

        let request = StateRequest { age: after.map(Duration::from_nanos) };
        prop_assert_eq!(requests::state(&requests::put_state(LOG, request)).age, request.age);
        let (head, whole) = (numbers[0], numbers[0] / 2);
        let state = LogState { head, whole, before: numbers[1], in_blocks: numbers[2], watermark: start };
        prop_assert_eq!(requests::log_state(requests::put_log_state(state)), state);

        /// What is put is put again of what is taken.
        macro_rules! survives {
            ($put:ident, $take:ident, $request:expr) => {
                let put = requests::$put(LOG, &$request);
                let taken = runtime.block_on(requests::$take(put.clone(), &queries)).unwrap();
                prop_assert_eq!(requests::$put(LOG, &taken), put);
            };
        }
        let follow = FollowRequest { tenant: tenant.clone(), query: Arc::clone(&query), detect_level, after: numbers[0] };
        survives!(put_follow, follow, follow);
        survives!(put_read, read, ReadRequest {
            tenant: tenant.clone(), query: Arc::clone(&query), detect_level, after: numbers[0], through: numbers[1], max_bytes: sizes[2],
        });
        survives!(put_select, select, SelectRequest {
            tenant: tenant.clone(), part, query, detect_level, as_of: numbers[0], start, end,
            direction: if flag { Direction::Forward } else { Direction::Backward }, limit: sizes[1],
        });
        let grid = Grid::new(Steps { start, step: times[1], count }, times[2], times[0]);
        prop_assert_eq!(requests::grid(Some(requests::put_grid(&grid))).unwrap(), grid);
        survives!(put_samples, samples, SamplesRequest {
            tenant: tenant.clone(), part, query: sample_query(r#"sum without (x) (rate({a="1"}[1m]))"#), detect_level,
            after: numbers[0], as_of: numbers[1], grid, from: other, settled: settled.map(Timestamp), max_bytes: sizes[2],
        });
        let matchers = Arc::new(tailwater_logql::matchers::Matchers::new(&tailwater_logql::parse_match("{}").unwrap()).unwrap());
        survives!(put_labels, labels, LabelsRequest {
            tenant: tenant.clone(), part, matchers: flag.then(|| Arc::clone(&matchers)), start, end, name,
        });
        let series = SeriesRequest { tenant, part, matchers: vec![matchers; count as usize % 3], start, end };
        survives!(put_series, series, series);
        let step = times[0].saturating_abs().max(1);
        survives!(put_volume, volume, VolumeRequest { series: series.clone(), step: flag.then_some(step) });
        survives!(put_patterns, patterns, PatternsRequest { series, step, detect_level, limit: sizes[0] });
    }

    #[test]
    fn errors_survive(which in 0..3, number in any::<u64>(), reason in text()) {
        let error = match which {
            0 => NodeError::Trimmed { log: LOG, through: number },
            1 => NodeError::TooLarge { limit: number as usize },
            _ => NodeError::Unavailable { log: LOG, reason },
        };
        let again = errors::error(&errors::status(&error), LogId::from_u128(1), "x");
        match (error, again) {
            (NodeError::Unavailable { log, reason }, NodeError::Unavailable { log: of, reason: told }) => {
                prop_assert_eq!((log, format!("x: {reason}")), (of, told));
            }
            (error, again) => prop_assert_eq!(shown(&error), shown(&again)),
        }
    }
}

#[test]
fn a_line_costs_little() {
    let mut writer = LineWriter::default();
    let shared = set(&[("app", "x"), ("pod", "y")]);
    let lines: Vec<_> =
        batch(3, &["x"; 100]).lines.into_iter().map(|l| MatchedLine { labels: shared.clone(), ..l }).collect();
    writer.write(lines.iter());
    let bytes = writer.write(lines.iter()).len();
    assert!(bytes < 100 * 8 + 40, "{bytes}");
}
