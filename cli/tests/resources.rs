//! The tool with few threads, little memory or few descriptors, and as the first process of a
//! container.
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;

use common::process::{Users, is_here};
use common::unix::STRANGER;
use common::{Backend, Os, Tool, run_with, tool};

/// Returns `sh -c SCRIPT`, in which `"$0" "$@"` is the tool with these arguments.
fn through_shell(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(tool().get_program()).args(arguments);
    command
}

#[test]
fn a_server_without_threads_serves_and_a_client_reports_it() {
    let Some(users) = Users::new() else { return };
    if !is_here("prlimit") {
        return;
    }
    let program = users.copy(&tool(), "sockpipe");
    let with = |threads: usize, arguments: &[&str]| {
        let mut command = Users::run_as("prlimit".as_ref(), STRANGER);
        command.arg(format!("--nproc={threads}")).arg(&program).args(arguments);
        Tool::of(command)
    };
    for threads in 1..=3 {
        let os = Os::new();
        std::fs::set_permissions(os.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
            .expect("a mode");
        let mut server = with(threads, &["echo", "--everyone", os.endpoint()]);
        server.await_listening();
        for _ in 0..3 {
            let ended = run_with(&["connect", "--any-server", os.endpoint()], b"hello");
            assert_eq!(ended.assert_succeeds().text(), "hello");
        }
        let found = ["relay", "--any-server", "tcp:localhost:0", os.endpoint()];
        if threads == 1 {
            with(1, &["connect", "--any-server", os.endpoint()])
                .wait()
                .assert_fails(1, &["cannot start", "temporarily unavailable"]);
            with(1, &found).wait().assert_fails(1, &["cannot find", "temporarily unavailable"]);
        }
    }
}

/// The limits start at what the loader needs.
#[test]
fn ping_works_or_reports_that_it_lacks_descriptors() {
    let os = Os::new();
    let _echo = Tool::listening(&["echo", os.endpoint()]);
    let mut worked = 0;
    for most in 4..24 {
        let limit = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        let ended = Tool::of(through_shell(&limit, &["ping", "-n", "1", os.endpoint()])).wait();
        assert!(!ended.err.contains("panicked"), "{most}: {ended:?}");
        match ended.code {
            Some(0) => worked += 1,
            code => {
                assert_eq!(code, Some(1), "{most}: {ended:?}");
                assert!(ended.err.contains("files"), "{most}: {ended:?}");
            }
        }
    }
    assert!(worked > 0);
}

#[test]
fn a_server_works_within_64_mib() {
    let (front, behind) = (Os::new(), Os::new());
    let limit = "ulimit -v 65536; exec \"$0\" \"$@\"";
    let mut echo = Tool::of(through_shell(limit, &["echo", behind.endpoint()]));
    echo.await_listening();
    let arguments = ["relay", front.endpoint(), behind.endpoint()];
    let mut relay = Tool::of(through_shell(limit, &arguments));
    relay.await_listening();
    let bytes = common::noise(3 << 20);
    let ended = run_with(&["connect", front.endpoint()], &bytes).assert_succeeds();
    assert!(ended.out == bytes, "{} bytes", ended.out.len());
}

/// The tool as process 1. The code for macOS and the BSDs does not handle that.
#[cfg(not(sockpipe_posix))]
mod first_process {
    use std::process::Stdio;

    use super::common::unix::{can_unshare, until};
    use super::common::{Backend, Os, Tool, run_with};
    use super::through_shell;

    /// In a container, process 1 adopts orphans, and a signal ends it only if it handles the
    /// signal.
    #[test]
    fn the_first_process_takes_orphans_and_obeys_signals() {
        if !can_unshare(&["-p", "-f", "--mount-proc"]) {
            return;
        }
        let os = Os::new();
        let path = os.endpoint();
        let first = "exec unshare -p -f --mount-proc --kill-child \"$0\" \"$@\"";
        // Each command leaves an orphan that outlives it.
        let orphan = "sleep 0.2 & exit 0";
        let mut server = Tool::of(through_shell(
            first,
            &["listen", "--keep", path, "--exec", "sh", "-c", orphan],
        ));
        server.await_listening();
        for _ in 0..3 {
            run_with(&["connect", path], b"");
        }
        let inside = child(server.child.id());
        until("orphans are taken", || children(inside).is_empty());
        end(server, inside, Some(0));

        // Elsewhere the signal itself ends this verb.
        let mut listener = Tool::listening(&["listen", path]);
        let mut client = through_shell(first, &["connect", path]);
        client.stdin(Stdio::piped());
        let mut client = Tool::of(client);
        listener.type_in("hello");
        client.await_out("hello");
        let inside = child(client.child.id());
        end(client, inside, Some(130));
    }

    /// Sends a signal from outside, as `docker stop` does.
    #[track_caller]
    fn end(tool: Tool, inside: u32, code: Option<i32>) {
        let pid = i32::try_from(inside).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::TERM)
            .expect("a signal");
        assert_eq!(tool.wait().code, code);
    }

    /// Waits for the only child of a process.
    fn child(of: u32) -> u32 {
        let mut found = None;
        until("a child", || {
            found = children(of).first().copied();
            found.is_some()
        });
        found.expect("a child")
    }

    fn children(of: u32) -> Vec<u32> {
        let list = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
        let list = list.unwrap_or_default();
        list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }
}
