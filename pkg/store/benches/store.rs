//! What storing costs. `cargo bench -p tailwater-store`.

mod wal;

fn main() {
    divan::main();
}
