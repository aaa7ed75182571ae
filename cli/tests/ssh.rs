//! Clients reach a server on another machine through ssh: a real sshd, on loopback.
#![cfg(target_os = "linux")] // ssh is the same elsewhere.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::process::{is_here, tool};
use common::{Backend, Os, PATIENCE, Tool};

/// An OpenSSH server that this user runs on a free port of loopback, with a key that it accepts.
struct Ssh {
    dir: tempfile::TempDir,
    port: u16,
    server: Child,
}

impl Ssh {
    /// Starts the server. Returns `None` and prints why if this machine cannot run one.
    fn start() -> Option<Self> {
        let sshd = Path::new("/usr/sbin/sshd");
        if !is_here("ssh") || !is_here("ssh-keygen") {
            return None;
        }
        // sshd needs this directory when root runs it. Usually the package's service creates it.
        let empty = Path::new("/run/sshd");
        let is_root = rustix::process::geteuid().is_root();
        if !sshd.exists() || (is_root && !empty.exists() && fs::create_dir(empty).is_err()) {
            println!("not run: there is no OpenSSH server on this machine");
            return None;
        }

        let dir = tempfile::tempdir().expect("a directory");
        for key in ["host", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.path().join(key));
            assert!(keygen.status().expect("ssh-keygen").success());
        }

        let port = free_port();
        let at = dir.path().display();
        let settings = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\n\
             AuthorizedKeysFile {at}/key.pub\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nAllowStreamLocalForwarding yes\n"
        );
        let file = dir.path().join("sshd.conf");
        fs::write(&file, settings).expect("a file");
        let mut server = Command::new(sshd);
        server.args(["-D", "-e", "-f"]).arg(file).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut server = server.spawn().expect("sshd");
        await_line(&mut server, "Server listening on");
        Some(Self { dir, port, server })
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        let known = format!("UserKnownHostsFile={}", self.path("known").display());
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "LogLevel=ERROR", "-o", &known, "-p", &self.port.to_string(), "-i"])
            .arg(self.path("key"))
            .args(options)
            .arg("127.0.0.1");
        ssh
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Returns a port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Reads standard error until a line that contains `text`, and discards the rest.
fn await_line(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let found = lines.by_ref().map_while(Result::ok).any(|line| line.contains(text));
    assert!(found, "no line with {text:?}");
    // The pipe stays open, so that later lines do not fail.
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn a_server_is_reached_through_ssh() {
    let Some(ssh) = Ssh::start() else { return };
    let os = Os::new();
    let _server = Tool::listening(&["echo", os.endpoint()]);

    // The tool runs on the other side. With half-close the answer arrives after the end of the
    // input.
    let mut connect = ssh.command(&[]);
    connect.arg(tool().get_program()).args(["connect", os.endpoint()]).stdin(Stdio::piped());
    let mut connect = Tool::of(connect);
    connect.feed(b"by the tool".to_vec());
    let ended = connect.wait().assert_succeeds();
    assert_eq!(ended.text(), "by the tool");

    // ssh forwards a socket of this machine to the other one.
    let local = ssh.path("local.sock");
    let forwarding = format!("{}:{}", local.display(), os.endpoint());
    let mut forward = ssh.command(&["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forwarding]);
    forward.stdin(Stdio::null());
    let _forward = Tool::of(forward);
    let deadline = Instant::now() + PATIENCE;
    while !local.exists() {
        assert!(Instant::now() < deadline, "ssh forwards nothing");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut client = Tool::start(&["connect", local.to_str().expect("UTF-8")]);
    client.feed(b"by a socket".to_vec());
    assert_eq!(client.wait().assert_succeeds().text(), "by a socket");
}
