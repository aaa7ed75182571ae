//! How a later start hands what it was asked to do to the first one, and hears that it was taken.
//!
//! The later one sends a header, a mark and a version, and the launch with its length. The first one
//! answers with the same header and whether it took it, and later, if it likes, with an exit code. A
//! program that speaks something else is told by its answer or by its silence.

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

/// At the start of both messages, with the version.
const HEADER: [u8; 8] = *b"sp-run\0\x01";
/// What the header begins with, whatever the version.
const MARK: usize = 7;
const TAKEN: u8 = 0;
const NOT_UNDERSTOOD: u8 = 1;
/// Between tries while the first one goes: at first, and at most.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// How much room is made at a time for what a peer says that it sends.
const STEP: usize = 64 * 1024;

/// Becomes the first instance at `endpoint`, or hands `launch` to it, with the default options: 5
/// seconds for the first one to take it.
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

/// Becomes the first instance at `endpoint`, or hands `launch` to it. It is
/// [`HandOver::Taken`] only when the first one has said so, with a [`LaunchRequest`]; if that one ends
/// before, this one takes its place or finds the next.
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
/// Those of [`SingleInstance::acquire_with`](crate::SingleInstance::acquire_with). `TimedOut` with
/// [`Reason::NoAnswer`], which names the process, when the first one does not take the launch
/// until the deadline of `connect`: it is stopped, or hangs. `InvalidData` with
/// [`Reason::NotUnderstood`] when it answers with something else, as an older version of the program
/// does. `InvalidInput` for a launch of more than 16 MiB.
///
/// # Cancel safety
///
/// Dropping the future leaves nothing behind; the first one may have taken the launch.
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

/// What came of [`hand_over`].
#[cfg(feature = "tokio")]
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
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct Reply {
    stream: Stream,
    endpoint: Endpoint,
}

#[cfg(feature = "tokio")]
impl Reply {
    /// Waits, as long as it takes, until the first instance [has
    /// finished](LaunchRequest::finish) what it was asked to do, and returns its exit code.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` with the process when the first instance ended or dropped the request before.
    pub async fn exit_code(mut self) -> io::Result<i32> {
        exit_code::<Tasks>(&mut self.stream, &self.endpoint).await
    }
}

/// A later start that wants something done, at the first instance.
///
/// Dropped without [`finish`](Self::finish), it tells the later start that nothing is known of it.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct LaunchRequest {
    launch: Launch,
    stream: Stream,
}

#[cfg(feature = "tokio")]
impl LaunchRequest {
    /// Takes the launch from a connection that the first instance has accepted, and says so. A later
    /// start that sends nothing is given up after `limit`; read each in a task of its own.
    ///
    /// # Errors
    ///
    /// `InvalidData` when what came is no launch, or one of another version; `TimedOut`;
    /// `UnexpectedEof` or `BrokenPipe` when the later start has gone, and expects nothing any more.
    /// The listener is as good as before.
    pub async fn receive(mut stream: Stream, limit: Duration) -> io::Result<Self> {
        let launch = receive::<Tasks>(&mut stream, limit).await?;
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
    pub async fn finish(mut self, code: i32) -> io::Result<()> {
        Tasks::write_all(&mut self.stream, &code.to_le_bytes(), None).await?;
        self.stream.close(CLOSING).await
    }
}

/// How long four bytes may take into the system's hands.
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
            // It ends, and has left this one to its successor, which may be us.
            Err(error) if is_gone(&error) => {
                let pause = backoff.pause();
                W::sleep(left().map_or(pause, |left| left.min(pause))).await?;
            }
            Err(error) => return Err(during(Operation::HandOver, endpoint, error)),
        }
    }
}

/// The first one's answer to the message.
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
    // One that does not begin as ours do would not understand the answer.
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
            "what came is no launch".to_owned()
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
        let what = format!("the first instance{} ended before it was done", named(process));
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
    let what = format!("the first instance{named} did not take it within {seconds} s");
    let error = Error::new(Reason::NoAnswer { process }, what).caused_by(error);
    let advice = "it is stopped or hangs: end it, or try again";
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
    let advice = "it is an older version of this program, or another one: end it first";
    during(Operation::HandOver, endpoint, error.advising(advice).into())
}
