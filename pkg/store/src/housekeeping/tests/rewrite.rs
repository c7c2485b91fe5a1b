//! Merging and filtering are compared with sorting and filtering lines.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::{Line, build, joined, memory, read};
use crate::Error;
use crate::block::Options;
use crate::deletes::{Deletion, Eraser, Request, Status};
use crate::housekeeping::input::Input;
use crate::housekeeping::rewrite::{Dropped, Filter, Rewrite, RewriteOptions};

/// What a rewrite of some blocks yields: the lines of each new block, and what was left out.
async fn rewrite(blocks: &[Vec<Line>], filter: Filter, block_bytes: u64) -> Result<(Vec<Vec<Line>>, Dropped), Error> {
    let objects = memory();
    let mut inputs = Vec::new();
    for (number, lines) in blocks.iter().enumerate() {
        let path = format!("{number}.blk");
        objects.put(&path, build(lines).parts).await?;
        inputs.push(Input::open(&objects, &path).await?);
    }
    let options = RewriteOptions { block: Options { page_bytes: 96, ..Options::default() }, block_bytes };
    let mut rewrite = Rewrite::new(inputs, filter, options, Arc::new(AtomicBool::new(false)));
    let work = move || {
        let mut found = Vec::new();
        while let Some(built) = rewrite.next_block()? {
            found.push(read(&joined(&built)));
        }
        Ok((found, rewrite.dropped()))
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn eraser(query: &str, start: i64, end: i64) -> Eraser {
    let request = Request {
        request_id: "r".into(),
        start,
        end,
        query: query.into(),
        status: Status::Received,
        created_at: 0,
        processed_at: None,
    };
    Eraser::new(Arc::new([Deletion::new(&request).unwrap()]), false)
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let metadata = prop_oneof![3 => Just(Vec::new()), 1 => Just(vec![("trace".to_owned(), "t".to_owned())])];
    let line = ("[abc]", 1..3_u128, -5..20_i64, "[xyz ]{0,30}", metadata);
    prop::collection::vec(line, 0..120).prop_map(|all| {
        let place = |number: usize| (number as u64 / 4 + 1, number as u32 % 4);
        all.into_iter()
            .enumerate()
            .map(|(number, (app, log, timestamp, text, metadata))| {
                let (seq, index) = place(number);
                Line { app, log, timestamp, seq, index, text, metadata }
            })
            .collect()
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_is_sorting(all in lines(), spread in 1..5_usize, block_bytes in 1..2000_u64) {
        let mut blocks = vec![Vec::new(); spread];
        for (number, line) in all.iter().enumerate() {
            blocks[(number * 7 / 3) % spread].push(line.clone());
        }
        blocks.retain(|block| !block.is_empty());
        let (found, dropped) = run(rewrite(&blocks, Filter::nothing(), block_bytes)).unwrap();
        let mut sorted = all;
        sorted.sort();
        prop_assert_eq!(found.concat(), sorted);
        prop_assert_eq!(dropped, Dropped::default());
        for block in &found {
            let before_last: usize = block.iter().rev().skip(1).map(|line| line.text.len()).sum();
            prop_assert!((before_last as u64) < block_bytes);
        }
    }

    #[test]
    fn what_is_left_out_is_counted(all in lines(), start in -5..20_i64, len in 0..20_i64) {
        let end = start + len;
        let filter = Filter {
            keeps: Box::new(|labels| labels.get("app") != Some("b")),
            eraser: Some(eraser(r#"{app="a"} |= "x""#, start, end)),
        };
        let is_kept = |line: &Line| {
            line.app != "b"
                && !(line.app == "a" && line.text.contains('x') && (start..=end).contains(&line.timestamp))
        };
        let blocks: Vec<_> = all.chunks(40).map(<[_]>::to_vec).collect();
        let (found, dropped) = run(rewrite(&blocks, filter, 1 << 20)).unwrap();
        let (mut kept, gone): (Vec<Line>, Vec<Line>) = all.into_iter().partition(is_kept);
        kept.sort();
        prop_assert_eq!(found.concat(), kept);
        let bytes = gone.iter().map(|line| line.text.len() as u64).sum();
        prop_assert_eq!(dropped, Dropped { lines: gone.len() as u64, bytes, repeated: 0 });
    }
}

#[tokio::test]
async fn a_line_that_two_blocks_hold_is_written_once() {
    let line =
        |seq| Line { app: "a".into(), log: 1, timestamp: 5, seq, index: 0, text: "same".into(), metadata: Vec::new() };
    let blocks = [vec![line(1), line(2)], vec![line(2), line(3)]];
    let (found, dropped) = rewrite(&blocks, Filter::nothing(), 1 << 20).await.unwrap();
    assert_eq!(found, [vec![line(1), line(2), line(3)]]);
    assert_eq!(dropped, Dropped { lines: 1, bytes: 4, repeated: 1 });
}

#[tokio::test]
async fn a_stream_that_is_deleted_as_a_whole_is_not_even_read() {
    let line = |app: &str, timestamp| Line {
        app: app.into(),
        log: 1,
        timestamp,
        seq: 1,
        index: u32::try_from(timestamp).unwrap(),
        text: "x".repeat(50),
        metadata: Vec::new(),
    };
    let all: Vec<_> = (0..10).map(|at| line("a", at)).chain((10..12).map(|at| line("b", at))).collect();
    let filter = Filter { keeps: Box::new(|_| true), eraser: Some(eraser(r#"{app="a"}"#, 0, 100)) };
    let (found, dropped) = rewrite(std::slice::from_ref(&all), filter, 1 << 20).await.unwrap();
    assert_eq!(found.concat(), all[10..]);
    assert_eq!(dropped, Dropped { lines: 10, bytes: 500, repeated: 0 });
    let filter = Filter { keeps: Box::new(|_| false), eraser: None };
    let (found, dropped) = rewrite(&[all], filter, 1 << 20).await.unwrap();
    assert!(found.is_empty());
    assert_eq!(dropped.lines, 12);
}
