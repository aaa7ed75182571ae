//! One instance of a program, and the server that a client needs, started once.

pub(crate) mod command;
#[cfg(feature = "tokio")]
pub(crate) mod connector;
pub(crate) mod daemon;
pub(crate) mod handover;
pub(crate) mod launch;
pub(crate) mod single;
pub(crate) mod way;
