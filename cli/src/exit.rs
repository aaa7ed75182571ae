//! How the tool ends: codes that a script can use, and messages that name its own options.

use std::fmt;
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::time::Duration;

use sockpipe::{Operation, Reason};

use crate::say;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOBODY: u8 = 3;
pub const TAKEN: u8 = 4;
pub const DENIED: u8 = 5;
pub const TOO_LATE: u8 = 6;
pub const INTERRUPTED: u8 = 130;
pub const OUTPUT_CLOSED: u8 = 141;

/// An exit with its own code. Without a message, nothing is printed.
#[derive(Debug)]
pub struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    pub fn hinting(mut self, hint: Option<String>) -> Self {
        if let Some(hint) = hint {
            self.message = format!("{}; {hint}", self.message);
        }
        self
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// Converts an error of listening at an endpoint or of connecting to it.
pub fn at_endpoint(error: io::Error) -> Exit {
    let code = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => NOBODY,
        ErrorKind::AddrInUse | ErrorKind::AlreadyExists => TAKEN,
        ErrorKind::PermissionDenied => DENIED,
        ErrorKind::TimedOut => TOO_LATE,
        ErrorKind::InvalidInput | ErrorKind::Unsupported => USAGE,
        _ => FAILED,
    };
    Exit::new(code, message(&error))
}

/// Converts the error of a client that waited `wait` for a server in vain.
pub fn after_wait(error: io::Error, wait: Duration) -> Exit {
    let waited = format!("waited {} s", wait.as_secs_f32());
    let absent = sockpipe::Error::of(&error)
        .filter(|error| matches!(error.reason(), Reason::NoServer | Reason::StaleSocket));
    let message = match absent {
        Some(error) => {
            format!("{}: {waited} for it; start it, or give --wait more time", error.what())
        }
        None => format!("{waited}: {}", message(&error)),
    };
    Exit { message, ..at_endpoint(error) }
}

/// Converts an error of standard output. If its reader has closed it, nothing is printed.
pub fn at_output(error: io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::BrokenPipe {
        return Exit::silent(OUTPUT_CLOSED).into();
    }
    anyhow::Error::new(error).context("cannot write to standard output")
}

pub fn report(error: &anyhow::Error) -> ExitCode {
    let exit = error.downcast_ref::<Exit>();
    let code = exit.map_or(FAILED, |exit| exit.code);
    if exit.is_none_or(|exit| !exit.message.is_empty()) {
        say::error(format_args!("{error:#}"));
    }
    ExitCode::from(code)
}

/// Returns the message without the advice, for a place where the tool names its own next step.
pub fn what(error: &io::Error) -> String {
    sockpipe::Error::of(error).map_or_else(|| error.to_string(), sockpipe::Error::what)
}

/// Replaces the crate's advice, which names items of the crate, with advice that names the tool's
/// options.
fn message(error: &io::Error) -> String {
    let Some(error) = sockpipe::Error::of(error) else { return error.to_string() };

    let advice = match error.reason() {
        Reason::NoServer | Reason::StaleSocket => {
            Some("start it first, or wait for it with --wait")
        }
        Reason::Deadline if error.operation() == Operation::Connect => {
            Some("try again, or raise --timeout")
        }
        Reason::UnexpectedServer => Some("if you trust it, use --expect-user or --any-server"),
        Reason::UnsafeDirectory => {
            Some("choose a directory of your own, or allow it with --unsafe-directory")
        }
        Reason::UnprovenSocket => Some("if no server runs there, `sockpipe clean` removes it"),
        Reason::NoHalfClose => None,
        _ => error.advice(),
    };

    match advice {
        Some(advice) => format!("{}; {advice}", error.what()),
        None => error.what(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_kind_has_its_exit_code() {
        for (kind, code) in [
            (ErrorKind::NotFound, 3),
            (ErrorKind::ConnectionRefused, 3),
            (ErrorKind::AddrInUse, 4),
            (ErrorKind::AlreadyExists, 4),
            (ErrorKind::PermissionDenied, 5),
            (ErrorKind::TimedOut, 6),
            (ErrorKind::InvalidInput, 2),
            (ErrorKind::Unsupported, 2),
            (ErrorKind::StorageFull, 1),
        ] {
            assert_eq!(at_endpoint(kind.into()).code, code, "{kind}");
        }
    }
}
