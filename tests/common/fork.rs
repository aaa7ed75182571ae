//! Runs code in a child made by fork(2), which has copies of what its parent has.
#![allow(unsafe_code, reason = "fork(2) is unsafe, and so is the code that follows it")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Runs `in_child` in a child of this process.
pub fn in_child(in_child: impl FnMut() + Send + Sync + 'static) {
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

/// A value that the child has a copy of.
pub struct Shared<T>(*const T);

// SAFETY: it is read in a child, which has one thread.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(value: &T) -> Self {
        Self(value)
    }

    /// Drops the child's copy. Only the child may call this, once.
    pub fn drop_copy(&self) {
        // SAFETY: in the child nobody else uses it, or drops it again before the exec.
        drop(unsafe { ptr::read(self.0) });
    }
}
