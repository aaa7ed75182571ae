//! Programs that do not use sockpipe, which `scripts/windows-peers.sh` fetches.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::PATIENCE;

/// Returns the path of the program that `variable` names.
pub fn program(variable: &str) -> Option<String> {
    let Ok(path) = env::var(variable) else {
        println!("not run: {variable} does not say where it is");
        return None;
    };
    // Wine shows the root of the Unix file system as a drive.
    let unix = path.starts_with('/');
    let path = if unix { format!("Z:{}", path.replace('/', r"\")) } else { path };
    assert!(Path::new(&path).is_file(), "{variable}: there is no {path}");
    Some(path)
}

/// A running program that reports what it sees, in lines of a file: under Wine its standard output
/// is not always available.
pub struct Peer {
    child: Child,
    dir: TempDir,
}

impl Peer {
    /// Starts `command` with three more arguments: the role, the pipe, and the file.
    pub fn start(mut command: Command, role: &str, pipe: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let output = File::create(dir.path().join("output")).expect("a file");
        let child = command
            .args([role, pipe])
            .arg(dir.path().join("log"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a handle"))
            .stderr(output)
            .spawn()
            .expect("a program");
        Self { child, dir }
    }

    pub fn said(&self) -> Vec<String> {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let output = read("output");
        assert_eq!(output, "", "it failed");
        let log = read("log");
        assert!(!log.contains("failed: "), "{log}");
        log.lines().map(str::to_owned).collect()
    }

    pub async fn says(&self, line: &str) {
        let started = Instant::now();
        loop {
            let said = self.said();
            if said.iter().any(|said| said == line) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{line:?} is not in {said:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn ends(mut self) -> Vec<String> {
        let started = Instant::now();
        loop {
            let status = self.child.try_wait().expect("a child");
            let said = self.said();
            if let Some(status) = status {
                assert!(status.success(), "{status}: {said:?}");
                return said;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end; it said {said:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
