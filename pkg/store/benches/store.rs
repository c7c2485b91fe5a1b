//! What storing and finding costs: `cargo bench -p tailwater-store`.

mod block;

fn main() {
    divan::main();
}
