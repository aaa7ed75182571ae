//! A stream to a child, which gets it as its standard input. Only that descriptor reaches a program
//! without further setup, and it reaches no other child.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::stdio::dup2_stdin;

use super::inherited;
use crate::options::StreamOptions;

/// Returns this process's end, and the child's.
pub(crate) fn pair() -> io::Result<(OwnedFd, Stdio)> {
    let (ours, theirs) = UnixStream::pair()?;
    inherited::check_stream(ours.as_fd())?;
    Ok((ours.into(), OwnedFd::from(theirs).into()))
}

/// Returns the end that this process has from its parent.
pub(crate) fn from_parent() -> io::Result<OwnedFd> {
    let end = io::stdin().as_fd().try_clone_to_owned()?;
    inherited::check_input(end.as_fd())?;
    Ok(end)
}

/// Replaces the standard input, so that the stream ends with its owner and no child of this process
/// inherits it.
pub(crate) fn empty_stdin() -> io::Result<()> {
    Ok(dup2_stdin(File::open("/dev/null")?)?)
}

#[cfg(feature = "tokio")]
pub(crate) fn into_async(end: OwnedFd) -> io::Result<super::Stream> {
    super::Stream::from_socket(end, StreamOptions::default())
}

#[cfg(feature = "blocking")]
pub(crate) fn into_blocking(end: OwnedFd) -> io::Result<super::blocking::Stream> {
    super::blocking::Stream::from_socket(end, StreamOptions::default())
}
