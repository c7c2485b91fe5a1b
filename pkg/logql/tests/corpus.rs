//! Replays the fuzzing corpus: what was found once stays found.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;

/// The files of a target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = folder.read_dir().expect("the corpus is beside the fuzz targets");
    let mut files: Vec<_> = entries.map(|file| file.expect("an entry of the corpus").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|file| std::fs::read(&file).expect("a file of the corpus")).collect()
}

#[test]
fn parse() {
    for data in corpus("parse") {
        checks::parse(&data);
        // And queries that break off.
        for len in (0..data.len()).step_by(data.len() / 50 + 1) {
            checks::parse(&data[..len]);
        }
    }
}

#[test]
fn pipeline() {
    for data in corpus("pipeline") {
        checks::pipeline(&data);
        // And lines that break off.
        for len in (0..data.len()).step_by(data.len() / 100 + 1) {
            checks::pipeline(&data[..len]);
        }
    }
}

#[test]
fn metric() {
    for data in corpus("metric") {
        checks::metric(&data);
        // And lines that break off, and queries.
        for len in (0..data.len()).step_by(data.len() / 30 + 1) {
            checks::metric(&data[..len]);
        }
    }
}

#[test]
fn regex() {
    for data in corpus("regex") {
        checks::regex(&data);
        // And patterns that break off.
        for len in (0..data.len()).step_by(data.len() / 100 + 1) {
            checks::regex(&data[..len]);
        }
    }
}

#[test]
fn template() {
    for data in corpus("template") {
        checks::template(&data);
        // And templates that break off.
        for len in (0..data.len()).step_by(data.len() / 100 + 1) {
            checks::template(&data[..len]);
        }
    }
}
