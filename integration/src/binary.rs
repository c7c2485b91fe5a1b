//! Finds the binary under test.
//!
//! Invariant: the binary is never older than the sources. `cargo test` builds `tailwater` only for tests of its own package, so
//! the first test that asks has cargo build it, with the profile of the running test; cargo answers at once when nothing changed.
//! `TAILWATER_BIN` names another binary to test instead, for example one that was built for a release.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of the `tailwater` binary.
///
/// # Panics
/// If it cannot be built; the message holds what cargo said.
pub fn path() -> &'static Path {
    // A failure is kept as well: whoever asks next need not wait for it again.
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| match std::env::var_os("TAILWATER_BIN").map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(format!("TAILWATER_BIN names no file: {}", path.display())),
        None => build(),
    });
    path.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

/// The root of the source tree.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// A cargo command in the source tree.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

fn build() -> Result<PathBuf, String> {
    // This test is <target>/[<triple>/]<profile>/deps/<name>.
    let this = std::env::current_exe().expect("a running test has a path");
    let profile_dir = this.parent().and_then(Path::parent).expect("cargo puts tests two folders down");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let target_dir = profile_dir.parent().expect("cargo puts profiles into a target folder");
    // A test target among the selected ones makes cargo unite the features as `cargo test` does: what that built is used again.
    let output = cargo()
        .args(["build", "--workspace", "--bin", "tailwater", "--test", "tidy", "--quiet"])
        .args(["--message-format", "json-render-diagnostics", "--profile", profile])
        .arg("--target-dir")
        .arg(target_dir)
        .output()
        .expect("cargo can be run");
    if !output.status.success() {
        return Err(format!("tailwater does not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "tailwater" && message["target"]["kind"][0] == "bin")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo names no executable".to_owned())
}
