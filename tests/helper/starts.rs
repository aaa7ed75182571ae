//! A daemon and the clients that start it, and a program that runs as a single instance.

use std::process::Command;
use std::time::Duration;

use sockpipe::{
    ConnectOptions, HandOver, Launch, LaunchRequest, Listener, connect_or_spawn_with, hand_over,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::wait_for_the_end;
use crate::shown;

/// The longest life of a process that a failed test did not stop.
const LIFE: Duration = Duration::from_secs(120);

/// Sends its process id to each client, until a client sends something.
pub(crate) async fn daemon(path: &str) {
    let served = async {
        let mut listener = Listener::bind(path).expect("a free name");
        loop {
            let mut stream = listener.accept().await.expect("a connection");
            // The test may kill a client at any time.
            let _ = stream.write_all(format!("{}\n", std::process::id()).as_bytes()).await;
            let _ = stream.shutdown().await;
            if stream.read_u8().await.is_ok() {
                return;
            }
        }
    };
    let _: Result<(), _> = tokio::time::timeout(LIFE, served).await;
}

/// Connects to the daemon, starts it if necessary, and prints its process id.
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

/// Runs an instance. The first prints the request of each later one, and a later one prints its
/// exit code.
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
                    // The test may kill a later one at any time.
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
