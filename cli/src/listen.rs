//! `sockpipe listen`.

use std::ffi::OsString;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sockpipe::{Listener, Stream, serve};
use tokio::task::spawn_blocking;

use crate::connect::join;
use crate::exit::{Exit, INTERRUPTED};
use crate::server::{asked_to_stop, bind, stop_asked_for};
use crate::session::{self, AtEnd};
use crate::side::Side;
use crate::{args, client, say};

/// How long a client may take for what its command has said last.
const LAST_WORDS: Duration = Duration::from_secs(5);

pub async fn run(args: args::Listen) -> Result<()> {
    let at_end = args.end.at_end();
    let listener = bind(&args.endpoint, &args.server)?;
    match args.exec {
        Some(command) if args.keep => return run_for_each(listener, command).await,
        _ => {}
    }
    let work = async {
        match (args.exec, args.keep) {
            (Some(command), _) => run_command(first(listener).await?, &command).await,
            (None, false) => {
                join(&mut Side::stdio()?, Side::local(first(listener).await?), at_end).await
            }
            (None, true) => one_after_another(listener, at_end).await,
        }
    };
    tokio::select! {
        done = work => done,
        // The listener is dropped, and with it its name.
        () = asked_to_stop() => Err(Exit::silent(INTERRUPTED).into()),
    }
}

/// The name is free as soon as the one client is there.
async fn first(mut listener: Listener) -> Result<Stream> {
    let stream = listener.accept().await.context("cannot accept clients")?;
    say::detail(format_args!("a client is there: {}", client::peer(&stream)));
    Ok(stream)
}

async fn one_after_another(mut listener: Listener, at_end: AtEnd) -> Result<()> {
    let mut near = Side::stdio()?;
    loop {
        let stream = listener.accept().await.context("cannot accept clients")?;
        say::detail(format_args!("a client is there: {}", client::peer(&stream)));
        let mut far = Side::local(stream);
        let report = session::run(&mut near, &mut far, at_end).await?;
        say::detail(format_args!("sent {} bytes, received {}", report.sent, report.received));
        if report.lost {
            say::warning("the client left before it had taken all of its input");
        }
        drop(far.close(LAST_WORDS).await);
    }
}

async fn run_for_each(listener: Listener, command: Vec<OsString>) -> Result<()> {
    let command = Arc::new(command);
    let handler = move |stream: Stream| {
        let command = Arc::clone(&command);
        async move {
            say::detail(format_args!("a client is there: {}", client::peer(&stream)));
            if let Err(error) = run_command(stream, &command).await {
                say::warning(format_args!("{error:#}"));
            }
        }
    };
    serve(listener, handler)
        .with_graceful_shutdown(stop_asked_for())
        .await
        .context("cannot accept clients")?;
    Ok(())
}

/// Joins the client to a command, and waits for the command's end.
async fn run_command(stream: Stream, command: &[OsString]) -> Result<()> {
    let [program, arguments @ ..] = command else { bail!("--exec wants a command") };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Ok(peer) = stream.peer_credentials() {
        let user = peer.uid().map_or_else(|| peer.user().to_string(), |uid| uid.to_string());
        command.env("SOCKPIPE_PEER_USER", user);
        command.env("SOCKPIPE_PEER_PID", peer.pid().map(|pid| pid.to_string()).unwrap_or_default());
    }
    let shown = program.to_string_lossy();
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    let mut near = command_side(&mut child)?;
    let mut far = Side::local(stream);
    let report = session::run(&mut near, &mut far, AtEnd::WaitsIfTold).await?;
    say::detail(format_args!("sent {} bytes, received {}", report.sent, report.received));
    let closed = far.close(LAST_WORDS).await;
    // Its input and output are closed, so that it learns that the client is gone.
    drop(near);
    let status = wait(child).await?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    if report.lost {
        bail!("the client left before it had taken all that {shown} said");
    }
    closed.context("the client did not take all")
}

fn command_side(child: &mut Child) -> Result<Side> {
    let (Some(output), Some(input)) = (child.stdout.take(), child.stdin.take()) else {
        bail!("the command has no input or output");
    };
    Ok(Side::command(output, input)?)
}

async fn wait(mut child: Child) -> Result<ExitStatus> {
    Ok(spawn_blocking(move || child.wait()).await??)
}
