//! Notations of other programs, and the notations to use instead.

/// The keys of the addresses that D-Bus writes after `unix:`.
const KEYS: [&str; 5] = ["path=", "abstract=", "dir=", "tmpdir=", "runtime="];

/// Reports whether a relative path would mean something else after `unix:`, so that it needs a `./`
/// before it.
pub(super) fn is_ambiguous(path: &[u8]) -> bool {
    path.starts_with(b"@") || KEYS.iter().any(|key| path.starts_with(key.as_bytes()))
}

/// Finds a notation of another program in `text`, and returns its position and a message with the
/// notation to use instead.
pub(super) fn remedy(text: &str) -> Option<(usize, String)> {
    for start in ["", "unix:", "unix://"] {
        if let Some(name) = text.strip_prefix(start).and_then(|rest| rest.strip_prefix('@')) {
            let why = format!(
                "an abstract socket is written `abstract:{name}`, and has no file permissions; the \
                 file of this name is written `./@{name}`"
            );
            return Some((start.len(), why));
        }
    }
    if let Some(name) = text.strip_prefix("unix-abstract:") {
        return Some((0, format!("an abstract socket is written `abstract:{name}`")));
    }

    if let Some(rest) = text.strip_prefix("http+unix://") {
        let host = rest.split('/').next().filter(|host| !host.is_empty()).unwrap_or(rest);
        let path = host.replace("%2F", "/").replace("%2f", "/");
        return Some((
            0,
            format!("a socket is written as its path alone, `{path}`, without a URL"),
        ));
    }
    if text.starts_with("fd:") {
        let why = "a descriptor is not a name; create a listener or stream from it with `from_fd`";
        return Some((0, why.to_owned()));
    }
    let rest = text.strip_prefix("unix:")?;
    bus_address(rest).map(|why| (text.len() - rest.len(), why))
}

/// Returns the path of `path=/run/x`, if the address has no other part.
pub(super) fn bus_path(rest: &str) -> Option<&str> {
    rest.strip_prefix("path=")
        .filter(|path| path.starts_with('/') && !path.contains([',', ';', '%']))
}

fn bus_address(rest: &str) -> Option<String> {
    let key = KEYS.into_iter().find(|key| rest.starts_with(key))?;
    if bus_path(rest).is_some() {
        return None;
    }
    let value = rest[key.len()..].split([',', ';']).next().unwrap_or_default();
    let right = match key {
        "path=" if value.starts_with('/') => format!("the path alone is written `{value}`"),
        "path=" => format!("the path alone is written `./{value}`"),
        "abstract=" => format!("an abstract socket is written `abstract:{value}`"),
        _ => "its server chooses the path: write the path itself".to_owned(),
    };
    Some(format!("this is an address of D-Bus; {right}, and a file of this name `./{rest}`"))
}
