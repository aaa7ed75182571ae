//! Accepting. A completion port reports the clients that come, to one of the threads that wait for
//! them.
#![allow(unsafe_code, reason = "system calls, and memory that the system writes to meanwhile")]

use std::cell::UnsafeCell;
use std::io;
use std::os::windows::io::OwnedHandle;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_NO_DATA, ERROR_PIPE_CONNECTED};
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED};
use windows_sys::Win32::System::Pipes::ConnectNamedPipe;

use super::super::overlapped::Port;
use super::super::pipe::{self, ARMED, End, Instance, Kind, raw};
use super::super::security::check;
use super::super::{cannot_listen, refuse_present, resolve};
use super::write::Bound;
use super::{Own, Stream};
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::events::{self, ListenerStats};
use crate::options::ListenOptions;

/// Waits between tries to make an instance, or after one that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How long the end of a listener may wait for the system to let go of its instances.
const RELEASE: Duration = Duration::from_millis(250);

pub(crate) struct Listener {
    path: String,
    kind: Kind,
    wanted: usize,
    port: Port,
    armed: Mutex<Vec<Connect>>,
    pauses: AtomicU64,
}

/// An instance that waits for a client, and the system's structure of that wait. It must not be
/// dropped before the port has reported it, once it was begun.
struct Connect(NonNull<Operation>);

#[repr(C)] // The first field's address is that of the whole.
struct Operation {
    overlapped: UnsafeCell<OVERLAPPED>,
    pipe: OwnedHandle,
}

// SAFETY: it owns its operation, as a box does, and an operation belongs to no thread.
unsafe impl Send for Connect {}

impl Listener {
    pub(crate) fn bind(
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<(Self, Endpoint)> {
        let address = resolve(endpoint)?;
        let path = address.to_string();
        refuse_present(&address, &path)?;
        let listener = Self {
            kind: Kind::chosen(options)?,
            wanted: options.windows.instances.unwrap_or(ARMED),
            port: Port::new()?,
            armed: Mutex::default(),
            pauses: AtomicU64::new(0),
            path,
        };
        let claimed = listener.arm(&mut listener.lock(), Instance::First);
        match claimed.and_then(|()| listener.refill(&mut listener.lock())) {
            Ok(()) => Ok((listener, address)),
            Err(error) => Err(cannot_listen(&address, &listener.path, &error)),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        let mut pause = PAUSE.0;
        loop {
            let mut limit = None;
            if let Err(error) = self.refill(&mut self.lock()) {
                limit = Some(self.pause_after(&error, &mut pause));
            }
            let Some((operation, outcome)) = self.port.next(Deadline::after(limit))? else {
                continue;
            };
            let Some(connect) = self.take(&mut self.lock(), operation) else { continue };
            // Also of one that failed: it may be what holds the name.
            self.hold_name(&mut pause);
            match outcome {
                Ok(()) => return self.stream(connect.free()),
                Err(error) => {
                    drop(connect.free());
                    thread::sleep(self.pause_after(&error, &mut pause));
                }
            }
        }
    }

    pub(crate) fn into_pending(self) -> Vec<Stream> {
        let connected = self.end();
        connected.into_iter().filter_map(|pipe| self.stream(pipe).ok()).collect()
    }

    /// No client is refused here: the system does, by the pipe's descriptor.
    pub(crate) fn stats(&self) -> ListenerStats {
        ListenerStats { refused: 0, pauses: self.pauses.load(Ordering::Relaxed) }
    }

    fn stream(&self, pipe: OwnedHandle) -> io::Result<Stream> {
        Own::new(pipe, End::Server, self.kind.has_messages(), false, Bound::ByUs).map(Stream::Own)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connect>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(&self, armed: &mut Vec<Connect>, instance: Instance) -> io::Result<()> {
        let pipe = pipe::create(&self.path, instance, &self.kind)?;
        self.port.bind(&pipe)?;
        armed.push(Connect::begin(pipe, &self.port)?);
        Ok(())
    }

    /// # Errors
    ///
    /// Not all that should be armed are. What keeps one from being made may pass.
    fn refill(&self, armed: &mut Vec<Connect>) -> io::Result<()> {
        while armed.len() < self.wanted {
            self.arm(armed, Instance::Further)?;
        }
        Ok(())
    }

    /// The name lives as long as an instance does. Were the last one handed out, and its client
    /// left, anybody could take the name.
    fn hold_name(&self, pause: &mut Duration) {
        loop {
            let mut armed = self.lock();
            let Err(error) = self.refill(&mut armed) else {
                *pause = PAUSE.0;
                return;
            };
            if !armed.is_empty() {
                return;
            }
            drop(armed);
            thread::sleep(self.pause_after(&error, pause));
        }
    }

    fn pause_after(&self, error: &io::Error, pause: &mut Duration) -> Duration {
        let now = *pause;
        *pause = (now * 2).min(PAUSE.1);
        self.pauses.fetch_add(1, Ordering::Relaxed);
        events::accept_paused(error, now);
        now
    }

    /// The instance whose wait the port has reported.
    fn take(&self, armed: &mut Vec<Connect>, operation: *mut OVERLAPPED) -> Option<Connect> {
        let at = armed.iter().position(|connect| connect.overlapped() == operation)?;
        Some(armed.swap_remove(at))
    }

    /// Ends the waits, and gives the instances whose client had come.
    fn end(&self) -> Vec<OwnedHandle> {
        let mut armed = self.lock();
        for connect in armed.iter() {
            connect.cancel();
        }
        let mut connected = Vec::new();
        let deadline = Deadline::after(Some(RELEASE));
        while !armed.is_empty() {
            // Each is reported once, however it ends.
            let Ok(Some((operation, outcome))) = self.port.next(deadline) else { break };
            let Some(connect) = self.take(&mut armed, operation) else { continue };
            let pipe = connect.free();
            if outcome.is_ok() {
                connected.push(pipe);
            }
        }
        connected
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Connect {
    /// Lets a client in. The port reports when one has come, or that there is an error.
    fn begin(pipe: OwnedHandle, port: &Port) -> io::Result<Self> {
        let overlapped = UnsafeCell::default();
        let this = Self(NonNull::from(Box::leak(Box::new(Operation { overlapped, pipe }))));
        // SAFETY: the handle is open, for the operation owns it. The system may write to the
        // structure until the port has reported it; it is on the heap, and is not freed before, see
        // `Drop` and the callers of `free`.
        let begun =
            check(unsafe { ConnectNamedPipe(raw(&this.operation().pipe), this.overlapped()) });
        let begun = match begun {
            Ok(()) => Ok(()),
            Err(error) => match pipe::code(&error) {
                Some(ERROR_IO_PENDING) => Ok(()),
                // A client has come already, or come and gone, and the system does not report it.
                Some(ERROR_PIPE_CONNECTED | ERROR_NO_DATA) => port.post(this.overlapped()),
                _ => Err(error),
            },
        };
        if let Err(error) = begun {
            drop(this.free());
            return Err(error);
        }
        Ok(this)
    }

    /// Of one that has been reported, or was not begun.
    fn free(self) -> OwnedHandle {
        let operation = self.0.as_ptr();
        std::mem::forget(self);
        // SAFETY: the pointer is from a leaked box that nobody else has, and the system is done with
        // what is in it.
        unsafe { Box::from_raw(operation) }.pipe
    }

    fn cancel(&self) {
        // It fails where the wait is over.
        // SAFETY: the handle is open, for the operation owns it; only the structure's address
        // counts.
        unsafe { CancelIoEx(raw(&self.operation().pipe), self.overlapped()) };
    }

    fn overlapped(&self) -> *mut OVERLAPPED {
        self.operation().overlapped.get()
    }

    fn operation(&self) -> &Operation {
        // SAFETY: the operation is freed by `free` only, which gets the whole of `self`.
        unsafe { self.0.as_ref() }
    }
}

/// Not reported yet, so that the system may still write to its structure: that is leaked. Its handle
/// is not, for with it the name would stay.
impl Drop for Connect {
    fn drop(&mut self) {
        // SAFETY: the handle is read from an operation that nobody frees from here on, and nobody
        // else closes it.
        drop(unsafe { std::ptr::read(&raw const (*self.0.as_ptr()).pipe) });
    }
}
