//! Replays the fuzzing corpus: what was found once stays found.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;

#[test]
fn pipeline() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/pipeline");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        println!("{}", file.display());
        let data = std::fs::read(&file).unwrap();
        checks::pipeline(&data);
        // And lines that break off.
        for len in (0..data.len()).step_by(data.len() / 100 + 1) {
            checks::pipeline(&data[..len]);
        }
    }
}
