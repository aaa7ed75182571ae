//! A server whose next version takes it over.

use std::io;
use std::time::Duration;

use sockpipe::os::unix::{ListenOptionsExt, take_over};
use sockpipe::{ListenOptions, Stream, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::wait_for_the_end;
use crate::shown;

/// Takes over the server. Then it answers each byte with its process id until it is taken over
/// itself, or ends at once.
pub(crate) async fn run(path: &str, serves: bool) {
    let options = ListenOptions::new().upgradable(true).unsafe_directory(true);
    let listener = match take_over(path, &options, Duration::from_secs(30)).await {
        Ok(listener) => listener,
        Err(error) => return println!("{}", shown(&error)),
    };
    println!("serves");
    if !serves {
        return;
    }
    std::thread::spawn(|| {
        wait_for_the_end();
        std::process::exit(0);
    });
    let served = serve(listener, answer).with_graceful_shutdown(std::future::pending::<()>()).await;
    match served {
        Ok(drained) => println!("taken over, {} cut", drained.cut()),
        Err(error) => println!("{}", shown(&error)),
    }
}

async fn answer(mut stream: Stream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte).await? > 0 {
        stream.write_u32(std::process::id()).await?;
    }
    Ok(())
}
