//! Searches over what the catalog lists.

use tailwater_model::LogId;
use tailwater_wire::node::NodeError;
use ulid::Ulid;

use super::world::{Layout, Line, OWN, RUNTIME, World};
use super::*;
use crate::catalog::{BlockMeta, Catalog, Change, Committed, Covered, Day, Refresh, names};
use crate::history::History;

/// A tenant whose blocks the catalog lists; own batches up to `boundary` are answered from them.
struct Listed {
    history: History,
    boundary: u64,
}

impl Source for Listed {
    fn log(&self) -> LogId {
        LogId::from_u128(OWN)
    }

    fn collect(&self, positions: (u64, u64), times: (i64, i64)) -> Result<Vec<Unit>, NodeError> {
        self.history.units(&tenant(), times, (self.log(), self.boundary), positions)
    }
}

const DAY: i64 = 86_400_000_000_000;

/// Two own batches on one day, one on the next, and one of an earlier log; each in a block of its own.
fn batches() -> Vec<Batch> {
    let batch = |log, log_seq, accepted_at, time| Batch {
        log,
        log_seq,
        accepted_at,
        lines: (0..4).map(|stream| Line { stream, time, line: 0, metadata: 0 }).collect(),
    };
    vec![batch(1, 9, 1, 5), batch(OWN, 1, 2, 10), batch(OWN, 2, 3, 20), batch(OWN, 3, 4, DAY + 30)]
}

/// The catalog, and its blocks: for each day one of so many batches.
pub(super) fn catalog(batches: &[Batch], together: usize) -> Arc<Catalog> {
    let layout =
        Layout { covered: 0, cut: 0, torn: 0, on_disk: 0, day: 0, merged: false, page_bytes: 256, cache_bytes: 0 };
    let mut world = World::new(&[], &layout);
    let catalog = Arc::new(Catalog::new(world.objects.clone(), Refresh::Exclusive));
    for batches in batches.chunks(together) {
        let all: Vec<_> = batches.iter().collect();
        for day in [-DAY, 0, DAY].map(Day::of) {
            world.write(&all, |line| Day::of(line.time) == day, 256);
            let Some(block) = world.blocks.pop() else { continue };
            let covered = |b: &Batch| Covered { log: LogId::from_u128(b.log), first: b.log_seq, last: b.log_seq };
            let meta = BlockMeta {
                id: Ulid::generate(),
                day,
                min: block.min,
                max: block.max,
                lines: block.lines,
                raw_bytes: 1,
                bytes: 1,
                streams: 4,
                level: 0,
                created: 0,
                logs: batches.iter().map(covered).collect(),
            };
            let (content, _) = RUNTIME.block_on(world.objects.get(&block.path)).unwrap().unwrap();
            RUNTIME.block_on(world.objects.put(&meta.path(&tenant()), vec![content])).unwrap();
            let change = Change { add: vec![meta], ..Change::default() };
            assert_eq!(RUNTIME.block_on(catalog.commit(&tenant(), day, &change)).unwrap(), Committed::Done);
        }
    }
    catalog
}

fn listed(catalog: &Arc<Catalog>, boundary: u64) -> Listed {
    Listed { history: History::new(Arc::clone(catalog), None, 1 << 20, RUNTIME.handle().clone()), boundary }
}

#[test]
fn what_is_after_the_boundary_is_not_answered_from_blocks() {
    let batches = batches();
    let catalog = catalog(&batches, 1);
    for boundary in 0..4 {
        let source = listed(&catalog, boundary);
        for (as_of, start, end) in [(9, 0, 2 * DAY), (1, 0, 2 * DAY), (9, 15, DAY), (0, 0, DAY), (9, DAY, 2 * DAY)] {
            let request = SelectRequest {
                as_of,
                start: Timestamp(start),
                end: Timestamp(end),
                ..select_request(r#"{app=~".+"}"#)
            };
            let found = select(&source, &request, 1, &Cancel::default()).unwrap();
            let upto = SelectRequest { as_of: as_of.min(boundary), ..request };
            assert_eq!(answered(&found), naive(&batches, &upto, &[]), "{boundary} {as_of} {start} {end}");
            // Blocks of other days, and of positions that are not asked for, are not opened.
            assert_eq!(found.scanned.blocks.blocks * 4, found.scanned.lines);
        }
    }
    let rest = listed(&catalog, 2).collect((1, 9), (0, DAY)).unwrap();
    assert_eq!(rest.len(), 1, "who goes on knows earlier logs");
}

#[test]
fn a_manifest_that_is_damaged_is_told() {
    let catalog = catalog(&batches(), 1);
    let path = names::manifest_path(&tenant(), Day::of(DAY));
    RUNTIME.block_on(catalog.objects().put(&path, vec!["{".into()])).unwrap();
    let fresh = Arc::new(Catalog::new(catalog.objects().clone(), Refresh::Exclusive));
    let found = select(&listed(&fresh, 9), &select_request(r#"{app="b"}"#), 1, &Cancel::default()).unwrap();
    assert_eq!(found.lines.len(), 6);
    let [warning] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
    assert!(warning.contains("manifest.json"), "{warning}");
}
