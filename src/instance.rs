//! One instance of a program, and the server that a client needs, started once.

pub(crate) mod command;
pub(crate) mod daemon;
pub(crate) mod handover;
pub(crate) mod launch;
pub(crate) mod single;
pub(crate) mod way;
