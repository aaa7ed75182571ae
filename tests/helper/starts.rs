//! A daemon and those that start it; a program of which there is one.

use std::process::Command;
use std::time::Duration;

use sockpipe::{
    ConnectOptions, HandOver, Launch, LaunchRequest, Listener, connect_or_spawn_with, hand_over,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::wait_for_the_end;
use crate::shown;

/// Long past the end of the test that does not get to stop it.
const LIFE: Duration = Duration::from_secs(120);

/// Says its process id to each client, until one says something.
pub(crate) async fn daemon(path: &str) {
    let served = async {
        let mut listener = Listener::bind(path).expect("a free name");
        loop {
            let mut stream = listener.accept().await.expect("a connection");
            // A client may be killed at any time.
            let _ = stream.write_all(format!("{}\n", std::process::id()).as_bytes()).await;
            let _ = stream.shutdown().await;
            if stream.read_u8().await.is_ok() {
                return;
            }
        }
    };
    let _: Result<(), _> = tokio::time::timeout(LIFE, served).await;
}

/// Starts it if need be, and prints its process id.
pub(crate) async fn client(path: &str) {
    let mut daemon = Command::new(std::env::current_exe().expect("this program"));
    daemon.args(["daemon", path]);
    let options = ConnectOptions::new().deadline(Duration::from_secs(30));
    match connect_or_spawn_with(path, daemon, &options).await {
        Ok(mut stream) => {
            let mut pid = String::new();
            stream.read_to_string(&mut pid).await.expect("a process id");
            print!("{pid}");
        }
        Err(error) => println!("{}", shown(&error)),
    }
}

/// The first prints what each later one wants; a later one prints the exit code.
pub(crate) async fn instance(path: &str, wish: &str) {
    match hand_over(path, &Launch::new().args([wish])).await {
        Ok(HandOver::First(mut listener)) => {
            std::thread::spawn(|| {
                wait_for_the_end();
                std::process::exit(0);
            });
            println!("first");
            let served = async {
                loop {
                    let later = listener.accept().await.expect("a connection");
                    let limit = Duration::from_secs(5);
                    let Ok(request) = LaunchRequest::receive(later, limit).await else { continue };
                    let wish = request.launch().get_args()[0].to_str().expect("UTF-8");
                    println!("{wish}");
                    // A later one may be killed at any time.
                    let _ = request.finish(0).await;
                }
            };
            let _: Result<(), _> = tokio::time::timeout(LIFE, served).await;
        }
        Ok(HandOver::Taken(reply)) => match reply.exit_code().await {
            Ok(code) => println!("done {code}"),
            Err(error) => println!("{}", shown(&error)),
        },
        Err(error) => println!("{}", shown(&error)),
    }
}
