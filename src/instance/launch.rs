//! The launch that a later start hands over to the first instance, and its encoding.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::imp;

/// The limit of a launch in bytes: many times the arguments that any system allows.
pub(crate) const LIMIT: u32 = 16 << 20;

/// The arguments of a start of a program, the directory that relative paths among them refer to,
/// and selected variables of its environment.
///
/// A later start passes it to the first instance with [`hand_over`](crate::hand_over), and the
/// first instance receives it with a [`LaunchRequest`](crate::LaunchRequest). Arguments arrive
/// unchanged, even if they are not text or contain a line break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    args: Vec<OsString>,
    current_dir: Option<PathBuf>,
    envs: Vec<(OsString, OsString)>,
}

impl Launch {
    /// Creates an empty launch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a launch of this process: its arguments without the program's name, and its working
    /// directory.
    ///
    /// It contains nothing of the environment, which may hold secrets: add the variables that the
    /// first instance needs.
    ///
    /// # Errors
    ///
    /// The OS's error about the working directory, which may have been removed.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self::new().args(env::args_os().skip(1)).current_dir(env::current_dir()?))
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// Adds a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Returns the arguments.
    #[must_use]
    pub fn get_args(&self) -> &[OsString] {
        &self.args
    }

    /// Returns the working directory, if there is one.
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.current_dir.as_deref()
    }

    /// Returns the variables of the environment.
    #[must_use]
    pub fn get_envs(&self) -> &[(OsString, OsString)] {
        &self.envs
    }

    /// Encodes what follows the header: numbers of 32 bits, the least significant byte first, and
    /// texts after their lengths, in the encoding of the OS.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        put_number(&mut bytes, self.args.len())?;
        for arg in &self.args {
            put(&mut bytes, arg)?;
        }

        put_number(&mut bytes, usize::from(self.current_dir.is_some()))?;
        if let Some(dir) = &self.current_dir {
            put(&mut bytes, dir.as_os_str())?;
        }

        put_number(&mut bytes, self.envs.len())?;
        for (name, value) in &self.envs {
            put(&mut bytes, name)?;
            put(&mut bytes, value)?;
        }

        if bytes.len() > LIMIT as usize {
            let what =
                format!("launch of {} bytes exceeds the limit of {LIMIT} bytes", bytes.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        Ok(bytes)
    }

    /// Decodes the output of [`to_bytes`](Self::to_bytes). Returns `None` for any other bytes.
    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let mut launch = Self::new();
        for _ in 0..number(rest)? {
            launch.args.push(text(rest)?);
        }
        match number(rest)? {
            0 => {}
            1 => launch.current_dir = Some(text(rest)?.into()),
            _ => return None,
        }
        for _ in 0..number(rest)? {
            let name = text(rest)?;
            launch.envs.push((name, text(rest)?));
        }
        bytes.is_empty().then_some(launch)
    }
}

fn put_number(bytes: &mut Vec<u8>, number: usize) -> io::Result<()> {
    let number = u32::try_from(number)
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "the launch is too large"))?;
    bytes.extend_from_slice(&number.to_le_bytes());
    Ok(())
}

fn put(bytes: &mut Vec<u8>, text: &OsStr) -> io::Result<()> {
    let text = imp::bytes_of(text);
    put_number(bytes, text.len())?;
    bytes.extend_from_slice(&text);
    Ok(())
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

fn text(bytes: &mut &[u8]) -> Option<OsString> {
    let length = number(bytes)? as usize;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    imp::text_of(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> Launch {
        let args = ["", "a b", "line\nbreak", "--flag=ü"];
        Launch::new().args(args).current_dir("/tmp/a dir").env("DISPLAY", ":1").env("", "")
    }

    #[test]
    fn a_launch_is_read_as_it_was_written() {
        for launch in [Launch::new(), some()] {
            let bytes = launch.to_bytes().expect("short enough");
            assert_eq!(Launch::from_bytes(&bytes).as_ref(), Some(&launch));
        }
        let many = Launch::new().args((0..1000).map(|number| number.to_string().repeat(100)));
        let bytes = many.to_bytes().expect("short enough");
        assert_eq!(Launch::from_bytes(&bytes), Some(many));
    }

    #[test]
    fn a_launch_that_is_too_long_is_refused_before_it_is_sent() {
        let long = Launch::new().args(["x".repeat(LIMIT as usize)]);
        assert_eq!(long.to_bytes().expect_err("too long").kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        let bytes = some().to_bytes().expect("short enough");
        for length in 0..bytes.len() {
            assert_eq!(Launch::from_bytes(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Launch::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn a_number_of_directories_other_than_none_and_one_is_refused() {
        let mut bytes = Launch::new().current_dir("/").to_bytes().expect("short enough");
        assert_eq!(bytes[4..8], 1_u32.to_le_bytes());
        bytes[4] = 2;
        assert_eq!(Launch::from_bytes(&bytes), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic_the_reader(bytes: Vec<u8>) {
            let _ = Launch::from_bytes(&bytes);
        }
    }
}
