//! A client that marks its socket, and leaves the server's offers unanswered.

use std::io::Read;
use std::os::unix::net::UnixStream;

use super::by_hand::*;
use super::clients::{Offered, offered, question_and_answer};
use super::*;

/// The number of exchanges for which the first offer stands.
const EXCHANGES: usize = 64;
/// The exchanges after which three offers have been withdrawn, and a fourth would have been made.
const MANY: usize = 14_000;

/// Returns how often this process maps `file`.
fn mappings(file: &OwnedFd) -> usize {
    let inode = rustix::fs::fstat(file).expect("a file").st_ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the process's memory");
    let is_file = |line: &&str| line.split_whitespace().nth(4) == Some(&inode);
    maps.lines().filter(is_file).count()
}

/// Returns the memory and the bell of the next offer, and the number of answers before it.
async fn next_offer(server: &mut Stream, socket: &mut UnixStream) -> (OwnedFd, OwnedFd, u64) {
    for answers in 1..1000 {
        let mut fds = question_and_answer(server, socket).await.into_iter();
        if let (Some(file), Some(bell)) = (fds.next(), fds.next()) {
            return (file, bell, answers);
        }
    }
    panic!("no offer");
}

#[tokio::test]
async fn an_offer_without_an_answer_gives_its_memory_back() {
    let Offered { mut server, mut socket, bell, file, memory } = offered().await;
    for _ in 1..EXCHANGES {
        assert_eq!(question_and_answer(&mut server, &mut socket).await.len(), 0);
    }
    assert_eq!((memory.get(STATE), mappings(&file)), (OFFERED, 2), "63 exchanges");
    question_and_answer(&mut server, &mut socket).await;
    assert_eq!((memory.get(STATE), mappings(&file)), (WITHDRAWN, 1), "64 exchanges");

    let mut bell = UnixStream::from(bell);
    bell.set_nonblocking(true).expect("a flag");
    assert_eq!(bell.read(&mut [0]).expect("an end"), 0, "the server holds the bell");
    // An acceptance that comes too late changes nothing.
    memory.set(STATE, ACCEPTED);
    for _ in 0..EXCHANGES {
        question_and_answer(&mut server, &mut socket).await;
        assert_eq!(server.transport(), Transport::Socket);
    }
    within(server.shutdown()).await.expect("an end");
    assert_eq!(socket.read(&mut [0]).expect("an end"), 0);
}

/// A client that was late, or had no room, moves into memory with a later offer.
#[tokio::test]
async fn a_later_offer_is_taken_without_loss() {
    let Offered { mut server, mut socket, memory: first, .. } = offered().await;
    let (file, _bell, answers) = next_offer(&mut server, &mut socket).await;
    assert_eq!(first.get(STATE), WITHDRAWN);

    let memory = Mapped::new(&file).expect("a mapping");
    let count = answers + 1;
    memory.set(SOCKET_BYTES - CLIENT, count * 8);
    memory.set(TAIL - CLIENT, 4);
    memory.set(ON_RING - CLIENT, 1);
    memory.set(STATE, ACCEPTED);
    within(server.write_all(b"in the ring")).await.expect("a write");
    assert_eq!((memory.get(SOCKET_BYTES), memory.get(TAIL)), (count * 6, 11));
    within(server.read_exact(&mut [0; 4])).await.expect("what is in the ring");
    assert_eq!(server.transport(), Transport::SharedMemory);
}

#[tokio::test]
async fn a_stream_makes_three_offers_at_most() {
    let Offered { mut server, mut socket, .. } = offered().await;
    let mut offers = 1;
    for _ in 0..MANY {
        let fds = question_and_answer(&mut server, &mut socket).await;
        offers += usize::from(!fds.is_empty());
    }
    assert_eq!((offers, server.transport()), (3, Transport::Socket));
}

/// The limit is per process, so this runs in a process of its own.
#[test]
fn withdrawn_offers_leave_room_for_other_streams() {
    run_alone("shared_memory::withdrawals::helper_offers_to_silent_clients");
}

/// The test above runs this in a separate process.
#[tokio::test]
async fn helper_offers_to_silent_clients() {
    if argument().is_none() {
        return;
    }
    // As many as may use memory in one process.
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(offered().await);
    }
    let (mut client, mut server) = connected(SharedMemory::Eager, SpinPolicy::Off).await;
    for _ in 0..EXCHANGES {
        within(exchange(&mut client, &mut server, 64)).await;
    }
    assert_eq!(server.transport(), Transport::Socket, "no room");

    for Offered { server, socket, .. } in &mut silent {
        for _ in 0..EXCHANGES {
            question_and_answer(server, socket).await;
        }
    }
    move_into_memory(&mut client, &mut server).await;
    within(exchange(&mut client, &mut server, 300_000)).await;
}

/// The offer outlives the conversions, and so does its time.
#[cfg(feature = "blocking")]
#[tokio::test]
async fn a_blocking_stream_withdraws_its_offer_too() {
    use std::io::Write;

    for accepts in [false, true] {
        let Offered { server, mut socket, file, memory, .. } = offered().await;
        let mut server = server.into_blocking().expect("a blocking stream");
        for _ in 0..EXCHANGES {
            if accepts {
                memory.set(STATE, ACCEPTED);
            }
            socket.write_all(b"question").expect("a write");
            server.read_exact(&mut [0; 8]).expect("a read");
            server.write_all(b"answer").expect("a write");
        }

        let mapped = if accepts { 2 } else { 1 };
        assert_eq!((mappings(&file), memory.get(ON_RING)), (mapped, u64::from(accepts)));
        assert_eq!(memory.get(TAIL), if accepts { EXCHANGES as u64 * 6 } else { 0 });
    }
}
