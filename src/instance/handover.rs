//! The protocol by which a later start of a program hands its launch over to the first instance.
//!
//! The later start sends a header, which is a mark and a version, and the launch after its length.
//! The first instance answers with the same header and whether it accepted the launch, and may send
//! an exit code later. A program with another protocol is detected by its answer or by its silence.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::launch::{LIMIT, Launch};
use super::single::{Acquired, acquire};
use super::way::Way;
use crate::endpoint::Endpoint;
#[cfg(feature = "tokio")]
use crate::endpoint::ParseEndpointError;
use crate::error::{Error, Operation, Reason, during};
use crate::options::{ConnectOptions, ListenOptions};
use crate::wait::Backoff;
#[cfg(feature = "tokio")]
use crate::{instance::way::Tasks, listener::Listener, stream::Stream};

/// The start of both messages: the mark and the version.
const HEADER: [u8; 8] = *b"sp-run\0\x01";
/// The length of the mark, which is the same in every version.
const MARK: usize = 7;
const TAKEN: u8 = 0;
const NOT_UNDERSTOOD: u8 = 1;
/// The pauses between attempts while the first instance ends.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// How much memory is allocated at a time for the length that a peer announces.
const STEP: usize = 64 * 1024;

/// Binds `endpoint` as the first instance, or hands `launch` over to the first instance, with the
/// default options.
///
/// The first instance has 5 seconds to accept the launch.
///
/// # Errors
///
/// As for [`hand_over_with`].
#[cfg(feature = "tokio")]
pub async fn hand_over<E>(endpoint: E, launch: &Launch) -> io::Result<HandOver>
where
    E: TryInto<Endpoint>,
    ParseEndpointError: From<E::Error>,
{
    let (listen, connect) = (ListenOptions::default(), ConnectOptions::default());
    hand_over_with(endpoint, launch, &listen, &connect).await
}

/// Binds `endpoint` as the first instance, or hands `launch` over to the first instance.
///
/// It returns [`HandOver::Taken`] only after the first instance has accepted the launch with a
/// [`LaunchRequest`]. If that instance ends before, this process takes its place or finds the next
/// one. [Daemons](crate::docs::daemons) compares this with a server of its own.
///
/// ```no_run
/// use std::time::Duration;
/// use sockpipe::{HandOver, Launch, LaunchRequest, hand_over};
///
/// # async fn run() -> std::io::Result<()> {
/// let launch = Launch::of_this_process()?;
/// match hand_over("org.example.editor", &launch).await? {
///     HandOver::First(mut listener) => loop {
///         let later = listener.accept().await?;
///         tokio::spawn(async move {
///             let request = LaunchRequest::receive(later, Duration::from_secs(5)).await?;
///             println!("open {:?}", request.launch().get_args());
///             request.finish(0).await
///         });
///     },
///     HandOver::Taken(reply) => std::process::exit(reply.exit_code().await?),
/// }
/// # }
/// ```
///
/// # Errors
///
/// Those of [`SingleInstance::acquire_with`](crate::SingleInstance::acquire_with), and:
///
/// | kind | reason | when |
/// |---|---|---|
/// | `TimedOut` | [`Reason::NoAnswer`], with the process | the first instance does not accept the launch by the deadline of `connect`: it is suspended or hangs |
/// | `InvalidData` | [`Reason::NotUnderstood`] | the first instance answers with something else, as an older version of the program does |
/// | `InvalidInput` | | the launch has more than 16 MiB |
///
/// # Cancel safety
///
/// Dropping the future leaves nothing behind, but the first instance may have accepted the launch.
#[cfg(feature = "tokio")]
pub async fn hand_over_with<E>(
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
    Ok(match deliver::<Tasks>(&endpoint, launch, listen, connect).await? {
        Acquired::First(listener) => HandOver::First(listener),
        Acquired::Later(stream) => HandOver::Taken(Reply { stream, endpoint }),
    })
}

/// The result of [`hand_over`].
#[cfg(feature = "tokio")]
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
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct Reply {
    stream: Stream,
    endpoint: Endpoint,
}

#[cfg(feature = "tokio")]
impl Reply {
    /// Waits until the first instance [has finished](LaunchRequest::finish) the launch, and returns
    /// its exit code. It has no deadline.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` with the process if the first instance ended or dropped the request before.
    pub async fn exit_code(mut self) -> io::Result<i32> {
        exit_code::<Tasks>(&mut self.stream, &self.endpoint).await
    }
}

/// A launch of a later start, received by the first instance.
///
/// If it is dropped without [`finish`](Self::finish), the later start gets an error.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct LaunchRequest {
    launch: Launch,
    stream: Stream,
}

#[cfg(feature = "tokio")]
impl LaunchRequest {
    /// Receives the launch from an accepted connection, and confirms it to the later start.
    ///
    /// It gives up after `limit` if the later start sends nothing. Call it in a task of its own for
    /// each connection.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the data is not a launch, or one of another version; `TimedOut`;
    /// `UnexpectedEof` or `BrokenPipe` if the later start is gone. The listener is not affected.
    pub async fn receive(mut stream: Stream, limit: Duration) -> io::Result<Self> {
        let launch = receive::<Tasks>(&mut stream, limit).await?;
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
    pub async fn finish(mut self, code: i32) -> io::Result<()> {
        Tasks::write_all(&mut self.stream, &code.to_le_bytes(), None).await?;
        self.stream.close(CLOSING).await
    }
}

/// How long the OS may take to accept the four bytes of an exit code.
pub(crate) const CLOSING: Duration = Duration::from_secs(5);

pub(crate) async fn deliver<W: Way>(
    endpoint: &Endpoint,
    launch: &Launch,
    listen: &ListenOptions,
    connect: &ConnectOptions,
) -> io::Result<Acquired<W::Listener, W::Stream>> {
    let launch = launch.to_bytes()?;
    let length = u32::try_from(launch.len()).unwrap_or(u32::MAX).to_le_bytes();
    let message = [&HEADER[..], &length, &launch].concat();

    let end = Instant::now().checked_add(connect.limit());
    let left = || end.map(|end| end.saturating_duration_since(Instant::now()));
    let mut backoff = PAUSES;

    loop {
        let options = left().map_or_else(|| connect.clone(), |left| connect.at_once(left));
        let mut first = match acquire::<W>(endpoint, listen, &options).await? {
            Acquired::Later(stream) => stream,
            first => return Ok(first),
        };

        let process = W::process(&first);
        match offer::<W>(&mut first, &message, left()).await {
            Ok(answer) if answer == [&HEADER[..], &[TAKEN]].concat()[..] => {
                return Ok(Acquired::Later(first));
            }
            Ok(answer) => return Err(not_understood(endpoint, process, &answer)),
            Err(error) if error.kind() == ErrorKind::TimedOut || left() == Some(Duration::ZERO) => {
                return Err(no_answer(endpoint, process, connect.limit(), error));
            }
            // The first instance ended, and leaves the launch to its successor, which may be this
            // process.
            Err(error) if is_gone(&error) => {
                let pause = backoff.pause();
                W::sleep(left().map_or(pause, |left| left.min(pause))).await?;
            }
            Err(error) => return Err(during(Operation::HandOver, endpoint, error)),
        }
    }
}

/// Sends the message and returns the first instance's answer.
async fn offer<W: Way>(
    first: &mut W::Stream,
    message: &[u8],
    left: Option<Duration>,
) -> io::Result<[u8; 9]> {
    let end = left.and_then(|left| Instant::now().checked_add(left));
    W::write_all(first, message, left).await?;
    let mut answer = [0; HEADER.len() + 1];
    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
    W::read_exact(first, &mut answer, left).await?;
    Ok(answer)
}

pub(crate) async fn receive<W: Way>(later: &mut W::Stream, limit: Duration) -> io::Result<Launch> {
    let end = Instant::now().checked_add(limit);
    let left = || end.map(|end| end.saturating_duration_since(Instant::now()));

    let mut header = [0; HEADER.len() + 4];
    W::read_exact(later, &mut header, left()).await?;
    let (mark, length) = header.split_at(HEADER.len());
    let length = length.try_into().map_or(u32::MAX, u32::from_le_bytes);

    let launch = if mark == HEADER && length <= LIMIT {
        let mut launch = Vec::new();
        while launch.len() < length as usize {
            let known = launch.len();
            launch.resize((known + STEP).min(length as usize), 0);
            W::read_exact(later, &mut launch[known..], left()).await?;
        }
        Launch::from_bytes(&launch)
    } else {
        None
    };

    let said = if launch.is_some() { TAKEN } else { NOT_UNDERSTOOD };
    // A peer whose message begins without the mark would not understand the answer.
    if mark[..MARK] == HEADER[..MARK] {
        W::write_all(later, &[&HEADER[..], &[said]].concat(), left()).await?;
    }
    launch.ok_or_else(|| {
        let what = if mark[..MARK] == HEADER[..MARK] && mark != HEADER {
            format!(
                "a later start has version {} of the message, this one {}",
                mark[MARK], HEADER[MARK]
            )
        } else {
            "the data is not a launch".to_owned()
        };
        io::Error::new(ErrorKind::InvalidData, what)
    })
}

pub(crate) async fn exit_code<W: Way>(
    first: &mut W::Stream,
    endpoint: &Endpoint,
) -> io::Result<i32> {
    let process = W::process(first);
    let mut code = [0; 4];
    W::read_exact(first, &mut code, None).await.map_err(|error| {
        let what =
            format!("the first instance{} ended before it finished the launch", named(process));
        let error = Error::new(Reason::Os, what).caused_by(error);
        during(Operation::HandOver, endpoint, error.into())
    })?;
    Ok(i32::from_le_bytes(code))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe)
}

fn named(process: Option<u32>) -> String {
    process.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn no_answer(
    endpoint: &Endpoint,
    process: Option<u32>,
    limit: Duration,
    error: io::Error,
) -> io::Error {
    let seconds = limit.as_secs_f32();
    let named = named(process);
    let what = format!("the first instance{named} did not accept the launch within {seconds} s");
    let error = Error::new(Reason::NoAnswer { process }, what).caused_by(error);
    let advice = "it is suspended or hangs: end that process, or try again";
    during(Operation::HandOver, endpoint, error.advising(advice).into())
}

fn not_understood(endpoint: &Endpoint, process: Option<u32>, answer: &[u8]) -> io::Error {
    let why = if answer[..MARK] != HEADER[..MARK] {
        "answers with something else"
    } else if answer[MARK] != HEADER[MARK] {
        "has another version of the message"
    } else {
        "has not understood it"
    };
    let what = format!("the first instance{} {why}", named(process));
    let error = Error::new(Reason::NotUnderstood { process }, what);
    let advice =
        "it runs an older version of this program, or another program: end that process first";
    during(Operation::HandOver, endpoint, error.advising(advice).into())
}
