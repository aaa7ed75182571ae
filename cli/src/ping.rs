//! `sockpipe ping`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use sockpipe::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::exit::{Exit, INTERRUPTED, TOO_LATE, at_output};
use crate::latency::{Latencies, human, nanoseconds};
use crate::say::Progress;
use crate::server::asked_to_stop;
use crate::{args, client, os, say};

/// How long one answer may take, by default.
const ANSWER: Duration = Duration::from_secs(5);
/// The time between two updates of the progress line.
const PROGRESS: Duration = Duration::from_millis(100);

pub async fn run(args: args::Ping) -> Result<()> {
    let mut stop = asked_to_stop();
    let stream = tokio::select! {
        stream = client::connect_fast(&args.endpoint, &args.client, args.spin, args.memory) => {
            Arc::new(stream?)
        }
        () = &mut stop => return Err(Exit::silent(INTERRUPTED).into()),
    };
    let mut pings = Pings::new(&args)?;
    let mut started = Instant::now();
    let done = {
        let measure = async {
            // The first round trip includes the accept, so it is not counted.
            pings.round_trip(&stream).await?;
            started = Instant::now();
            match args.rate {
                None => pings.one_after_another(&stream).await,
                Some(rate) => pings.on_time(&stream, rate).await,
            }
        };
        tokio::select! {
            done = measure => done,
            // The results so far are worth showing.
            () = stop => Ok(()),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let taken = std::mem::take(&mut pings.taken);
    drop(pings);
    if taken.is_empty() {
        done?;
        return Err(Exit::silent(INTERRUPTED).into());
    }
    print(&args, &Latencies::new(taken), seconds, carrier(&stream)).map_err(at_output)?;
    done
}

struct Pings {
    count: usize,
    limit: Duration,
    payload: Arc<Vec<u8>>,
    buffer: Vec<u8>,
    /// In nanoseconds.
    taken: Vec<u64>,
    progress: Option<(Progress, Instant)>,
}

impl Pings {
    fn new(args: &args::Ping) -> Result<Self> {
        let size = args.size as usize;
        let mut payload = room(size)?;
        // No two neighbors are equal, so that a lost byte is noticed.
        payload.extend((0..size).map(|at| (at % 251) as u8));
        let mut buffer = room(size)?;
        buffer.resize(size, 0);
        Ok(Self {
            count: args.count as usize,
            limit: args.client.timeout.unwrap_or(ANSWER),
            payload: Arc::new(payload),
            buffer,
            taken: Vec::new(),
            progress: Progress::wanted().then(|| (Progress::new(), Instant::now())),
        })
    }

    async fn one_after_another(&mut self, stream: &Stream) -> Result<()> {
        while self.taken.len() < self.count {
            let started = Instant::now();
            self.round_trip(stream).await?;
            self.came_back(started);
        }
        Ok(())
    }

    async fn round_trip(&mut self, stream: &Stream) -> Result<()> {
        // Sends and receives at the same time, because an answer may begin before the whole request
        // is sent.
        let (mut to, payload) = (stream, &self.payload);
        let send = async { to.write_all(payload).await };
        let (mut from, buffer) = (stream, &mut self.buffer);
        let receive = async { from.read_exact(buffer).await };
        let both = async { tokio::try_join!(send, receive) };
        let answer = timeout(self.limit, both).await;
        self.check(answer)
    }

    /// Sends without waiting for answers, so that a server which stops responding delays all
    /// requests that are sent meanwhile.
    async fn on_time(&mut self, stream: &Arc<Stream>, rate: f64) -> Result<()> {
        let (times, sent) = channel();
        let sender = OnTime {
            runtime: Handle::current(),
            stream: Arc::clone(stream),
            payload: Arc::clone(&self.payload),
            count: self.count,
            pause: Duration::from_secs_f64(1.0 / rate),
        };
        // Uses a thread, because the runtime's timers are no finer than a millisecond.
        thread::Builder::new().name("ping".to_owned()).spawn(move || sender.send(&times))?;
        let longest = self.limit.saturating_add(Duration::from_secs_f64(1.0 / rate));
        while self.taken.len() < self.count {
            let mut from = &**stream;
            let answer = timeout(longest, from.read_exact(&mut self.buffer)).await;
            self.check(answer)?;
            self.came_back(next_of(&sent)?);
        }
        Ok(())
    }

    /// Checks whether an answer came in time, and whether it is the right one.
    fn check<T>(&self, answer: Result<io::Result<T>, Elapsed>) -> Result<()> {
        let answers = self.taken.len();
        match answer {
            Err(_) => Err(too_late(self.limit, answers)),
            Ok(Err(error)) => {
                bail!("the server left after {answers} answers ({error}); is it an echo server?")
            }
            Ok(Ok(_)) if self.buffer != *self.payload => {
                bail!("the server returned other data than was sent; ping needs an echo server")
            }
            Ok(Ok(_)) => Ok(()),
        }
    }

    fn came_back(&mut self, started: Instant) {
        let taken = nanoseconds(started.elapsed());
        if self.taken.is_empty() {
            say::detail(format_args!("the first that is counted took {}", human(taken)));
        }
        self.taken.push(taken);
        if let Some((progress, shown)) = &mut self.progress {
            if shown.elapsed() >= PROGRESS {
                *shown = Instant::now();
                let (done, count) = (self.taken.len(), self.count);
                progress.show(format_args!("{done} of {count}, the last took {}", human(taken)));
            }
        }
    }
}

/// Allocates a buffer for `size` bytes. The system may not have that much memory.
fn room(size: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    let reserved = buffer.try_reserve_exact(size);
    reserved.with_context(|| format!("no memory for {size} bytes; choose fewer with --size"))?;
    Ok(buffer)
}

struct OnTime {
    runtime: Handle,
    stream: Arc<Stream>,
    payload: Arc<Vec<u8>>,
    count: usize,
    pause: Duration,
}

impl OnTime {
    fn send(self, times: &Sender<Instant>) {
        let started = Instant::now();
        for number in 0..self.count {
            let due = started + self.pause.mul_f64(number as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // Noted before the call, because the answer may be back before the call is.
            if times.send(Instant::now()).is_err() {
                return;
            }
            let mut to = &*self.stream;
            // The reader sees that the server is gone, and reports it.
            if self.runtime.block_on(to.write_all(&self.payload)).is_err() {
                return;
            }
        }
    }
}

/// Answers come in the order of the requests.
fn next_of(sent: &Receiver<Instant>) -> Result<Instant> {
    sent.try_recv().map_err(|_| {
        anyhow!("the server sent more data than it received; ping needs an echo server")
    })
}

fn too_late(limit: Duration, answers: usize) -> anyhow::Error {
    let seconds = limit.as_secs_f64();
    let what = format!(
        "no answer within {seconds} s, after {answers} that came; is it an echo server? `sockpipe \
         echo` is one; a slow one gets more time with --timeout"
    );
    Exit::new(TOO_LATE, what).into()
}

/// Returns which transport carried the last bytes.
#[cfg(feature = "shared-memory")]
fn carrier(stream: &Stream) -> &'static str {
    match stream.transport() {
        sockpipe::Transport::SharedMemory => "shared-memory",
        _ => "socket",
    }
}

#[cfg(not(feature = "shared-memory"))]
fn carrier(_: &Stream) -> &'static str {
    "socket"
}

fn print(args: &args::Ping, latencies: &Latencies, seconds: f64, carrier: &str) -> io::Result<()> {
    let count = latencies.count();
    let (endpoint, size) = (&args.endpoint, args.size);
    let rate = count as f64 / seconds;
    let figures = [("min", 0.0), ("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0)];
    let mut text = Vec::new();
    if args.json {
        let mut object = json!({
            "endpoint": endpoint.to_string(),
            "count": count,
            "size": size,
            "seconds": seconds,
            "rate": rate,
            "transport": carrier,
        });

        for (name, percent) in figures {
            object[format!("{name}_ns")] = latencies.percentile(percent).into();
        }
        let bucket = |bucket: crate::latency::Bucket| {
            json!({
                "from_ns": bucket.from,
                "to_ns": bucket.to,
                "count": bucket.count,
            })
        };

        object["histogram"] = latencies.histogram().into_iter().map(bucket).collect();
        writeln!(text, "{object:#}")?;
    } else {
        writeln!(
            text,
            "{count} round trips of {size} bytes to {} in {seconds:.2} s, {rate:.0}/s",
            say::shown(&endpoint.to_string())
        )?;
        if carrier != "socket" {
            writeln!(text, "through {carrier}")?;
        }

        let names = figures.map(|(name, _)| format!("{name:<10}"));
        let times =
            figures.map(|(_, percent)| format!("{:<10}", human(latencies.percentile(percent))));
        writeln!(text, "{}\n{}", names.concat().trim_end(), times.concat().trim_end())?;
        for line in latencies.drawn() {
            writeln!(text, "{line}")?;
        }
    }
    let mut out = os::stdout();
    out.write_all(&text)?;
    out.flush()
}
