//! A later start sends anything to the first instance, and the first instance answers anything.
//! Only a launch is accepted, and only the answer that accepts it.
#![no_main]

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::net::{SendFlags, send};
use sockpipe::blocking::{HandOver, LaunchRequest, Stream, hand_over_with};
use sockpipe::{ConnectOptions, Error, Launch, ListenOptions, Reason};

const HEADER: &[u8; 8] = b"sp-run\0\x01";
const TAKEN: u8 = 0;
const NOT_UNDERSTOOD: u8 = 1;
const LIMIT: u32 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Arbitrary, Debug)]
enum Conversation {
    Message(Message),
    Answer(Answer),
}

#[derive(Arbitrary, Debug)]
struct Message {
    header: Option<Vec<u8>>,
    length: Option<u32>,
    body: Body,
    spoiled: Option<(u16, u8)>,
    more: Vec<u8>,
    cut: Option<u16>,
}

#[derive(Arbitrary, Debug)]
enum Body {
    Bytes(Vec<u8>),
    Launch { args: Vec<Vec<u8>>, dir: Option<Vec<u8>>, envs: Vec<(Vec<u8>, Vec<u8>)> },
}

#[derive(Arbitrary, Debug)]
struct Answer {
    start: Start,
    more: Vec<u8>,
    reads_first: bool,
}

#[derive(Arbitrary, Debug)]
enum Start {
    Nothing,
    Accepts,
    Refuses,
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text);
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        let (args, dir, envs) = match self {
            Self::Bytes(bytes) => return bytes.clone(),
            Self::Launch { args, dir, envs } => (args, dir, envs),
        };
        let mut bytes = Vec::from((args.len() as u32).to_le_bytes());
        for arg in args {
            put(&mut bytes, arg);
        }
        bytes.extend(u32::from(dir.is_some()).to_le_bytes());
        if let Some(dir) = dir {
            put(&mut bytes, dir);
        }
        bytes.extend((envs.len() as u32).to_le_bytes());
        for (name, value) in envs {
            put(&mut bytes, name);
            put(&mut bytes, value);
        }
        bytes
    }
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let body = self.body.bytes();
        let mut bytes = self.header.clone().unwrap_or_else(|| HEADER.to_vec());
        bytes.extend(self.length.unwrap_or(body.len() as u32).to_le_bytes());
        bytes.extend(body);
        if let Some((at, byte)) = self.spoiled {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= byte;
        }
        bytes.extend(&self.more);
        if let Some(cut) = self.cut {
            bytes.truncate(usize::from(cut));
        }
        bytes
    }
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

fn text(bytes: &mut &[u8]) -> Option<OsString> {
    let length = number(bytes)? as usize;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(OsString::from_vec(text.to_vec()))
}

/// Reads a launch as the protocol says, and nothing beyond.
fn launch(mut bytes: &[u8]) -> Option<Launch> {
    let rest = &mut bytes;
    let mut launch = Launch::new();
    for _ in 0..number(rest)? {
        launch = launch.args([text(rest)?]);
    }
    match number(rest)? {
        0 => {}
        1 => launch = launch.current_dir(text(rest)?),
        _ => return None,
    }
    for _ in 0..number(rest)? {
        let name = text(rest)?;
        launch = launch.env(name, text(rest)?);
    }
    bytes.is_empty().then_some(launch)
}

/// What the first instance has to make of a message.
enum Expected {
    Launch(Launch),
    /// With an answer, or without one to a peer that does not speak the protocol.
    Refused(bool),
    Truncated,
}

fn expected(bytes: &[u8]) -> Expected {
    let Some((header, rest)) = bytes.split_first_chunk::<8>() else { return Expected::Truncated };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Expected::Truncated };
    let length = u32::from_le_bytes(*length);
    if header != HEADER || length > LIMIT {
        return Expected::Refused(header[..7] == HEADER[..7]);
    }
    match rest.get(..length as usize) {
        None => Expected::Truncated,
        Some(body) => launch(body).map_or(Expected::Refused(true), Expected::Launch),
    }
}

fn receive(message: &Message) {
    let bytes = message.bytes();
    let (mut later, first) = UnixStream::pair().expect("a pair");
    later.write_all(&bytes).expect("room");
    later.shutdown(Shutdown::Write).expect("an end");
    let first = Stream::try_from(first).expect("a stream");
    let received = LaunchRequest::receive(first, PATIENCE);

    let mut answer = Vec::new();
    match (expected(&bytes), received) {
        (Expected::Launch(launch), Ok(request)) => {
            assert_eq!(*request.launch(), launch);
            request.finish(7).expect("room");
            let _ = later.read_to_end(&mut answer);
            assert_eq!(answer, [&HEADER[..], &[TAKEN], &7_i32.to_le_bytes()].concat());
        }
        (Expected::Refused(answered), Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            // What was not read makes the end of the stream an error, after the answer.
            let _ = later.read_to_end(&mut answer);
            let refusal = [&HEADER[..], &[NOT_UNDERSTOOD]].concat();
            assert_eq!(answer, if answered { &refusal[..] } else { &[] });
        }
        (Expected::Truncated, Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
            later.read_to_end(&mut answer).expect("an end");
            assert_eq!(answer, []);
        }
        (_, received) => panic!("{received:?}"),
    }
}

/// A first instance that gives all clients the same answer.
struct First {
    name: String,
    answer: Arc<Mutex<(Vec<u8>, bool)>>,
}

fn first() -> &'static First {
    static FIRST: OnceLock<First> = OnceLock::new();
    FIRST.get_or_init(|| {
        let name = std::env::temp_dir().join(format!("sockpipe-fuzz-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&name).expect("a free name");
        let answer = Arc::new(Mutex::new((Vec::new(), false)));
        let given = answer.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (answer, reads_first) = given.lock().expect("an answer").clone();
                let mut client = client.expect("a client");
                if reads_first {
                    let _ = client.read(&mut [0; 64]);
                }
                let _ = send(&client, &answer, SendFlags::NOSIGNAL);
            }
        });
        First { name: name.to_str().expect("UTF-8").to_owned(), answer }
    })
}

fn answered(answer: &Answer) {
    let mut bytes = match answer.start {
        Start::Nothing => Vec::new(),
        Start::Accepts => [&HEADER[..], &[TAKEN]].concat(),
        Start::Refuses => [&HEADER[..], &[NOT_UNDERSTOOD]].concat(),
    };
    bytes.extend(&answer.more);
    let first = first();
    *first.answer.lock().expect("an answer") = (bytes.clone(), answer.reads_first);

    // A first instance that leaves before it has the launch is tried again until the deadline.
    let is_final = bytes.len() >= 9 && answer.reads_first;
    let limit = if is_final { PATIENCE } else { Duration::from_millis(5) };
    let (listen, connect) = (ListenOptions::new(), ConnectOptions::new().deadline(limit));
    let outcome = hand_over_with(first.name.as_str(), &Launch::new(), &listen, &connect);
    let reason = |error: &std::io::Error| Error::of(error).map(|error| error.reason().clone());
    match (bytes.split_first_chunk::<9>(), outcome) {
        (Some((start, code)), Ok(HandOver::Taken(reply))) => {
            assert_eq!(start[..], [&HEADER[..], &[TAKEN]].concat());
            match (code.split_first_chunk(), reply.exit_code()) {
                (Some((code, _)), Ok(read)) => assert_eq!(i32::from_le_bytes(*code), read),
                (_, Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
                    assert!(code.len() < 4 || !answer.reads_first);
                }
                (None, Ok(read)) => panic!("{read}"),
            }
        }
        (_, Err(error)) if !is_final && error.kind() == ErrorKind::TimedOut => {
            assert!(matches!(reason(&error), Some(Reason::NoAnswer { .. })), "{error}");
        }
        (Some((start, _)), Err(error)) if start[..] != [&HEADER[..], &[TAKEN]].concat() => {
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert!(matches!(reason(&error), Some(Reason::NotUnderstood { .. })), "{error}");
        }
        (_, outcome) => panic!("{outcome:?}"),
    }
}

fuzz_target!(|conversation: Conversation| {
    match conversation {
        Conversation::Message(message) => receive(&message),
        Conversation::Answer(answer) => answered(&answer),
    }
});
