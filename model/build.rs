//! The ring is built with loom's atomics here.

fn main() {
    println!("cargo::rustc-cfg=sockpipe_loom");
}
