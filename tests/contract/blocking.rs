//! The rows that apply to the blocking API, between two blocking ends, and between a blocking and
//! an async end.
//!
//! Rows 4 and 15, and 13 with processes out of descriptors, run code that both APIs share:
//! `unix_faults` and `users` test it. Row 14 is about futures; `tests/blocking/timeouts.rs` tests
//! reads and writes that time out.

mod streams;

use std::io::{self, Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sockpipe::{
    ConnectOptions, ExpectServer, ListenOptions, Listener, Reason, Stream, UserId, blocking,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::common::bounded::{bounded, exchange, read_all};
use crate::common::{
    Backend, Os, PATIENCE, argument, assert_reason, listen_options, of_this_run, run_alone,
    spawn_helper, within,
};

/// The API of an end.
#[derive(Clone, Copy, Debug)]
enum Api {
    Blocking,
    Async,
}

/// The APIs of the client and of the server.
const ENDS: [(Api, Api); 3] =
    [(Api::Blocking, Api::Blocking), (Api::Blocking, Api::Async), (Api::Async, Api::Blocking)];

struct World {
    runtime: Arc<Runtime>,
    os: Os,
}

enum Listening {
    Blocking(blocking::Listener),
    Async(Listener, Arc<Runtime>),
}

enum Side {
    Blocking(blocking::Stream),
    Async(Stream, Arc<Runtime>),
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: Arc::new(runtime.expect("a runtime")), os: Os::new() }
    }

    fn bind(&self, api: Api) -> io::Result<Listening> {
        let _context = self.runtime.enter();
        match api {
            Api::Blocking => {
                let options = listen_options();
                blocking::Listener::bind_with(self.os.endpoint(), &options).map(Listening::Blocking)
            }
            Api::Async => Ok(Listening::Async(self.os.bind()?, Arc::clone(&self.runtime))),
        }
    }

    fn connect(&self, api: Api) -> io::Result<Side> {
        match api {
            Api::Blocking => {
                let options = of_this_run(ConnectOptions::new());
                blocking::Stream::connect_with(self.os.endpoint(), &options).map(Side::Blocking)
            }
            Api::Async => {
                let stream = self.runtime.block_on(within(self.os.connect()))?;
                Ok(Side::Async(stream, Arc::clone(&self.runtime)))
            }
        }
    }
}

impl Listening {
    fn accept(&mut self) -> Side {
        match self {
            Self::Blocking(listener) => Side::Blocking(listener.accept().expect("a client")),
            Self::Async(listener, runtime) => {
                let stream = runtime.block_on(within(listener.accept())).expect("a client");
                Side::Async(stream, Arc::clone(runtime))
            }
        }
    }
}

impl Side {
    fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Blocking(stream) => stream.shutdown(),
            Self::Async(stream, runtime) => {
                runtime.block_on(async { (&mut &*stream).shutdown().await })
            }
        }
    }

    fn close(self) -> io::Result<()> {
        match self {
            Self::Blocking(stream) => stream.close(PATIENCE),
            Self::Async(stream, runtime) => runtime.block_on(stream.close(PATIENCE)),
        }
    }
}

impl Read for &Side {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Side::Blocking(stream) => (&mut &*stream).read(buf),
            Side::Async(stream, runtime) => {
                runtime.block_on(within(async { (&mut &*stream).read(buf).await }))
            }
        }
    }
}

impl Write for &Side {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Side::Blocking(stream) => (&mut &*stream).write(buf),
            Side::Async(stream, runtime) => {
                runtime.block_on(within(async { (&mut &*stream).write(buf).await }))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connected((client, server): (Api, Api)) -> (Side, Side) {
    let world = World::new();
    let mut listener = world.bind(server).expect("a free name");
    let client = world.connect(client).expect("a server");
    (client, listener.accept())
}

/// Runs `row` for each pair of APIs, on a thread with a time limit.
fn for_all_ends(row: impl Fn(Side, Side) + Send + Copy + 'static) {
    for ends in ENDS {
        println!("{ends:?}");
        bounded(move || {
            let (client, server) = connected(ends);
            row(client, server);
        });
    }
}

#[test]
fn row_1_bind_listens_when_it_returns() {
    for_all_ends(|client, server| exchange(&client, &server));
}

#[test]
fn row_2_a_living_server_keeps_its_name() {
    for (lives, comes) in ENDS {
        bounded(move || {
            let world = World::new();
            let mut listener = world.bind(lives).expect("a free name");
            let before = world.os.files();
            for _ in 0..3 {
                assert_reason!(world.bind(comes), Reason::LiveServer { .. }, world.os.endpoint());
            }
            assert_eq!(world.os.files(), before);
            // The first accepted connection is the client's, so `bind` has not connected to probe
            // the server.
            let client = world.connect(comes).expect("a server");
            (&client).write_all(b"first").expect("a write");
            client.shutdown().expect("a half-close");
            assert_eq!(read_all(&listener.accept()), b"first");
        });
    }
}

/// The helper of row 3: holds the name in its argument until it is killed.
#[test]
fn helper_holds_the_name() {
    let Some(endpoint) = argument() else { return };
    let listener = blocking::Listener::bind(endpoint).expect("a free name");
    println!("\nholding");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a client");
        let mut byte = [0];
        while stream.read(&mut byte).expect("a read") == 1 {
            stream.write_all(&byte).expect("a write");
        }
    }
}

#[test]
fn row_3_a_crashed_server_leaves_the_name_to_the_next() {
    bounded(|| {
        let world = World::new();
        let mut child =
            spawn_helper("contract::blocking::helper_holds_the_name", world.os.endpoint());
        let options = ConnectOptions::new().wait_for_server(PATIENCE);
        let client = blocking::Stream::connect_with(world.os.endpoint(), &options);
        let client = client.expect("a server");
        let mut byte = [7];
        (&client).write_all(&byte).expect("a write");
        (&client).read_exact(&mut byte).expect("an echo");
        assert_reason!(world.bind(Api::Blocking), Reason::LiveServer { .. });
        child.kill().expect("a kill");
        child.wait().expect("an end");
        assert_eq!(read_all(&client), b"");
        // On Windows the client still holds the name, and `bind` takes it over.
        let mut listener = world.bind(Api::Blocking).expect("the name of the dead");
        drop(client);
        let client = world.connect(Api::Blocking).expect("a server");
        exchange(&client, &listener.accept());
    });
}

#[test]
fn row_6_drop_leaves_nothing_and_frees_the_name_at_once() {
    bounded(|| {
        let world = World::new();
        for _ in 0..50 {
            let mut listener = world.bind(Api::Blocking).expect("a free name");
            let client = world.connect(Api::Blocking).expect("a server");
            drop(listener.accept());
            drop(client);
            drop(listener);
            assert_eq!(world.os.files(), [""; 0]);
        }
        assert_reason!(world.connect(Api::Blocking), Reason::NoServer, world.os.endpoint());
    });
}

/// On Windows accepted connections hold the name.
#[test]
fn row_6_a_close_reports_whether_the_name_is_free() {
    let os = Os::new();
    let bind = || blocking::Listener::bind(os.endpoint()).expect("a free name");
    let listener = bind();
    let waiting = blocking::Stream::connect(os.endpoint()).expect("a server");
    drop(waiting);
    listener.close().expect("a free name");
    assert_eq!(os.files(), [""; 0]);

    let listener = bind();
    let client = blocking::Stream::connect(os.endpoint()).expect("a server");
    let accepted = listener.accept().expect("a client");
    let closed = listener.close();
    if cfg!(windows) {
        assert_reason!(closed, Reason::HeldByConnections, os.endpoint());
    } else {
        closed.expect("a free name");
        drop(bind());
    }
    drop((client, accepted));
}

#[test]
fn row_7_connect_waits_for_a_server_when_asked_to_and_not_for_ever() {
    bounded(|| {
        let world = World::new();
        let wait = Duration::from_millis(200);
        let started = Instant::now();
        assert_reason!(world.connect(Api::Blocking), Reason::NoServer);
        assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());

        let options = ConnectOptions::new().deadline(Duration::ZERO).wait_for_server(wait);
        let started = Instant::now();
        let nobody = blocking::Stream::connect_with(world.os.endpoint(), &options);
        assert_reason!(nobody, Reason::NoServer);
        assert!(started.elapsed() >= wait, "{:?}", started.elapsed());

        let options = ConnectOptions::new().wait_for_server(PATIENCE);
        thread::scope(|scope| {
            let client =
                scope.spawn(|| blocking::Stream::connect_with(world.os.endpoint(), &options));
            thread::sleep(Duration::from_millis(20));
            assert!(!client.is_finished(), "connected to nobody");
            let mut listener = world.bind(Api::Blocking).expect("a free name");
            let server = listener.accept();
            exchange(&client.join().expect("no panic").expect("a server"), &server);
        });
    });
}

#[test]
fn row_8_a_busy_server_is_waited_for_until_the_deadline() {
    bounded(|| {
        let world = World::new();
        let options = ListenOptions::new();
        #[cfg(unix)]
        let options = sockpipe::os::unix::ListenOptionsExt::backlog(options, 1);
        let listener = blocking::Listener::bind_with(world.os.endpoint(), &options);
        let listener = listener.expect("a free name");
        let deadline = Duration::from_millis(200);
        let options = ConnectOptions::new().deadline(deadline);
        let connect = || blocking::Stream::connect_with(world.os.endpoint(), &options);
        let mut waiting = Vec::new();
        let (error, took) = loop {
            let started = Instant::now();
            match connect() {
                Ok(client) => waiting.push(client),
                Err(error) => break (error, started.elapsed()),
            }
            assert!(waiting.len() < 1000, "it is never busy");
        };
        assert_reason!(Err::<(), _>(error), Reason::Deadline, world.os.endpoint());
        assert!(took >= deadline, "{took:?}");
        // The connected clients are served, in any order, and then there is room again.
        for (number, client) in waiting.iter().enumerate() {
            (&mut &*client).write_all(&[number as u8]).expect("a write");
        }
        for _ in &waiting {
            let server = listener.accept().expect("a client");
            let mut number = [0];
            (&server).read_exact(&mut number).expect("a number");
            (&server).write_all(&number).expect("a write");
        }
        for (number, client) in waiting.iter().enumerate() {
            assert_eq!(read_all(client), [number as u8]);
        }
        let client = connect().expect("room");
        exchange(&client, listener.accept().expect("a client"));
    });
}

#[test]
fn row_9_the_bytes_of_a_client_that_left_still_arrive() {
    for (client, server) in ENDS {
        bounded(move || {
            let world = World::new();
            let mut listener = world.bind(server).expect("a free name");
            for length in [0, 10, 30_000] {
                let client = world.connect(client).expect("a server");
                (&client).write_all(&vec![1; length]).expect("a write");
                drop(client);
                assert_eq!(read_all(&listener.accept()).len(), length);
            }
        });
    }
}

#[test]
fn row_13_accept_survives_clients_that_come_and_go_at_once() {
    bounded(|| {
        let world = World::new();
        let mut listener = world.bind(Api::Blocking).expect("a free name");
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..300 {
                    drop(world.connect(Api::Blocking).expect("a server"));
                }
                let client = world.connect(Api::Blocking).expect("a server");
                (&client).write_all(b"last").expect("a write");
            });
            loop {
                let bytes = read_all(&listener.accept());
                if bytes == b"last" {
                    break;
                }
                assert_eq!(bytes, b"");
            }
        });
    });
}

/// The helper of row 13: a server with few descriptors, which keeps its clients until it has to
/// wait for room.
#[cfg(unix)]
#[test]
fn helper_serves_with_few_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let Some(endpoint) = argument() else { return };
    let listener = blocking::Listener::bind(endpoint).expect("a free name");
    setrlimit(Resource::Nofile, Rlimit { current: Some(32), maximum: Some(32) }).expect("a limit");
    let (listener, kept) = (Arc::new(listener), Arc::new(std::sync::Mutex::new(Vec::new())));
    let (stats, full) = (Arc::clone(&listener), Arc::clone(&kept));
    thread::spawn(move || {
        let mut pauses = 0;
        loop {
            thread::sleep(Duration::from_millis(20));
            if stats.stats().pauses > pauses {
                pauses = stats.stats().pauses;
                full.lock().expect("no panic").clear();
            }
        }
    });
    loop {
        let stream = listener.accept().expect("it never dies");
        (&stream).write_all(b"x").expect("a write");
        kept.lock().expect("no panic").push(stream);
    }
}

#[cfg(unix)]
#[test]
fn row_13_accept_goes_on_once_descriptors_are_free_again() {
    bounded(|| {
        let world = World::new();
        let mut child = spawn_helper(
            "contract::blocking::helper_serves_with_few_descriptors",
            world.os.endpoint(),
        );
        let options = ConnectOptions::new().wait_for_server(PATIENCE);
        let clients: Vec<_> = (0..60)
            .map(|_| blocking::Stream::connect_with(world.os.endpoint(), &options))
            .collect::<Result<_, _>>()
            .expect("a server");
        for client in &clients {
            let mut byte = [0];
            (&mut &*client).read_exact(&mut byte).expect("a byte of each");
        }
        child.kill().expect("a kill");
        child.wait().expect("an end");
    });
}

#[test]
fn row_16_another_server_than_expected_is_refused() {
    bounded(|| {
        let world = World::new();
        let _listener = world.bind(Api::Blocking).expect("a free name");
        let other = if cfg!(windows) {
            UserId::Sid("S-1-5-21-1-2-3-4444".to_owned())
        } else {
            UserId::Uid(4_000_000)
        };
        let options = ConnectOptions::new().expect_server(ExpectServer::Exactly(other));
        let refused = blocking::Stream::connect_with(world.os.endpoint(), &options);
        assert_reason!(refused, Reason::UnexpectedServer, world.os.endpoint());
    });
}

#[test]
fn row_19_a_child_inherits_nothing() {
    if cfg!(not(target_os = "linux")) {
        println!("not run: needs /proc to see what a child has");
        return;
    }
    run_alone("contract::blocking::helper_starts_a_child");
}

/// The helper of row 19. With macOS's calls a child that is started just after another thread has
/// created a socket inherits it, so no other test runs in its process.
#[test]
fn helper_starts_a_child() {
    if argument().is_none() {
        return;
    }
    bounded(|| {
        let world = World::new();
        let mut listener = world.bind(Api::Blocking).expect("a free name");
        let client = world.connect(Api::Blocking).expect("a server");
        let server = listener.accept();
        let pair = blocking::Stream::pair().expect("a pair");
        let listing = "ls -l /proc/self/fd; exit 0";
        let output = Command::new("sh").args(["-c", listing]).output().expect("a child");
        let listing = String::from_utf8_lossy(&output.stdout);
        assert!(listing.contains("pipe:"), "{listing}");
        assert!(!listing.contains("socket:") && !listing.contains(".lock"), "{listing}");
        drop((client, server, pair));
    });
}
