//! One instance of a program, and the server that a client needs, started once.

mod daemon;
mod single;

pub use self::daemon::{connect_or_spawn, connect_or_spawn_with};
pub use self::single::SingleInstance;
