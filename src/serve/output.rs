//! What the futures that a server is given may give.

use std::convert::Infallible;
use std::fmt;
use std::io;

use crate::sealed::Sealed;

/// What a handler of [`serve`](crate::serve()) may give: nothing, or a `Result` whose error can be
/// shown.
pub trait HandlerOutput: Sealed {
    /// What [`on_error`](crate::Serve::on_error) is told.
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

/// A value beside the error, as a count of bytes, is let go of.
impl<T, E: fmt::Display + 'static> HandlerOutput for Result<T, E> {
    type Error = E;

    fn into_result(self) -> Result<(), E> {
        self.map(drop)
    }
}

/// What the signal of [`with_graceful_shutdown`](crate::Serve::with_graceful_shutdown) may give:
/// nothing, or an `io::Result`, as [`shutdown_signal`](crate::shutdown_signal) does.
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
