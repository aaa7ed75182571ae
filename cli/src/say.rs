//! Prints messages on standard error. anstream prints colors only if that is a terminal and
//! NO_COLOR is not set. Failed writes are ignored: the tool goes on without a reader.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::atomic::{AtomicU8, Ordering};

use anstyle::{AnsiColor, Style};
use terminal_size::Width;

const QUIET: u8 = 0;
const NORMAL: u8 = 1;
const VERBOSE: u8 = 2;

static LEVEL: AtomicU8 = AtomicU8::new(NORMAL);

pub fn set_level(verbose: bool, quiet: bool) {
    LEVEL.store(if quiet { QUIET } else { NORMAL + u8::from(verbose) }, Ordering::Relaxed);
}

/// Prints what went wrong, and what to do next.
pub fn error(what: impl Display) {
    line(QUIET, Style::new().bold().fg_color(Some(AnsiColor::Red.into())), "error: ", what);
}

/// Prints what the user should know although the tool goes on.
pub fn warning(what: impl Display) {
    line(NORMAL, Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())), "warning: ", what);
}

/// Prints what the user waits for, such as the address.
pub fn note(what: impl Display) {
    line(NORMAL, Style::new(), "", what);
}

/// Prints what happens, with `--verbose`.
pub fn detail(what: impl Display) {
    line(VERBOSE, Style::new().dimmed(), "", what);
}

/// Replaces control characters. The name of a file, a socket or a program may have been chosen to
/// control this terminal.
pub fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// Breaks the lines of `text` between words at the width of the terminal. If standard output is not
/// a terminal, they stay whole for the program that reads them.
pub fn for_terminal(text: &str) -> String {
    match terminal_size::terminal_size_of(stdout()) {
        Some((Width(columns), _)) => broken(text, usize::from(columns)),
        None => text.to_owned(),
    }
}

/// Each continuation line begins below the text of the first line: behind its label, or its indent.
fn broken(text: &str, columns: usize) -> String {
    const LABEL: usize = 10;
    let mut result = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let below = if indent == 0 { LABEL } else { indent.max(4) };
        let mut width = 0;

        for (at, word) in line.split(' ').enumerate() {
            let length = word.chars().count();
            if width > below && width + 1 + length > columns {
                result.push('\n');
                result.push_str(&" ".repeat(below));
                width = below;
            } else if at > 0 {
                result.push(' ');
                width += 1;
            }

            result.push_str(word);
            width += length;
        }
        result.push('\n');
    }
    result
}

fn line(least: u8, style: Style, label: &str, what: impl Display) {
    if LEVEL.load(Ordering::Relaxed) < least {
        return;
    }
    let what = shown(&what.to_string());
    // A detail is dim as a whole. In the other messages the label stands out.
    let text = if label.is_empty() {
        format!("{style}{what}{style:#}\n")
    } else {
        format!("{style}{label}{style:#}{what}\n")
    };
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// A line that is overwritten each time, on a terminal only.
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

#[cfg(test)]
mod tests {
    use super::broken;

    #[test]
    fn lines_break_between_words_and_continue_below_their_text() {
        let text = "state     free: nothing is there\n    unusable: one, two, three\n";
        let expected = "state     free:\n          nothing\n          is there\n    \
                        unusable: one,\n    two, three\n";
        assert_eq!(broken(text, 18), expected);
        assert_eq!(broken(text, 80), text);
        assert_eq!(broken("a-word-that-is-longer-than-the-line\n", 8).lines().count(), 1);
    }
}
