//! The workloads over a blocking transport, with a thread for each connection.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use sockpipe::{ConnectOptions, ListenOptions, SharedMemory, SpinPolicy};

use crate::flow::{Counter, fill, frame, poured};
use crate::measure::{Clock, Outcome, Times};
use crate::run;
use crate::work::{BATCH, MESSAGE, Service, Sink, Work};

pub trait Blocking: Send + Sync + 'static {
    type Listener;
    type Stream: Read + Write + Send + 'static;

    fn bind(&self, address: &str) -> io::Result<Self::Listener>;
    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream>;
    fn connect(&self, address: &str) -> io::Result<Self::Stream>;
}

#[cfg(unix)]
pub struct Std;

#[cfg(unix)]
impl Blocking for Std {
    type Listener = std::os::unix::net::UnixListener;
    type Stream = std::os::unix::net::UnixStream;

    fn bind(&self, address: &str) -> io::Result<Self::Listener> {
        std::os::unix::net::UnixListener::bind(address)
    }

    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        Ok(listener.accept()?.0)
    }

    fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        std::os::unix::net::UnixStream::connect(address)
    }
}

pub struct Interprocess;

impl Blocking for Interprocess {
    type Listener = LocalSocketListener;
    type Stream = LocalSocketStream;

    fn bind(&self, address: &str) -> io::Result<Self::Listener> {
        ListenerOptions::new().name(address.to_fs_name::<GenericFilePath>()?).create_sync()
    }

    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        listener.accept()
    }

    fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        LocalSocketStream::connect(address.to_fs_name::<GenericFilePath>()?)
    }
}

pub struct Sockpipe {
    pub spin: bool,
    pub memory: SharedMemory,
}

impl Sockpipe {
    fn policy(&self) -> SpinPolicy {
        if self.spin { SpinPolicy::Auto } else { SpinPolicy::Off }
    }
}

impl Blocking for Sockpipe {
    type Listener = sockpipe::blocking::Listener;
    type Stream = sockpipe::blocking::Stream;

    fn bind(&self, address: &str) -> io::Result<Self::Listener> {
        let options = ListenOptions::new().spin(self.policy()).shared_memory(self.memory);
        sockpipe::blocking::Listener::bind_with(address, &options)
    }

    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        listener.accept()
    }

    fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        let options = ConnectOptions::new().spin(self.policy()).shared_memory(self.memory);
        sockpipe::blocking::Stream::connect_with(address, &options)
    }
}

pub fn serve<B: Blocking>(transport: &B, service: Service, address: &str) -> io::Result<()> {
    let listener = transport.bind(address)?;
    run::say_listening(address);
    loop {
        let stream = B::accept(&listener)?;
        thread::spawn(move || drop(answer::<B>(stream, service)));
    }
}

fn answer<B: Blocking>(mut stream: B::Stream, service: Service) -> io::Result<()> {
    let (size, mut counter) = match service {
        Service::Echo(size) => (size, None),
        Service::Think | Service::Send(_) => panic!("no client asks a thread for {service:?}"),
        Service::Count { every, frames } => (64 * 1024, Some(Counter::new(every, frames))),
    };
    let mut buffer = vec![0; size];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        match &mut counter {
            None => stream.write_all(&buffer[..length])?,
            Some(counter) => {
                for _ in 0..counter.take(&buffer[..length]) {
                    stream.write_all(&[1])?;
                }
            }
        }
    }
}

pub fn drive<B: Blocking>(
    transport: B,
    work: Work,
    address: &str,
    millis: u64,
) -> io::Result<Outcome> {
    match work {
        Work::PingPong(size) => {
            let stream = transport.connect(address)?;
            let clock = Clock::new(millis);
            let times = ping_pong::<B>(stream, size, &clock)?;
            Ok(times.outcome((Instant::now() - clock.start).as_secs_f64()))
        }
        Work::OneWay(size) => pour::<B>(transport.connect(address)?, work, millis, &vec![7; size]),
        Work::Messages(Sink::Each) => {
            pour::<B>(transport.connect(address)?, work, millis, &frame())
        }
        Work::Messages(Sink::Batch) => {
            let mut batch = Vec::with_capacity(BATCH);
            fill(&mut batch, &[7; MESSAGE]);
            pour::<B>(transport.connect(address)?, work, millis, &batch)
        }
        Work::Connect(at_once) => {
            let (transport, clock) = (Arc::new(transport), Arc::new(Clock::new(millis)));
            let run = |_| {
                let (transport, clock, address) =
                    (transport.clone(), clock.clone(), address.to_owned());
                thread::spawn(move || {
                    let mut times = Times::default();
                    let mut now = Instant::now();
                    while now < clock.end {
                        let mut stream = transport.connect(&address)?;
                        stream.write_all(&[1])?;
                        stream.read_exact(&mut [0])?;
                        drop(stream);
                        let done = Instant::now();
                        times.push(&clock, now, done);
                        now = done;
                    }
                    io::Result::Ok(times)
                })
            };
            gather((0..at_once).map(run).collect(), &clock)
        }
        Work::Many(count) => {
            let mut streams = Vec::new();
            for _ in 0..count {
                streams.push(transport.connect(address)?);
            }
            let clock = Arc::new(Clock::new(millis));
            let talk = |stream| {
                let clock = clock.clone();
                thread::spawn(move || ping_pong::<B>(stream, 64, &clock))
            };
            gather(streams.into_iter().map(talk).collect(), &clock)
        }
        other => panic!("{} is not for blocking transports", other.name()),
    }
}

fn gather(
    running: Vec<thread::JoinHandle<io::Result<Times>>>,
    clock: &Clock,
) -> io::Result<Outcome> {
    let mut all = Times::default();
    for thread in running {
        all.extend(thread.join().expect("no panic")?);
    }
    Ok(all.outcome((clock.end - clock.start).as_secs_f64()))
}

fn ping_pong<B: Blocking>(mut stream: B::Stream, size: usize, clock: &Clock) -> io::Result<Times> {
    let (question, mut answer) = (vec![7; size], vec![0; size]);
    let mut times = Times::default();
    let mut now = Instant::now();
    while now < clock.end {
        stream.write_all(&question)?;
        stream.read_exact(&mut answer)?;
        let done = Instant::now();
        times.push(clock, now, done);
        now = done;
    }
    Ok(times)
}

fn pour<B: Blocking>(
    mut stream: B::Stream,
    work: Work,
    millis: u64,
    block: &[u8],
) -> io::Result<Outcome> {
    let Service::Count { every, .. } = work.service() else { panic!("nobody counts") };
    let end = Clock::new(millis).end;
    let start = Instant::now();
    let (mut sent, mut due) = (0, every);
    loop {
        stream.write_all(block)?;
        sent += block.len();
        if sent >= due {
            due += every;
            if Instant::now() >= end {
                break;
            }
        }
    }
    stream.read_exact(&mut vec![0; sent / every])?;
    Ok(poured(sent / every * every, work, block.len(), start))
}
