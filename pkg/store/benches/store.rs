//! What storing and finding costs: `cargo bench -p tailwater-store`.

mod block;
mod wal;

fn main() {
    divan::main();
}
