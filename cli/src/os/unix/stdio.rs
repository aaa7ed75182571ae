//! Standard input and output as they are found: another program may have set either not to wait,
//! and whoever started this one may have closed them.

use std::io::{self, Read, Write, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Whether standard output was closed when the process began. Rust has put `/dev/null` in its place
/// by the time `main` runs, where all would be lost without a sign.
static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Standard input. Its mode is shared with all who have the same pipe or terminal, so it is left as
/// it is: a read that finds nothing waits by itself.
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

/// Standard output, without the line buffer of std. As above, a write that finds no room waits.
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

/// What the system runs before Rust's own start, which replaces closed descriptors.
#[allow(unsafe_code, reason = "the only moment at which a closed descriptor can be seen")]
mod before_main {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::Ordering;

    use rustix::io::{Errno, fcntl_getfd};

    // SAFETY: the section holds pointers to functions of this type, which the system calls once
    // each. The function uses nothing that Rust's start would have to make ready: one system call,
    // and a store.
    #[used]
    #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: the number is not -1. Whether it is open is what is asked, and the call that gets
        // it bears that it is not.
        let output = unsafe { BorrowedFd::borrow_raw(1) };
        let closed = fcntl_getfd(output) == Err(Errno::BADF);
        super::OUTPUT_CLOSED.store(closed, Ordering::Relaxed);
    }
}
