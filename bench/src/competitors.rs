//! The competitors.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use sockpipe::{ListenOptions, Listener, SharedMemory, SpinPolicy, echo};
use tokio::runtime::{Builder, Runtime};

#[cfg(feature = "iceoryx2")]
use crate::iceoryx;
use crate::measure::Outcome;
#[cfg(unix)]
use crate::recvmsg::Recvmsg;
use crate::streams::{Interprocess, Raw, Sockpipe, Tcp, Tipsy, Transport};
use crate::work::{Service, Work};
use crate::{blocking, flow, killed, run, zeromq};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Competitor {
    /// tokio's own streams, on one thread.
    Tokio,
    /// The same code as `Tokio`, under another name. The difference between the two is noise.
    Noise,
    /// The same, but reads by recvmsg as sockpipe does. It also looks at the readiness twice.
    TokioRecvmsg,
    TokioMt,
    Sockpipe,
    Spin,
    SpinMt,
    Bulk,
    /// sockpipe in shared memory, with busy-polling and without.
    Lane,
    LaneSleeps,
    /// `Lane` with a peer that has shared memory off, as `Spin` has it at both ends.
    PlainServer,
    PlainClient,
    /// sockpipe with `serve` and `echo` as the server.
    Serve,
    InterprocessTokio,
    Tipsy,
    Tcp,
    Std,
    Threads,
    ThreadsSpin,
    ThreadsLane,
    InterprocessSync,
    Go,
    Node,
    ZeroMq,
    Iceoryx,
}

use Competitor::*;

const NAMES: [(&str, Competitor); 25] = [
    ("tokio", Tokio),
    ("tokio again (noise)", Noise),
    ("tokio, recvmsg", TokioRecvmsg),
    ("tokio, 2 threads", TokioMt),
    ("sockpipe", Sockpipe_),
    ("sockpipe, spin", Spin),
    ("sockpipe, spin, 2 threads", SpinMt),
    ("sockpipe, bulk", Bulk),
    ("sockpipe, shared memory, spin", Lane),
    ("sockpipe, shared memory", LaneSleeps),
    ("sockpipe, shared memory, spin, plain server", PlainServer),
    ("sockpipe, shared memory, spin, plain client", PlainClient),
    ("sockpipe, serve + echo", Serve),
    ("interprocess (tokio)", InterprocessTokio),
    ("tipsy", Competitor::Tipsy),
    ("tokio TCP loopback", Competitor::Tcp),
    ("std, a thread each", Std),
    ("sockpipe, a thread each", Threads),
    ("sockpipe, spin, a thread each", ThreadsSpin),
    ("sockpipe, shared memory, spin, a thread each", ThreadsLane),
    ("interprocess (sync)", InterprocessSync),
    ("Go", Go),
    ("Node.js", Node),
    ("ZeroMQ", ZeroMq),
    ("iceoryx2, polling", Iceoryx),
];

#[allow(non_upper_case_globals, reason = "the transport has the same name")]
const Sockpipe_: Competitor = Competitor::Sockpipe;

/// A side of a connection, where the two have different options.
#[derive(Clone, Copy)]
enum Side {
    Server,
    Client,
}

impl Competitor {
    pub fn named(name: &str) -> Self {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("nobody is called {name}")).1
    }

    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, known)| *known == self).expect("everybody has a name").0
    }

    /// Reports whether bars for shared memory are about this competitor.
    pub fn is_in_memory(self) -> bool {
        matches!(self, Lane | LaneSleeps | PlainServer | PlainClient)
    }

    /// Reports whether the competitor is installed and supports this workload.
    pub fn takes_part(self, work: Work) -> bool {
        static FOUND: Mutex<Option<HashMap<Competitor, bool>>> = Mutex::new(None);
        if cfg!(windows)
            && matches!(self, TokioRecvmsg | Std | InterprocessSync | Go | Node | ZeroMq)
        {
            return false;
        }
        if matches!(self, Node)
            && !matches!(work, Work::PingPong(_) | Work::OneWay(_) | Work::Connect(_))
        {
            return false;
        }
        if self == Iceoryx {
            #[cfg(feature = "iceoryx2")]
            return iceoryx::takes_part(work);
            #[cfg(not(feature = "iceoryx2"))]
            return false;
        }
        let mut found = FOUND.lock().expect("no panic");
        *found.get_or_insert_default().entry(self).or_insert_with(|| match self {
            Go => go_peer().is_some(),
            Node => {
                Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success())
            }
            ZeroMq => zeromq::library().is_some(),
            _ => true,
        })
    }

    /// Returns the program in another language that is started in place of this one.
    pub fn command(self) -> Option<Command> {
        match self {
            Go => Some(Command::new(go_peer()?)),
            Node => {
                let mut node = Command::new("node");
                node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/peer.js"));
                Some(node)
            }
            _ => None,
        }
    }

    pub fn serve(self, work: Work, address: &str) {
        let service = work.service();
        let ended = match self {
            #[cfg(unix)]
            Std => blocking::serve(&blocking::Std, service, address),
            Threads | ThreadsSpin | ThreadsLane => {
                blocking::serve(&self.threads(Side::Server), service, address)
            }
            InterprocessSync => blocking::serve(&blocking::Interprocess, service, address),
            ZeroMq => zeromq::serve(service, address),
            #[cfg(feature = "iceoryx2")]
            Iceoryx => iceoryx::serve(work, address),
            Serve => self.runtime().block_on(serve_and_echo(address)),
            _ => self.serve_async(service, address),
        };
        fail(self, ended);
    }

    fn serve_async(self, service: Service, address: &str) -> io::Result<()> {
        let runtime = self.runtime();
        match self {
            Tokio | Noise | TokioMt => runtime.block_on(flow::serve(&Raw, service, address)),
            #[cfg(unix)]
            TokioRecvmsg => runtime.block_on(flow::serve(&Recvmsg, service, address)),
            InterprocessTokio => runtime.block_on(flow::serve(&Interprocess, service, address)),
            Competitor::Tipsy => runtime.block_on(flow::serve(&Tipsy, service, address)),
            Competitor::Tcp => runtime.block_on(flow::serve(&Tcp, service, address)),
            _ => runtime.block_on(flow::serve(&self.sockpipe(Side::Server), service, address)),
        }
    }

    pub fn drive(self, work: Work, address: &str, millis: u64) -> Outcome {
        let done = match self {
            #[cfg(unix)]
            Std => blocking::drive(blocking::Std, work, address, millis),
            Threads | ThreadsSpin | ThreadsLane => {
                blocking::drive(self.threads(Side::Client), work, address, millis)
            }
            InterprocessSync => blocking::drive(blocking::Interprocess, work, address, millis),
            ZeroMq => zeromq::drive(work, address, millis),
            #[cfg(feature = "iceoryx2")]
            Iceoryx => iceoryx::drive(work, address, millis),
            Tokio | Noise | TokioMt => self.drive_async(Raw, work, address, millis),
            #[cfg(unix)]
            TokioRecvmsg => self.drive_async(Recvmsg, work, address, millis),
            InterprocessTokio => self.drive_async(Interprocess, work, address, millis),
            Competitor::Tipsy => self.drive_async(Tipsy, work, address, millis),
            Competitor::Tcp => self.drive_async(Tcp, work, address, millis),
            _ => self.drive_async(self.sockpipe(Side::Client), work, address, millis),
        };
        fail(self, done)
    }

    fn drive_async(
        self,
        transport: impl Transport,
        work: Work,
        address: &str,
        millis: u64,
    ) -> io::Result<Outcome> {
        let runtime = self.runtime();
        if work == Work::Killed {
            return runtime.block_on(killed::measure(self, transport, address, millis));
        }
        runtime.block_on(flow::drive(transport, work, address, millis))
    }

    fn sockpipe(self, side: Side) -> Sockpipe {
        Sockpipe {
            spin: matches!(self, Spin | SpinMt | Lane | PlainServer | PlainClient),
            bulk: self == Bulk,
            memory: self.memory(side),
        }
    }

    fn threads(self, side: Side) -> blocking::Sockpipe {
        let spin = matches!(self, ThreadsSpin | ThreadsLane);
        blocking::Sockpipe { spin, memory: self.memory(side) }
    }

    fn memory(self, side: Side) -> SharedMemory {
        match (self, side) {
            (Lane | LaneSleeps | ThreadsLane, _)
            | (PlainServer, Side::Client)
            | (PlainClient, Side::Server) => SharedMemory::Auto,
            _ => SharedMemory::Off,
        }
    }

    fn runtime(self) -> Runtime {
        let mut builder = match self {
            TokioMt | SpinMt => Builder::new_multi_thread(),
            _ => Builder::new_current_thread(),
        };
        builder.worker_threads(2).enable_all().build().expect("a runtime")
    }
}

async fn serve_and_echo(address: &str) -> io::Result<()> {
    let listener = Listener::bind_with(address, &ListenOptions::new().spin(SpinPolicy::Off))?;
    run::say_listening(address);
    match sockpipe::serve(listener, |stream| echo::echo(stream, |_| ())).await {
        Ok(never) => match never {},
        Err(error) => Err(error),
    }
}

fn fail<T>(who: impl Debug, outcome: io::Result<T>) -> T {
    outcome.unwrap_or_else(|error| {
        eprintln!("{who:?}: {error}");
        std::process::exit(1);
    })
}

/// Builds the Go program once, and returns its path.
fn go_peer() -> Option<&'static str> {
    static BUILT: OnceLock<Option<String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let program = std::env::current_exe().ok()?.with_file_name("go-peer").to_str()?.to_owned();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/peer.go");
        let built = Command::new("go")
            .args(["build", "-o", &program, source])
            .env("GO111MODULE", "off")
            .status();
        built.is_ok_and(|status| status.success()).then_some(program)
    });
    built.as_deref()
}
