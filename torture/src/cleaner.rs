//! The system's cleaner of old files, which runs over the sockets of living servers.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::report::Report;

const CLEANER: &str = "systemd-tmpfiles";
const EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Cleaner {
    config: tempfile::NamedTempFile,
    /// A file that nobody needs.
    old: PathBuf,
    next: Instant,
    is_here: bool,
    runs: u64,
    cleaned: u64,
    /// How many files of living servers were there, and how many of them the cleaner took.
    kept: u64,
    hurt: u64,
}

impl Cleaner {
    /// Prepares it for `dir`, where each file is old at once.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let config = tempfile::NamedTempFile::new()?;
        fs::write(config.path(), format!("d {} - - - 0\n", dir.display()))?;
        let old = dir.join("old");
        fs::write(&old, "")?;
        let next = Instant::now() + EVERY;
        Ok(Self { config, old, next, is_here: true, runs: 0, cleaned: 0, kept: 0, hurt: 0 })
    }

    /// Cleans if it is time and there are files of living servers, `kept`.
    pub(crate) fn step(&mut self, kept: &[PathBuf], report: &mut Report) -> Result<()> {
        if !self.is_here || kept.is_empty() || Instant::now() < self.next {
            return Ok(());
        }
        self.next += EVERY;
        let before: Vec<_> = kept.iter().map(|file| inode(file)).collect();
        let mut cleaner = Command::new(CLEANER);
        cleaner.arg("--clean").arg(self.config.path()).stdout(Stdio::null()).stderr(Stdio::null());
        match cleaner.status() {
            Err(error) if error.kind() == ErrorKind::NotFound => self.is_here = false,
            Ok(status) if status.success() => self.runs += 1,
            failed => report.wrong(format!("{CLEANER} fails: {failed:?}")),
        }

        self.cleaned += u64::from(!self.old.exists());
        for (file, before) in kept.iter().zip(before) {
            if before.is_none() {
                continue;
            }
            self.kept += 1;
            if before != inode(file) {
                self.hurt += 1;
                report.wrong(format!("{CLEANER} took {}", file.display()));
            }
        }
        Ok(fs::write(&self.old, "")?)
    }

    pub(crate) fn judge(self, report: &mut Report) {
        let _ = fs::remove_file(&self.old);
        if !self.is_here {
            let why = "without it".to_owned();
            return report.not_judged(CLEANER, "runs", "is not installed", why);
        }
        let seen = format!("{} times, {} old files removed", self.runs, self.cleaned);
        let right = self.runs > 0 && self.cleaned == self.runs;
        report.judge("systemd-tmpfiles runs with an age of 0", "some", seen, right);
        let (hurt, kept) = (self.hurt, self.kept);
        let seen = format!("{hurt} of {kept}");
        report.judge("… files of living servers removed", 0, seen, hurt == 0 && kept > 0);
    }
}

fn inode(file: &Path) -> Option<u64> {
    fs::symlink_metadata(file).ok().map(|file| file.ino())
}
