//! Windows programs that know nothing of sockpipe, with `sockpipe relay` between them: they see
//! what they see without it. `scripts/windows-peers.sh` fetches them; one that is not here is
//! skipped with a line that says so.
#![cfg(windows)] // There are named pipes.

mod common;

use std::path::Path;
use std::process::Command;

use common::foreign::{Peer, program};
use common::wine::is_wine;
use common::{Tool, unique_name, within};
use sockpipe::{ConnectOptions, ExpectServer, Stream};

/// A program that takes a role, a pipe, and a file to tell what it sees.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    start: fn(role: &str, pipe: &str) -> Option<Peer>,
    /// Its server's first handle only keeps the name. Wine lets a client have that one.
    first_keeps_the_name: bool,
}

/// Under Wine a foreign server's pipe has no owner to check.
async fn connect(pipe: &str) -> Stream {
    let options = ConnectOptions::new().expect_server(ExpectServer::Anyone);
    within(Stream::connect_with(pipe, &options)).await.expect("a connection")
}

fn node(role: &str, pipe: &str) -> Option<Peer> {
    let mut command = Command::new(program("SOCKPIPE_NODE_EXE")?);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/pipe.js"))
        // Wine may say that it is a Windows on which Node does not start by itself.
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

/// A thousand round trips, a megabyte both ways, and the end.
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
