//! What is said on standard error. Colours only where it is a terminal and NO_COLOR is not set,
//! which anstream decides. That nobody listens is no reason to end.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicU8, Ordering};

use anstyle::{AnsiColor, Style};

const QUIET: u8 = 0;
const NORMAL: u8 = 1;
const VERBOSE: u8 = 2;

static LEVEL: AtomicU8 = AtomicU8::new(NORMAL);

pub fn set_level(verbose: bool, quiet: bool) {
    LEVEL.store(if quiet { QUIET } else { NORMAL + u8::from(verbose) }, Ordering::Relaxed);
}

/// What went wrong, and what to do next.
pub fn error(what: impl Display) {
    line(QUIET, Style::new().bold().fg_color(Some(AnsiColor::Red.into())), "error: ", what);
}

/// What the user should know although all goes on.
pub fn warning(what: impl Display) {
    line(NORMAL, Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())), "warning: ", what);
}

/// What the user waits to see, such as the address.
pub fn note(what: impl Display) {
    line(NORMAL, Style::new(), "", what);
}

/// What happens, for those who ask.
pub fn detail(what: impl Display) {
    line(VERBOSE, Style::new().dimmed(), "", what);
}

/// Who named a file, a socket or a program may have meant to drive this terminal.
pub fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn line(least: u8, style: Style, label: &str, what: impl Display) {
    if LEVEL.load(Ordering::Relaxed) < least {
        return;
    }
    let what = shown(&what.to_string());
    // A detail is dim as a whole; of the others the label stands out.
    let text = if label.is_empty() {
        format!("{style}{what}{style:#}\n")
    } else {
        format!("{style}{label}{style:#}{what}\n")
    };
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// One line that is written over again, on a terminal only.
pub struct Progress {
    shown: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { shown: false }
    }

    pub fn wanted() -> bool {
        LEVEL.load(Ordering::Relaxed) >= NORMAL && stderr().is_terminal()
    }

    pub fn show(&mut self, what: impl Display) {
        self.shown = true;
        let _ = write!(stderr().lock(), "\r{what}\x1b[K");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr().lock(), "\r\x1b[K");
        }
    }
}
