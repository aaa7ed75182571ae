use std::io;

use super::*;

fn parse(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_form_parses_and_prints_the_same_again() {
    for (written, printed) in [
        ("echo", "echo"),
        ("org.example.tool_2-x", "org.example.tool_2-x"),
        // Names of the system, names of sessions, and abstract names.
        ("system:docker", "system:docker"),
        ("session:editor", "session:editor"),
        ("abstract:/any thing:ü", "abstract:/any thing:ü"),
        ("abstract:a%00%00", "abstract:a%00%00"),
        ("abstract:%ff%C3%BC%25", "abstract:%FFü%25"),
        // Paths.
        ("/run/x.sock", "/run/x.sock"),
        ("./x.sock", "./x.sock"),
        ("../x", "../x"),
        ("unix:///run/x y.sock", "/run/x y.sock"),
        ("unix:/run/x", "/run/x"),
        ("unix:x.sock", "unix:x.sock"),
        ("unix:./x", "./x"),
        ("unix:unix:x", "unix:unix:x"),
        ("unix:////./pipe/x", "unix:////./pipe/x"),
        (r"unix:\\.\pipe\x", r"unix:\\.\pipe\x"),
        // Pipes.
        (r"\\.\pipe\Echo Ü", r"\\.\pipe\Echo Ü"),
        (r"\\.\PIPE\x", r"\\.\pipe\x"),
        ("//./pipe/x", r"\\.\pipe\x"),
        // Pipes as URLs, and pipes whose names have several parts.
        ("npipe:////./pipe/docker_engine", r"\\.\pipe\docker_engine"),
        ("npipe://./pipe/x", r"\\.\pipe\x"),
        ("npipe:////./pipe/a/b", r"\\.\pipe\a\b"),
        (r"\\.\pipe\LOCAL\x", r"\\.\pipe\LOCAL\x"),
        (r"\\.\pipe\C:\x", r"\\.\pipe\C:\x"),
        (r"\\?\pipe\ipc-0", r"\\.\pipe\ipc-0"),
        ("unix:////?/pipe/x", "unix:////?/pipe/x"),
        (
            r"\\.\pipe\ProtectedPrefix\Administrators\x",
            r"\\.\pipe\ProtectedPrefix\Administrators\x",
        ),
    ] {
        let endpoint = parse(written);

        assert_eq!(endpoint.to_string(), printed, "{written}");
        assert_eq!(parse(printed), endpoint, "{written}");
    }
}

#[test]
fn a_path_that_looks_like_another_form_stays_a_path() {
    let path = Endpoint::try_from(Path::new("echo")).expect("a path");
    assert_ne!(path, parse("echo"));
    assert_eq!(path.to_string(), "unix:echo");
    assert_eq!(parse(&path.to_string()), path);
    // Fuzzing found this name.
    let error = Endpoint::try_from(Path::new("\\\\.\\pipe\\a\0x")).expect_err("a NUL");
    assert_eq!(error.position(), Some(10));
    let pipe = Endpoint::try_from(Path::new(r"\\.\pipe\x")).expect("a pipe");
    assert_eq!(pipe, parse("npipe:////./pipe/x"));
}

#[test]
fn errors_show_a_backslash_once_and_escape_control_characters() {
    for (written, shown) in
        [(r"C:\x", r#""C:\x""#), (r"a\b", r#""a\b""#), ("a\n", r#""a\n""#), ("a\"", r#""a\"""#)]
    {
        let message = written.parse::<Endpoint>().expect_err(written).to_string();
        assert!(message.contains(&format!("endpoint {shown}")), "{message}");
    }
    let message = r"a\b".parse::<Endpoint>().expect_err("a backslash").to_string();
    assert!(message.contains(r"'\' cannot be"), "{message}");
}

#[test]
fn errors_show_the_input_the_place_and_the_remedy() {
    let long = "n".repeat(49);
    for (written, position, says) in [
        // Characters and schemes that no form accepts.
        ("", None, "it is empty"),
        ("a\0b", Some(1), "a NUL character"),
        ("a/b", Some(1), "a path is written `./a/b`"),
        (r"a\b", Some(1), r"a named pipe is written `\\.\pipe\NAME`"),
        ("tcp:1", Some(3), "the schemes are `system:`, `session:`, `unix:`"),
        // Names of the system and of sessions.
        ("system:", Some(7), "the name is empty"),
        ("system:A", Some(7), "'A' cannot be in a portable name"),
        ("session:", Some(8), "the name is empty"),
        ("session:a@3", Some(9), "'@' cannot be in a portable name"),
        ("system:.a", Some(7), "does not start with a dot"),
        // Abstract names.
        ("abstract:", Some(9), "the abstract socket has no name"),
        ("abstract:a\0b", Some(10), "a NUL character"),
        ("abstract:50%", Some(11), "two hexadecimal digits follow a `%`"),
        ("abstract:%0", Some(9), "the character itself is written `%25`"),
        ("abstract:ü%0ü", Some(11), "as in `%00` for a NUL byte"),
        // Paths of Windows.
        (r"C:\x.sock", Some(0), "'C' cannot be in a portable name"),
        ("c:x", Some(1), "a portable name has no colon"),
        ("a b", Some(1), "it is made of a-z 0-9 . _ -"),
        ("./", None, "names a directory"),
        // URLs of pipes.
        ("npipe:", Some(6), "a pipe is written `npipe:////./pipe/NAME`"),
        ("npipe:////server/pipe/x", Some(6), "a pipe is written `npipe:////./pipe/NAME`"),
        ("npipe:////./pipe/", Some(17), "the pipe has no name"),
        ("npipe:////./pipe/a//b", Some(19), "a part of the pipe's name is empty"),
        // Portable names.
        ("Echo", Some(0), "'E' cannot be in a portable name"),
        ("olá", Some(2), "'á' cannot be in a portable name"),
        (".hidden", Some(0), "does not start with a dot"),
        ("a.", Some(1), "ignores a dot at the end"),
        (&long, Some(48), "portable name of 49 characters exceeds the limit of 48"),
        // Paths without a file.
        ("unix://run/x", Some(7), "`unix://` wants an absolute path"),
        ("unix:", None, "the path is empty"),
        ("/", None, "names a directory"),
        ("/run/", None, "names a directory"),
        ("/run/x/.", None, "names a directory"),
        ("..", Some(0), "does not start with a dot"),
        ("unix:..", None, "names a directory"),
        // Pipes without a name, or with a part that Windows would change.
        ("npipe://x", Some(6), "a pipe is written `npipe:////./pipe/NAME`"),
        (r"\\.\pipe\", Some(9), "the pipe has no name"),
        (r"\\.\pipe\a\\b", Some(11), "a part of the pipe's name is empty"),
        (r"\\.\pipe\a\", Some(11), "a part of the pipe's name is empty"),
        (r"\\.\pipe\.", Some(9), "no part `.` or `..`"),
        (r"\\.\pipe\a\..\b", Some(11), "no part `.` or `..`"),
        (r"\\.\pipe\a.", Some(10), "ends in a dot or a blank"),
        (r"\\.\pipe\a ", Some(10), "ends in a dot or a blank"),
        (r"\\?\pipe\a/b", Some(10), "write `\\` for `/`"),
        (r"\\?\pipe\", Some(9), "the pipe has no name"),
    ] {
        let error = written.parse::<Endpoint>().expect_err(written);

        let message = error.to_string();
        assert!(message.contains(says), "{written:?}: {message}");
        assert!(message.contains(&format!("\"{}\"", error::shown(written))), "{message}");
        assert_eq!(error.position(), position, "{written:?}");
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let inner = std::error::Error::source(&error);
        let inner = inner.and_then(|inner| inner.downcast_ref::<ParseEndpointError>());
        assert_eq!(inner.map(ParseEndpointError::input), Some(written));
    }
}
