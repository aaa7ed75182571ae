//! Listens as the options specify, until asked to stop.

use std::future::{Future, pending};
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use sockpipe::{Access, Endpoint, ListenOptions, Listener, LocalListener, Reason, Stream};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::args::{Memory, Place, Server, Spin};
use crate::exit::{Exit, INTERRUPTED, at_endpoint, what};
use crate::{os, say};

/// How long connections may take to finish once a server is asked to stop.
pub const DRAIN: Duration = Duration::from_secs(5);
/// Signals within this time count as one: timeout(1), for example, sends one to the process and one
/// to its group.
const ONE_REQUEST: Duration = Duration::from_millis(100);
/// The time after which a user wonders why the server has not ended.
const FELT: Duration = Duration::from_millis(700);

/// The interval between looks at the name. By then the library has looked itself, and bound the
/// name again if it could.
const LOOK: Duration = Duration::from_secs(12);

/// A listener that reports when clients no longer find it, and when it leaves its name behind.
pub struct Bound {
    listener: Listener,
    look: Interval,
    /// Whether the listener owns its name.
    named: bool,
    /// Whether the last look found the name gone.
    lost: bool,
}

pub fn bind(place: &Place, args: &Server, spin: Spin) -> Result<Bound> {
    bind_fast(place, args, spin, Memory::default())
}

pub fn bind_fast(place: &Place, args: &Server, spin: Spin, memory: Memory) -> Result<Bound> {
    let access = if args.everyone { Access::Everyone } else { Access::Owner };
    let options = memory.listening(ListenOptions::new().access(access).spin(spin.policy()));
    let options = os::listen_options(options, args)?;
    let listener = match place {
        Place::Endpoint(endpoint) => {
            Listener::bind_with(endpoint, &options).map_err(|error| {
                // Name what keeps a socket's file from being replaced, such as a mount.
                let busy = error.kind() == ErrorKind::ResourceBusy;
                at_endpoint(error).hinting(os::why_no_server(endpoint).filter(|_| busy))
            })?
        }
        Place::Passed(number) => os::passed_listener(*number, &options)?,
    };
    say::note(format_args!("listening on {}", listener.endpoint()));
    if args.everyone {
        if let Some(dir) = os::closed_directory(listener.endpoint()) {
            say::warning(format_args!(
                "no other user can connect: the directory {dir} admits no other user"
            ));
        }
    }

    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Bound { listener, look, named: matches!(place, Place::Endpoint(_)), lost: false })
}

impl Bound {
    /// Reports once that clients do not find the server and why, and later that they find it again.
    fn look_after_name(&mut self) {
        let found = match os::keep_name(&mut self.listener) {
            Ok(()) => true,
            // `accept` reports it, if the other server stays.
            Err(error) if error.kind() == ErrorKind::AddrInUse => return,
            Err(error) => {
                if !self.lost {
                    say::warning(format_args!(
                        "clients do not find this server any more: {}",
                        why_lost(error)
                    ));
                }
                false
            }
        };

        if found && self.lost {
            say::note("clients find this server again");
        }
        self.lost = !found;
    }
}

fn why_lost(error: io::Error) -> String {
    let reason = sockpipe::Error::of(&error).map(sockpipe::Error::reason);
    if matches!(reason, Some(Reason::NoDirectory)) {
        return format!("{}; restart it", what(&error));
    }
    at_endpoint(error).to_string()
}

impl LocalListener for Bound {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<Stream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted,
                _ = self.look.tick(), if self.named => self.look_after_name(),
            }
        }
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        LocalListener::endpoint(&self.listener)
    }

    fn stop_listening(&mut self) -> Vec<Stream> {
        self.listener.stop_listening()
    }
}

impl Deref for Bound {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        &self.listener
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Err(error) = self.listener.release() {
            say::warning(at_endpoint(error));
        }
    }
}

/// Completes when the process is asked to stop. Signals are caught from this call on, so it comes
/// before anything that must be undone.
pub fn asked_to_stop() -> Pin<Box<impl Future<Output = ()> + Send>> {
    let asked = os::asked_to_stop();
    Box::pin(async {
        if let Err(error) = asked.await {
            say::warning(format_args!("cannot listen for signals: {error}"));
            pending::<()>().await;
        }
    })
}

/// Returns two futures for a server whose connections may finish. The first one completes when the
/// server is asked to stop. The second one completes with an error when it is asked again, which
/// ends it at once.
pub fn asked_to_finish() -> (impl Future<Output = ()> + Send, impl Future<Output = Result<()>>) {
    let first = asked_to_stop();
    let (finishes, finishing) = oneshot::channel();
    let stop = async {
        first.await;
        tokio::spawn(async {
            sleep(ONE_REQUEST).await;
            let _ = finishes.send(asked_to_stop());
            // Usually there is nothing to wait for.
            sleep(FELT).await;
            let limit = DRAIN.as_secs();
            say::note(format_args!(
                "connections may finish, for up to {limit} s; a second Ctrl-C ends them at once"
            ));
        });
    };

    let again = async {
        match finishing.await {
            Ok(second) => second.await,
            // The server has stopped by itself.
            Err(_) => pending().await,
        }
        Err(Exit::silent(INTERRUPTED).into())
    };
    (stop, again)
}

/// Prints how many connections had not finished when the server stopped.
pub fn tell_cut(cut: usize) {
    let what = match cut {
        0 => return,
        1 => "1 connection was cut: it".to_owned(),
        cut => format!("{cut} connections were cut: they"),
    };
    say::note(format_args!("{what} had not finished within {} s", DRAIN.as_secs()));
}
