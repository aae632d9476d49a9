//! A terminal whose whole screen is used, and given back as it was.

use std::io::{self, IsTerminal, Write};

use crate::output::Output;

/// The terminal's other screen, without a cursor and without line breaks.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Lines that are shown where the terminal does not say how many it has.
const USUAL_HEIGHT: usize = 24;

pub(super) struct Screen;

impl Screen {
    /// `None` where nobody looks.
    pub(super) fn open(out: &Output) -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if out.is_json() || dumb || !io::stdout().is_terminal() {
            return None;
        }
        write(ENTER);
        Some(Self)
    }

    /// Shows these lines, as many as there is room for.
    pub(super) fn show(&mut self, lines: &[String]) {
        let mut frame = HOME.to_owned();
        let room = height().saturating_sub(1).max(1);
        for line in lines.iter().take(room) {
            frame.push_str(line);
            frame.push_str(CLEAR_LINE);
            frame.push_str("\r\n");
        }
        frame.push_str(CLEAR_BELOW);
        write(&frame);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write(LEAVE);
    }
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    // A terminal that is gone is told nothing.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn height() -> usize {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(io::stdout())
        && size.ws_row > 0
    {
        return size.ws_row.into();
    }
    USUAL_HEIGHT
}
