//! Hands an open file to another process, which could not have opened it by its name.
//!
//! ```text
//! cargo run --features blocking --example pass_fd
//! ```
//!
//! Without an argument it listens, starts itself as the other process, and passes it a file without
//! a name; with one, it is that other process, and connects there.

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    use std::fs::{self, File};
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::process::Command;

    use anyhow::ensure;
    use sockpipe::blocking::{Listener, Stream};
    use sockpipe::os::unix::PassFds;

    if let Some(endpoint) = std::env::args().nth(1) {
        let stream = Stream::connect(endpoint)?;
        let mut message = [0; 64];
        let (length, mut fds) = stream.recv_with_fds(&mut message, 1)?;
        let said = String::from_utf8_lossy(&message[..length]);
        let Some(fd) = fds.pop() else { anyhow::bail!("no file came with {said:?}") };
        let (mut file, mut text) = (File::from(fd), String::new());
        file.rewind()?;
        file.read_to_string(&mut text)?;
        println!("process {} got {said:?} and a file, which says {text:?}", std::process::id());
        return Ok(());
    }

    let path = std::env::temp_dir().join(format!("pass_fd.{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    write!(file, "written by process {}", std::process::id())?;

    let listener = Listener::bind(format!("pass_fd-{}", std::process::id()))?;
    let mut other =
        Command::new(std::env::current_exe()?).arg(listener.endpoint().to_string()).spawn()?;
    let stream = listener.accept()?;
    stream.send_with_fds(b"here you are", &[file.as_fd()])?;
    ensure!(other.wait()?.success(), "the other process failed");
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!(
        "not on this system: a named pipe carries no handles. DuplicateHandle copies one into a \
         process, which sockpipe's peer credentials name."
    );
}
