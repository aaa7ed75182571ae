//! A client without a runtime: sends each line of its input to an echo server, and prints what
//! comes back.
//!
//! ```text
//! cargo run --example echo_server -- echo
//! echo hello |
//!     cargo run --no-default-features --features blocking --example blocking_client -- echo
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::time::Duration;

use anyhow::Context;
use sockpipe::blocking::Stream;

fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "echo".to_owned());
    let stream = Stream::connect(&endpoint)?;
    // A server that hangs is not waited for.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;

    let mut answers = BufReader::new(&stream);
    for line in io::stdin().lock().lines() {
        writeln!(&stream, "{}", line?).context("sending a line")?;
        let mut answer = String::new();
        answers.read_line(&mut answer).context("waiting for the answer")?;
        print!("{answer}");
    }
    // The server reads our end, and has all that was sent before.
    stream.close(Duration::from_secs(10))?;
    Ok(())
}
