//! Conversions into an endpoint, and its serialized form.

use std::path::{Path, PathBuf};

use super::{Endpoint, ParseEndpointError, from_path, pipe, pipe_prefix};

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
        // Windows programs often store the name of a pipe in a `Path`.
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

/// Serializes the text that [`Display`](std::fmt::Display) prints. Fails if the endpoint is a path
/// that is not UTF-8.
#[cfg(feature = "serde")]
impl serde::Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;

        match &self.0 {
            super::Form::Path(path) if path.to_str().is_none() => {
                Err(S::Error::custom(format_args!("{self} is not UTF-8")))
            }
            _ => serializer.collect_str(self),
        }
    }
}

/// Parses the text with [`FromStr`](std::str::FromStr), and returns the errors of that
/// implementation.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn serde_writes_and_reads_an_endpoint_as_text() {
        for text in ["echo", "system:x", "/run/x y", r"\\.\pipe\x", "abstract:x", "unix:x"] {
            let endpoint: Endpoint = text.parse().expect("an endpoint");
            let json = serde_json::to_string(&endpoint).expect("JSON");
            assert_eq!(json, serde_json::to_string(text).expect("JSON"));
            assert_eq!(serde_json::from_str::<Endpoint>(&json).expect("an endpoint"), endpoint);
        }
        let error = serde_json::from_str::<Endpoint>("\"a/b\"").expect_err("no endpoint");
        assert!(error.to_string().contains("a path is written `./a/b`"), "{error}");
    }
}
