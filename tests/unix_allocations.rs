//! Reading and writing allocates nothing: by an allocator that counts.
#![cfg(unix)] // Over pipes a write is copied once, by mio.
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

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

// SAFETY: all is passed on as it came; the counter is a number without a destructor, so that it can
// be reached whenever a thread allocates, and reaching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, and the memory is the system allocator's.
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

/// What this thread allocates in `rounds` of every way to read and write, beyond what one has.
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
async fn streams_of_tokio_do_not_allocate() {
    assert_eq!(allocations(UnixStream::pair().expect("a pair")).await, 0);
}

#[tokio::test]
async fn streams_of_ours_do_not_allocate() {
    assert_eq!(allocations(Stream::pair().expect("a pair")).await, 0);
}

#[tokio::test]
async fn busy_polling_streams_do_not_allocate() {
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
fn blocking_streams_do_not_allocate() {
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
