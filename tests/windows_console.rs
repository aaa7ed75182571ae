//! Ctrl-C in a server's console stops the server.
#![cfg(windows)] // Other systems have signals, which echo.rs tests.
#![allow(unsafe_code, reason = "consoles")]

mod common;

use std::io::Error;
use std::os::windows::process::CommandExt;
use std::time::{Duration, Instant};

use common::process::{Running, server, text};
use common::{argument, helper_command, unique_name, within};
use sockpipe::{ConnectOptions, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use windows_sys::Win32::System::Console::{
    CTRL_C_EVENT, GenerateConsoleCtrlEvent, SetConsoleCtrlHandler,
};

/// Gives a process a console of its own without a window.
const CREATE_NO_WINDOW: u32 = 0x0800_0000;

/// Raises the event of Ctrl-C in every process of this console.
fn press_ctrl_c() {
    // SAFETY: the call has no preconditions.
    let raised = unsafe { GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) };
    assert_ne!(raised, 0, "{}", Error::last_os_error());
}

/// Starts a server, and connects. The server has answered, so its start is over.
async fn serving() -> (Running, Stream, String) {
    let name = unique_name();
    let server = server(&name, &["--quiet"]);
    let mut client = within(Stream::connect(&name)).await.expect("a connection");
    within(client.write_all(b"x")).await.expect("a write");
    within(client.read_exact(&mut [0])).await.expect("an echo");
    (server, client, name)
}

/// Waits until the server accepts no more clients. Its open connection keeps the name, so further
/// clients would wait.
async fn stops_accepting(name: &str) {
    let options = ConnectOptions::new().deadline(Duration::from_millis(50));
    within(async {
        while Stream::connect_with(name, &options).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// This process has a console of its own, since every process of a console receives the event.
#[tokio::test]
async fn helper_with_a_console() {
    if argument().is_none() {
        return;
    }
    let _not_for_us = tokio::signal::windows::ctrl_c().expect("a handler");
    // SAFETY: null passes no handler. The call makes this process heed Ctrl-C, which its parent may
    // have ignored.
    assert_ne!(unsafe { SetConsoleCtrlHandler(None, 0) }, 0);

    let (server, mut client, name) = serving().await;
    press_ctrl_c();
    stops_accepting(&name).await;
    // The connection stays open until its client has its answer.
    within(client.write_all(b"after!")).await.expect("a write");
    client.shutdown().await.expect("a half-close");
    let mut rest = Vec::new();
    within(client.read_to_end(&mut rest)).await.expect("an end");
    assert_eq!(rest, b"after!");
    let (status, out, err) = server.wait();
    assert_eq!((status.code(), out, err), (Some(0), vec![], vec![]));

    let (server, _client, name) = serving().await;
    let asked = Instant::now();
    press_ctrl_c();
    stops_accepting(&name).await;
    press_ctrl_c();
    let (status, ..) = server.wait();
    assert_eq!(status.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    #[cfg(feature = "blocking")]
    {
        let mut command = helper_command("helper_of_threads", "x");
        command.stderr(std::process::Stdio::piped());
        let threads = Running::start(command);
        while threads.next_line() != "listens" {}
        press_ctrl_c();
        while threads.next_line() != "stopped" {}
        press_ctrl_c();
        // Without the second event it would run for longer than this waits. (Wine ends it with 0.)
        threads.wait();
    }
    println!("both stopped");
}

/// A program without a runtime.
#[cfg(feature = "blocking")]
#[test]
fn helper_of_threads() {
    if argument().is_none() {
        return;
    }
    let stop = sockpipe::blocking::shutdown_signal().expect("a handler");
    println!("\nlistens");
    stop.wait().expect("an event");
    println!("\nstopped");
    std::thread::sleep(Duration::from_secs(600));
}

#[tokio::test]
async fn ctrl_c_stops_a_server_gracefully_and_a_second_one_at_once() {
    let mut command = helper_command("helper_with_a_console", "");
    let child = command.creation_flags(CREATE_NO_WINDOW).spawn().expect("a process");
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().expect("an end"));
    let output = within(output).await.expect("an end");
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("both stopped"), "{said}");
}
