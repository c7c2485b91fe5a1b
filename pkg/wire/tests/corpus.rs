//! Replays the fuzzing corpus: what was found once stays found.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let folder = folder.read_dir().expect("the corpus is in the repository");
    let mut files: Vec<_> = folder.map(|file| file.expect("a folder can be listed").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus for {target}");
    for file in files {
        let data = std::fs::read(&file).expect("a file of the corpus can be read");
        check(&data);
        // And what is left of it when the connection breaks.
        for len in (0..data.len()).step_by(data.len() / 200 + 1) {
            check(&data[..len]);
        }
    }
}

#[test]
fn push_protobuf() {
    replay("push_protobuf", checks::push_protobuf);
}

#[test]
fn push_json() {
    replay("push_json", checks::push_json);
}

#[test]
fn labels() {
    replay("labels", checks::labels);
}

#[test]
fn otlp() {
    replay("otlp", checks::otlp);
}

#[test]
fn compressed() {
    replay("compressed", checks::compressed);
}
