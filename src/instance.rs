//! Single instances of a program, and servers that their clients start.

pub(crate) mod command;
#[cfg(feature = "tokio")]
pub(crate) mod connector;
pub(crate) mod daemon;
pub(crate) mod handover;
pub(crate) mod launch;
pub(crate) mod single;
pub(crate) mod way;
