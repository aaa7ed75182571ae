//! Measures how soon a client sees that its server was killed.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::competitors::Competitor;
use crate::measure::{Clock, Outcome, Times};
use crate::run::Process;
use crate::streams::Transport;
use crate::work::Work;

/// Converses with one server after the other, and measures the time from the kill of each to the
/// end of its stream.
pub async fn measure(
    who: Competitor,
    transport: impl Transport,
    address: &str,
    millis: u64,
) -> io::Result<Outcome> {
    let (clock, mut times) = (Clock::new(millis), Times::default());
    let mut number = 0;
    while Instant::now() < clock.end {
        number += 1;
        // The runner gives a client that it pins the second core.
        let pinned = thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
        let core = (cfg!(target_os = "linux") && pinned).then_some("0");
        let address = format!("{address}-{number}");
        let (mut server, address) = Process::serve(who, Work::PingPong(64), core, &address)?;

        let (mut stream, mut bytes) = (transport.connect(&address).await?, [7; 64]);
        // A stream that may use shared memory moves within these.
        for _ in 0..256 {
            stream.write_all(&bytes).await?;
            stream.read_exact(&mut bytes).await?;
        }
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            let killed = Instant::now();
            server.kill().map(|()| (killed, server))
        });
        let ended = loop {
            let answered = match stream.write_all(&bytes).await {
                Ok(()) => stream.read_exact(&mut bytes).await.map(drop),
                broken => broken,
            };
            if answered.is_err() {
                break Instant::now();
            }
        };

        let (killed, server) = killer.join().expect("no panic")?;
        times.push(&clock, killed, ended);
        server.end();
    }
    Ok(times.outcome((Instant::now() - clock.start).as_secs_f64()))
}
