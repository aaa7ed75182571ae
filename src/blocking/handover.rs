//! Launches handed over to the first instance, for threads.

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

/// Binds `endpoint` as the first instance, or hands `launch` over to the first instance, with the
/// default options.
///
/// The first instance has 5 seconds to accept the launch.
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

/// Binds `endpoint` as the first instance, or hands `launch` over to the first instance.
///
/// It returns [`HandOver::Taken`] only after the first instance has accepted the launch with a
/// [`LaunchRequest`]. If that instance ends before, this process takes its place or finds the next
/// one.
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
/// Those of [`SingleInstance::acquire_with`](super::SingleInstance::acquire_with), and:
///
/// | kind | reason | when |
/// |---|---|---|
/// | `TimedOut` | [`Reason::NoAnswer`](crate::Reason::NoAnswer), with the process | the first instance does not accept the launch by the deadline of `connect`: it is suspended or hangs |
/// | `InvalidData` | [`Reason::NotUnderstood`](crate::Reason::NotUnderstood) | the first instance answers with something else, as an older version of the program does |
/// | `InvalidInput` | | the launch has more than 16 MiB |
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

/// The result of [`hand_over`].
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a program has one")]
pub enum HandOver {
    /// This process is the first instance. Its listener accepts the later starts: read a
    /// [`LaunchRequest`] from each connection.
    First(Listener),
    /// The first instance has accepted the launch.
    Taken(Reply),
}

/// The first instance's answer to a launch that it has accepted.
#[derive(Debug)]
pub struct Reply {
    stream: Stream,
    endpoint: Endpoint,
}

impl Reply {
    /// Waits until the first instance [has finished](LaunchRequest::finish) the launch, and returns
    /// its exit code. It has no deadline.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` with the process if the first instance ended or dropped the request before.
    pub fn exit_code(mut self) -> io::Result<i32> {
        block_on(handover::exit_code::<Threads>(&mut self.stream, &self.endpoint))
    }
}

/// A launch of a later start, received by the first instance.
///
/// If it is dropped without [`finish`](Self::finish), the later start gets an error.
#[derive(Debug)]
pub struct LaunchRequest {
    launch: Launch,
    stream: Stream,
}

impl LaunchRequest {
    /// Receives the launch from an accepted connection, and confirms it to the later start.
    ///
    /// It gives up after `limit` if the later start sends nothing. Call it in a thread of its own
    /// for each connection.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the data is not a launch, or one of another version; `TimedOut`;
    /// `UnexpectedEof` or `BrokenPipe` if the later start is gone. The listener is not affected.
    pub fn receive(mut stream: Stream, limit: Duration) -> io::Result<Self> {
        let launch = block_on(handover::receive::<Threads>(&mut stream, limit))?;
        Ok(Self { launch, stream })
    }

    /// Returns the launch.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Sends the later start the exit code, which [`Reply::exit_code`] returns there.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if the later start did not wait for it.
    pub fn finish(mut self, code: i32) -> io::Result<()> {
        block_on(Threads::write_all(&mut self.stream, &code.to_le_bytes(), None))?;
        self.stream.close(CLOSING)
    }
}
