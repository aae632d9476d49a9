//! Printing: text for people or one JSON object for programs, and colours where they are wanted.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::cli::Color;
use crate::error::Error;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    color_out: bool,
    color_err: bool,
}

/// What a piece of text means; each has its colour.
#[allow(dead_code)] // Commands choose among them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    Error,
    Warning,
    Good,
    Strong,
    Faint,
}

impl Output {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let wanted = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let unset = |name| std::env::var_os(name).is_none_or(|v| v.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
                terminal && unset("NO_COLOR") && !dumb
            }
        };
        Self {
            json,
            color_out: wanted(io::stdout().is_terminal()),
            color_err: wanted(io::stderr().is_terminal()),
        }
    }

    /// Whether programs read the output: then [`Output::json`] is called once, and nothing else.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether to show progress: to people who look.
    #[allow(dead_code)] // For the commands that take long.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Prints a line for people; nothing with `--json`.
    pub(crate) fn line(&self, text: impl Display) {
        if !self.json {
            self.print(format_args!("{text}\n"));
        }
    }

    /// Prints the result for programs; nothing without `--json`.
    pub(crate) fn json(&self, value: &Value) {
        if self.json {
            self.print(format_args!("{value}\n"));
        }
    }

    /// Prints as it is, to standard output. A reader that has gone (`| head`) ends the program
    /// quietly.
    pub(crate) fn print(&self, text: impl Display) {
        let mut out = io::stdout().lock();
        if write!(out, "{text}").and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Prints a warning to standard error.
    pub(crate) fn warn(&self, text: impl Display) {
        let label = paint(self.color_err, Style::Warning, "warning:");
        let _ = writeln!(io::stderr(), "{label} {text}");
    }

    /// Prints an error: to standard error for people, as an object to standard output for programs.
    pub(crate) fn error(&self, error: &Error) {
        if self.json {
            if !error.is_printed() {
                self.json(&error.to_json());
            }
            return;
        }
        let label = paint(self.color_err, Style::Error, "error:");
        let _ = writeln!(io::stderr(), "{label} {}", error.message());
        if let Some(hint) = error.hint() {
            let _ = writeln!(io::stderr(), "  {hint}");
        }
    }

    /// Text for standard output in the colour of its meaning.
    pub(crate) fn paint(&self, style: Style, text: impl Display) -> String {
        paint(self.color_out, style, text)
    }
}

fn paint(color: bool, style: Style, text: impl Display) -> String {
    let code = match style {
        Style::Error => "1;31",
        Style::Warning => "1;33",
        Style::Good => "32",
        Style::Strong => "1",
        Style::Faint => "2",
    };
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_used_only_when_asked_for() {
        let plain = Output::new(false, Color::Never);
        assert_eq!(plain.paint(Style::Strong, "x"), "x");
        let always = Output::new(false, Color::Always);
        assert_eq!(always.paint(Style::Strong, "x"), "\x1b[1mx\x1b[0m");
    }
}
