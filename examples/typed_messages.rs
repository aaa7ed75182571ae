//! Messages that are Rust types: serde in frames with a length in front, by tokio-util.
//!
//! ```text
//! cargo run --example typed_messages -- serve                # in a first terminal
//! cargo run --example typed_messages -- sum 1 2 39           # in a second one
//! cargo run --example typed_messages -- greet mundo
//! ```
//!
//! The endpoint is `typed-messages`, or what SOCKPIPE_ENDPOINT says.

use std::io::{self, ErrorKind};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sockpipe::{Listener, Stream, serve, shutdown_signal};
use tokio::io::AsyncWriteExt;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Greet { name: String },
    Sum { numbers: Vec<i64> },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Greeting(String),
    Sum(i64),
    Refused(String),
}

/// A frame that announces more ends its connection, before any memory is taken for it.
const LONGEST: usize = 1 << 20;

type Frames = Framed<Stream, LengthDelimitedCodec>;

fn frames(stream: Stream) -> Frames {
    let codec = LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_codec();
    Framed::new(stream, codec)
}

async fn send<T: Serialize>(frames: &mut Frames, message: &T) -> io::Result<()> {
    frames.send(serde_json::to_vec(message)?.as_slice()).await
}

/// The next message; `None` when the peer has ended its side after the last one.
async fn receive<T: DeserializeOwned>(frames: &mut Frames) -> io::Result<Option<T>> {
    match frames.next().await {
        Some(Ok(frame)) => Ok(Some(serde_json::from_slice(&frame)?)),
        // The codec has no kind for a peer that left in the middle of a frame.
        Some(Err(error)) if error.kind() == ErrorKind::Other => {
            Err(io::Error::new(ErrorKind::UnexpectedEof, error))
        }
        Some(Err(error)) => Err(error),
        None => Ok(None),
    }
}

fn answer(request: Request) -> Answer {
    match request {
        Request::Greet { name } => Answer::Greeting(format!("olá {name}")),
        Request::Sum { numbers } => {
            let sum = numbers.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number));
            sum.map_or_else(|| Answer::Refused("the sum is too large".to_owned()), Answer::Sum)
        }
    }
}

async fn handle(stream: Stream) -> io::Result<()> {
    let mut frames = frames(stream);
    while let Some(request) = receive(&mut frames).await? {
        send(&mut frames, &answer(request)).await?;
    }
    frames.get_mut().shutdown().await
}

#[tokio::main]
async fn main() -> Result<()> {
    let endpoint = std::env::var("SOCKPIPE_ENDPOINT");
    let endpoint = endpoint.unwrap_or_else(|_| "typed-messages".to_owned());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let request = match words[..] {
        ["serve"] => {
            let listener = Listener::bind(&endpoint)?;
            let stop = shutdown_signal();
            println!("listening on {}", listener.endpoint());
            serve(listener, handle)
                // One connection's end is no other's.
                .on_error(|error| eprintln!("a connection ended, {:?}: {error}", error.kind()))
                .with_graceful_shutdown(stop)
                .await?;
            return Ok(());
        }
        ["greet", name] => Request::Greet { name: name.to_owned() },
        ["sum", ref numbers @ ..] => {
            let numbers = numbers.iter().map(|number| number.parse().context("not a number"));
            Request::Sum { numbers: numbers.collect::<Result<_>>()? }
        }
        _ => bail!("usage: typed_messages serve | greet NAME | sum NUMBER..."),
    };
    let mut frames = frames(Stream::connect(&endpoint).await?);
    send(&mut frames, &request).await?;
    let answer: Answer = receive(&mut frames).await?.context("the server gave no answer")?;
    println!("{answer:?}");
    Ok(())
}
