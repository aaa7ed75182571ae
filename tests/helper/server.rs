//! Servers that take commands on standard input.

use std::collections::VecDeque;
use std::env::set_current_dir;
use std::fs;
use std::io::{BufRead, stdin};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio, abort, id};
use std::thread;

use sockpipe::os::unix::{
    ListenOptionsExt, ListenerExt, OnNameLost, activated_descriptors, activated_listeners,
    activated_stream,
};
use sockpipe::{Access, ListenOptions, Listener, Stream, echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::shown;

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) listen: ListenOptions,
    /// Prints each client's user and process.
    tell: bool,
    /// Counts SIGALRM, which would otherwise kill the process.
    alarm: bool,
}

impl Options {
    pub(crate) fn parse(options: &[&str]) -> Self {
        let mut parsed = Self::default();
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let listen = parsed.listen.clone();
            let mut value = |radix| {
                let text = options.next().expect("a value");
                u32::from_str_radix(text, radix).expect("a number")
            };
            parsed.listen = match *option {
                "--everyone" => listen.access(Access::Everyone),
                "--unsafe-directory" => listen.unsafe_directory(true),
                "--mode" => listen.mode(value(8)),
                "--group" => listen.group(value(10)),
                "--backlog" => listen.backlog(value(10)),
                "--ignore-lost-name" => listen.on_name_lost(OnNameLost::Ignore),
                "--tell" => {
                    parsed.tell = true;
                    listen
                }
                "--alarm" => {
                    parsed.alarm = true;
                    listen
                }
                other => panic!("no such option: {other}"),
            };
        }
        parsed
    }
}

/// Binds, and prints the parts of the error that a program can match.
pub(crate) fn reason(path: &str) {
    let error = Listener::bind(path).expect_err("an error");
    let known = sockpipe::Error::of(&error).expect("one of ours");
    let (operation, code) = (known.operation(), known.raw_os_error().unwrap_or(0));
    println!("{:?} {operation:?} {:?} {code}", error.kind(), known.reason());
}

pub(crate) async fn run(path: &str, options: &[&str]) {
    let options = Options::parse(options);
    match Listener::bind_with(path, &options.listen) {
        Ok(listener) => serve(listener, &options).await,
        Err(error) => println!("{}", shown(&error)),
    }
}

/// Serves one client of the listening socket that is standard input, so it takes no commands.
pub(crate) async fn inherited(options: &[&str]) {
    let options = Options::parse(options);
    let socket = stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut listener = Listener::from_fd(socket, &options.listen).expect("a listener");
    println!("listening {}", listener.endpoint());
    let stream = listener.accept().await.expect("a connection");
    echo::echo(stream, |_| ()).await.expect("an echo");
    println!("served");
}

/// Prints the listeners that socket activation passed, and then the result of a second call.
pub(crate) async fn activated() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    // Without a runtime the call fails, and loses nothing.
    let early = || activated_listeners::<Listener>(&ListenOptions::default()).map(drop);
    let early = thread::spawn(early).join().expect("no panic");
    drop(early);
    for call in ["first", "second"] {
        let found = match activated_listeners::<Listener>(&ListenOptions::default()) {
            Ok(found) => found,
            Err(error) => {
                println!("{call} {}", shown(&error));
                continue;
            }
        };
        println!("{call} {}", found.len());
        for (name, mut listener) in found {
            println!("{name} {}", listener.endpoint());
            println!("a child has {} sockets", sockets_of_a_child());
            let stream = listener.accept().await.expect("a connection");
            echo::echo(stream, |_| ()).await.expect("an echo");
        }
    }
    // The environment is not changed.
    println!("environment {} {}", variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
}

/// Prints the descriptors that were passed, the listeners among them, and those that are left.
pub(crate) async fn passed() {
    let passed = || activated_descriptors().expect("what was passed");
    for found in passed() {
        println!("{} {} {:?}", found.number, found.name, found.kind);
    }
    for (name, _) in activated_listeners::<Listener>(&ListenOptions::default()).expect("listeners")
    {
        println!("taken {name}");
    }
    for found in passed() {
        println!("{} {} {:?}, open", found.number, found.name, found.kind);
    }
}

/// Serves the connection that this process was started for. No one reads its standard output.
pub(crate) async fn served() {
    let stream = activated_stream::<Stream>().expect("what was passed").expect("a connection");
    echo::echo(stream, |_| ()).await.expect("an echo");
    let again = activated_stream::<Stream>().expect("what was passed");
    assert!(again.is_none(), "it is there once");
    // The test reads the end of the stream and not of this process, which it kills.
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
}

/// Returns how many sockets a child inherits, which is always 0 without `/proc`.
fn sockets_of_a_child() -> usize {
    let child = Command::new("ls").args(["-l", "/proc/self/fd/"]).stdin(Stdio::null()).output();
    let listed = child.expect("a child").stdout;
    String::from_utf8_lossy(&listed).matches("socket:").count()
}

/// Starts children while another thread binds, connects and accepts without a pause.
pub(crate) async fn children(path: &str, count: u32) {
    let mut listener = Listener::bind(path).expect("a free name");
    let beside = format!("{path}2");
    let (stop, stopped) = watch::channel(false);
    let spawner = thread::spawn(move || {
        let children: Vec<Child> = (0..20)
            .map(|_| {
                let mut sleep = Command::new("sleep");
                sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                sleep.spawn().expect("a child")
            })
            .collect();
        stop.send_replace(true);
        children
    });
    let (mut rounds, mut held) = (0, VecDeque::new());
    while rounds < count || !*stopped.borrow() {
        let another = Listener::bind(&beside).expect("a free name");
        let (client, server) = tokio::join!(Stream::connect(path), listener.accept());
        drop(another);
        // Sockets of each kind are open when a child starts.
        held.push_back((client.expect("a connection"), server.expect("a connection")));
        if held.len() > 32 {
            held.pop_front();
        }
        rounds += 1;
    }
    let children = spawner.join().expect("children");
    let ids: Vec<_> = children.iter().map(|child| child.id().to_string()).collect();
    println!("rounds {rounds} children {}", ids.join(" "));
    // The children live until the test kills this process.
    let mut commands = commands();
    while commands.recv().await.is_some() {}
    for mut child in children {
        child.kill().expect("a kill");
        child.wait().expect("an end");
    }
}

async fn serve(listener: Listener, options: &Options) {
    let mut alarms = options.alarm.then(|| signal(SignalKind::alarm()).expect("a handler"));
    println!("listening {}", id());
    let mut commands = commands();
    let mut listener = Some(listener);
    let mut accepted = 0;
    let drain = watch::Sender::new(false);
    loop {
        tokio::select! {
            command = commands.recv() => match command.as_deref() {
                None => return,
                Some("stats") => {
                    let listener = listener.as_ref().expect("not dropped");
                    let stats = listener.stats();
                    let (refused, pauses) = (stats.refused, stats.pauses);
                    println!("accepted {accepted} refused {refused} pauses {pauses}");
                }
                Some("published") => {
                    let published = listener.as_ref().expect("not dropped").is_published();
                    println!("published {published}");
                }
                Some("republish") => {
                    let outcome = listener.as_mut().expect("not dropped").republish();
                    println!("republish {}", outcome.map_or_else(|e| shown(&e), |()| "ok".into()));
                }
                #[cfg(target_os = "linux")]
                Some(command) if command.starts_with("become ") => {
                    let uid = command["become ".len()..].parse().expect("a user");
                    let uid = rustix::process::Uid::from_raw(uid);
                    rustix::thread::set_thread_res_uid(uid, uid, uid).expect("another user");
                    println!("became {}", uid.as_raw());
                }
                Some("listen again") => {
                    listener.as_ref().expect("not dropped").listen_as_current_user().expect("ok");
                    println!("listens");
                }
                Some("leave directory") => {
                    set_current_dir("/").expect("a directory");
                    println!("left");
                }
                Some("drop") => {
                    listener = None;
                    println!("dropped");
                }
                Some("close") => {
                    let listener = listener.take().expect("not dropped");
                    let closed = listener.close().await;
                    println!("{}", closed.map_or_else(|e| shown(&e), |()| "closed".into()));
                }
                Some("panic") => panic!("as asked"),
                Some("abort") => abort(),
                Some("drain") => {
                    drain.send_replace(true);
                }
                Some(other) => panic!("no such command: {other}"),
            },
            stream = accept(&mut listener) => match stream {
                Ok(stream) => {
                    accepted += 1;
                    if options.tell {
                        tell(&stream);
                    }
                    tokio::spawn(talk(stream, drain.subscribe()));
                }
                Err(error) => {
                    println!("fatal {}", shown(&error));
                    return;
                }
            },
            _ = async { match &mut alarms {
                Some(alarms) => alarms.recv().await,
                None => std::future::pending().await,
            }} => {}
        }
    }
}

async fn accept(listener: &mut Option<Listener>) -> std::io::Result<Stream> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn tell(stream: &Stream) {
    let peer = stream.peer_credentials().expect("credentials");
    println!("peer uid {:?} gid {:?} pid {:?}", peer.uid(), peer.gid(), peer.pid());
}

/// Serves a client as its first byte asks: with an echo, or by not reading until a command says so.
async fn talk(mut stream: Stream, mut drain: watch::Receiver<bool>) {
    match stream.read_u8().await {
        Ok(b'e') => drop(echo::echo(stream, |_| ()).await),
        Ok(b's') => {
            stream.write_all(b"s").await.expect("a write");
            drain.wait_for(|drain| *drain).await.expect("a server");
            let mut total = 0;
            let mut buffer = vec![0; 64 * 1024];
            let end = loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => break "the end".to_owned(),
                    Ok(length) => total += length,
                    Err(error) => break shown(&error),
                }
            };
            println!("sank {total} then {end}");
        }
        _ => {}
    }
}

pub(crate) fn commands() -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Returns the signals that this process ignores, as a mask, or `None` without `/proc`.
pub(crate) fn ignored_signals() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
