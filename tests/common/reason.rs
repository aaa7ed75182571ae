//! Assertions on the reason why an operation failed, which a program can match. Tests compare the
//! wording only if it is their subject, or if the error has no reason.

use std::error::Error as _;
use std::io::{self, ErrorKind};

use sockpipe::{Error, Reason};

/// Asserts that an outcome is an error of ours with this reason, with the kind that belongs to the
/// reason and, if it is given, with this endpoint. Evaluates to the error.
macro_rules! assert_reason {
    ($outcome:expr, $reason:pat $(if $guard:expr)? $(, $at:expr)? $(,)?) => {
        $crate::common::reason::failed(
            $outcome,
            |reason| matches!(reason, $reason $(if $guard)?),
            stringify!($reason $(if $guard)?),
            &<[String]>::concat(&[$($at.to_string())?]),
        )
    };
}
pub(crate) use assert_reason;

/// Does the work of [`assert_reason`]. The error's endpoint is an address, which contains a
/// portable name.
#[track_caller]
pub fn failed<T>(
    outcome: io::Result<T>,
    is: impl FnOnce(&Reason) -> bool,
    wanted: &str,
    at: &str,
) -> io::Error {
    let Err(error) = outcome else { panic!("no error, where {wanted} was to be") };
    let known = ours(&error);
    assert!(is(known.reason()), "{:?}, where {wanted} was to be: {error}", known.reason());
    assert_eq!(error.kind(), kind(known), "{error}");
    let endpoint = known.endpoint().map(ToString::to_string).unwrap_or_default();
    assert!(endpoint.contains(at), "{endpoint:?}, where {at:?} was to be: {error}");
    error
}

#[track_caller]
pub fn ours(error: &io::Error) -> &Error {
    Error::of(error).unwrap_or_else(|| panic!("none of ours: {error:?}"))
}

/// Asserts the kind of an error that has no reason.
#[track_caller]
pub fn assert_kind<T>(outcome: io::Result<T>, kind: ErrorKind) -> io::Error {
    let Err(error) = outcome else { panic!("no error, where {kind:?} was to be") };
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// Asserts parts of an error's text: its advice, or what distinguishes errors of one reason.
#[track_caller]
pub fn assert_says(error: &io::Error, says: &[&str]) {
    for part in says {
        assert!(error.to_string().contains(part), "{part:?} is not in {error:?}");
    }
}

/// Returns the kind that programs rely on for this reason.
#[track_caller]
fn kind(error: &Error) -> ErrorKind {
    match error.reason() {
        Reason::LiveServer { .. } | Reason::UnprovenSocket | Reason::HeldByConnections => {
            ErrorKind::AddrInUse
        }
        Reason::StaleSocket | Reason::Stopping { .. } => ErrorKind::ConnectionRefused,
        Reason::NoServer | Reason::NoDirectory | Reason::NameLost => ErrorKind::NotFound,
        Reason::NotASocket => ErrorKind::AlreadyExists,
        Reason::ForeignOwner
        | Reason::UnsafeDirectory
        | Reason::PrivateDirectory
        | Reason::NotWritable
        | Reason::UnexpectedServer
        | Reason::PeerRefused => ErrorKind::PermissionDenied,
        Reason::NameTooLong | Reason::InvalidEndpoint | Reason::UnusableDescriptor => {
            ErrorKind::InvalidInput
        }
        Reason::NoLocks | Reason::NoHalfClose | Reason::Unsupported => ErrorKind::Unsupported,
        Reason::Deadline | Reason::NameWithoutServer { .. } | Reason::NoAnswer { .. } => {
            ErrorKind::TimedOut
        }
        Reason::NotUnderstood { .. } => ErrorKind::InvalidData,
        Reason::NoRuntime
        | Reason::PeerNotToldYet { .. }
        | Reason::AnonymousPeer { .. }
        | Reason::ServerExited
        | Reason::Stopped
        | Reason::TakenOver { .. } => ErrorKind::Other,
        Reason::Os => {
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            source.map_or(ErrorKind::Other, io::Error::kind)
        }
        other => panic!("{other:?} has no kind here"),
    }
}
