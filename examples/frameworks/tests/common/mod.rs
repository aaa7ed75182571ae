//! What these tests share with those of the crate.
#![allow(unused_imports, unreachable_pub, reason = "each test file uses a part")]

#[path = "../../../../tests/common/mod.rs"]
mod shared;

pub use shared::*;
