//! `sockpipe listen`.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sockpipe::{LocalListener, Stream, serve};

use crate::args::{Ends, LAST_BYTES, Linger, Spin};
use crate::command::Joined;
use crate::connect::{CUT, join};
use crate::exit::{Exit, INTERRUPTED, at_endpoint};
use crate::os::Descriptors;
use crate::server::{Bound, DRAIN, asked_to_finish, asked_to_stop, bind, tell_cut};
use crate::session;
use crate::side::Side;
use crate::{args, client, say};

pub async fn run(args: args::Listen) -> Result<()> {
    let ends = args.end.ends();
    if let (Some(command), true) = (&args.exec, args.keep) {
        return run_for_each(&args, command.clone()).await;
    }

    let stop = asked_to_stop();
    let listener = bind(&args.endpoint, &args.server, args.spin)?;

    let work = async {
        match (args.exec, args.keep) {
            (Some(command), _) => {
                run_command(first(listener).await?, &command, args.end.linger, args.spin).await
            }
            (None, false) => {
                let far = side(first(listener).await?, args.spin)?;
                join(&mut Side::stdio()?, far, ends).await
            }
            (None, true) => one_after_another(listener, ends, args.spin).await,
        }
    };
    tokio::select! {
        done = work => done,
        // This drops the listener, and with it its name.
        () = stop => Err(Exit::silent(INTERRUPTED).into()),
    }
}

/// Accepts the only client. The name is free as soon as it is connected.
async fn first(mut listener: Bound) -> Result<Stream> {
    let stream = listener.accept().await.map_err(at_endpoint)?;
    say::detail(format_args!("a client is there: {}", client::peer(&stream)));
    Ok(stream)
}

fn side(stream: Stream, spin: Spin) -> Result<Side> {
    Ok(Side::local(stream, Descriptors::Closed, spin)?)
}

async fn one_after_another(mut listener: Bound, ends: Ends, spin: Spin) -> Result<()> {
    let mut near = Side::stdio()?;
    loop {
        let stream = listener.accept().await.map_err(at_endpoint)?;
        say::detail(format_args!("a client is there: {}", client::peer(&stream)));
        let mut far = side(stream, spin)?;
        let report = session::run(&mut near, &mut far, ends).await?;
        say::detail(format_args!("sent {} bytes, received {}", report.sent, report.received));
        if report.lost {
            say::warning("the client left before it had taken all of its input");
        }
        if report.cut {
            say::warning(CUT);
        }
        drop(far.close(ends.linger.unwrap_or(LAST_BYTES)).await);
    }
}

async fn run_for_each(args: &args::Listen, command: Vec<OsString>) -> Result<()> {
    let (stop, again) = asked_to_finish();
    let listener = bind(&args.endpoint, &args.server, args.spin)?;
    let command = Arc::new(command);
    let (linger, spin) = (args.end.linger, args.spin);
    let handler = move |stream: Stream| {
        let command = Arc::clone(&command);
        async move {
            say::detail(format_args!("a client is there: {}", client::peer(&stream)));
            if let Err(error) = run_command(stream, &command, linger, spin).await {
                say::warning(format_args!("{error:#}"));
            }
        }
    };

    let served = serve(listener, handler).with_graceful_shutdown(stop).drain_deadline(DRAIN);
    tokio::select! {
        served = served => tell_cut(served.map_err(at_endpoint)?.cut()),
        ended = again => return ended,
    }
    Ok(())
}

/// Joins the client to a command, and waits for the command's end.
async fn run_command(
    stream: Stream,
    command: &[OsString],
    linger: Linger,
    spin: Spin,
) -> Result<()> {
    let [program, arguments @ ..] = command else { bail!("--exec wants a command") };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Ok(peer) = stream.peer_credentials() {
        let user = peer.uid().map_or_else(|| peer.user().to_string(), |uid| uid.to_string());
        command.env("SOCKPIPE_PEER_USER", user);
        command.env("SOCKPIPE_PEER_PID", peer.pid().map(|pid| pid.to_string()).unwrap_or_default());
    }
    let shown = program.to_string_lossy();
    let mut far = side(stream, spin)?;
    let (command, mut near) = Joined::start(&mut command)?;
    let report = session::run(&mut near, &mut far, linger.between_programs()).await;
    let closed = far.close(linger.for_the_rest()).await;
    // This closes the command's input and output, which shows it that the client is gone.
    drop(near);
    let status = command.finish().await?;
    let report = report?;
    say::detail(format_args!("sent {} bytes, received {}", report.sent, report.received));
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    if report.cut {
        say::warning(CUT);
    }
    if report.lost {
        bail!("the client left before it had taken all that {shown} said");
    }
    closed.context("the client did not take all")
}
