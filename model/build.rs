//! Builds the ring with loom's atomics.

fn main() {
    println!("cargo::rustc-cfg=sockpipe_loom");
}
