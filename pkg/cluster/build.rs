//! Generates what nodes say to each other of `proto/`, with protox instead of protoc: a Rust toolchain is all it takes.

use std::env;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    // Asked for when it runs: a build script may have been compiled for the same sources at another place.
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = ["tailwater/v1/node.proto", "tailwater/v1/host.proto"];
    let descriptors = protox::compile(files.map(|file| root.join(file)), [&root])?;
    // What carries text or a payload is not copied where it is decoded.
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
