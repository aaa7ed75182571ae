//! The addresses that an endpoint may have on each OS.
//!
//! They are pure functions of the endpoint and the environment, so that the rules of every OS are
//! tested on every OS. The backends gather the environment and try the candidates: `bind` takes the
//! first usable one, `connect` tries all in the same order.

use std::io;
use std::path::PathBuf;

use super::{Candidacy, Candidate};
use crate::endpoint::{Endpoint, Form};
use crate::error::not_here;
use crate::peer::UserId;

/// The systems with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Linux,
    Bsd,
    Apple,
    Windows,
}

impl Family {
    /// Returns the family of a system with this name in [`std::env::consts::OS`].
    pub(crate) fn of(system: &str) -> Self {
        match system {
            "linux" | "android" => Self::Linux,
            "macos" | "ios" | "tvos" | "watchos" | "visionos" => Self::Apple,
            "windows" => Self::Windows,
            _ => Self::Bsd,
        }
    }
}

/// All that resolution depends on besides the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) family: Family,
    pub(crate) user: UserId,
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// macOS: returns the per-user temporary directory of `confstr`. It is called only for names
    /// that need it, because each call creates the directory.
    pub(crate) user_temp_dir: fn() -> Option<PathBuf>,
    /// Returns the session that this process belongs to.
    pub(crate) session: fn() -> Option<String>,
}

/// Returns the addresses of `endpoint`, the best one first. There is at least one.
///
/// # Errors
///
/// `Unsupported` for a form that this OS does not have.
pub(crate) fn candidates(endpoint: &Endpoint, env: &Environment) -> io::Result<Vec<Candidate>> {
    let one = |place, why| Ok(vec![Candidate { place, why }]);
    match (&endpoint.0, env.family) {
        (Form::Path(path), Family::Linux | Family::Bsd | Family::Apple) => {
            one(Candidacy::Path(path.clone()), "as written")
        }
        (Form::Pipe(name), Family::Windows) => one(Candidacy::Pipe(name.clone()), "as written"),
        (Form::Abstract(name), Family::Linux) => {
            one(Candidacy::Abstract(name.clone()), "as written")
        }
        (Form::System(name), Family::Linux) => {
            let path = format!("/run/{name}.sock").into();
            one(Candidacy::Path(path), "the system's runtime directory")
        }
        (Form::System(name), Family::Bsd | Family::Apple) => {
            let path = format!("/var/run/{name}.sock").into();

            one(Candidacy::Path(path), "the system's runtime directory")
        }
        (Form::System(name), Family::Windows) => {
            one(Candidacy::Pipe(name.clone()), "one name for the whole machine")
        }
        (Form::Name(name), _) => private(endpoint, name, env),
        (Form::Session(name), _) => {
            let Some(session) = (env.session)().filter(|id| is_a_session(id)) else {
                return Err(not_here(
                    endpoint,
                    "this process belongs to no session, or XDG_SESSION_ID is missing; use a \
                     portable name",
                ));
            };
            // A portable name cannot contain an `@`, so this name differs from all of them.
            private(endpoint, &format!("{name}@{session}"), env)
        }
        (Form::Path(_), Family::Windows) => Err(not_here(
            endpoint,
            "it is a path for a Unix domain socket, which Windows does not have; \
             use a portable name, or a pipe",
        )),
        (Form::Abstract(_), Family::Bsd | Family::Apple | Family::Windows) => {
            Err(not_here(endpoint, "abstract sockets exist on Linux only; use a portable name"))
        }
        (Form::Pipe(_), Family::Linux | Family::Bsd | Family::Apple) => Err(not_here(
            endpoint,
            "it is a named pipe, which only Windows has; use a portable name, or a path",
        )),
    }
}

/// Reports whether `id` can be a part of a file's name.
fn is_a_session(id: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=32).contains(&id.len()) && id.bytes().all(is_fit)
}

/// Returns the addresses of a name that is private to the user.
fn private(endpoint: &Endpoint, name: &str, env: &Environment) -> io::Result<Vec<Candidate>> {
    let one = |place, why| Ok(vec![Candidate { place, why }]);
    match env.family {
        Family::Windows => {
            // The SID ends at the first dot, so no other user and name have the same pipe.
            let UserId::Sid(sid) = &env.user else {
                return Err(not_here(endpoint, "the user has no SID"));
            };
            one(Candidacy::Pipe(format!("{sid}.{name}")), "the user's SID and the name")
        }
        Family::Apple => {
            let Some(dir) = (env.user_temp_dir)() else {
                return Err(not_here(endpoint, "the user has no temporary directory"));
            };
            let file = format!("{name}.sock");
            one(Candidacy::UserDir { dir, file }, "the user's own temporary directory")
        }
        Family::Linux | Family::Bsd => in_runtime_dirs(endpoint, name, env),
    }
}

fn in_runtime_dirs(
    endpoint: &Endpoint,
    name: &str,
    env: &Environment,
) -> io::Result<Vec<Candidate>> {
    let UserId::Uid(uid) = env.user else {
        return Err(not_here(endpoint, "the user has no uid"));
    };
    let file = format!("{name}.sock");
    let session = (env.family == Family::Linux).then(|| PathBuf::from(format!("/run/user/{uid}")));
    // The XDG specification tells programs to ignore a path that is not absolute.
    let absolute = |dir: &PathBuf| dir.as_os_str().as_encoded_bytes().starts_with(b"/");
    let given = env.runtime_dir.clone().filter(absolute);
    let given = given.filter(|dir| Some(dir) != session.as_ref());
    let user_dir =
        |dir, why| Candidate { place: Candidacy::UserDir { dir, file: file.clone() }, why };
    let mut found = Vec::new();
    found.extend(given.map(|dir| user_dir(dir, "$XDG_RUNTIME_DIR, if it is this user's")));
    found.extend(session.map(|dir| user_dir(dir, "the session's directory, if there is one")));
    let dir = PathBuf::from(format!("/tmp/sockpipe-{uid}"));
    let place = Candidacy::PrivateDir { dir, file };
    found.push(Candidate { place, why: "a directory of our own, mode 0700" });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Reason};

    fn env(family: Family, user: UserId) -> Environment {
        let (runtime_dir, user_temp_dir) = (None, || None);
        Environment { family, user, runtime_dir, user_temp_dir, session: || Some("3".to_owned()) }
    }

    fn addresses(endpoint: &str, env: &Environment) -> Vec<String> {
        let endpoint = endpoint.parse().expect("an endpoint");
        let found = candidates(&endpoint, env).expect("candidates");
        found.iter().map(|candidate| candidate.address().to_string()).collect()
    }

    #[test]
    fn portable_names_on_linux_resolve_to_runtime_directories() {
        let mut env = env(Family::Linux, UserId::Uid(7));
        assert_eq!(addresses("echo", &env), ["/run/user/7/echo.sock", "/tmp/sockpipe-7/echo.sock"]);
        env.runtime_dir = Some("/x".into());
        assert_eq!(
            addresses("echo", &env),
            ["/x/echo.sock", "/run/user/7/echo.sock", "/tmp/sockpipe-7/echo.sock"]
        );
        env.runtime_dir = Some("relative".into());
        assert_eq!(addresses("echo", &env).len(), 2);
        env.runtime_dir = Some("/run/user/7".into());
        assert_eq!(addresses("echo", &env).len(), 2);
    }

    /// Compares each row of the page's table, `| endpoint | system | addresses |`, with the code.
    #[test]
    fn the_documented_table_matches_the_code() {
        let page = include_str!("../../docs/which_address.md");
        let mut seen = Vec::new();
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [endpoint, system, documented] = cells[..] else {
                panic!("not three cells: {line}")
            };
            let (family, user) = match system {
                "Linux" => (Family::Linux, UserId::Uid(1000)),
                "BSD" => (Family::Bsd, UserId::Uid(1000)),
                "macOS" => (Family::Apple, UserId::Uid(1000)),
                "Windows" => (Family::Windows, UserId::Sid("S-1-5-21-1-2-3-1001".to_owned())),
                other => panic!("no system: {other}"),
            };

            let env = Environment {
                runtime_dir: Some("/xdg".into()),
                user_temp_dir: || Some("/var/folders/x/y/T/".into()),
                ..env(family, user)
            };

            let endpoint: Endpoint = endpoint.trim_matches('`').parse().expect(line);
            let computed = match candidates(&endpoint, &env) {
                Ok(found) => {
                    let found = found.iter().map(|it| format!("`{}`", it.address()));
                    found.collect::<Vec<_>>().join(", then ")
                }
                Err(error) => format!("`{:?}`", error.kind()),
            };
            assert_eq!(computed, documented, "{line}");
            seen.push((endpoint.to_string(), family));
        }
        // The table has six forms for each of four systems, and one row about an escape.
        assert_eq!(seen.len(), 25);
        seen.dedup();
        assert_eq!(seen.len(), 25);
    }

    #[test]
    fn a_session_name_needs_a_session_that_fits_a_file_name() {
        let endpoint: Endpoint = "session:editor".parse().expect("an endpoint");
        for session in [|| None, || Some(String::new()), || Some("../x".to_owned())] {
            let session: fn() -> Option<String> = session;
            let env = Environment { session, ..env(Family::Linux, UserId::Uid(7)) };
            let error = candidates(&endpoint, &env).expect_err("no session");
            let known = Error::of(&error).expect("an error of ours");
            assert_eq!(known.reason(), &Reason::Unsupported, "{error}");
            assert!(known.what().contains("XDG_SESSION_ID"), "{error}");
        }
    }

    #[test]
    fn forms_of_other_systems_are_unsupported() {
        for (endpoint, family) in [("/x", Family::Windows), (r"\\.\pipe\x", Family::Apple)] {
            let parsed: Endpoint = endpoint.parse().expect("an endpoint");
            let error = candidates(&parsed, &env(family, UserId::Uid(1))).expect_err(endpoint);
            let known = Error::of(&error).expect("an error of ours");
            assert_eq!(known.reason(), &Reason::Unsupported, "{error}");
            assert_eq!(known.endpoint(), Some(&parsed), "{error}");
        }
    }
}
