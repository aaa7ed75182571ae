//! iceoryx2, polled by both sides, which is its fastest mode. Only `--features iceoryx2` builds it.

use std::hint::spin_loop;
use std::io;
use std::time::{Duration, Instant};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::flow::poured;
use crate::measure::{Clock, Outcome, Times};
use crate::run;
use crate::work::{Service as Served, Work};

/// How many messages may be queued.
const QUEUE: usize = 64;

struct Ends {
    to: Publisher<ipc::Service, [u8], ()>,
    from: Subscriber<ipc::Service, [u8], ()>,
    // The ports need it to stay alive.
    _node: Node<ipc::Service>,
}

fn ends(address: &str, serves: bool, size: usize) -> io::Result<Ends> {
    let node = NodeBuilder::new().create::<ipc::Service>().map_err(io::Error::other)?;
    let service = |direction: &str| {
        let name = format!("{address}/{direction}");
        let name: ServiceName = name.as_str().try_into().map_err(io::Error::other)?;
        // No message may be lost, as on a stream.
        node.service_builder(&name)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(QUEUE)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()
            .map_err(io::Error::other)
    };
    let (to, from) = if serves { ("answers", "questions") } else { ("questions", "answers") };
    let (to, from) = (service(to)?, service(from)?);
    let from = from.subscriber_builder().buffer_size(QUEUE).create();
    let to = to
        .publisher_builder()
        .initial_max_slice_len(size)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create();
    Ok(Ends {
        to: to.map_err(io::Error::other)?,
        from: from.map_err(io::Error::other)?,
        _node: node,
    })
}

impl Ends {
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let room = self.to.loan_slice_uninit(bytes.len()).map_err(io::Error::other)?;
        room.write_from_slice(bytes).send().map_err(io::Error::other)?;
        Ok(())
    }

    /// Copies the next message into `buffer`, as a read does.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(sample) = self.from.receive().map_err(io::Error::other)? {
                let bytes = sample.payload();
                buffer[..bytes.len()].copy_from_slice(bytes);
                return Ok(bytes.len());
            }
            spin_loop();
        }
    }
}

/// Returns the size of a message. Small messages in one direction are left out: a sender that finds
/// its peer's queue full sleeps longer and longer, and the benchmark would measure only that.
fn size(work: Work) -> Option<usize> {
    match work {
        Work::PingPong(size) | Work::OneWay(size) => Some(size),
        _ => None,
    }
}

pub fn takes_part(work: Work) -> bool {
    size(work).is_some()
}

/// Removes the files of servers that were killed.
pub fn clean_up() {
    if let Ok(node) = NodeBuilder::new().create::<ipc::Service>() {
        node.blocking_cleanup_dead_nodes(Duration::from_secs(5));
    }
}

pub fn serve(work: Work, address: &str) -> io::Result<()> {
    let size = size(work).ok_or(io::ErrorKind::Unsupported)?;
    let ends = ends(address, true, size)?;
    run::say_listening(address);
    let (mut buffer, mut seen) = (vec![0; size], 0);
    loop {
        let length = ends.receive(&mut buffer)?;
        match work.service() {
            Served::Count { every, .. } => {
                let before = seen / every;
                seen += length;
                if seen / every > before {
                    ends.send(&[1])?;
                }
            }
            _ => ends.send(&buffer[..length])?,
        }
    }
}

pub fn drive(work: Work, address: &str, millis: u64) -> io::Result<Outcome> {
    let size = size(work).ok_or(io::ErrorKind::Unsupported)?;
    let ends = ends(address, false, size)?;
    let (block, mut buffer) = (vec![7; size], vec![0; size]);
    if let Work::PingPong(_) = work {
        let clock = Clock::new(millis);
        let (mut times, mut now) = (Times::default(), Instant::now());
        while now < clock.end {
            ends.send(&block)?;
            ends.receive(&mut buffer)?;
            let done = Instant::now();
            times.push(&clock, now, done);
            now = done;
        }
        return Ok(times.outcome((now - clock.start).as_secs_f64()));
    }
    let Served::Count { every, .. } = work.service() else { panic!("nobody counts") };
    let end = Clock::new(millis).end;
    let start = Instant::now();
    let (mut sent, mut due) = (0, every);
    loop {
        ends.send(&block)?;
        sent += size;
        if sent >= due {
            due += every;
            ends.receive(&mut buffer)?;
            if Instant::now() >= end {
                break;
            }
        }
    }
    Ok(poured(sent / every * every, work, size, start))
}
