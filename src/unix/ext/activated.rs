//! Functions that return the descriptors which a service manager passed to this process.

use std::io;

use super::{ListenerExt, StreamExt};
use crate::options::ListenOptions;
use crate::unix::activation::{self, Activated};

/// Returns the listeners that the service manager passed to this process, with their names:
/// systemd's socket activation, sd_listen_fds(3).
///
/// It is empty if there are none, or if an earlier call returned them. The environment is left
/// unchanged, and applies to this process only (`LISTEN_PID`).
///
/// Other descriptors, such as a TCP socket, stay open for the program: [`activated_descriptors`]
/// lists them. The service manager owns the listeners' names, so they are not removed on drop. Of
/// the options, [`Access`](crate::Access) and [`mode`](super::ListenOptionsExt::mode) determine
/// whose connections are accepted; set them to match the unit's `SocketMode=`.
///
/// # Errors
///
/// `InvalidInput` if the variables are malformed, or if a descriptor is not open. `Other` outside a
/// tokio runtime, for async listeners; call it again inside one.
pub fn activated_listeners<L: ListenerExt>(
    options: &ListenOptions,
) -> io::Result<Vec<(String, L)>> {
    // The listeners are made from copies, so that an error leaves all sockets for the next call.
    activation::listeners(|copy| L::from_fd(copy, options))
}

/// Returns the connection that this process was started for, unless an earlier call returned it:
/// that of a unit with `Accept=yes`, or the standard input of a server that inetd starts
/// (`nowait`).
///
/// inetd passes one connection as all three standard streams. They lead to `/dev/null` afterwards,
/// so that the peer sees the end of the stream.
///
/// ```no_run
/// use sockpipe::{Stream, echo};
///
/// # async fn run() -> std::io::Result<()> {
/// if let Some(stream) = sockpipe::os::unix::activated_stream::<Stream>()? {
///     echo::echo(stream, |_| ()).await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// `InvalidInput` if the variables are malformed, or if a descriptor is not open. `Other` outside a
/// tokio runtime, for the async stream, which is lost then.
pub fn activated_stream<S: StreamExt>() -> io::Result<Option<S>> {
    activation::stream()?.map(S::from_fd).transpose()
}

/// Returns the descriptors that the service manager passed and that no call has taken, in its
/// order.
///
/// They include sockets, FIFOs and files of other kinds. They stay open in this process, and are
/// closed in children that it starts.
///
/// ```no_run
/// use sockpipe::os::unix::{ActivatedKind, activated_descriptors};
///
/// for passed in activated_descriptors()? {
///     if passed.kind == ActivatedKind::Other {
///         println!("descriptor {} is {}", passed.number, passed.name);
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidInput` if the variables are malformed, or if a descriptor is not open.
pub fn activated_descriptors() -> io::Result<Vec<Activated>> {
    activation::passed()
}
