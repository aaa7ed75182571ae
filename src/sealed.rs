//! Keeps traits to the types of this crate, so that a method can be added to them.

#[cfg(feature = "blocking")]
use crate::blocking;
use crate::options::ListenOptions;
#[cfg(feature = "tokio")]
use crate::{listener::Listener, stream::Stream};

#[allow(unnameable_types, reason = "nobody else is to name it")]
pub trait Sealed {}

impl Sealed for ListenOptions {}
#[cfg(feature = "tokio")]
impl Sealed for Listener {}
#[cfg(feature = "tokio")]
impl Sealed for Stream {}
#[cfg(feature = "blocking")]
impl Sealed for blocking::Listener {}
#[cfg(feature = "blocking")]
impl Sealed for blocking::Stream {}
