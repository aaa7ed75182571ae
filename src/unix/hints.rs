//! Explains why a server may not have been found, by what may hide it from this process.

use std::env;
use std::fs;
use std::path::Path;

use rustix::process::geteuid;

use super::platform::PATH_LIMIT;
use crate::candidate::{Candidacy, Candidate};
use crate::endpoint::{Endpoint, Form};

/// The facts about this process's environment. Tests supply their own.
struct Surroundings {
    /// The mounts: proc_pid_mountinfo(5).
    mounts: String,
    /// The sockets: `/proc/net/unix`.
    sockets: Vec<u8>,
    is_flatpak: bool,
    is_snap: bool,
    /// The user that called sudo.
    caller: Option<u32>,
    user: u32,
}

/// Called only after a connection has failed for good.
pub(super) fn hint(endpoint: &Endpoint, candidates: &[Candidate]) -> Option<String> {
    let here = Surroundings {
        mounts: fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        sockets: fs::read("/proc/net/unix").unwrap_or_default(),
        is_flatpak: Path::new("/.flatpak-info").exists(),
        is_snap: env::var_os("SNAP").is_some(),
        caller: env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()),
        user: geteuid().as_raw(),
    };
    here.hint(endpoint, candidates)
}

impl Surroundings {
    fn hint(&self, endpoint: &Endpoint, candidates: &[Candidate]) -> Option<String> {
        if let Form::Abstract(name) = &endpoint.0 {
            let nuls = self.nuls_behind(name)?;
            return Some(format!(
                "there is a socket of this name with {nuls} NUL bytes behind it, each written `%00`"
            ));
        }

        let caller = self.caller.filter(|caller| *caller != self.user);
        if let (Form::Name(_) | Form::Session(_), Some(caller)) = (&endpoint.0, caller) {
            return Some(format!(
                "this process runs as uid {} by sudo, and a portable name is each user's own: for \
                 a server of uid {caller} give its path",
                self.user
            ));
        }

        if self.is_flatpak || self.is_snap {
            let which = if self.is_flatpak { "Flatpak" } else { "snap" };
            return Some(format!(
                "this process is in the sandbox of a {which}, whose directories are its own: share \
                 one with it and give the path"
            ));
        }

        let tmp = candidates.iter().filter_map(directory).find_map(|dir| self.private(dir))?;
        Some(format!(
            "this process has a {tmp} of its own (systemd's PrivateTmp=): give the server a path \
             in another directory"
        ))
    }

    /// Returns the temporary directory that contains `dir`, if systemd has made a private one for
    /// this service.
    fn private(&self, dir: &Path) -> Option<&'static str> {
        let tmp = ["/tmp", "/var/tmp"].into_iter().find(|tmp| dir.starts_with(tmp))?;
        // Each line: id, parent, device, root, mount point.
        let is_private = self.mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(3);
            fields.next().is_some_and(|root| root.contains("/systemd-private-"))
                && fields.next() == Some(tmp)
        });
        is_private.then_some(tmp)
    }

    /// Returns how many NULs follow `name` in the name of a socket that uses the full length.
    fn nuls_behind(&self, name: &[u8]) -> Option<usize> {
        let nuls = PATH_LIMIT.checked_sub(name.len()).filter(|nuls| *nuls > 0)?;
        // The first NUL and all others are shown as `@`.
        let whole = [b" @", name, &vec![b'@'; nuls]].concat();
        self.sockets.split(|byte| *byte == b'\n').any(|line| line.ends_with(&whole)).then_some(nuls)
    }
}

fn directory(candidate: &Candidate) -> Option<&Path> {
    match &candidate.place {
        Candidacy::Path(path) => path.parent(),
        Candidacy::UserDir { dir, .. } | Candidacy::PrivateDir { dir, .. } => Some(dir),
        Candidacy::Abstract(_) | Candidacy::Pipe(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::resolve::{Environment, Family, candidates};
    use crate::peer::UserId;

    fn nowhere() -> Surroundings {
        Surroundings {
            mounts: "24 1 0:22 / /tmp rw - tmpfs tmpfs rw\n".to_owned(),
            sockets: b"Num RefCount Protocol Flags Type St Inode Path\n".to_vec(),
            is_flatpak: false,
            is_snap: false,
            caller: None,
            user: 7,
        }
    }

    fn hint(here: &Surroundings, endpoint: &str) -> Option<String> {
        let endpoint = endpoint.parse().expect("an endpoint");
        let user = UserId::Uid(7);
        let (family, user_temp_dir, session) = (Family::Linux, || None, || None);
        let env = Environment { family, user, runtime_dir: None, user_temp_dir, session };
        here.hint(&endpoint, &candidates(&endpoint, &env).expect("candidates"))
    }

    #[test]
    fn no_hint_is_given_without_a_cause() {
        for endpoint in ["echo", "/tmp/x", "./x", "system:x", "abstract:x"] {
            assert_eq!(hint(&nowhere(), endpoint), None, "{endpoint}");
        }
    }

    #[test]
    fn a_private_tmp_is_reported_for_endpoints_in_it() {
        let root = "/tmp/systemd-private-1-a.service-2/tmp";
        let mounts = format!("31 24 8:1 {root} /tmp rw - ext4 /dev/sda1 rw\n");
        let here = Surroundings { mounts, ..nowhere() };
        for endpoint in ["/tmp/x", "/tmp/a/x", "echo"] {
            let hint = hint(&here, endpoint).expect(endpoint);
            assert!(hint.contains("a /tmp of its own (systemd's PrivateTmp=)"), "{hint}");
        }
        for endpoint in ["/run/x", "/var/tmp/x", "/tmpx/y", "system:x"] {
            assert_eq!(hint(&here, endpoint), None, "{endpoint}");
        }
    }

    #[test]
    fn a_sandbox_or_sudo_is_reported() {
        let flatpak = Surroundings { is_flatpak: true, ..nowhere() };
        assert!(hint(&flatpak, "echo").expect("a hint").contains("sandbox of a Flatpak"));
        let snap = Surroundings { is_snap: true, ..nowhere() };
        assert!(hint(&snap, "/run/x").expect("a hint").contains("sandbox of a snap"));
        let sudo = Surroundings { caller: Some(1000), user: 0, ..nowhere() };
        assert!(hint(&sudo, "echo").expect("a hint").contains("a server of uid 1000"));
        assert_eq!(hint(&sudo, "/run/x"), None);
        assert_eq!(hint(&Surroundings { caller: Some(7), ..nowhere() }, "echo"), None);
    }

    #[test]
    fn a_padded_abstract_name_is_reported_with_its_length() {
        let mut sockets = b"0000: 00000002 00000000 00010000 0001 01 9 @padded".to_vec();
        sockets.resize(sockets.len() + PATH_LIMIT - 6, b'@');
        sockets.push(b'\n');
        let here = Surroundings { sockets, ..nowhere() };
        let says = format!("with {} NUL bytes behind it", PATH_LIMIT - 6);
        assert!(hint(&here, "abstract:padded").expect("a hint").contains(&says));
        assert_eq!(hint(&here, "abstract:added"), None);
        assert_eq!(hint(&here, "abstract:padde"), None);
    }
}
