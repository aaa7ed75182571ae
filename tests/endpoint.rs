//! Endpoints: how they are written and parsed, and that server and client meet there.

mod common;

use std::path::Path;

use common::{assert_reason, unique_name, within};
use proptest::prelude::*;
use sockpipe::{Endpoint, Listener, ParseEndpointError, Reason, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Texts, many of which are valid endpoints.
fn texts() -> impl Strategy<Value = String> {
    let start = prop_oneof![
        Just(""),
        Just("unix:"),
        Just("unix://"),
        Just("unix:@"),
        Just("unix:path="),
        Just("unix:abstract="),
        Just("/"),
        Just("./"),
        Just("../"),
        Just("abstract:"),
        Just("system:"),
        Just("session:"),
        Just("npipe:////./pipe/"),
        Just("npipe://./pipe/"),
        Just("npipe:"),
        Just(r"\\.\pipe\"),
        Just(r"\\.\PIPE\"),
        Just("//./pipe/"),
        Just(r"\\?\pipe\"),
    ];
    (start, prop_oneof!["[a-z0-9._-]{0,60}", "[a-z:/\\\\.]{0,12}", "\\PC{0,40}", any::<String>()])
        .prop_map(|(start, rest)| format!("{start}{rest}"))
}

proptest! {
    #[test]
    fn a_printed_endpoint_parses_to_the_same(text in texts()) {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            let printed = endpoint.to_string();
            prop_assert_eq!(printed.parse::<Endpoint>(), Ok(endpoint), "{}", printed);
        }
    }

    #[test]
    fn a_parse_error_reports_a_position_within_its_input(text in texts()) {
        if let Err(error) = text.parse::<Endpoint>() {
            prop_assert_eq!(error.input(), &text);
            let at = error.position().unwrap_or(0);
            prop_assert!(text.is_char_boundary(at), "{}", error);
        }
    }

    #[test]
    fn a_path_prints_and_parses_to_the_same(path in "\\PC{1,40}") {
        if let Ok(endpoint) = Endpoint::try_from(Path::new(&path)) {
            let printed = endpoint.to_string();
            prop_assert_eq!(printed.parse::<Endpoint>(), Ok(endpoint), "{}", printed);
        }
    }
}

/// Such a text is a special address to another program, so it must not become a file name here.
#[test]
fn a_spelling_of_another_program_is_refused_with_the_right_one() {
    for (written, position, says) in [
        ("@x", 0, &["`abstract:x`", "`./@x`"][..]),
        ("unix:@x", 5, &["`abstract:x`", "`./@x`"]),
        ("unix://@x", 7, &["`abstract:x`", "`./@x`"]),
        ("unix:abstract=x", 5, &["`abstract:x`"]),
        ("unix:abstract=x,guid=ab", 5, &["`abstract:x`"]),
        ("unix:path=y,guid=ab", 5, &["`./y`"]),
        ("unix:path=/run/y,guid=ab", 5, &["`/run/y`"]),
        ("unix:path=y", 5, &["`./y`"]),
        ("unix:dir=/tmp", 5, &["D-Bus"]),
        ("unix:tmpdir=/tmp", 5, &["D-Bus"]),
        ("unix:runtime=yes", 5, &["D-Bus"]),
        ("unix-abstract:x", 0, &["`abstract:x`"]),
        ("http+unix:///run/x.sock", 0, &["`/run/x.sock`"]),
        ("http+unix://%2Frun%2Fx.sock", 0, &["`/run/x.sock`"]),
        ("fd:3", 0, &["descriptor"]),
    ] {
        let error = written.parse::<Endpoint>().expect_err(written);
        let message = error.to_string();
        for says in says {
            assert!(message.contains(says), "{written}: {message}");
        }
        assert_eq!(error.position(), Some(position), "{written}");
    }
}

/// D-Bus writes a path with the key `path=`.
#[test]
fn a_path_with_the_key_of_d_bus_parses_to_the_path() {
    let endpoint: Endpoint = "unix:path=/run/bus".parse().expect("a path");
    assert_eq!(endpoint.to_string(), "/run/bus");
    for name in ["@x", "path=/x", "abstract=x"] {
        let path = Endpoint::try_from(Path::new(name)).expect("a path");
        assert_eq!(path.to_string(), format!("./{name}"));
        assert_eq!(path.to_string().parse(), Ok(path));
    }
}

#[test]
fn as_path_returns_a_path_for_paths_only() {
    let path_of = |text: &str| {
        let endpoint: Endpoint = text.parse().expect("an endpoint");
        endpoint.as_path().map(Path::to_owned)
    };
    assert_eq!(path_of("unix:x.sock").as_deref(), Some(Path::new("x.sock")));
    assert_eq!(path_of("/run/x.sock").as_deref(), Some(Path::new("/run/x.sock")));
    for other in ["x", "system:x", "session:x", "abstract:x", r"\\.\pipe\x"] {
        assert_eq!(path_of(other), None, "{other}");
    }
}

#[test]
fn a_portable_name_of_more_than_48_characters_is_refused() {
    "n".repeat(48).parse::<Endpoint>().expect("a name");
    "n".repeat(49).parse::<Endpoint>().expect_err("a name that is too long");
}

/// clap's `value_parser!` requires these traits.
#[test]
fn an_endpoint_type_can_be_parsed_by_clap() {
    fn argument<T>()
    where
        T: std::str::FromStr + Clone + Send + Sync + 'static,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
    }
    argument::<Endpoint>();
}

#[tokio::test]
async fn connect_takes_every_kind_of_endpoint_argument() {
    let name = unique_name();
    let listener = Listener::bind(&name).expect("a free name");
    let endpoint: Endpoint = name.parse().expect("an endpoint");
    within(Stream::connect(name.as_str())).await.expect("a &str");
    within(Stream::connect(&name)).await.expect("a &String");
    within(Stream::connect(name)).await.expect("a String");
    within(Stream::connect(&endpoint)).await.expect("an &Endpoint");
    within(Stream::connect(endpoint)).await.expect("an Endpoint");
    let resolved = listener.endpoint().to_string();
    within(Stream::connect(Path::new(&resolved))).await.expect("a &Path");
    within(Stream::connect(Path::new(&resolved).to_owned())).await.expect("a PathBuf");
    let error = assert_reason!(Listener::bind("a/b"), Reason::InvalidEndpoint);
    let inner = std::error::Error::source(&error);
    let inner = inner.and_then(|inner| inner.downcast_ref::<ParseEndpointError>());
    assert_eq!(inner.and_then(ParseEndpointError::position), Some(1));
}

/// Clients try the addresses that `resolve` returns.
#[tokio::test]
async fn resolve_lists_the_address_that_the_listener_bound() {
    let endpoint: Endpoint = unique_name().parse().expect("an endpoint");
    let listener = Listener::bind(&endpoint).expect("a free name");
    let found = endpoint.resolve().expect("candidates");
    let taken = found.iter().find(|candidate| candidate.address() == *listener.endpoint());
    assert!(taken.is_some_and(|candidate| !candidate.why().is_empty()), "{found:?}");
}

async fn meet(mut listener: Listener, client: impl Future<Output = std::io::Result<Stream>>) {
    let mut client = within(client).await.expect("a connection");
    let mut server = within(listener.accept()).await.expect("a connection");
    within(client.write_all(b"met")).await.expect("a write");
    let mut bytes = [0; 3];
    within(server.read_exact(&mut bytes)).await.expect("a read");
    assert_eq!(&bytes, b"met");
}

#[cfg(windows)]
#[tokio::test]
async fn a_pipe_name_beyond_ascii_connects() {
    let pipe = format!(r"\\.\pipe\olá мир {}", unique_name());
    let listener = Listener::bind(&pipe).expect("a free name");
    meet(listener, Stream::connect(&pipe)).await;
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::PathBuf;

    use common::{Backend, Os, PATIENCE, assert_says};
    use sockpipe::ListenOptions;
    use sockpipe::os::unix::ListenOptionsExt;

    use super::*;

    const POSIX: bool = cfg!(any(sockpipe_posix, not(target_os = "linux")));

    fn names_in(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    /// A path of `length` bytes whose last part has `name` bytes.
    fn path_of(length: usize, name: usize, dir: &Path) -> PathBuf {
        let between = length - dir.as_os_str().len() - name - 2;
        let dir = dir.join("d".repeat(between));
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("s".repeat(name));
        assert_eq!(path.as_os_str().len(), length);
        path
    }

    #[tokio::test]
    async fn paths_of_every_length_connect_or_are_refused() {
        let limit = if POSIX { 103 } else { usize::MAX };
        for length in [80, 102, 103, 104, 106, 107, 108, 109, 250] {
            let os = Os::new();
            let path = path_of(length, 8, &os.dir());
            if length <= limit {
                let listener = Listener::bind(&path).expect("a free name");
                assert!(fs::metadata(&path).expect("a file").file_type().is_socket());
                assert_reason!(Listener::bind(&path), Reason::LiveServer { .. });
                meet(listener, Stream::connect(&path)).await;
            } else {
                let says = format!("too long for a socket: {length} bytes, and the limit is 103");
                let (bound, connected) =
                    (Listener::bind(&path).map(drop), within(Stream::connect(&path)).await);
                for outcome in [bound, connected.map(drop)] {
                    let error = assert_reason!(outcome, Reason::NameTooLong, path.display());
                    assert_says(&error, &[&says]);
                }
            }
            assert_eq!(names_in(path.parent().expect("a directory")), [""; 0]);
        }
    }

    /// `bind` makes files beside the socket whose names are longer than the socket's. They must not
    /// shorten the longest name that a user may choose.
    #[tokio::test]
    async fn a_file_name_may_fill_the_longest_path() {
        let limit = if POSIX { 103 } else { 107 };
        let os = Os::new();
        let path = os.dir().join("n".repeat(limit - os.dir().as_os_str().len() - 1));
        for stale in [false, true] {
            if stale {
                // As after a crash, the socket is closed and its file is left.
                drop(std::os::unix::net::UnixListener::bind(&path).expect("a free name"));
            }
            let options = ListenOptions::new();
            let wait = Listener::bind_wait(&path, &options, PATIENCE);
            let listener = within(wait).await.expect("a free name");
            assert_reason!(Listener::bind(&path), Reason::LiveServer { .. });
            meet(listener, Stream::connect(&path)).await;
            assert_eq!(os.files(), [""; 0]);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_refuses_a_path_that_no_text_can_carry() {
        let path = Path::new(OsStr::from_bytes(b"/run/\xff.sock"));
        let endpoint = Endpoint::try_from(path).expect("an endpoint");
        let error = serde_json::to_string(&endpoint).expect_err("no text");
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_is_not_utf8_connects() {
        let os = Os::new();
        let path = os.dir().join(OsStr::from_bytes(b"\xff\xfe.sock"));
        if cfg!(target_vendor = "apple") {
            println!("not run: this system's file names are UTF-8");
            return;
        }
        let listener = Listener::bind(&path).expect("a free name");
        meet(listener, Stream::connect(&path)).await;
        assert_eq!(os.files(), [""; 0]);
    }

    #[tokio::test]
    async fn a_path_relative_to_the_working_directory_connects() {
        // The test runs in the crate's directory, and must leave no file in it.
        fs::create_dir_all("target").expect("a directory");
        for dir in ["target", ""] {
            let name = Path::new(dir).join(format!("{}.sock", unique_name()));
            let listener = Listener::bind(&name).expect("a free name");
            let whole = std::env::current_dir().expect("a directory").join(&name);
            assert!(whole.exists());
            meet(listener, Stream::connect(&name)).await;
            assert!(!whole.exists());
        }
    }

    #[tokio::test]
    async fn an_unsafe_directory_is_used_when_allowed() {
        let os = Os::new();
        fs::set_permissions(os.dir(), fs::Permissions::from_mode(0o777)).expect("a mode");
        assert_reason!(os.bind(), Reason::UnsafeDirectory, os.endpoint());
        let options = ListenOptions::new().unsafe_directory(true);
        let listener = Listener::bind_with(os.endpoint(), &options).expect("a free name");
        meet(listener, os.connect()).await;
    }

    #[tokio::test]
    async fn an_abstract_socket_connects_on_linux_only() {
        let endpoint = format!("abstract:{}", unique_name());
        if POSIX {
            assert_reason!(Listener::bind(&endpoint), Reason::Unsupported, endpoint);
            let connected = within(Stream::connect(&endpoint)).await;
            assert_reason!(connected, Reason::Unsupported, endpoint);
            return;
        }
        assert_reason!(within(Stream::connect(&endpoint)).await, Reason::NoServer, endpoint);
        let listener = Listener::bind(&endpoint).expect("a free name");
        assert_eq!(listener.endpoint().to_string(), endpoint);
        assert_reason!(Listener::bind(&endpoint), Reason::LiveServer { .. }, endpoint);
        meet(listener, Stream::connect(&endpoint)).await;
        drop(Listener::bind(&endpoint).expect("the name is free again"));
        let long = format!("abstract:{}", "n".repeat(108));
        assert_reason!(Listener::bind(&long), Reason::NameTooLong, long);
        assert_reason!(within(Stream::connect(&long)).await, Reason::NameTooLong, long);
    }
}
