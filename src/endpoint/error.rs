//! The error of a text that is not an endpoint.

use std::convert::Infallible;
use std::fmt;

/// The error of a text or path that is not an [`Endpoint`](crate::Endpoint). The message shows the
/// input, the place of the mistake, and the correct notation.
///
/// As an [`io::Error`](std::io::Error) it is of kind
/// [`InvalidInput`](std::io::ErrorKind::InvalidInput), carries an [`Error`](crate::Error), and has
/// this error as its source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseEndpointError {
    pub(super) input: String,
    pub(super) position: Option<usize>,
    pub(super) reason: String,
}

impl ParseEndpointError {
    pub(crate) fn new(input: impl fmt::Display, reason: String) -> Self {
        Self { input: input.to_string(), position: None, reason }
    }

    /// Returns the text that was parsed.
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// Returns the byte of [`input`](Self::input) at which the mistake is, if it is at one place.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl fmt::Display for ParseEndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid endpoint \"{}\"", shown(&self.input))?;
        if let Some(at) = self.position {
            write!(f, " (at byte {at})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ParseEndpointError {}

impl From<Infallible> for ParseEndpointError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Returns `text` with its control characters and quotes escaped. Backslashes are not doubled,
/// because the result would be the name of another pipe.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '"' || c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
