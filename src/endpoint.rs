//! The name of a place to listen or connect.

pub(crate) mod resolve;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a server listens: one portable name, or a path or pipe of one OS.
///
/// | written | means |
/// |---|---|
/// | `echo`, `org.example.tool` | a portable name, private to the user: a socket in the user's runtime directory, or a pipe with the user's SID in its name |
/// | `/path`, `./path`, `unix:///path`, `unix:path` | a Unix domain socket at this path |
/// | `\\.\pipe\NAME`, `npipe:////./pipe/NAME` | a Windows named pipe |
///
/// Every form is parsed and printed on every OS; only listening and connecting say
/// [`Unsupported`](io::ErrorKind::Unsupported). A portable name is 1 to 48 of `a-z 0-9 . _ -` and
/// does not start with a dot, so that a name that is valid on one OS is valid on all.
///
/// Parsing what [`Display`](fmt::Display) prints gives the same endpoint again, except for a path
/// that is not UTF-8, which no string can carry.
///
/// ```
/// use sockpipe::Endpoint;
///
/// let name: Endpoint = "org.example.tool".parse()?;
/// assert_eq!(name.to_string(), "org.example.tool");
///
/// let docker: Endpoint = "npipe:////./pipe/docker_engine".parse()?;
/// assert_eq!(docker.to_string(), r"\\.\pipe\docker_engine");
///
/// assert!("no/such/form".parse::<Endpoint>().is_err());
/// # Ok::<(), sockpipe::ParseEndpointError>(())
/// ```
///
/// Where an endpoint is asked for, a `&str` or `String` is parsed as above, and a [`Path`] or
/// [`PathBuf`] is a path: `"echo"` is a portable name, `Path::new("echo")` a file in the current
/// directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(pub(crate) Form);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A checked portable name.
    Name(String),
    /// Not empty, no NUL, does not end in a slash.
    Path(PathBuf),
    /// What follows `\\.\pipe\`: not empty, no NUL, no backslash.
    Pipe(String),
}

const PIPE: &str = r"\\.\pipe\";
const NAME_LIMIT: usize = 48;

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let error = |position, reason: &str| ParseEndpointError {
            input: text.to_owned(),
            position,
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(error(None, "it is empty; a portable name such as `echo` will do"));
        }
        if let Some(at) = text.find('\0') {
            return Err(error(Some(at), "it contains a NUL character"));
        }
        if let Some(start) = pipe_prefix(text) {
            return pipe(text, start);
        }
        if let Some(rest) = text.strip_prefix("npipe:") {
            // Docker writes four slashes, `npipe:` + `//` + `//./pipe/NAME`; two are common too.
            let body = rest.strip_prefix("//").filter(|rest| rest.starts_with("//"));
            let name = body.unwrap_or(rest).strip_prefix("//./pipe/");
            return match name {
                Some(name) => pipe(text, text.len() - name.len()),
                None => Err(error(Some(6), "a pipe is written `npipe:////./pipe/NAME`")),
            };
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = match rest.strip_prefix("//") {
                Some(path) if path.starts_with('/') => path,
                Some(_) => {
                    return Err(error(
                        Some(7),
                        "`unix://` wants an absolute path, as in `unix:///run/x.sock`; \
                         a relative one is written `unix:x.sock`",
                    ));
                }
                None => rest,
            };
            return from_path(Path::new(path), text);
        }
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            return from_path(Path::new(text), text);
        }
        name(text)
    }
}

/// Where the name starts in `\\.\pipe\NAME`. Windows ignores the case of the prefix and takes
/// slashes for backslashes; the canonical form is printed.
fn pipe_prefix(text: &str) -> Option<usize> {
    let head = text.get(..PIPE.len())?;
    head.replace('/', r"\").eq_ignore_ascii_case(PIPE).then_some(PIPE.len())
}

fn pipe(text: &str, start: usize) -> Result<Endpoint, ParseEndpointError> {
    let error = |position, reason: &str| ParseEndpointError {
        input: text.to_owned(),
        position,
        reason: reason.to_owned(),
    };
    let name = &text[start..];
    if name.is_empty() {
        return Err(error(Some(start), "the pipe has no name"));
    }
    if let Some(at) = name.find(['\\', '/']) {
        return Err(error(Some(start + at), "a pipe's name has no slash or backslash in it"));
    }
    Ok(Endpoint(Form::Pipe(name.to_owned())))
}

fn from_path(path: &Path, input: &str) -> Result<Endpoint, ParseEndpointError> {
    let error = |reason: &str| ParseEndpointError {
        input: input.to_owned(),
        position: None,
        reason: reason.to_owned(),
    };
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err(error("the path is empty"));
    }
    if bytes.contains(&0) {
        return Err(error("it contains a NUL character"));
    }
    if bytes.ends_with(b"/") || path.file_name().is_none() {
        return Err(error("the path names a directory; a socket needs a name in it"));
    }
    Ok(Endpoint(Form::Path(path.to_owned())))
}

fn name(text: &str) -> Result<Endpoint, ParseEndpointError> {
    let error = |position, reason: String| {
        Err(ParseEndpointError { input: text.to_owned(), position: Some(position), reason })
    };
    let valid = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| !valid(c)) {
        let hint = match c {
            '/' => format!("a path is written `./{text}` or from the root"),
            '\\' => r"a named pipe is written `\\.\pipe\NAME`".to_owned(),
            ':' => {
                "the schemes are `unix:` and `npipe:`; a portable name has no colon in it".to_owned()
            }
            _ => "a portable name is made of a-z 0-9 . _ -".to_owned(),
        };
        return error(at, format!("{c:?} cannot be in a portable name; {hint}"));
    }
    if text.starts_with('.') {
        return error(0, "a portable name does not start with a dot".to_owned());
    }
    if text.len() > NAME_LIMIT {
        let length = text.len();
        return error(
            NAME_LIMIT,
            format!("a portable name has at most {NAME_LIMIT} characters, this one has {length}"),
        );
    }
    Ok(Endpoint(Form::Name(text.to_owned())))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Name(name) => f.write_str(name),
            Form::Pipe(name) => write!(f, "{PIPE}{name}"),
            Form::Path(path) => {
                let plain = [&b"/"[..], b"./", b"../"]
                    .iter()
                    .any(|start| path.as_os_str().as_encoded_bytes().starts_with(start));
                let scheme = if plain { "" } else { "unix:" };
                write!(f, "{scheme}{}", path.display())
            }
        }
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = ParseEndpointError;

    fn try_from(text: &str) -> Result<Self, ParseEndpointError> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = ParseEndpointError;

    fn try_from(text: String) -> Result<Self, ParseEndpointError> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = ParseEndpointError;

    fn try_from(text: &String) -> Result<Self, ParseEndpointError> {
        text.parse()
    }
}

impl TryFrom<&Path> for Endpoint {
    type Error = ParseEndpointError;

    fn try_from(path: &Path) -> Result<Self, ParseEndpointError> {
        // A pipe's path is a path to those who write for Windows.
        if let Some((text, start)) = path.to_str().and_then(|t| pipe_prefix(t).map(|at| (t, at))) {
            return pipe(text, start);
        }
        from_path(path, &path.to_string_lossy())
    }
}

impl TryFrom<PathBuf> for Endpoint {
    type Error = ParseEndpointError;

    fn try_from(path: PathBuf) -> Result<Self, ParseEndpointError> {
        Self::try_from(path.as_path())
    }
}

impl TryFrom<&PathBuf> for Endpoint {
    type Error = ParseEndpointError;

    fn try_from(path: &PathBuf) -> Result<Self, ParseEndpointError> {
        Self::try_from(path.as_path())
    }
}

impl From<&Self> for Endpoint {
    fn from(endpoint: &Self) -> Self {
        endpoint.clone()
    }
}

/// Why a text or path is no [`Endpoint`]. The message shows the input, where it goes wrong, and
/// what would be right.
///
/// As an [`io::Error`] it is of kind [`InvalidInput`](io::ErrorKind::InvalidInput) and carries this
/// as its source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseEndpointError {
    input: String,
    position: Option<usize>,
    reason: String,
}

impl ParseEndpointError {
    pub(crate) fn new(input: impl fmt::Display, reason: String) -> Self {
        Self { input: input.to_string(), position: None, reason }
    }

    /// What was to be an endpoint.
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// The byte of [`input`](Self::input) at which it goes wrong, where it is one byte's fault.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl fmt::Display for ParseEndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid endpoint {:?}", self.input)?;
        if let Some(at) = self.position {
            write!(f, " (at byte {at})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ParseEndpointError {}

impl From<Infallible> for ParseEndpointError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<ParseEndpointError> for io::Error {
    fn from(error: ParseEndpointError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Endpoint {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_form_parses_and_prints_the_same_again() {
        for (written, printed) in [
            ("echo", "echo"),
            ("org.example.tool_2-x", "org.example.tool_2-x"),
            ("/run/x.sock", "/run/x.sock"),
            ("./x.sock", "./x.sock"),
            ("../x", "../x"),
            ("unix:///run/x y.sock", "/run/x y.sock"),
            ("unix:/run/x", "/run/x"),
            ("unix:x.sock", "unix:x.sock"),
            ("unix:./x", "./x"),
            ("unix:unix:x", "unix:unix:x"),
            (r"\\.\pipe\Echo Ü", r"\\.\pipe\Echo Ü"),
            (r"\\.\PIPE\x", r"\\.\pipe\x"),
            ("//./pipe/x", r"\\.\pipe\x"),
            ("npipe:////./pipe/docker_engine", r"\\.\pipe\docker_engine"),
            ("npipe://./pipe/x", r"\\.\pipe\x"),
        ] {
            let endpoint = parse(written);
            assert_eq!(endpoint.to_string(), printed, "{written}");
            assert_eq!(parse(printed), endpoint, "{written}");
        }
    }

    #[test]
    fn a_path_is_a_path_whatever_it_looks_like() {
        let path = Endpoint::try_from(Path::new("echo")).expect("a path");
        assert_ne!(path, parse("echo"));
        assert_eq!(path.to_string(), "unix:echo");
        assert_eq!(parse(&path.to_string()), path);
        let pipe = Endpoint::try_from(Path::new(r"\\.\pipe\x")).expect("a pipe");
        assert_eq!(pipe, parse("npipe:////./pipe/x"));
    }

    #[test]
    fn errors_show_the_input_the_place_and_the_remedy() {
        let long = "n".repeat(49);
        for (written, position, says) in [
            ("", None, "it is empty"),
            ("a\0b", Some(1), "a NUL character"),
            ("a/b", Some(1), "a path is written `./a/b`"),
            (r"a\b", Some(1), r"a named pipe is written `\\.\pipe\NAME`"),
            ("tcp:1", Some(3), "the schemes are `unix:` and `npipe:`"),
            ("Echo", Some(0), "'E' cannot be in a portable name"),
            ("olá", Some(2), "'á' cannot be in a portable name"),
            (".hidden", Some(0), "does not start with a dot"),
            (&long, Some(48), "at most 48 characters, this one has 49"),
            ("unix://run/x", Some(7), "`unix://` wants an absolute path"),
            ("unix:", None, "the path is empty"),
            ("/", None, "names a directory"),
            ("/run/", None, "names a directory"),
            ("..", Some(0), "does not start with a dot"),
            ("unix:..", None, "names a directory"),
            ("npipe://x", Some(6), "a pipe is written `npipe:////./pipe/NAME`"),
            (r"\\.\pipe\", Some(9), "the pipe has no name"),
            (r"\\.\pipe\a\b", Some(10), "no slash or backslash"),
        ] {
            let error = written.parse::<Endpoint>().expect_err(written);
            let message = error.to_string();
            assert!(message.contains(says), "{written:?}: {message}");
            assert!(message.contains(&format!("{written:?}")), "{message}");
            assert_eq!(error.position(), position, "{written:?}");
            let error = io::Error::from(error);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ParseEndpointError>());
            assert_eq!(inner.map(ParseEndpointError::input), Some(written));
        }
    }
}
