//! Standard input and output as this process inherited them. Another program may have made them
//! nonblocking, and the parent process may have closed them.

use std::io::{self, Read, Write, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Whether standard output was closed when the process began. By the time `main` runs, Rust has
/// opened `/dev/null` in its place, where all output would be lost silently.
static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Standard input. All processes with the same pipe or terminal share its mode, so the mode is left
/// unchanged. A read that finds nothing waits with poll(2).
pub struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(stdin(), &mut *buffer) {
                Err(Errno::AGAIN) => wait(PollFd::new(&stdin(), PollFlags::IN))?,
                read => return Ok(read?),
            }
        }
    }
}

/// Standard output, without the line buffer of std. A write that finds no room waits in the same
/// way.
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if OUTPUT_CLOSED.load(Ordering::Relaxed) {
            return Err(Errno::BADF.into());
        }
        loop {
            match rustix::io::write(stdout(), bytes) {
                Err(Errno::AGAIN) => wait(PollFd::new(&stdout(), PollFlags::OUT))?,
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait(polled: PollFd<'_>) -> io::Result<()> {
    match poll(&mut [polled], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Code that the system runs before Rust's startup code, which replaces closed descriptors.
#[allow(unsafe_code, reason = "the only moment at which a closed descriptor can be seen")]
mod before_main {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::Ordering;

    use rustix::io::{Errno, fcntl_getfd};

    // SAFETY: the section holds pointers to functions of this type, which the system calls once
    // each. The function makes one system call and one store, and needs nothing that Rust's startup
    // code prepares.
    #[used]
    #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: the number is not -1. The descriptor may not be open, and the call that uses it
        // reports that.
        let output = unsafe { BorrowedFd::borrow_raw(1) };
        let closed = fcntl_getfd(output) == Err(Errno::BADF);
        super::OUTPUT_CLOSED.store(closed, Ordering::Relaxed);
    }
}
