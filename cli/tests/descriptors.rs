//! A relay passes file descriptors between two local endpoints.
#![cfg(unix)]

mod common;

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use common::{Backend, Os, PATIENCE, Tool, tool};
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// A relay, with a client before and a server behind it.
struct Passage {
    client: UnixStream,
    server: UnixStream,
    relay: Tool,
    _names: (Os, Os),
}

impl Passage {
    fn open(options: &[&str]) -> Self {
        Self::with(tool(), options)
    }

    fn with(mut relay: Command, options: &[&str]) -> Self {
        let (front, behind) = (Os::new(), Os::new());
        let listener = UnixListener::bind(behind.endpoint()).expect("a socket");
        relay.args(["relay"]).args(options).args([front.endpoint(), behind.endpoint()]);
        let mut relay = Tool::of(relay);
        relay.await_listening();
        let client = UnixStream::connect(front.endpoint()).expect("a relay");
        let (server, _) = listener.accept().expect("the relay's connection");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
            stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
        }
        Self { client, server, relay, _names: (front, behind) }
    }
}

fn pass(to: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<usize, Errno> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())
}

fn receive(from: &UnixStream, most: usize) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; most];
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(64))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg(from, &mut parts, &mut control, RecvFlags::empty()).expect("a message");
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(message.bytes);
    (bytes, descriptors)
}

/// Returns the read ends of `count` pipes, and their write ends.
fn pipes(count: usize) -> (Vec<File>, Vec<OwnedFd>) {
    let pipes = (0..count).map(|_| rustix::pipe::pipe().expect("a pipe"));
    pipes.map(|(from, to)| (File::from(from), to)).unzip()
}

#[test]
fn descriptors_are_passed_on_both_ways_and_work() {
    let passage = Passage::open(&[]);
    for (from, to) in [(&passage.client, &passage.server), (&passage.server, &passage.client)] {
        let (mut readers, writers) = pipes(3);
        pass(from, b"take these", &writers).expect("a message");
        drop(writers);
        let (bytes, passed) = receive(to, 64);
        assert_eq!((bytes.as_slice(), passed.len()), (&b"take these"[..], 3));
        for (number, passed) in passed.into_iter().enumerate() {
            write!(File::from(passed), "{number}").expect("a write");
        }
        for (number, reader) in readers.iter_mut().enumerate() {
            let mut said = String::new();
            // This ends only after the relay has closed its copy.
            reader.read_to_string(&mut said).expect("an end");
            assert_eq!(said, number.to_string());
        }
    }
}

/// The relay may find several messages in one read. A receiver that reads the earlier bytes with a
/// plain read would otherwise lose descriptors.
// The code of the other systems relies on them to keep messages apart, which Linux does not.
#[cfg(not(all(sockpipe_posix, target_os = "linux")))]
#[test]
fn descriptors_stay_with_the_bytes_they_came_with() {
    use rustix::process::Signal;

    let passage = Passage::open(&[]);
    for length in [1, 2, 3, 1000, 200_000] {
        // The relay is stopped until all the messages are there.
        passage.relay.signal(Signal::STOP);
        let before = common::noise(length);
        let mut to = &passage.client;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                to.write_all(&before).expect("a write");
                let (_, writers) = pipes(2);
                pass(to, b"c", &writers[..1]).expect("a message");
                pass(to, b"de", &writers[1..]).expect("a message");
                to.write_all(b"after").expect("a write");
            });
            if length < 1000 {
                writer.join().expect("no panic");
            }
            passage.relay.signal(Signal::CONT);
            let mut read = vec![0; length];
            (&passage.server).read_exact(&mut read).expect("what came before");
            assert!(read == common::noise(length));
            for expected in [&b"c"[..], b"de"] {
                let (bytes, descriptors) = receive(&passage.server, expected.len());
                assert_eq!((bytes.as_slice(), descriptors.len()), (expected, 1), "{length}");
            }
            let mut after = [0; 5];
            (&passage.server).read_exact(&mut after).expect("what came after");
            assert_eq!(&after, b"after");
        });
    }
}

#[test]
fn descriptors_that_are_cut_short_end_the_connection_with_a_warning() {
    let mut relay = Command::new("sh");
    let program = tool().get_program().to_owned();
    relay.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""]).arg(program);
    let mut passage = Passage::with(relay, &[]);
    let (_, writers) = pipes(40);
    pass(&passage.client, b"too many", &writers).expect("a message");
    passage.relay.await_err("file descriptors of the peer were lost");
    let mut rest = Vec::new();
    passage.server.read_to_end(&mut rest).expect("an end");
    assert_eq!(rest, b"");
}

#[test]
fn a_relay_that_passes_no_descriptors_refuses_them_to_the_sender() {
    let mut passage = Passage::open(&["--no-descriptors"]);
    for way in 0..2 {
        let (from, to) = match way {
            0 => (&passage.client, &passage.server),
            _ => (&passage.server, &passage.client),
        };
        let (_, writers) = pipes(1);
        match pass(from, b"x", &writers) {
            Err(error) => assert_eq!(error, Errno::PERM),
            // Before Linux 6.16 the sender sees no error.
            Ok(_) => {
                passage.relay.await_err("which are not passed on here");
                return;
            }
        }
        let mut from = from;
        from.write_all(b"hello").expect("a write");
        assert_eq!(receive(to, 64).0, b"hello");
    }
}

#[test]
fn a_connection_to_standard_output_closes_descriptors_and_goes_on() {
    let os = Os::new();
    let mut listen = Tool::listening(&["listen", os.endpoint()]);
    let mut client = UnixStream::connect(os.endpoint()).expect("a connection");
    let (_, writers) = pipes(1);
    pass(&client, b"with one, ", &writers).expect("a message");
    client.write_all(b"and more").expect("a write");
    drop(client);
    listen.await_out("with one, and more");
    listen.end_input();
    let ended = listen.wait();
    assert_eq!(ended.code, Some(0));
    assert!(ended.err.contains("passed file descriptors, which were closed"), "{ended:?}");
}

#[cfg(all(target_os = "linux", target_env = "gnu", not(sockpipe_posix)))]
#[test]
fn a_quiet_connection_takes_little_memory_and_releases_it() {
    const CLIENTS: usize = 200;
    const KIB: u64 = 1024;

    let (front, behind) = (Os::new(), Os::new());
    let _echo = Tool::listening(&["echo", behind.endpoint()]);
    let relay = Tool::listening(&["relay", front.endpoint(), behind.endpoint()]);
    let before = memory(&relay);
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| UnixStream::connect(front.endpoint()).expect("a relay")).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).expect("a limit");
        client.write_all(&[7; 100]).expect("a write");
        client.read_exact(&mut [0; 100]).expect("the echo");
    }
    let each = memory(&relay).saturating_sub(before) / CLIENTS as u64;
    assert!(each <= 16 * KIB, "{each} bytes a connection");
    drop(clients);
    common::unix::until("the memory is given back", || memory(&relay) <= before + 1024 * KIB);
}

/// Returns how many bytes of memory the program has to itself.
#[cfg(all(target_os = "linux", target_env = "gnu", not(sockpipe_posix)))]
fn memory(of: &Tool) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", of.child.id())).expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a figure");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn a_half_closed_connection_that_is_idle_costs_no_processor_time() {
    let passage = Passage::open(&[]);
    passage.client.shutdown(std::net::Shutdown::Write).expect("a half-close");
    assert_eq!((&passage.server).read(&mut [0]).expect("the end"), 0);
    let switches = || {
        let dir = format!("/proc/{}/task", passage.relay.child.id());
        let tasks = std::fs::read_dir(dir).expect("threads");
        tasks
            .map(|task| {
                let status = task.expect("one").path().join("status");
                let status = std::fs::read_to_string(status).expect("proc");
                let switches = status.lines().find(|line| line.starts_with("voluntary_ctxt"));
                let number = switches.expect("a figure").split_whitespace().last();
                number.expect("a number").parse::<u64>().expect("a number")
            })
            .sum::<u64>()
    };
    // The relay does not wake up while the connection is idle.
    let mut seen = switches();
    common::unix::until("the relay is still", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        std::mem::replace(&mut seen, switches()) == seen
    });
    (&passage.server).write_all(b"answer").expect("a write");
    assert_eq!(receive(&passage.client, 64).0, b"answer");
}
