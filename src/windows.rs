//! Named pipes.

mod accept;
mod pipe;
mod reactor;
mod security;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IoSlice};
use std::os::windows::io::AsHandle;
use std::pin::pin;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
use tokio::sync::mpsc::{Receiver, channel};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, ERROR_NO_DATA, ERROR_PIPE_BUSY,
};

use self::accept::{Instances, Name};
use self::pipe::{Instance, Opened, Pipe, Presence, code, is_gone};
use self::reactor::Task;
use self::security::{ADMINISTRATORS, SYSTEM, SecurityDescriptor, own_sid};
use crate::endpoint::resolve::{Environment, Family, candidates};
use crate::endpoint::{Endpoint, ParseEndpointError};
use crate::options::{Access, ConnectOptions, ExpectServer, ListenOptions};
use crate::peer::{PeerCredentials, UserId};

/// The longest `\\.\pipe\NAME` that the system takes, in UTF-16 units.
const PATH_LIMIT: usize = 256;
/// Clients that are connected and not accepted yet.
const BACKLOG: usize = 128;
/// The most that one write hands to the system. Should the process end without `close`, at most
/// this much of what was written is lost.
const CHUNK: usize = 64 * 1024;
/// The longest pause between tries to connect.
const CONNECT_PAUSE: u64 = 32_000;

pub(crate) fn environment() -> io::Result<Environment> {
    Ok(Environment {
        family: Family::Windows,
        user: UserId::Sid(own_sid()?.to_owned()),
        runtime_dir: None,
        user_temp_dir: None,
    })
}

pub(crate) struct Listener {
    clients: Receiver<NamedPipeServer>,
    // Dropped in this order: first all instances, then the name waits for them to be closed.
    _instances: Task<()>,
    queue: (),
    name: Name,
}
