//! Parses the values of arguments.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use sockpipe::{Endpoint, ParseEndpointError};

/// The address to listen at, or to connect to.
#[derive(Clone, Debug)]
pub enum Place {
    Endpoint(Endpoint),
    /// A listening or connected socket that was passed to this process.
    Passed(u32),
}

/// One end of a relay.
#[derive(Clone, Debug)]
pub enum Address {
    Local(Endpoint),
    /// As for a [`Place`].
    Passed(u32),
    Tcp(String),
    Stdio,
}

pub const FOREVER: &str = "forever";

/// Accepts any text, and paths that are not UTF-8.
pub fn endpoint() -> impl TypedValueParser<Value = Endpoint> {
    OsStringValueParser::new().try_map(parse_endpoint)
}

pub fn place() -> impl TypedValueParser<Value = Place> {
    OsStringValueParser::new().try_map(|text| match passed(&text) {
        Some(number) => number.map(Place::Passed),
        None => parse_endpoint(text).map(Place::Endpoint),
    })
}

/// Parses the number of `fd:N`.
fn passed(text: &OsStr) -> Option<Result<u32, String>> {
    let number = text.to_str()?.strip_prefix("fd:")?;
    let wrong = |_| "a descriptor is written `fd:N`, as in `fd:3`".to_owned();
    Some(number.parse().map_err(wrong))
}

pub fn address() -> impl TypedValueParser<Value = Address> {
    OsStringValueParser::new().try_map(parse_address)
}

fn parse_endpoint(text: OsString) -> Result<Endpoint, String> {
    let endpoint = match text.to_str() {
        Some(text) => text.parse(),
        None if is_path(&text) => Endpoint::try_from(PathBuf::from(text)),
        None if text.as_encoded_bytes().starts_with(b"abstract:") => {
            return Err("it is no UTF-8; a byte of an abstract name is written `%XX`, and a path \
                        from the root, or with `./` before it"
                .to_owned());
        }
        // Its scheme, if it has one, must not become part of a file's name.
        None => {
            return Err(
                "it is no UTF-8, which only a path need not be; a path is written from the \
                        root, or with `./` before it"
                    .to_owned(),
            );
        }
    };
    endpoint.map_err(|error: ParseEndpointError| error.to_string())
}

fn is_path(text: &OsStr) -> bool {
    ["/", "./", "../"].iter().any(|start| text.as_encoded_bytes().starts_with(start.as_bytes()))
}

fn parse_address(text: OsString) -> Result<Address, String> {
    match text.to_str() {
        Some("stdio:") => return Ok(Address::Stdio),
        Some(text) if text.starts_with("stdio:") => {
            return Err("nothing follows `stdio:`".to_owned());
        }

        Some(text) if text.starts_with("tcp:") => {
            let address = &text["tcp:".len()..];
            let right = address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            return if right {
                Ok(Address::Tcp(address.to_owned()))
            } else {
                Err("TCP is written `tcp:HOST:PORT`, as in `tcp:127.0.0.1:8080`".to_owned())
            };
        }
        _ => {}
    }

    match passed(&text) {
        Some(number) => number.map(Address::Passed),
        None => parse_endpoint(text).map(Address::Local),
    }
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    if text == FOREVER {
        return Ok(Duration::MAX);
    }
    let what = match text.parse::<f64>() {
        Ok(number) if number < 0.0 => "seconds cannot be negative",
        Ok(number) if !number.is_nan() => match Duration::try_from_secs_f64(number) {
            Ok(duration) => return Ok(duration),
            Err(_) => "it is too long to be counted; 1000000000 seconds are 31 years",
        },
        _ => "not a number of seconds, such as 2 or 0.5",
    };
    Err(what.to_owned())
}

pub fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o666 == 0 => Ok(mode),
        _ => Err("a socket's mode is three octal digits of r and w, as in 660".to_owned()),
    }
}

pub fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1e6).contains(&number) {
        Ok(number)
    } else {
        Err("a rate is from 0.001 to 1000000 in a second".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_not_utf_8_parse_only_as_a_path() {
        use std::os::unix::ffi::OsStringExt;

        for (start, right) in [
            ("/run/", true),
            ("./", true),
            ("../", true),
            ("", false),
            ("abstract:", false),
            ("system:", false),
            ("unix:", false),
            ("tcp:127.0.0.1:1", false),
            ("stdio:", false),
        ] {
            let text = OsString::from_vec([start.as_bytes(), b"caf\xe9"].concat());

            match parse_address(text) {
                Ok(_) => assert!(right, "{start}"),
                Err(why) => {
                    let hint = if start == "abstract:" { "`%XX`" } else { "`./` before it" };
                    assert!(!right && why.contains(hint), "{start}: {why}");
                }
            }
        }
    }

    #[test]
    fn mode_accepts_octal_bits_for_reading_and_writing() {
        for (text, right) in
            [("660", Some(0o660)), ("0600", Some(0o600)), ("777", None), ("rw", None), ("", None)]
        {
            assert_eq!(mode(text).ok(), right, "{text}");
        }
    }

    #[test]
    fn parse_address_accepts_endpoints_tcp_stdio_and_descriptors() {
        for (text, right) in [
            // Standard streams and TCP.
            ("stdio:", true),
            ("stdio:x", false),
            ("tcp:127.0.0.1:80", true),
            ("tcp:[::1]:80", true),
            ("tcp:80", false),
            ("tcp::80", false),
            ("tcp:localhost:http", false),
            ("tcp:localhost:65536", false),
            // Endpoints, descriptors, and an address with an unknown scheme.
            ("echo", true),
            ("fd:3", true),
            ("fd:", false),
            ("fd:x", false),
            ("udp:1", false),
        ] {
            assert_eq!(parse_address(text.into()).is_ok(), right, "{text}");
        }
    }
}
