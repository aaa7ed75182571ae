//! From an endpoint to the addresses it may have on an OS.
//!
//! Pure functions of (endpoint, environment), so that every OS's rules are tested on every OS. The
//! backends gather the environment and try the candidates: `bind` takes the first usable one,
//! `connect` tries all in the same order.

use std::io;
use std::path::PathBuf;

use super::{Endpoint, Form};
use crate::peer::UserId;

/// Whose rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "an OS constructs its own, the tests construct all")]
pub(crate) enum Family {
    /// Linux and the BSDs.
    Unix,
    Apple,
    Windows,
}

/// All that resolution depends on besides the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) family: Family,
    pub(crate) user: UserId,
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// macOS: the per-user temporary directory of `confstr`.
    pub(crate) user_temp_dir: Option<PathBuf>,
}

/// One address an endpoint may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// The user wrote the path.
    Path(PathBuf),
    /// In a directory that the system makes for the user: passed over where it is missing or
    /// another user's.
    UserDir { dir: PathBuf, file: String },
    /// In a directory we make, mode 0700: an error where another user has it.
    PrivateDir { dir: PathBuf, file: String },
    /// What follows `\\.\pipe\`.
    Pipe(String),
}

impl Candidate {
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint(match self {
            Self::Path(path) => Form::Path(path.clone()),
            Self::UserDir { dir, file } | Self::PrivateDir { dir, file } => {
                Form::Path(dir.join(file))
            }
            Self::Pipe(name) => Form::Pipe(name.clone()),
        })
    }
}

/// The addresses of `endpoint`, best first; never empty.
///
/// # Errors
///
/// `Unsupported` for a form that this OS does not have.
pub(crate) fn candidates(endpoint: &Endpoint, env: &Environment) -> io::Result<Vec<Candidate>> {
    match (&endpoint.0, env.family) {
        (Form::Path(path), Family::Unix | Family::Apple) => Ok(vec![Candidate::Path(path.clone())]),
        (Form::Pipe(name), Family::Windows) => Ok(vec![Candidate::Pipe(name.clone())]),
        (Form::Name(name), Family::Windows) => {
            // The SID ends at the first dot, so no two pairs of user and name meet.
            let UserId::Sid(sid) = &env.user else {
                return Err(unsupported(endpoint, "the user has no SID"));
            };
            Ok(vec![Candidate::Pipe(format!("{sid}.{name}"))])
        }
        (Form::Name(name), Family::Apple) => {
            let Some(dir) = env.user_temp_dir.clone() else {
                return Err(unsupported(endpoint, "the user has no temporary directory"));
            };
            Ok(vec![Candidate::UserDir { dir, file: format!("{name}.sock") }])
        }
        (Form::Name(name), Family::Unix) => {
            let UserId::Uid(uid) = env.user else {
                return Err(unsupported(endpoint, "the user has no uid"));
            };
            let file = format!("{name}.sock");
            let session = PathBuf::from(format!("/run/user/{uid}"));
            // XDG: "must be set to an absolute path", else to be ignored.
            let given = env.runtime_dir.clone().filter(|dir| dir.is_absolute() && *dir != session);
            let mut found: Vec<_> = given
                .into_iter()
                .chain([session])
                .map(|dir| Candidate::UserDir { dir, file: file.clone() })
                .collect();
            let dir = PathBuf::from(format!("/tmp/sockpipe-{uid}"));
            found.push(Candidate::PrivateDir { dir, file });
            Ok(found)
        }
        (Form::Path(_), Family::Windows) => Err(unsupported(
            endpoint,
            "it is a path for a Unix domain socket, which Windows does not have; \
             use a portable name, or a pipe",
        )),
        (Form::Pipe(_), Family::Unix | Family::Apple) => Err(unsupported(
            endpoint,
            "it is a named pipe, which only Windows has; use a portable name, or a path",
        )),
    }
}

fn unsupported(endpoint: &Endpoint, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("cannot use {endpoint} here: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(family: Family, user: UserId) -> Environment {
        Environment { family, user, runtime_dir: None, user_temp_dir: None }
    }

    fn addresses(endpoint: &str, env: &Environment) -> Vec<String> {
        let endpoint = endpoint.parse().expect("an endpoint");
        let found = candidates(&endpoint, env).expect("candidates");
        found.iter().map(|candidate| candidate.endpoint().to_string()).collect()
    }

    #[test]
    #[cfg_attr(not(unix), ignore = "joins paths with this OS's separator")]
    fn unix_names() {
        let mut env = env(Family::Unix, UserId::Uid(7));
        assert_eq!(
            addresses("echo", &env),
            ["/run/user/7/echo.sock", "/tmp/sockpipe-7/echo.sock"]
        );
        env.runtime_dir = Some("/x".into());
        assert_eq!(
            addresses("echo", &env),
            ["/x/echo.sock", "/run/user/7/echo.sock", "/tmp/sockpipe-7/echo.sock"]
        );
        env.runtime_dir = Some("relative".into());
        assert_eq!(addresses("echo", &env).len(), 2);
        env.runtime_dir = Some("/run/user/7".into());
        assert_eq!(addresses("echo", &env).len(), 2);
        assert_eq!(addresses("/run/x.sock", &env), ["/run/x.sock"]);
    }

    #[test]
    #[cfg_attr(not(unix), ignore = "joins paths with this OS's separator")]
    fn apple_names() {
        let mut env = env(Family::Apple, UserId::Uid(501));
        env.user_temp_dir = Some("/var/folders/zz/T/".into());
        env.runtime_dir = Some("/ignored".into());
        assert_eq!(addresses("echo", &env), ["/var/folders/zz/T/echo.sock"]);
    }

    #[test]
    fn windows_names() {
        let env = env(Family::Windows, UserId::Sid("S-1-5-21-1-2-3-1001".to_owned()));
        assert_eq!(addresses("echo", &env), [r"\\.\pipe\S-1-5-21-1-2-3-1001.echo"]);
        assert_eq!(addresses(r"\\.\pipe\x", &env), [r"\\.\pipe\x"]);
    }

    #[test]
    fn the_other_systems_forms_are_unsupported() {
        for (endpoint, family, says) in [
            ("/x", Family::Windows, "which Windows does not have"),
            (r"\\.\pipe\x", Family::Unix, "which only Windows has"),
            (r"\\.\pipe\x", Family::Apple, "which only Windows has"),
        ] {
            let parsed: Endpoint = endpoint.parse().expect("an endpoint");
            let error = candidates(&parsed, &env(family, UserId::Uid(1))).expect_err(endpoint);
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.to_string().contains(endpoint), "{error}");
        }
    }
}
