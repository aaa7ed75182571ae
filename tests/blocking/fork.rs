//! A child by fork(2), which has a copy of all that its parent has.
#![allow(unsafe_code, reason = "fork(2) is, and what comes after it")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use sockpipe::blocking::{Listener, Stream};

use super::bounded::{bounded, exchange, unique_name};

/// Runs `in_child` in a child of this process.
fn in_child(in_child: impl FnMut() + Send + Sync + 'static) {
    let mut in_child = in_child;
    let mut command = Command::new("true");
    // SAFETY: the closure closes descriptors and frees memory, and the C libraries that this runs
    // with let a child do that also where the parent has other threads.
    unsafe {
        command.pre_exec(move || {
            in_child();
            Ok(())
        })
    };
    assert!(command.status().expect("a child").success());
}

struct Shared<T>(*const T);

// SAFETY: it is read in a child, which has one thread.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Drops the copy that a child has.
    fn drop_copy(&self) {
        // SAFETY: in the child nobody else uses it, or drops it again before the exec.
        drop(unsafe { ptr::read(self.0) });
    }
}

#[test]
fn a_listener_that_a_child_drops_stays_with_its_parent() {
    bounded(|| {
        for abstract_too in [false, true] {
            let name = unique_name();
            let name = if abstract_too { format!("abstract:{name}") } else { name };
            if abstract_too && !cfg!(all(target_os = "linux", not(sockpipe_posix))) {
                println!("not run: abstract sockets are Linux's");
                continue;
            }
            let listener = Listener::bind(&*name).expect("a free name");
            let shared = Shared(&raw const listener);
            in_child(move || shared.drop_copy());
            Listener::bind(&*name).expect_err("the name is taken");
            let client = Stream::connect(&*name).expect("a server");
            exchange(&client, &listener.accept().expect("a client"));
        }
    });
}
