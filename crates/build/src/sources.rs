//! Finds, reads and remembers `.proto` files, and turns the compiler's errors into ours.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use miette::Diagnostic as _;
use prost_types::FileDescriptorProto;
use protox::file::{File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use crate::diagnostic::{Diagnostic, Label};
use crate::error::Error;
use crate::qualify::{Symbols, qualify};

/// Files that need no include path.
const EMBEDDED: [(&str, &str); 2] = [
    ("stubborn/options.proto", crate::OPTIONS_PROTO),
    ("stubborn/reflection.proto", crate::REFLECTION_PROTO),
];

/// More findings than this are not read by anybody.
const MOST_FINDINGS: usize = 10;

/// The files that were read, by the name under which they are imported. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    includes: Rc<[PathBuf]>,
    read: Rc<RefCell<BTreeMap<String, Source>>>,
    /// What files name, if names are written out in full.
    symbols: Option<Known>,
}

/// What files name, by the files' names.
type Known = Rc<RefCell<BTreeMap<String, Rc<Symbols>>>>;

struct Source {
    /// `None` for an embedded file.
    path: Option<PathBuf>,
    text: String,
}

impl Sources {
    pub(crate) fn new(includes: Vec<PathBuf>) -> Self {
        Self { includes: includes.into(), ..Self::default() }
    }

    /// The same, but names of types come out in full.
    pub(crate) fn qualified(&self) -> Self {
        Self { symbols: Some(Rc::default()), ..self.clone() }
    }

    /// The files on disk that were read, sorted.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            self.read.borrow().values().filter_map(|s| s.path.clone()).collect();
        paths.sort();
        paths
    }

    /// The place of what stands at `path` of a descriptor (as in `SourceCodeInfo`), or of the
    /// nearest thing around it that has a place.
    pub(crate) fn locate(&self, file: &FileDescriptorProto, path: &[i32]) -> Option<Label> {
        let locations = &file.source_code_info.as_ref()?.location;
        let span = (1..=path.len()).rev().find_map(|len| {
            let found = locations.iter().find(|l| l.path == path[..len]);
            found.filter(|l| l.span.len() >= 3).map(|l| &l.span)
        })?;
        let read = self.read.borrow();
        let source = read.get(file.name())?;
        let start = offset_of(&source.text, span[0], span[1])?;
        let end = match span[..] {
            [line, _, end] => offset_of(&source.text, line, end)?,
            // What goes over several lines is marked in its first.
            _ => source.text[start..].find('\n').map_or(source.text.len(), |i| start + i),
        };
        let len = source.text[start..end].trim_end().len();
        Some(Label::in_text(source.shown(file.name()), &source.text, start, len, ""))
    }

    /// The compiler's error as ours.
    pub(crate) fn explain(&self, error: &protox::Error) -> Error {
        let findings = self.findings(error);
        match Error::from_findings(findings) {
            Err(error) => error,
            Ok(()) => Diagnostic::new(format!("{error:?}")).into(),
        }
    }

    fn findings(&self, error: &protox::Error) -> Vec<Diagnostic> {
        let file = error.file().unwrap_or_default();
        if error.is_file_not_found() {
            return vec![self.missing(error, file)];
        }
        if error.to_string().starts_with("import cycle detected") {
            return vec![self.cycle(error)];
        }
        let mut findings = vec![self.finding(error, file)];
        for related in error.related().into_iter().flatten().take(MOST_FINDINGS - 1) {
            findings.push(self.finding(related, file));
        }
        findings
    }

    fn finding(&self, error: &dyn miette::Diagnostic, file: &str) -> Diagnostic {
        let mut message = error.to_string();
        if let Some(source) = error.source().filter(|s| !message.contains(&s.to_string())) {
            message = format!("{message}: {source}");
        }
        let mut finding = Diagnostic::new(message);
        let read = self.read.borrow();
        if let Some(source) = read.get(file) {
            for label in error.labels().into_iter().flatten() {
                let say = label.label().unwrap_or_default();
                let (at, len) = (label.offset(), label.len());
                let label = Label::in_text(source.shown(file), &source.text, at, len, say);
                finding.labels.push(label);
            }
            if finding.labels.is_empty() && finding.message.ends_with("end of file") {
                let end = source.text.trim_end().len();
                let label = Label::in_text(source.shown(file), &source.text, end, 1, "ends here");
                finding.labels.push(label);
            }
        }
        if finding.labels.is_empty() {
            // The compiler gives no place for what stands in a map's type.
            finding.labels.extend(quoted(&finding.message).and_then(|name| search(&read, name)));
        }
        // The place where it was found comes first, whatever it clashes with after it.
        if finding.labels.len() > 1 && finding.labels[0].text.contains("first") {
            finding.labels.rotate_left(1);
        }
        finding.help = error.help().map(|h| h.to_string());
        if finding.message.ends_with("found 'edition'") {
            finding.help = Some(
                "editions are not read yet: write syntax = \"proto3\"; (or \"proto2\") instead"
                    .into(),
            );
        }
        finding
    }

    fn missing(&self, error: &protox::Error, file: &str) -> Diagnostic {
        let mut finding = self.finding(error, file);
        let searched: Vec<_> =
            self.includes.iter().map(|dir| format!("`{}`", shown_dir(dir))).collect();
        finding.help = Some(format!(
            "searched in {}; name the directory that its path starts from with \
             Config::include (or --include)",
            searched.join(", ")
        ));
        finding
    }

    /// Marks the import that closes the cycle.
    fn cycle(&self, error: &protox::Error) -> Diagnostic {
        let message = error.to_string();
        let mut names: Vec<_> = message
            .trim_start_matches("import cycle detected:")
            .split("->")
            .map(|n| n.trim().to_owned())
            .collect();
        let finding = Diagnostic::new(message.clone())
            .help("move what both files need into a third, and import that from both");
        let (Some(imported), Some(importer)) = (names.pop(), names.pop()) else { return finding };
        let read = self.read.borrow();
        let Some(source) = read.get(&importer) else { return finding };
        let place = import_of(&source.text, &imported).map(|(at, len)| {
            Label::in_text(source.shown(&importer), &source.text, at, len, "closes the cycle")
        });
        finding.at(place)
    }
}

impl Source {
    /// How the file is named to people: by its path, so that an editor can open it.
    fn shown(&self, name: &str) -> String {
        let path = self.path.as_deref().unwrap_or(Path::new(name));
        path.strip_prefix(".").unwrap_or(path).display().to_string()
    }
}

fn shown_dir(dir: &Path) -> String {
    if dir.as_os_str().is_empty() { ".".into() } else { dir.display().to_string() }
}

/// The byte at this line and column (both from 0, the column in bytes).
fn offset_of(text: &str, line: i32, column: i32) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?, usize::try_from(column).ok()?);
    let start = match line {
        0 => 0,
        n => text.match_indices('\n').nth(n - 1)?.0 + 1,
    };
    let offset = start + column;
    text.is_char_boundary(offset).then_some(offset)
}

/// The first name that a message has in quotes.
fn quoted(message: &str) -> Option<&str> {
    message.split('\'').nth(1).filter(|name| !name.is_empty())
}

/// The first place outside comments where this name stands as a whole, in a file from disk.
fn search(read: &BTreeMap<String, Source>, name: &str) -> Option<Label> {
    let in_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let mut sources = read.iter().filter(|(_, source)| source.path.is_some());
    sources.find_map(|(file, Source { text, .. })| {
        let mut hits = text.match_indices(name).map(|(at, _)| at);
        let at = hits.find(|at| {
            let (before, after) = (&text[..*at], &text[at + name.len()..]);
            let line = &before[before.rfind('\n').map_or(0, |i| i + 1)..];
            !before.ends_with(in_name) && !after.starts_with(in_name) && !line.contains("//")
        })?;
        let shown = read[file].shown(file);
        Some(Label::in_text(shown, text, at, name.len(), "found here"))
    })
}

/// Where `text` imports this file: offset and length of the quoted name.
fn import_of(text: &str, imported: &str) -> Option<(usize, usize)> {
    ["\"", "'"].into_iter().find_map(|quote| {
        let quoted = format!("{quote}{imported}{quote}");
        let mut hits = text.match_indices(&quoted).map(|(at, _)| at);
        let at = hits.find(|at| {
            let line = text[..*at].rfind('\n').map_or(0, |i| i + 1);
            text[line..*at].trim_start().starts_with("import")
        })?;
        Some((at, quoted.len()))
    })
}

impl FileResolver for Sources {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        if let Some((name, _)) = EMBEDDED.iter().find(|(name, _)| Path::new(name) == path) {
            return Some((*name).to_owned());
        }
        self.includes
            .iter()
            .find_map(|dir| IncludeFileResolver::new(dir.clone()).resolve_path(path))
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let file = self.read_file(name)?;
        let Some(symbols) = &self.symbols else { return Ok(file) };
        let mut file = FileDescriptorProto::from(file);
        qualify(&mut file, |import| {
            if let Some(known) = symbols.borrow().get(import) {
                return Some(Rc::clone(known));
            }
            let found = Rc::new(Symbols::of(self.read_file(import).ok()?.file_descriptor_proto()));
            symbols.borrow_mut().insert(import.to_owned(), Rc::clone(&found));
            Some(found)
        });
        Ok(file.into())
    }
}

impl Sources {
    fn read_file(&self, name: &str) -> Result<File, protox::Error> {
        if let Some((_, text)) = EMBEDDED.iter().find(|(embedded, _)| *embedded == name) {
            self.remember(name, None, (*text).to_owned());
            return File::from_source(name, text);
        }
        for dir in self.includes.iter() {
            let path = dir.join(name);
            if let Ok(bytes) = fs::read(&path) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                self.remember(name, Some(path.clone()), text);
            } else if !path.exists() {
                continue;
            }
            return File::open(name, &path);
        }
        GoogleFileResolver::new().open_file(name)
    }

    fn remember(&self, name: &str, path: Option<PathBuf>, text: String) {
        self.read.borrow_mut().insert(name.to_owned(), Source { path, text });
    }
}
