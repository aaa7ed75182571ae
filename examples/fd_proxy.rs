//! Stands between a server and its clients, and passes on what each sends, file descriptors too:
//! for a look at what a D-Bus or Wayland client says, or to keep some of it back.
//!
//! ```text
//! cargo run --features blocking --example fd_proxy -- /tmp/bus.sock "$XDG_RUNTIME_DIR/bus"
//! DBUS_SESSION_BUS_ADDRESS=unix:path=/tmp/bus.sock busctl --user list     # in a second terminal
//! ```

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    use std::thread;

    use anyhow::Context;
    use sockpipe::Endpoint;
    use sockpipe::blocking::{Listener, Stream};

    let mut arguments = std::env::args().skip(1);
    let front = arguments.next().context("where do clients connect?")?;
    let server = Endpoint::try_from(arguments.next().context("where is the server?")?)?;
    let listener = Listener::bind(front)?;
    println!("listening on {}", listener.endpoint());
    loop {
        let client = listener.accept()?;
        let server = server.clone();
        thread::spawn(move || {
            let passed_on = Stream::connect(&server).and_then(|server| between(&client, &server));
            if let Err(error) = passed_on {
                eprintln!("a client: {error}");
            }
        });
    }
}

#[cfg(unix)]
fn between(
    client: &sockpipe::blocking::Stream,
    server: &sockpipe::blocking::Stream,
) -> std::io::Result<()> {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| pass_on("client", client, server));
        let back = pass_on("server", server, client);
        there.join().unwrap_or(Ok(())).and(back)
    })
}

/// One direction, up to its end.
#[cfg(unix)]
fn pass_on(
    who: &str,
    from: &sockpipe::blocking::Stream,
    to: &sockpipe::blocking::Stream,
) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::fd::AsFd;

    use sockpipe::os::unix::{MAX_FDS, PassFds};

    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, fds) = from.recv_with_fds(&mut buffer, MAX_FDS)?;
        if length == 0 {
            return to.shutdown();
        }
        println!("{who}: {length} bytes, {} descriptors", fds.len());
        let passed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        // They go with the first byte. Fewer bytes may be taken than there are.
        let sent = to.send_with_fds(&buffer[..length], &passed)?;
        (&mut &*to).write_all(&buffer[sent..length])?;
    }
}

#[cfg(not(unix))]
fn main() {
    println!("not on this system: a named pipe carries no handles");
}
