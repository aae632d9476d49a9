//! Who may import whom inside core: `ARCHITECTURE.md`, kept true by reading the `use` lines.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of core, and the modules that it may name.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("random", &[]),
    ("limits", &["time"]),
    ("identity", &[]),
    ("wire", &["limits"]),
    ("transport", &["identity", "wire"]),
    ("session", &[]),
    ("datagram", &["transport"]),
    ("service", &["identity", "session", "wire"]),
    ("rpc", &["session", "service", "transport", "wire"]),
    ("node", &["rpc", "session", "service", "transport"]),
];

/// What every module may name.
const COMMON: &[&str] = &["time", "random", "limits"];

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut breaches = Vec::new();
    let mut seen = 0;
    for file in rust_files(&src) {
        let relative = file.strip_prefix(&src).expect("a file below src");
        let first = relative.components().next().expect("a file has a name");
        let module = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_string();
        if module == "lib" {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            breaches.push(format!("{}: no rule for module {module}", relative.display()));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a readable source file");
        for (number, line) in text.lines().enumerate() {
            for named in modules_named(line) {
                seen += 1;
                let fine = named == module
                    || COMMON.contains(&named.as_str())
                    || allowed.contains(&named.as_str());
                if !fine {
                    breaches.push(format!(
                        "{}:{}: {module} may not import {named}",
                        relative.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(seen > 50, "the test reads the imports: it saw only {seen}");
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn core_names_no_clock_no_entropy_and_no_unordered_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let banned = ["HashMap", "HashSet", "std::time", "SystemTime", "thread_rng", "getrandom"];
    let mut found = Vec::new();
    for file in rust_files(&src) {
        let text = fs::read_to_string(&file).expect("a readable source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if let Some(name) = banned.iter().find(|name| code.contains(*name)) {
                found.push(format!("{}:{}: {name}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The top-level modules that a line of code names through `crate::`. Documentation may name any.
fn modules_named(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or("");
    code.match_indices("crate::")
        .map(|(at, matched)| {
            code[at + matched.len()..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| name.chars().next().is_some_and(|c| c.is_ascii_lowercase()))
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
