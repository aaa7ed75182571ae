//! What a later start wants of the first one, for threads.

use std::io;
use std::time::Duration;

use super::way::{Threads, block_on};
use super::{Listener, Stream};
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::instance::handover::{self, CLOSING, deliver};
use crate::instance::launch::Launch;
use crate::instance::single::Acquired;
use crate::instance::way::Way;
use crate::options::{ConnectOptions, ListenOptions};

/// Becomes the first instance at `endpoint`, or hands `launch` to it, with the default options: 5
/// seconds for the first one to take it.
///
/// # Errors
///
/// As for [`hand_over_with`].
pub fn hand_over<E>(endpoint: E, launch: &Launch) -> io::Result<HandOver>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    let (listen, connect) = (ListenOptions::default(), ConnectOptions::default());
    hand_over_with(endpoint, launch, &listen, &connect)
}

/// Becomes the first instance at `endpoint`, or hands `launch` to it. It is
/// [`HandOver::Taken`] only when the first one has said so, with a [`LaunchRequest`]; if that one ends
/// before, this one takes its place or finds the next.
///
/// ```no_run
/// use std::time::Duration;
/// use sockpipe::Launch;
/// use sockpipe::blocking::{HandOver, LaunchRequest, hand_over};
///
/// # fn run() -> std::io::Result<()> {
/// match hand_over("org.example.editor", &Launch::of_this_process()?)? {
///     HandOver::First(listener) => loop {
///         let later = listener.accept()?;
///         std::thread::spawn(move || {
///             let request = LaunchRequest::receive(later, Duration::from_secs(5))?;
///             println!("open {:?}", request.launch().get_args());
///             request.finish(0)
///         });
///     },
///     HandOver::Taken(reply) => std::process::exit(reply.exit_code()?),
/// }
/// # }
/// ```
///
/// # Errors
///
/// Those of [`SingleInstance::acquire_with`](super::SingleInstance::acquire_with). `TimedOut` with
/// [`Reason::NoAnswer`](crate::Reason::NoAnswer), which names the process, when the first one does
/// not take the launch until the deadline of `connect`: it is stopped, or hangs. `InvalidData` with
/// [`Reason::NotUnderstood`](crate::Reason::NotUnderstood) when it answers with something else, as an
/// older version of the program does. `InvalidInput` for a launch of more than 16 MiB.
pub fn hand_over_with<E>(
    endpoint: E,
    launch: &Launch,
    listen: &ListenOptions,
    connect: &ConnectOptions,
) -> io::Result<HandOver>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    let endpoint = endpoint.try_into().map_err(ParseEndpointError::from)?;
    Ok(match block_on(deliver::<Threads>(&endpoint, launch, listen, connect))? {
        Acquired::First(listener) => HandOver::First(listener),
        Acquired::Later(stream) => HandOver::Taken(Reply { stream, endpoint }),
    })
}

/// What came of [`hand_over`].
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a program has one")]
pub enum HandOver {
    /// This is the first instance. It has the name, and accepts the later ones, each a
    /// [`LaunchRequest`].
    First(Listener),
    /// The first instance has taken the launch.
    Taken(Reply),
}

/// The first instance, which has taken a launch.
#[derive(Debug)]
pub struct Reply {
    stream: Stream,
    endpoint: Endpoint,
}

impl Reply {
    /// Waits, as long as it takes, until the first instance [has
    /// finished](LaunchRequest::finish) what it was asked to do, and returns its exit code.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` with the process when the first instance ended or dropped the request before.
    pub fn exit_code(mut self) -> io::Result<i32> {
        block_on(handover::exit_code::<Threads>(&mut self.stream, &self.endpoint))
    }
}

/// A later start that wants something done, at the first instance.
///
/// Dropped without [`finish`](Self::finish), it tells the later start that nothing is known of it.
#[derive(Debug)]
pub struct LaunchRequest {
    launch: Launch,
    stream: Stream,
}

impl LaunchRequest {
    /// Takes the launch from a connection that the first instance has accepted, and says so. A later
    /// start that sends nothing is given up after `limit`; read each in a thread of its own.
    ///
    /// # Errors
    ///
    /// `InvalidData` when what came is no launch, or one of another version; `TimedOut`;
    /// `UnexpectedEof` or `BrokenPipe` when the later start has gone, and expects nothing any more.
    /// The listener is as good as before.
    pub fn receive(mut stream: Stream, limit: Duration) -> io::Result<Self> {
        let launch = block_on(handover::receive::<Threads>(&mut stream, limit))?;
        Ok(Self { launch, stream })
    }

    /// Returns what is to be done.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Tells the later start that it is done, and how it went: the exit code that
    /// [`Reply::exit_code`] returns there.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the later start did not wait for it.
    pub fn finish(mut self, code: i32) -> io::Result<()> {
        block_on(Threads::write_all(&mut self.stream, &code.to_le_bytes(), None))?;
        self.stream.close(CLOSING)
    }
}
