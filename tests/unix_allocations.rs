//! Reads and writes do not allocate, as an allocator that counts shows.
#![cfg(unix)] // On named pipes mio copies each write.
#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

mod common;
mod helper {
    pub(crate) mod talk;
}

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Backend, Os, within};
use sockpipe::{ConnectOptions, ListenOptions, Listener, SpinPolicy, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed to the system allocator unchanged. The counter is a number without a
// destructor, so that a thread can use it whenever it allocates, and using it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the same promises that `System` requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, and the memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many more allocations 101 rounds of every way to read and write make than one round.
async fn allocations<S: AsyncRead + AsyncWrite + Unpin>((mut one, mut other): (S, S)) -> u64 {
    let mut of = async |rounds| {
        let before = COUNT.get();
        within(helper::talk::talk(&mut one, &mut other, rounds)).await;
        COUNT.get() - before
    };
    let first = of(1).await;
    assert!(first > 0, "the allocator does not count");
    of(101).await - of(1).await
}

#[tokio::test]
async fn reads_and_writes_of_tokio_streams_do_not_allocate() {
    assert_eq!(allocations(UnixStream::pair().expect("a pair")).await, 0);
}

#[tokio::test]
async fn reads_and_writes_do_not_allocate() {
    assert_eq!(allocations(Stream::pair().expect("a pair")).await, 0);
}

#[tokio::test]
async fn reads_and_writes_of_busy_polling_streams_do_not_allocate() {
    let os = Os::new();
    let options = ListenOptions::new().spin(SpinPolicy::Auto);
    let mut listener = Listener::bind_with(os.endpoint(), &options).expect("a free name");
    let options = ConnectOptions::new().spin(SpinPolicy::Auto);
    let client = within(Stream::connect_with(os.endpoint(), &options)).await;
    let server = within(listener.accept()).await.expect("a connection");
    assert_eq!(allocations((client.expect("a connection"), server)).await, 0);
}

#[cfg(feature = "blocking")]
#[test]
fn reads_and_writes_of_blocking_streams_do_not_allocate() {
    use std::io::{Read, Write};
    use std::time::Duration;

    let (mut one, mut other) = sockpipe::blocking::Stream::pair().expect("a pair");
    for timeout in [None, Some(Duration::from_secs(60))] {
        other.set_read_timeout(timeout).expect("a timeout");
        let before = COUNT.get();
        for _ in 0..100 {
            one.write_all(&[7; 64]).expect("a write");
            assert_eq!(other.read(&mut [0; 1024]).expect("a read"), 64);
        }
        assert_eq!(COUNT.get() - before, 0);
    }
}
