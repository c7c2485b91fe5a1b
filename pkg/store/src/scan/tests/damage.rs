//! What a search does when parts of blocks are lost, when the store cannot be reached, and how much it reads.

use std::ops::Range;

use tailwater_wire::node::{NodeError, Part, Scanned};

use super::world::{Layout, Line, OWN, RUNTIME, history};
use super::*;

/// Batches of one line per stream and instant, all in one block of small pages each hundred.
fn long(blocks: u64) -> (Vec<Batch>, World) {
    let batch = |seq: u64| Batch {
        log: OWN,
        log_seq: seq,
        accepted_at: seq as i64,
        lines: (0..4)
            .map(|stream| Line { stream, time: seq as i64, line: (seq % 2) as usize * 6, metadata: 0 })
            .collect(),
    };
    let batches: Vec<_> = (1..=blocks * 100).map(batch).collect();
    let layout = Layout {
        covered: u64::MAX,
        cut: 0,
        torn: 0,
        on_disk: u64::MAX,
        day: i64::MIN,
        merged: false,
        page_bytes: 256,
        cache_bytes: 1 << 20,
    };
    let mut world = World::new(&[], &layout);
    for block in batches.chunks(100) {
        world.write(&block.iter().collect::<Vec<_>>(), |_| true, 256);
    }
    (batches, world)
}

fn selected(world: &World, request: &SelectRequest) -> Selected {
    select(world, request, 1, &Cancel::default()).unwrap()
}

fn scanned(world: &World, request: &SelectRequest) -> Scanned {
    selected(world, request).scanned
}

/// Changes bytes of a block's object.
fn damage(world: &World, block: usize, range: impl Fn(u64) -> Range<u64>) {
    let path = &world.blocks[block].path;
    let (bytes, _) = RUNTIME.block_on(world.objects.get(path)).unwrap().unwrap();
    let mut bytes = bytes.to_vec();
    for at in range(bytes.len() as u64) {
        bytes[at as usize] ^= 0x55;
    }
    RUNTIME.block_on(world.objects.put(path, vec![bytes.into()])).unwrap();
}

#[test]
fn the_newest_lines_are_found_in_few_pages() {
    let (batches, world) = long(20);
    let request = SelectRequest { limit: 5, ..select_request(r#"{app="a"}"#) };
    let found = selected(&world, &request);
    assert_eq!(answered(&found), naive(&batches, &request, &[]));
    let blocks = found.scanned.blocks;
    assert!(blocks.blocks <= 2 && blocks.pages <= 8, "{blocks:?}");
    assert_eq!(blocks.cache_hits, 0);
    // What was read once is in the cache. Pages are read ahead while others are searched, so it may be one more than the last time.
    let again: Vec<_> = (0..20).map(|_| scanned(&world, &request).blocks).collect();
    assert!(again.iter().all(|again| again.cache_hits > 0), "{again:?}");
    assert!(again.iter().any(|again| again.fetched_bytes == 0), "{again:?}");
    let oldest = SelectRequest { direction: Direction::Forward, ..request };
    let found = selected(&world, &oldest);
    assert_eq!(answered(&found), naive(&batches, &oldest, &[]));
    assert!(found.scanned.blocks.blocks <= 2, "{:?}", found.scanned.blocks);
}

#[test]
fn pages_are_ruled_out_by_what_is_cheapest() {
    let (_, world) = long(3);
    let all = scanned(&world, &select_request(r#"{app=~".+"}"#)).blocks;
    assert_eq!((all.blocks, all.lines), (3, 1200));
    assert_eq!(all.pruned_by_streams + all.pruned_by_fields + all.pruned_by_grams, 0);
    let (_, world) = long(3);
    let few = scanned(&world, &select_request(r#"{app="b", level="info"}"#)).blocks;
    assert_eq!(few.lines, 300);
    assert_eq!(few.pages + few.pruned_by_streams, all.pages);
    let none = scanned(&world, &select_request(r#"{app="a"} | trace="1""#)).blocks;
    assert_eq!((none.pages, none.pruned_by_fields + none.pruned_by_streams), (0, all.pages));
    let (_, world) = long(3);
    let none = scanned(&world, &select_request(r#"{app=~".+"} |= "haystack""#)).blocks;
    assert_eq!((none.pages, none.pruned_by_grams), (0, all.pages));
}

#[test]
fn a_damaged_page_is_left_out_and_told() {
    let (batches, world) = long(2);
    damage(&world, 0, |_| 0..4);
    let request = select_request(r#"{app=~".+"}"#);
    for _ in 0..2 {
        let found = selected(&world, &request);
        let missing = naive(&batches, &request, &[]).len() - found.lines.len();
        assert!(0 < missing && missing < 100, "{missing}");
        let [warning] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
        assert!(warning.contains(&*world.blocks[0].path) && warning.contains("partial"), "{warning}");
    }
    // It is whole again once the bytes are.
    damage(&world, 0, |_| 0..4);
    let found = selected(&world, &request);
    assert_eq!((answered(&found), found.warnings.len()), (naive(&batches, &request, &[]), 0));
}

#[test]
fn damaged_grams_rule_nothing_out() {
    let (batches, world) = long(2);
    let request = select_request(r#"{app=~".+"} |= "GET /api""#);
    let want = naive(&batches, &request, &[]);
    assert!(!want.is_empty());
    for block in 0..2 {
        let path = &world.blocks[block].path;
        let (tail, len) = RUNTIME.block_on(world.objects.tail(path, 1 << 20)).unwrap();
        let Ok(crate::block::Located::Footer(footer)) = crate::block::Footer::locate(&tail, len) else { panic!() };
        damage(&world, block, |_| footer.grams());
    }
    let found = selected(&world, &request);
    assert_eq!((answered(&found), found.warnings.len()), (want, 0));
}

#[test]
fn a_block_that_is_gone_or_unreadable_is_left_out_and_told() {
    let (batches, world) = long(3);
    damage(&world, 1, |len| len - 20..len - 10);
    RUNTIME.block_on(world.objects.delete(&world.blocks[2].path)).unwrap();
    let request = select_request(r#"{app=~".+"}"#);
    let want = naive(&batches, &SelectRequest { end: Timestamp(101), ..request.clone() }, &[]);
    let found = selected(&world, &request);
    assert_eq!(answered(&found), want);
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    let query = sample_query(AGGREGATIONS[1], 1000);
    let grid = query.grid(Steps { start: Timestamp(500), step: 1, count: 1 });
    let (from, settled) = (Timestamp::MIN, None);
    let request = SamplesRequest {
        tenant: tenant(),
        part: Part::Whole,
        query,
        detect_level: true,
        after: 0,
        as_of: u64::MAX,
        grid,
        from,
        settled,
        max_bytes: 1 << 20,
    };
    let known = Sampled { through: u64::MAX, ..Sampled::default() };
    let found = samples(&world, &request, known, 1, &Cancel::default()).unwrap();
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    assert!(!found.series.is_empty());
    let of = SeriesRequest {
        tenant: tenant(),
        part: Part::Whole,
        matchers: vec![],
        start: Timestamp(0),
        end: Timestamp(1000),
    };
    let told = stats(&world, &of, &Cancel::default()).unwrap();
    assert_eq!((told.value.entries, told.warnings.len()), (400, 2));
}

#[test]
fn a_store_that_cannot_be_reached_fails_the_query() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let objects = crate::objects::Objects::open(folder.to_str().unwrap(), &crate::objects::Options::default()).unwrap();
    let (_, mut world) = long(2);
    for block in &world.blocks {
        let (bytes, _) = RUNTIME.block_on(world.objects.get(&block.path)).unwrap().unwrap();
        RUNTIME.block_on(objects.put(&block.path, vec![bytes])).unwrap();
    }
    world.history = history(&objects, 1 << 20);
    world.objects = objects;
    let request = select_request(r#"{app=~".+"}"#);
    assert_eq!(selected(&world, &request).lines.len(), 800);
    world.history = history(&world.objects, 1 << 20);
    std::fs::rename(&folder, dir.path().join("elsewhere")).unwrap();
    let failed = select(&world, &request, 1, &Cancel::default());
    assert!(matches!(failed, Err(NodeError::Unavailable { .. })), "{failed:?}");
}

#[test]
fn a_cancelled_search_reads_nothing_more() {
    let (_, world) = long(2);
    let cancel = Cancel::default();
    cancel.set();
    let found = select(&world, &select_request(r#"{app=~".+"}"#), 1, &cancel).unwrap();
    assert_eq!((found.lines.len(), found.scanned.blocks.blocks), (0, 0));
}

#[test]
fn who_goes_on_from_an_empty_log_knows_the_earlier_ones() {
    let line = |stream, time| Line { stream, time, line: 0, metadata: 0 };
    let earlier = Batch { log: 1, log_seq: 5, accepted_at: 1, lines: vec![line(0, 1), line(0, 2)] };
    let own = Batch { log: OWN, log_seq: 1, accepted_at: 2, lines: vec![line(0, 2), line(0, 3)] };
    let layout =
        Layout { covered: 0, cut: 0, torn: 0, on_disk: 0, day: 0, merged: false, page_bytes: 256, cache_bytes: 0 };
    let world = World::new(&[earlier, own], &layout);
    let query = sample_query(AGGREGATIONS[0], 100);
    let grid = query.grid(Steps { start: Timestamp(50), step: 1, count: 1 });
    let counted = |settled: Option<i64>| {
        let request = SamplesRequest {
            tenant: tenant(),
            part: Part::Whole,
            query: Arc::clone(&query),
            detect_level: true,
            after: 0,
            as_of: 9,
            grid,
            from: Timestamp::MIN,
            settled: settled.map(Timestamp),
            max_bytes: 1 << 20,
        };
        let known = Sampled { through: 9, ..Sampled::default() };
        let found = samples(&world, &request, known, 1, &Cancel::default()).unwrap();
        worth(&request, found.series).into_values().collect::<Vec<_>>()
    };
    assert_eq!(counted(None), ["[Some(3.0)]"], "the line at 2 was sent twice");
    assert_eq!(counted(Some(0)), ["[Some(1.0)]"], "what earlier logs have was answered before");
}
