//! A child made by fork(2) has a copy of its parent's listener.
#![allow(unsafe_code, reason = "fork(2) is unsafe, and so is the code that follows it")]

use std::process::Command;

use sockpipe::blocking::{Listener, Stream};

use crate::common::bounded::{bounded, exchange};
use crate::common::fork::{Shared, in_child};
use crate::common::unique_name;

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
            let shared = Shared::new(&listener);
            in_child(move || shared.drop_copy());
            Listener::bind(&*name).expect_err("the name is taken");
            let client = Stream::connect(&*name).expect("a server");
            exchange(&client, &listener.accept().expect("a client"));
        }
    });
}

/// A cleaner has removed the socket, and the parent binds it again under its lock.
#[test]
fn a_lock_whose_socket_is_gone_stays_with_the_parent() {
    bounded(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s.sock");
        let listener = Listener::bind(&*socket).expect("a free name");
        std::fs::remove_file(&socket).expect("the socket");
        let shared = Shared::new(&listener);
        in_child(move || shared.drop_copy());
        assert!(dir.path().join(".s.sock.lock").exists());
    });
}

/// The program of the test below. Its child drops a copy of the listener in another process
/// namespace, so that neither sees the other's process id.
#[cfg(target_os = "linux")]
#[test]
fn helper_forks_into_a_namespace() {
    let Ok(name) = std::env::var("SOCKPIPE_TEST_HELPER") else { return };
    let listener = Listener::bind(&*name).expect("a free name");
    let shared = Shared::new(&listener);
    in_child(move || {
        // SAFETY: it has no arguments in memory.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWPID) };
        assert_eq!(apart, 0, "a namespace");
        // SAFETY: this process has one thread, and its child ends without a return from here.
        match unsafe { libc::fork() } {
            0 => {
                shared.drop_copy();
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the place for the status is a number of this function.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
    });
    Listener::bind(&*name).expect_err("the name is taken");
    let client = Stream::connect(&*name).expect("a server");
    exchange(&client, &listener.accept().expect("a client"));
    println!("\nkept {}", std::process::id());
}

/// In its namespace the child's process id may be the same as its parent's, or belong to no
/// process.
#[cfg(target_os = "linux")]
#[test]
fn a_child_in_a_namespace_of_its_own_leaves_the_name_to_its_parent() {
    let command = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("SOCKPIPE_TEST_HELPER", unique_name());
        command.output().expect("a process")
    };
    let tried = command("unshare", &["-p", "-f", "true"]);
    if !tried.status.success() {
        let why = crate::common::process::text(&tried.stderr);
        println!("not run: unshare does not work here: {}", why.trim());
        return;
    }
    let this = std::env::current_exe().expect("the test's own program");
    let this = this.to_str().expect("UTF-8");
    let helper = ["--exact", "blocking::fork::helper_forks_into_a_namespace", "--nocapture"];
    for first in [false, true] {
        let ended = match first {
            true => command("unshare", &[&["-p", "-f", this], &helper[..]].concat()),
            false => command(this, &helper),
        };
        let out = crate::common::process::text(&ended.stdout);
        let kept = out.lines().find_map(|line| line.strip_prefix("kept "));
        let err = crate::common::process::text(&ended.stderr);
        let id = kept.unwrap_or_else(|| panic!("{first}: {out} {err}"));
        assert_eq!(id == "1", first);
    }
}
