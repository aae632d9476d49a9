//! What is wrong, and where, as compilers show it.

use std::fmt;

/// One finding with the places in the source that it is about.
#[derive(Clone)]
pub(crate) struct Diagnostic {
    pub(crate) message: String,
    /// The place itself first, then others that explain it.
    pub(crate) labels: Vec<Label>,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

/// A place in a source file.
#[derive(Clone)]
pub(crate) struct Label {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// Length of the marked part, in characters.
    pub(crate) width: usize,
    pub(crate) source_line: String,
    /// What is said of it; may be empty.
    pub(crate) text: String,
}

impl Diagnostic {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), labels: Vec::new(), help: None }
    }

    pub(crate) fn at(mut self, label: Option<Label>) -> Self {
        self.labels.extend(label);
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Label {
    /// The place at this byte range of a file's text. Ranges beyond the text are cut.
    pub(crate) fn in_text(file: String, text: &str, offset: usize, len: usize, say: &str) -> Self {
        let offset = floor_char(text, offset.min(text.len()));
        let start = text[..offset].rfind('\n').map_or(0, |i| i + 1);
        let end = text[offset..].find('\n').map_or(text.len(), |i| offset + i);
        let marked_end = floor_char(text, (offset + len).min(end)).max(offset);
        Self {
            file,
            line: text[..start].matches('\n').count() + 1,
            column: text[start..offset].chars().count() + 1,
            width: text[offset..marked_end].chars().count().max(1),
            source_line: text[start..end].trim_end().to_owned(),
            text: say.to_owned(),
        }
    }

    pub(crate) fn saying(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    fn render(&self, f: &mut fmt::Formatter<'_>, margin: usize, arrow: &str) -> fmt::Result {
        let Self { file, line, column, .. } = self;
        write!(f, "\n{:margin$}{arrow} {file}:{line}:{column}", "")?;
        write!(f, "\n{:margin$} |", "")?;
        write!(f, "\n{line:>margin$} | {}", self.source_line)?;
        // Tabs stay tabs, so that the mark stands under what it marks however wide they are shown.
        let indent: String = self
            .source_line
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(f, "\n{:margin$} | {indent}{}", "", "^".repeat(self.width))?;
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

fn floor_char(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let last_line = self.labels.iter().map(|l| l.line).max().unwrap_or(1);
        let margin = last_line.to_string().len();
        for (i, label) in self.labels.iter().enumerate() {
            label.render(f, margin, if i == 0 { "-->" } else { ":::" })?;
        }
        if let Some(help) = &self.help {
            let margin = if self.labels.is_empty() { 1 } else { margin + 1 };
            write!(f, "\n{:margin$}= help: {help}", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_under_what_it_marks_also_after_tabs_and_wide_letters() {
        let text = "syntax;\n\trpc \u{fc}ber x;\n";
        let offset = text.find('x').unwrap();
        let offset = text[offset + 1..].find('x').unwrap() + offset + 1;
        let label = Label::in_text("a.proto".into(), text, offset, 1, "here");
        assert_eq!((label.line, label.column), (2, 11));
        let shown = Diagnostic::new("no").at(Some(label)).help("write y").to_string();
        let expected = "no\n --> a.proto:2:11\n  |\n2 | \trpc \u{fc}ber x;\n  | \t         ^ here\n  = help: write y";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_place_beyond_the_text_is_its_end() {
        let label = Label::in_text("a".into(), "ab", 99, 99, "");
        assert_eq!((label.line, label.column, label.width), (1, 3, 1));
    }
}
