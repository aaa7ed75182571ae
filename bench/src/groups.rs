//! The groups of competitors, which take turns.

use crate::charts::SCALE;
use crate::competitors::Competitor::{self, *};
use crate::run::Pin;
use crate::work::{Neighbour, Sink, Work};

pub const KILLED: &str = "from the kill of a server to the end that its client reads";
pub const LONGEST: &str = "the longest of a connection's first 256 round trips";

pub struct Group {
    pub title: &'static str,
    pub pin: Pin,
    /// The competitors and their workloads. The others are compared with the first.
    pub entries: Vec<(Competitor, Work)>,
    /// The figure that is compared.
    pub by: By,
}

impl Group {
    /// Returns the group without competitors that are not compared with shared memory, or `None` if
    /// shared memory does not take part.
    pub fn of_memory(mut self) -> Option<Self> {
        let compared = [Tokio, Noise, Sockpipe, Spin, Iceoryx];
        self.entries.retain(|(who, _)| compared.contains(who) || who.is_in_memory());
        self.entries.iter().any(|(who, _)| *who == Lane).then_some(self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The median of the times. Less is better.
    P50,
    Rate,
    Memory,
}

fn group(title: &'static str, pin: Pin, by: By, work: Work, who: &[Competitor]) -> Group {
    Group { title, pin, by, entries: who.iter().map(|who| (*who, work)).collect() }
}

pub fn all() -> Vec<Group> {
    if cfg!(windows) {
        return pipes();
    }
    let talkers = [
        Tokio,
        Noise,
        Sockpipe,
        Spin,
        Std,
        Threads,
        ThreadsSpin,
        Lane,
        LaneSleeps,
        PlainServer,
        PlainClient,
        ThreadsLane,
        InterprocessTokio,
        Tipsy,
        Tcp,
        InterprocessSync,
        Go,
        Node,
        ZeroMq,
    ];
    // Between two cores, the time to wake one hides the price of a system call.
    let mut together = talkers.to_vec();
    together.insert(2, TokioRecvmsg);
    // Two processes that busy-poll on one core would measure the scheduler.
    let across = [&talkers[..], &[TokioMt, SpinMt, Serve, Iceoryx]].concat();
    let connectors = [
        Tokio,
        Noise,
        TokioRecvmsg,
        Sockpipe,
        Spin,
        Lane,
        LaneSleeps,
        PlainServer,
        PlainClient,
        InterprocessTokio,
        Tipsy,
        Tcp,
        Go,
        Node,
    ];
    let mut groups = vec![
        group("W1 64 B round trip, same core", Pin::Same, By::P50, Work::PingPong(64), &together),
        group("W1 64 B round trip, cross core", Pin::Cross, By::P50, Work::PingPong(64), &across),
        group(
            "W1 64 KiB round trip, cross core",
            Pin::Cross,
            By::P50,
            Work::PingPong(64 * 1024),
            &[Tokio, Noise, Sockpipe, Spin, Lane, Serve, Std, Iceoryx],
        ),
        group(
            "20 round trips each 3 ms, cross core",
            Pin::Cross,
            By::P50,
            Work::Bursts,
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "64 B round trip, a peer that works for 25 µs, cross core",
            Pin::Cross,
            By::P50,
            Work::Thinking,
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "64 B round trip beside two busy processes",
            Pin::Hogs,
            By::Rate,
            Work::PingPong(64),
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "64 B round trip, four pairs of processes",
            Pin::Pairs,
            By::Rate,
            Work::PingPong(64),
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "a timer on the thread of a conversation",
            Pin::Cross,
            By::P50,
            Work::Beside(Neighbour::Timer),
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "a call from outside to that thread",
            Pin::Cross,
            By::P50,
            Work::Beside(Neighbour::Outside),
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "a busy task on that thread",
            Pin::Cross,
            By::P50,
            Work::Beside(Neighbour::Busy),
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "W2 64 KiB writes, one way, same core",
            Pin::Same,
            By::Rate,
            Work::OneWay(64 * 1024),
            &[Tokio, Noise, Sockpipe, Spin, Bulk, Lane],
        ),
        group(
            "W2 64 KiB writes, one way",
            Pin::Cross,
            By::Rate,
            Work::OneWay(64 * 1024),
            &[
                Tokio,
                Noise,
                Sockpipe,
                Spin,
                Bulk,
                Lane,
                PlainServer,
                PlainClient,
                InterprocessTokio,
                Tipsy,
                Tcp,
                Std,
                Threads,
                ThreadsSpin,
                Go,
                Node,
                Iceoryx,
            ],
        ),
        group(
            "W2 1 MiB writes, one way",
            Pin::Cross,
            By::Rate,
            Work::OneWay(1 << 20),
            &[Tokio, Noise, Sockpipe, Bulk, Lane, Iceoryx],
        ),
        group(
            "W2 64 KiB writes, one way, to the client",
            Pin::Cross,
            By::Rate,
            Work::Download(64 * 1024),
            &[Tokio, Noise, Sockpipe, Lane],
        ),
        group(
            "W2 1 MiB writes, one way, to the client",
            Pin::Cross,
            By::Rate,
            Work::Download(1 << 20),
            &[Tokio, Noise, Sockpipe, Lane],
        ),
        group(
            "W2 64 KiB echo",
            Pin::Cross,
            By::Rate,
            Work::Echo,
            &[Tokio, Noise, Sockpipe, Spin, Lane, PlainServer, PlainClient, Serve, Tcp, Go],
        ),
        Group {
            title: "W3 64 B messages, one way",
            pin: Pin::Cross,
            by: By::Rate,
            entries: vec![
                (Tokio, Work::Messages(Sink::Each)),
                (Noise, Work::Messages(Sink::Each)),
                (Sockpipe, Work::Messages(Sink::Each)),
                (Spin, Work::Messages(Sink::Each)),
                (Lane, Work::Messages(Sink::Each)),
                (PlainServer, Work::Messages(Sink::Each)),
                (PlainClient, Work::Messages(Sink::Each)),
                (Tokio, Work::Messages(Sink::Batch)),
                (Sockpipe, Work::Messages(Sink::Batch)),
                (Sockpipe, Work::Messages(Sink::Framed)),
                (Sockpipe, Work::Messages(Sink::Own)),
                (ZeroMq, Work::Messages(Sink::Each)),
            ],
        },
        group(
            "W3 64 B messages in 64 KiB, echo",
            Pin::Cross,
            By::Rate,
            Work::MessagesEcho,
            &[Tokio, Noise, Sockpipe, Go],
        ),
        group(
            "W4 connect, byte, close; 1 at a time",
            Pin::Cross,
            By::Rate,
            Work::Connect(1),
            &connectors,
        ),
        group(
            "W4 connect, byte, close; 64 at a time",
            Pin::Cross,
            By::Rate,
            Work::Connect(64),
            &connectors,
        ),
        group(KILLED, Pin::Cross, By::P50, Work::Killed, &[Tokio, Noise, Lane, LaneSleeps]),
        group(LONGEST, Pin::Cross, By::P50, Work::Longest, &[Tokio, Noise, Sockpipe, Spin, Lane]),
        group(
            "W5 64 connections in turns",
            Pin::Cross,
            By::Rate,
            Work::Many(64),
            &[
                Tokio,
                Noise,
                TokioRecvmsg,
                Sockpipe,
                Spin,
                Lane,
                PlainServer,
                PlainClient,
                InterprocessTokio,
                Std,
                Threads,
                ThreadsSpin,
                Tcp,
                Go,
            ],
        ),
        // One more than the streams that a process moves into shared memory.
        group(
            "W5 65 connections in turns",
            Pin::Cross,
            By::Rate,
            Work::Many(65),
            &[Tokio, Noise, Sockpipe, Spin, Lane],
        ),
        group(
            "W5 64 connections in turns, same core",
            Pin::Same,
            By::Rate,
            Work::Many(64),
            &[Tokio, Noise, TokioRecvmsg, Sockpipe, Spin, Lane],
        ),
        group(
            "W6 5,000 idle connections",
            Pin::Anywhere,
            By::Memory,
            Work::Idle,
            // The server's memory is measured, so only that side of a pair counts.
            &[Tokio, Noise, Sockpipe, Spin, Lane, PlainClient, Serve],
        ),
    ];
    groups.extend(SCALE.map(|(count, title)| {
        let who = [Tokio, Noise, Sockpipe, Spin, Lane];
        group(title, Pin::Cross, By::Rate, Work::Scale(count as usize), &who)
    }));
    groups
}

/// Returns the groups over named pipes, compared with tokio's own.
fn pipes() -> Vec<Group> {
    let who = [Tokio, Noise, Sockpipe, InterprocessTokio, Tcp];
    let group = |title, by, work| group(title, Pin::Anywhere, by, work, &who);
    vec![
        group("Pipes: 64 B round trip", By::P50, Work::PingPong(64)),
        group("Pipes: 64 KiB round trip", By::P50, Work::PingPong(64 * 1024)),
        group("Pipes: 64 KiB writes, one way", By::Rate, Work::OneWay(64 * 1024)),
        group("Pipes: 64 KiB echo", By::Rate, Work::Echo),
        group("Pipes: 64 B messages, a write each", By::Rate, Work::Messages(Sink::Each)),
        group("Pipes: 64 connections in turns", By::Rate, Work::Many(64)),
        group("Pipes: connect, byte, close", By::Rate, Work::Connect(1)),
    ]
}

pub fn list() {
    for group in all() {
        println!("{}", group.title);
        for (who, work) in group.entries {
            let here = if who.takes_part(work) { "" } else { " (not here)" };
            println!("  {}: {}{here}", work.name(), who.name());
        }
    }
}
