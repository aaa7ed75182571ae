//! The name of a place to listen or connect.

mod convert;
mod error;
mod escape;
mod foreign;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use self::error::ParseEndpointError;

/// The place where a server listens: a portable name, or a path or pipe of one OS.
///
/// | written | means |
/// |---|---|
/// | `echo`, `org.example.tool` | a portable name, private to the user: a socket in the user's runtime directory, or a pipe with the user's SID in its name |
/// | `system:NAME` | one address for the whole machine, for a system service: `/run/NAME.sock`, `/var/run/NAME.sock` on macOS and BSD, `\\.\pipe\NAME`. It does not change who may connect |
/// | `session:NAME` | a portable name for each login session of the user: `NAME@SESSION`, by `$XDG_SESSION_ID` or Windows' session number |
/// | `/path`, `./path`, `unix:///path`, `unix:path` | a Unix domain socket at this path |
/// | `abstract:NAME` | a Linux socket without a file, protected only by the check of the peer's user. `%00` is a NUL byte in its name, `%25` a percent sign, and so on for any byte |
/// | `\\.\pipe\NAME`, `\\?\pipe\NAME`, `npipe:////./pipe/NAME` | a Windows named pipe; its name may contain backslashes, and slashes are converted to them |
///
/// Notations of other programs are never mistaken for a file: `@x`, `unix:@x` and `unix:abstract=x`
/// are errors that show the notation to use here. D-Bus's `unix:path=/x` is the path `/x`.
///
/// Every form is parsed and printed on every OS. A form that this OS does not have fails with
/// [`Unsupported`](std::io::ErrorKind::Unsupported) when you listen or connect. A portable name,
/// also after `system:` and `session:`, has 1 to 48 characters of `a-z 0-9 . _ -` and does not
/// start or end with a dot, so a name that is valid on one OS is valid on all.
/// [`resolve`](Self::resolve) returns the addresses of an endpoint, and [Which address do I
/// get?](crate::docs::which_address) explains them.
///
/// A printed endpoint parses to the same endpoint, except for a path that is not UTF-8, which no
/// string can represent.
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
/// Functions that take an endpoint parse a `&str` or `String` as above, and take a [`Path`] or
/// [`PathBuf`] as a path: `"echo"` is a portable name, `Path::new("echo")` a file in the current
/// directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(pub(crate) Form);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A checked portable name.
    Name(String),
    /// A checked portable name.
    System(String),
    /// A checked portable name.
    Session(String),
    /// A path that is not empty, has no NUL, and does not end in a slash. It starts with `./` if it
    /// would otherwise look like another form.
    Path(PathBuf),
    /// A name that is not empty.
    Abstract(Vec<u8>),
    /// The name after `\\.\pipe\`: parts between backslashes that Windows leaves unchanged.
    Pipe(String),
}

const PIPE: &str = r"\\.\pipe\";
const VERBATIM_PIPE: &str = r"\\?\pipe\";
const NAME_LIMIT: usize = 48;

impl Endpoint {
    /// Returns the path if the endpoint is one, even if it is not UTF-8.
    ///
    /// ```
    /// use sockpipe::Endpoint;
    ///
    /// let socket = Endpoint::try_from("unix:x.sock")?;
    /// assert_eq!(socket.as_path(), Some("x.sock".as_ref()));
    /// assert_eq!(Endpoint::try_from("x")?.as_path(), None);
    /// # Ok::<(), sockpipe::ParseEndpointError>(())
    /// ```
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Form::Path(path) => Some(path),
            _ => None,
        }
    }
}

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
        if let Some((at, why)) = foreign::remedy(text) {
            return Err(error(Some(at), &why));
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
                None => foreign::bus_path(rest).unwrap_or(rest),
            };
            return from_path(Path::new(path), text);
        }

        if let Some(rest) = text.strip_prefix("abstract:") {
            if rest.is_empty() {
                return Err(error(Some(text.len()), "the abstract socket has no name"));
            }
            return escape::decode(text, text.len() - rest.len())
                .map(|name| Self(Form::Abstract(name)));
        }

        if let Some(rest) = text.strip_prefix("system:") {
            return Ok(Self(Form::System(name(text, text.len() - rest.len())?)));
        }
        if let Some(rest) = text.strip_prefix("session:") {
            return Ok(Self(Form::Session(name(text, text.len() - rest.len())?)));
        }
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            return from_path(Path::new(text), text);
        }
        Ok(Self(Form::Name(name(text, 0)?)))
    }
}

/// Returns where the name starts in `\\.\pipe\NAME`, or in `\\?\pipe\NAME`, which is the same pipe.
/// Windows ignores the case of the prefix and treats slashes as backslashes. `Display` prints the
/// canonical form.
fn pipe_prefix(text: &str) -> Option<usize> {
    let head = text.get(..PIPE.len())?.replace('/', r"\");
    let same = |prefix: &str| head.eq_ignore_ascii_case(prefix);
    (same(PIPE) || same(VERBATIM_PIPE)).then_some(PIPE.len())
}

fn pipe(text: &str, start: usize) -> Result<Endpoint, ParseEndpointError> {
    let error = |position, reason: &str| ParseEndpointError {
        input: text.to_owned(),
        position: Some(position),
        reason: reason.to_owned(),
    };
    let name = &text[start..];
    if name.is_empty() {
        return Err(error(start, "the pipe has no name"));
    }
    if let Some(at) = name.find('\0') {
        return Err(error(start + at, "it contains a NUL character"));
    }
    // After exactly this prefix Windows keeps a slash as a character of the name.
    if text.starts_with(r"\\?\") && name.contains('/') {
        let at = start + name.find('/').unwrap_or_default();
        return Err(error(at, r"after `\\?\pipe\` write `\` for `/`"));
    }

    // Parts that Windows trims or resolves in some calls and not in others are refused.
    let mut at = start;
    for part in name.split(['\\', '/']) {
        if part.is_empty() {
            return Err(error(at, "a part of the pipe's name is empty; write one backslash"));
        }

        if part == "." || part == ".." {
            return Err(error(at, "a pipe's name has no part `.` or `..`; Windows resolves them"));
        }
        at += part.len();
        if part.ends_with(['.', ' ']) {
            return Err(error(
                at - 1,
                "no part of a pipe's name ends in a dot or a blank; Windows trims them",
            ));
        }
        at += 1;
    }
    Ok(Endpoint(Form::Pipe(name.replace('/', r"\"))))
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
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") || path.file_name().is_none() {
        return Err(error("the path names a directory; a socket needs a name in it"));
    }
    if foreign::is_ambiguous(bytes) {
        let mut path_to_it = OsString::from("./");
        path_to_it.push(path);
        return Ok(Endpoint(Form::Path(path_to_it.into())));
    }
    Ok(Endpoint(Form::Path(path.to_owned())))
}

/// Parses the portable name that begins at `text[start..]`.
fn name(text: &str, start: usize) -> Result<String, ParseEndpointError> {
    let error = |position, reason: String| {
        Err(ParseEndpointError { input: text.to_owned(), position: Some(position), reason })
    };

    let name = &text[start..];
    let valid = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    if let Some((at, c)) = name.char_indices().find(|&(_, c)| !valid(c)) {
        let hint = match c {
            '/' => format!("a path is written `./{name}` or from the root"),
            '\\' => r"a named pipe is written `\\.\pipe\NAME`".to_owned(),
            ':' => {
                "the schemes are `system:`, `session:`, `unix:`, `abstract:` and `npipe:`, and a \
                 portable name has no colon in it"
                    .to_owned()
            }
            _ => "it is made of a-z 0-9 . _ -".to_owned(),
        };

        return error(
            start + at,
            format!("'{}' cannot be in a portable name; {hint}", error::shown(&c.to_string())),
        );
    }

    if name.is_empty() {
        return error(start, "the name is empty".to_owned());
    }
    if name.starts_with('.') {
        return error(start, "a portable name does not start with a dot".to_owned());
    }
    if name.ends_with('.') {
        return error(text.len() - 1, "Windows ignores a dot at the end of a name".to_owned());
    }

    if name.len() > NAME_LIMIT {
        let length = name.len();
        return error(
            start + NAME_LIMIT,
            format!("portable name of {length} characters exceeds the limit of {NAME_LIMIT}"),
        );
    }
    Ok(name.to_owned())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Name(name) => f.write_str(name),
            Form::System(name) => write!(f, "system:{name}"),
            Form::Session(name) => write!(f, "session:{name}"),
            Form::Abstract(name) => write!(f, "abstract:{}", escape::Encoded(name)),
            Form::Pipe(name) => write!(f, "{PIPE}{name}"),
            Form::Path(path) => {
                let shown = path.display().to_string();
                let scheme = if shown.starts_with('/') && pipe_prefix(&shown).is_some() {
                    "unix://"
                } else if ["/", "./", "../"].iter().any(|start| shown.starts_with(start)) {
                    ""
                } else {
                    "unix:"
                };

                write!(f, "{scheme}{shown}")
            }
        }
    }
}
