//! `stubborn new NAME`

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::Error;
use crate::output::{Output, Style};

/// Make a new project: a service, a server and a client that build and run at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory to make; its last part is the name of the package.
    name: PathBuf,

    /// Depend on this checkout of Stubborn. Without it: the checkout that this program was built
    /// from if it is still there, else the published version.
    #[arg(long, value_name = "CHECKOUT")]
    path: Option<PathBuf>,
}

/// What goes where. `{{crate}}` and the like are filled in by [`fill`].
const TEMPLATES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/new/Cargo.toml.in")),
    (".gitignore", include_str!("../../templates/new/gitignore.in")),
    ("README.md", include_str!("../../templates/new/README.md.in")),
    ("build.rs", include_str!("../../templates/new/build.rs.in")),
    ("proto/counter.proto", include_str!("../../templates/new/counter.proto.in")),
    ("src/lib.rs", include_str!("../../templates/new/lib.rs.in")),
    ("src/bin/server.rs", include_str!("../../templates/new/server.rs.in")),
    ("src/bin/client.rs", include_str!("../../templates/new/client.rs.in")),
];

/// Names that Cargo or Rust have taken, or that would clash with a dependency.
const TAKEN: [&str; 12] = [
    "alloc",
    "build",
    "client",
    "core",
    "deps",
    "examples",
    "incremental",
    "server",
    "std",
    "stubborn",
    "test",
    "tokio",
];

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let name = package_name(&args.name)?;
    let dependencies = dependencies(args.path.as_deref())?;
    if fs::read_dir(&args.name).is_ok_and(|mut entries| entries.next().is_some())
        || args.name.is_file()
    {
        return Err(Error::usage(format!("{} exists already", args.name.display()))
            .with_hint("choose another name, or remove it first"));
    }
    // A package inside somebody else's workspace does not build unless it says what it belongs to.
    let workspace = if is_in_workspace(&args.name) { "\n\n[workspace]" } else { "" };
    let values = [
        ("name", name.clone()),
        ("crate", name.replace('-', "_")),
        ("stubborn", dependencies[0].clone()),
        ("stubborn-build", dependencies[1].clone()),
        ("stubborn-sim", dependencies[2].clone()),
        ("workspace", workspace.to_owned()),
    ];
    let was_there = args.name.exists();
    let written = write(&args.name, &values).inspect_err(|_| {
        // Half a project would be in the way of the next try.
        if !was_there {
            let _ = fs::remove_dir_all(&args.name);
        }
    })?;
    report(&args.name, &written, out);
    Ok(())
}

fn write(directory: &Path, values: &[(&str, String)]) -> Result<Vec<PathBuf>, Error> {
    let mut written = Vec::new();
    for (file, template) in TEMPLATES {
        let path = directory.join(file);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(|e| Error::io("make the directory", parent, &e))?;
        fs::write(&path, fill(template, values)).map_err(|e| Error::io("write", &path, &e))?;
        written.push(path);
    }
    Ok(written)
}

fn report(directory: &Path, written: &[PathBuf], out: &Output) {
    for path in written {
        out.line(format_args!("{} {}", out.paint(Style::Faint, "wrote"), path.display()));
    }
    let directory = directory.display();
    out.line(format_args!(
        "\nNow run, in two terminals:\n  cd {directory} && cargo run --bin server\n  \
         cd {directory} && cargo run --bin client"
    ));
    out.json(&json!({ "directory": directory.to_string(), "files": written }));
}

/// The name of the package, if Cargo and Rust take it.
fn package_name(directory: &Path) -> Result<String, Error> {
    let name = directory.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let wrong = |why: &str| {
        Err(Error::usage(format!("`{name}` cannot be the name of a package: {why}")).with_hint(
            "use letters, digits, '-' and '_', beginning with a letter, like `my-counter`",
        ))
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(allowed) {
        return wrong("it has other characters than ASCII letters, digits, '-' and '_'");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return wrong("it does not begin with a letter");
    }
    if TAKEN.contains(&name) || is_keyword(name) {
        return wrong("the name is taken");
    }
    Ok(name.to_owned())
}

fn is_keyword(name: &str) -> bool {
    const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn \
        else enum extern false final fn for gen if impl in let loop macro match mod move mut \
        override priv pub ref return self static struct super trait true try type typeof unsafe \
        unsized use virtual where while yield ";
    KEYWORDS.contains(&format!(" {name} "))
}

/// The dependencies on `stubborn`, `stubborn-build` and `stubborn-sim`.
fn dependencies(checkout: Option<&Path>) -> Result<[String; 3], Error> {
    let Some(checkout) = checkout.map(Path::to_path_buf).or_else(own_checkout) else {
        let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
        return Ok([version.clone(), version.clone(), version]);
    };
    let checkout = checkout
        .canonicalize()
        .ok()
        .filter(|path| path.join("crates/stubborn/Cargo.toml").is_file())
        .ok_or_else(|| {
            Error::usage(format!("{} is no checkout of Stubborn", checkout.display()))
                .with_hint("--path takes the directory that has crates/stubborn in it")
        })?;
    let path = |name: &str| {
        let path = checkout.join("crates").join(name);
        // A TOML literal string, which has no escapes.
        format!("{{ path = '{}' }}", path.display())
    };
    Ok([path("stubborn"), path("build"), path("sim")])
}

/// Where this program was built, so that what it writes builds against the same code.
fn own_checkout() -> Option<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    checkout.join("crates/stubborn/Cargo.toml").is_file().then(|| checkout.to_path_buf())
}

fn is_in_workspace(directory: &Path) -> bool {
    let Ok(directory) = std::path::absolute(directory) else { return false };
    directory.ancestors().skip(1).any(|parent| {
        let manifest = fs::read_to_string(parent.join("Cargo.toml"));
        manifest.is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
    })
}

fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (key, value)| {
        text.replace(&format!("{{{{{key}}}}}"), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cargo_or_rust_refuse_are_refused_first() {
        for name in ["", "1st", "a b", "fn", "stubborn", "\u{fc}ber", ".."] {
            assert!(package_name(Path::new(name)).is_err(), "{name}");
        }
        assert_eq!(package_name(Path::new("some/where/my-counter")).unwrap(), "my-counter");
    }

    #[test]
    fn every_place_of_a_template_is_filled() {
        let keys = ["name", "crate", "stubborn", "stubborn-build", "stubborn-sim", "workspace"];
        let values = keys.map(|key| (key, "x".to_owned()));
        for (file, template) in TEMPLATES {
            assert!(!fill(template, &values).contains("{{"), "{file}");
        }
    }
}
