//! The workloads. In each, one side serves, and the other drives and measures.

/// The length of a message.
pub const MESSAGE: usize = 64;
/// The length of a message's length prefix.
pub const PREFIX: usize = 4;
pub const FRAME: usize = MESSAGE + PREFIX;
/// How many bytes of messages are batched by hand.
pub const BATCH: usize = 64 * 1024;
pub const IDLE: usize = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// W1: sends this many bytes, and receives the same.
    PingPong(usize),
    /// Like W1, but with 20 round trips at a time and then 3 ms of silence.
    Bursts,
    /// Like W1, with a peer that works for 25 microseconds before it answers.
    Thinking,
    /// How late other work on the client's thread runs during a conversation as in `Thinking`.
    Beside(Neighbour),
    /// W2: this many bytes per write, from the client to the server.
    OneWay(usize),
    /// W2: this many bytes per write, from the server to the client.
    Download(usize),
    /// W2: 64 KiB per write, in both directions at the same time.
    Echo,
    /// W3: messages of 64 bytes.
    Messages(Sink),
    /// W3: the same messages batched by hand, in both directions.
    MessagesEcho,
    /// W4: connects, sends one byte in each direction, and closes. This many clients run at a time.
    Connect(usize),
    /// The longest of a connection's first 256 round trips of 64 bytes. In shared memory, it is the
    /// one in which the stream moves.
    Longest,
    /// How soon a client sees the end of a conversation whose server is killed.
    Killed,
    /// W5: this many connections that each take turns.
    Many(usize),
    /// W6: 5,000 idle connections.
    Idle,
    /// W7: like W5, but the server reads with smaller buffers.
    Scale(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sink {
    /// One write per message.
    Each,
    /// Messages batched by hand into 64 KiB.
    Batch,
    /// tokio-util's `FramedWrite`, flushed when no message is queued.
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
    /// A task that works for 50 microseconds, yields, and needs its next turn.
    Busy,
}

/// What the server does with the bytes that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sends them back, with a buffer of this size.
    Echo(usize),
    /// Like `Echo` with 64 KiB, after 25 microseconds of work.
    Think,
    /// Counts them, and sends a byte as a receipt for each `every` bytes. A stream is over once
    /// everything has been read, because not every peer can half-close.
    Count { every: usize, frames: bool },
    /// Writes blocks of this size, and reads nothing.
    Send(usize),
}

const NAMES: [(&str, Work); 30] = [
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
    ("download-64k", Work::Download(64 * 1024)),
    ("download-1m", Work::Download(1024 * 1024)),
    ("echo-64k", Work::Echo),
    ("messages-each", Work::Messages(Sink::Each)),
    ("messages-batch", Work::Messages(Sink::Batch)),
    ("messages-sink", Work::Messages(Sink::Own)),
    ("messages-framed", Work::Messages(Sink::Framed)),
    ("messages-echo", Work::MessagesEcho),
    ("connect-1", Work::Connect(1)),
    ("connect-64", Work::Connect(64)),
    ("longest-of-256", Work::Longest),
    ("killed", Work::Killed),
    ("many-64", Work::Many(64)),
    ("many-65", Work::Many(65)),
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
            Self::Download(size) => Service::Send(size),
            Self::Messages(Sink::Each) => Service::Count { every: FRAME << 13, frames: true },
            Self::Messages(_) => Service::Count { every: FRAME << 18, frames: true },
            Self::Thinking | Self::Beside(_) => Service::Think,
            Self::Idle | Self::Scale(_) => Service::Echo(4096),
            _ => Service::Echo(64 * 1024),
        }
    }

    /// Returns how many bytes one operation moves, if that is the better unit.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::OneWay(size) | Self::Download(size) => Some(size),
            Self::Echo => Some(64 * 1024),
            _ => None,
        }
    }
}
