//! A child made by fork(2) has copies of its parent's mappings and descriptors.

use std::io::{Read, Write};

use sockpipe::blocking;

use super::threads::threads_in_memory;
use super::*;
use crate::common::fork::{Shared, in_child};

/// Returns two ends in memory, each with bytes that it has not read.
fn pair_with_unread_bytes() -> (blocking::Stream, blocking::Stream) {
    let (mut client, mut server) = threads_in_memory();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    }
    client.write_all(b"before").expect("a write");
    server.write_all(b"before").expect("a write");
    (client, server)
}

/// Asserts that both directions go on, and that each ends only when its writer ends it.
fn assert_nothing_changed((client, server): (blocking::Stream, blocking::Stream)) {
    for (mut one, mut other) in [(&client, &server), (&server, &client)] {
        let mut got = [0; 11];
        one.write_all(b"after").expect("a write");
        other.read_exact(&mut got).expect("a read");
        assert_eq!(&got, b"beforeafter");
        assert_eq!(one.transport(), Transport::SharedMemory);
        // A direction that had ended would read as an end of file here.
        other.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        assert_kind(other.read(&mut [0]), ErrorKind::TimedOut);
        other.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    }

    for (mut one, mut other) in [(&client, &server), (&server, &client)] {
        one.write_all(b"last").expect("a write");
        one.shutdown().expect("an end");
        let mut rest = Vec::new();
        other.read_to_end(&mut rest).expect("an end");
        assert_eq!(rest, b"last");
    }
}

/// The helper has its own process, so that no other thread holds a lock when it forks.
#[test]
fn helper_forks_while_it_has_streams_in_memory() {
    if argument().is_none() {
        return;
    }
    // The child drops its copies of these ends, and then runs another program.
    for (client_too, server_too) in [(false, false), (true, false), (false, true), (true, true)] {
        let (client, server) = pair_with_unread_bytes();
        let (one, other) = (Shared::new(&client), Shared::new(&server));
        in_child(move || {
            if client_too {
                one.drop_copy();
            }
            if server_too {
                other.drop_copy();
            }
        });
        assert_nothing_changed((client, server));
    }
}

#[test]
fn a_stream_in_memory_whose_copy_a_child_drops_stays_with_its_parent() {
    run_alone("shared_memory::forks::helper_forks_while_it_has_streams_in_memory");
}
