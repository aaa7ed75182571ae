//! Windows programs that do not use sockpipe talk through `sockpipe relay`. They must observe the
//! same as without it. `scripts/windows-peers.sh` fetches them; a test without its program prints
//! that it was skipped.
#![cfg(windows)] // The programs use named pipes.

mod common;

use std::path::Path;
use std::process::Command;

use common::foreign::{Peer, program};
use common::wine::is_wine;
use common::{Tool, unique_name, within};
use sockpipe::{ConnectOptions, ExpectServer, Stream};

/// A program that takes a role, a pipe, and a file for its report.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    start: fn(role: &str, pipe: &str) -> Option<Peer>,
    /// Whether the server's first handle only keeps the name. Wine lets a client have that one.
    first_keeps_the_name: bool,
}

/// Connects to a foreign server's pipe, which has no owner to check under Wine.
async fn connect(pipe: &str) -> Stream {
    let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
    within(Stream::connect_with(pipe, &options)).await.expect("a connection")
}

fn node(role: &str, pipe: &str) -> Option<Peer> {
    let mut command = Command::new(program("SOCKPIPE_NODE_EXE")?);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/pipe.js"))
        // Wine may report a version of Windows on which Node refuses to start.
        .env("NODE_SKIP_PLATFORM_CHECK", "1");
    Some(Peer::start(command, role, pipe))
}

fn dotnet(role: &str, pipe: &str) -> Option<Peer> {
    let (dotnet, peer) = (program("SOCKPIPE_DOTNET_EXE")?, program("SOCKPIPE_DOTNET_PEER")?);
    let mut command = Command::new(dotnet);
    command.args(["exec", &peer]);
    Some(Peer::start(command, role, pipe))
}

fn winio(role: &str, pipe: &str) -> Option<Peer> {
    Some(Peer::start(Command::new(program("SOCKPIPE_WINIO_PEER")?), role, pipe))
}

/// Makes a thousand round trips, sends a megabyte in both directions, and ends.
async fn talk(program: Program, relayed: bool) -> Option<Vec<String>> {
    let pipe = || format!(r"\\.\pipe\{}", unique_name());
    let (far, near) = (pipe(), pipe());
    let server = (program.start)("serve", &far)?;
    within(server.says("listening")).await;
    let first = program.first_keeps_the_name && is_wine();
    let _first = if first { Some(connect(&far).await) } else { None };
    let arguments = ["relay", "--any-server", "--linger=5", &near, &far];
    let relay = relayed.then(|| Tool::listening(&arguments));
    let client = (program.start)("talk", if relayed { &near } else { &far })?;
    let said = within(client.ends()).await;
    drop(relay);
    Some(said)
}

#[tokio::test]
async fn programs_talk_through_a_relay_as_without_it() {
    let programs = [
        Program { name: "node", start: node, first_keeps_the_name: false },
        Program { name: "dotnet", start: dotnet, first_keeps_the_name: false },
        Program { name: "winio", start: winio, first_keeps_the_name: true },
    ];
    for program in programs {
        let Some(direct) = talk(program, false).await else { continue };
        let relayed = talk(program, true).await;
        assert_eq!(relayed.as_ref(), Some(&direct), "{}", program.name);
        println!("{}: {} lines the same", program.name, direct.len());
    }
}
