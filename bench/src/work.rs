//! The workloads. Each has one side that serves and one that drives and measures.

/// Payload and length prefix of one message.
pub const MESSAGE: usize = 64;
pub const PREFIX: usize = 4;
pub const FRAME: usize = MESSAGE + PREFIX;
/// Into how much messages are put together by hand.
pub const BATCH: usize = 64 * 1024;
pub const CONNECTIONS: usize = 64;
pub const IDLE: usize = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// W1: so many bytes there, and the same back.
    PingPong(usize),
    /// As W1, but 20 round trips at a time and then silence for 3 ms.
    Bursts,
    /// As W1, with a peer that works for 25 microseconds before it answers.
    Thinking,
    /// How late something else on the client's thread is, beside a conversation as in `Thinking`.
    Beside(Neighbour),
    /// W2: so many bytes a write, one way.
    OneWay(usize),
    /// W2: 64 KiB a write, there and back at the same time.
    Echo,
    /// W3: messages of 64 bytes.
    Messages(Sink),
    /// W3: the same put together by hand, there and back.
    MessagesEcho,
    /// W4: connect, one byte there and back, close; so many at a time.
    Connect(usize),
    /// The longest round trip of a connection's first 256 of 64 bytes each: in shared memory it is
    /// the one that moves there.
    Longest,
    /// W5: 64 connections that each talk in turns.
    Many,
    /// W6: 5,000 connections that have nothing to say.
    Idle,
    /// W7: as W5, with so many.
    Scale(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sink {
    /// One write a message.
    Each,
    /// Put together in 64 KiB by hand.
    Batch,
    /// tokio-util's `FramedWrite`, told to flush when nothing is queued.
    Framed,
    /// sockpipe's `FrameSink`, likewise.
    Own,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Neighbour {
    /// A timer.
    Timer,
    /// A call from another thread, every millisecond.
    Outside,
    /// A task that works for 50 microseconds, lets others have their turn, and wants its own.
    Busy,
}

/// What the serving side does with what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sends it back, with a buffer of this size.
    Echo(usize),
    /// As `Echo` with 64 KiB, after 25 microseconds of work.
    Think,
    /// Counts it, and says so with a byte for each so many: a stream is over when all of it has
    /// been read, and not every peer can end one side of it.
    Count { every: usize, frames: bool },
}

const NAMES: [(&str, Work); 26] = [
    ("pingpong-64", Work::PingPong(64)),
    ("pingpong-1k", Work::PingPong(1024)),
    ("pingpong-64k", Work::PingPong(64 * 1024)),
    ("bursts", Work::Bursts),
    ("thinking", Work::Thinking),
    ("beside-timer", Work::Beside(Neighbour::Timer)),
    ("beside-outside", Work::Beside(Neighbour::Outside)),
    ("beside-busy", Work::Beside(Neighbour::Busy)),
    ("oneway-64k", Work::OneWay(64 * 1024)),
    ("oneway-1m", Work::OneWay(1024 * 1024)),
    ("echo-64k", Work::Echo),
    ("messages-each", Work::Messages(Sink::Each)),
    ("messages-batch", Work::Messages(Sink::Batch)),
    ("messages-sink", Work::Messages(Sink::Own)),
    ("messages-framed", Work::Messages(Sink::Framed)),
    ("messages-echo", Work::MessagesEcho),
    ("connect-1", Work::Connect(1)),
    ("connect-64", Work::Connect(64)),
    ("longest-of-256", Work::Longest),
    ("many-64", Work::Many),
    ("idle-5000", Work::Idle),
    ("scale-1", Work::Scale(1)),
    ("scale-10", Work::Scale(10)),
    ("scale-100", Work::Scale(100)),
    ("scale-1000", Work::Scale(1000)),
    ("scale-10000", Work::Scale(10_000)),
];

impl Work {
    pub fn named(name: &str) -> Self {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no workload is called {name}")).1
    }

    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, work)| *work == self).expect("every workload has a name").0
    }

    pub fn service(self) -> Service {
        match self {
            Self::OneWay(_) => Service::Count { every: 32 << 20, frames: false },
            Self::Messages(Sink::Each) => Service::Count { every: FRAME << 13, frames: true },
            Self::Messages(_) => Service::Count { every: FRAME << 18, frames: true },
            Self::Thinking | Self::Beside(_) => Service::Think,
            Self::Idle | Self::Scale(_) => Service::Echo(4096),
            _ => Service::Echo(64 * 1024),
        }
    }

    /// What one operation moves, where that is the better unit.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::OneWay(size) => Some(size),
            Self::Echo => Some(64 * 1024),
            _ => None,
        }
    }
}
