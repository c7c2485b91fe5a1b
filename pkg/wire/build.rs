//! Generates the messages of `proto/`, with protox instead of protoc: a Rust toolchain is all it takes.

use std::env;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    // Asked for when it runs: a build script may have been compiled for the same sources at another place.
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = ["tailwater/v1/push.proto", "opentelemetry/proto/collector/logs/v1/logs_service.proto"];
    let descriptors = protox::compile(files.map(|file| root.join(file)), [&root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
