//! What a user's waker may do on the reactor's thread.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Tells on which thread it was called, and panics.
struct Panics(Sender<Option<String>>);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        let name = thread::current().name().map(str::to_owned);
        self.0.send(name).expect("a test that waits");
        panic!("this panic is part of the test");
    }
}

/// Polls `future` once, which is to wait, with a waker that panics.
fn poll_badly(future: Pin<&mut impl Future>) -> Receiver<Option<String>> {
    let (sender, woken) = channel();
    let waker = Waker::from(Arc::new(Panics(sender)));
    assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
    woken
}

/// The panic came, and every pipe still works: this one, which is polled again, and new ones.
fn assert_survived<T>(
    woken: &Receiver<Option<String>>,
    future: Pin<&mut impl Future<Output = T>>,
) -> T {
    let thread = woken.recv_timeout(PATIENCE).expect("a wake-up");
    assert_eq!(thread.as_deref(), Some("sockpipe-io"), "it is another thread's matter");
    let output = run(future);
    let (mut client, mut server) = connected();
    run(async {
        client.write_all(b"ping").await.expect("a write");
        server.read_exact(&mut [0; 4]).await.expect("a read");
        reactor::sleep(Duration::from_millis(1)).expect("a reactor").await;
    });
    output
}

#[test]
fn a_waker_that_panics_in_a_read_ends_nothing() {
    let (mut client, mut server) = connected();
    let mut buffer = [0; 4];
    let mut read = Box::pin(server.read(&mut buffer));
    let woken = poll_badly(read.as_mut());
    run(client.write_all(b"ping")).expect("a write");
    assert_eq!(assert_survived(&woken, read.as_mut()).expect("a read"), 4);
}

#[test]
fn a_waker_that_panics_in_a_write_ends_nothing() {
    let (mut client, mut server) = connected();
    let context = reactor::handle().expect("a reactor").enter();
    let written = run(write_until_full(&mut client));
    drop(context);
    let mut write = Box::pin(client.write(&[0; 1024]));
    let woken = poll_badly(write.as_mut());
    run(server.read_exact(&mut vec![0; written])).expect("a read");
    assert_eq!(assert_survived(&woken, write.as_mut()).expect("a write"), 1024);
}

#[test]
fn a_waker_that_panics_in_an_accept_ends_nothing() {
    let path = unique();
    let mut listener = Listener::bind(&path).expect("a free name");
    let mut accept = Box::pin(listener.accept());
    let woken = poll_badly(accept.as_mut());
    let _first = run(Stream::connect(&path)).expect("a server");
    assert_survived(&woken, accept.as_mut()).expect("the first client");
    drop(accept);
    let _second = run(Stream::connect(&path)).expect("a server");
    run(listener.accept()).expect("the second client");
}

#[test]
fn a_waker_that_panics_in_a_wait_ends_nothing() {
    let mut sleep = Box::pin(reactor::sleep(Duration::from_millis(5)).expect("a reactor"));
    let woken = poll_badly(sleep.as_mut());
    assert_survived(&woken, sleep.as_mut());
}
