//! A daemon and the clients that start it, and a program that runs as a single instance.

use std::process::Command;
use std::time::Duration;

use sockpipe::{
    ConnectOptions, HandOver, Launch, LaunchRequest, ListenOptions, Listener, SingleInstance,
    Stream, connect_or_spawn_with, hand_over,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

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

/// Connects to the daemon, starts it if necessary, and prints its process id. `through` is the
/// program that runs the daemon, with its arguments.
pub(crate) async fn client(path: &str, through: &[&str]) {
    let program = std::env::current_exe().expect("this program");
    let mut daemon = match through {
        [] => Command::new(program),
        [outer, arguments @ ..] => {
            let mut outer = Command::new(outer);
            outer.args(arguments).arg(program);
            outer
        }
    };
    daemon.args(["daemon", path]);

    let options = ConnectOptions::new().deadline(Duration::from_secs(30));
    match connect_or_spawn_with(path, daemon, &options).await {
        Ok(stream) => println!("{}", process_id(stream).await),
        Err(error) => println!("{}", shown(&error)),
    }
}

/// Reads the process id that a server sends. The test may kill the server at any time.
async fn process_id(mut stream: Stream) -> String {
    let mut pid = String::new();
    match stream.read_to_string(&mut pid).await {
        Ok(0) => "closed".to_owned(),
        Ok(_) => pid.trim_end().to_owned(),
        Err(error) => format!("cut off, {}", shown(&error)),
    }
}

/// Runs a single instance. The first sends its process id to each later one, which prints it.
pub(crate) async fn single(path: &str) {
    let options = ConnectOptions::new().deadline(Duration::from_secs(30));
    match SingleInstance::acquire_with(path, &ListenOptions::new(), &options).await {
        Ok(SingleInstance::Primary(mut listener)) => {
            println!("first {}", std::process::id());
            let served = async {
                loop {
                    let mut later = listener.accept().await.expect("a connection");
                    // The test may kill a later one at any time.
                    let _ = later.write_all(std::process::id().to_string().as_bytes()).await;
                }
            };
            tokio::select! {
                _ = spawn_blocking(wait_for_the_end) => {}
                _ = tokio::time::timeout(LIFE, served) => {}
            }
        }
        Ok(SingleInstance::Secondary(first)) => println!("later {}", process_id(first).await),
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
