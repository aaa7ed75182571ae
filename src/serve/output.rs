//! The output types of handlers and signals.

use std::convert::Infallible;
use std::fmt;
use std::io;

use crate::sealed::Sealed;

/// The output of a handler of [`serve`](crate::serve()): `()`, or a `Result` whose error implements
/// `Display`.
pub trait HandlerOutput: Sealed {
    /// The type of the error that [`on_error`](crate::Serve::on_error) receives.
    type Error: fmt::Display + 'static;

    #[doc(hidden)]
    fn into_result(self) -> Result<(), Self::Error>;
}

impl Sealed for () {}

impl HandlerOutput for () {
    type Error = Infallible;

    fn into_result(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<T, E> Sealed for Result<T, E> {}

/// The value of an `Ok`, such as a count of bytes, is discarded.
impl<T, E: fmt::Display + 'static> HandlerOutput for Result<T, E> {
    type Error = E;

    fn into_result(self) -> Result<(), E> {
        self.map(drop)
    }
}

/// The output of the signal of [`with_graceful_shutdown`](crate::Serve::with_graceful_shutdown):
/// `()`, or an `io::Result<()>`, as [`shutdown_signal`](crate::shutdown_signal) returns.
pub trait SignalOutput: Sealed {
    #[doc(hidden)]
    fn into_result(self) -> io::Result<()>;
}

impl SignalOutput for () {
    fn into_result(self) -> io::Result<()> {
        Ok(())
    }
}

impl SignalOutput for io::Result<()> {
    fn into_result(self) -> io::Result<()> {
        self
    }
}
