//! Generates stubs for large public interfaces and compiles them: `cargo run --release -p
//! stubborn-build --example interfaces`, or with names of those that are wanted, or `all`, or
//! `--tree DIR` for any folder of `.proto` files.
//!
//! The files come out of crates that carry them (`sources/Cargo.toml`). What is generated is left in
//! `target/interfaces`: a crate for each interface, or for each package of those that are large.

mod split;

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::Value;
use stubborn_build::{Config, Generated};

/// One interface: where its files are.
struct Interface {
    name: &'static str,
    package: &'static str,
    /// Folders within the package to which import paths are relative.
    roots: &'static [&'static str],
    extent: Extent,
}

/// What is compiled, and how.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// All files, as one crate.
    Whole,
    /// These folders and what they import, a crate for each package.
    Folders(&'static [&'static str]),
    /// All files, a crate for each package. Takes long: only if it is asked for.
    Large,
}

const INTERFACES: [Interface; 6] = [
    Interface { name: "etcd", package: "etcd-client", roots: &["proto"], extent: Extent::Whole },
    Interface {
        name: "opentelemetry",
        package: "opentelemetry-proto",
        roots: &["src/proto/opentelemetry-proto"],
        extent: Extent::Whole,
    },
    Interface {
        name: "temporal",
        package: "temporal-sdk-core-protos",
        roots: &[
            "protos/api_upstream",
            "protos/api_cloud_upstream",
            "protos/testsrv_upstream",
            "protos/local",
        ],
        extent: Extent::Whole,
    },
    Interface {
        name: "envoy",
        package: "envoy-types",
        roots: &[
            "proto/data-plane-api",
            "proto/xds",
            "proto/googleapis",
            "proto/protoc-gen-validate",
            "proto/cel-spec/proto",
            "proto/client_model",
            "proto/opentelemetry-proto",
        ],
        extent: Extent::Whole,
    },
    // What is special about Google's: packages in a circle, public imports, names that Rust has taken,
    // packages within each other.
    Interface {
        name: "google-sample",
        package: "google-cloud-googleapis",
        roots: &["googleapis"],
        extent: Extent::Folders(&[
            "grafeas",
            "google/api/expr",
            "google/spanner/v1",
            "google/storage/v2",
            "google/type",
        ]),
    },
    Interface {
        name: "googleapis",
        package: "google-cloud-googleapis",
        roots: &["googleapis"],
        extent: Extent::Large,
    },
];

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let done = match wanted.as_slice() {
        [flag, folder] if flag == "--tree" => run_tree(Path::new(folder)),
        names => match names.iter().find(|name| !is_known(name)) {
            Some(unknown) => {
                let names = INTERFACES.map(|interface| interface.name).join(", ");
                eprintln!("error: there is no interface named {unknown}; there are {names}, all");
                eprintln!("hint: --tree DIR for a folder of .proto files");
                return ExitCode::from(2);
            }
            None => run(names),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_known(name: &str) -> bool {
    name == "all" || INTERFACES.iter().any(|interface| interface.name == name)
}

fn run(wanted: &[String]) -> Result<(), Box<dyn Error>> {
    let repository = repository()?;
    let metadata = metadata()?;
    for interface in &INTERFACES {
        let is_wanted = match wanted {
            [] => interface.extent != Extent::Large,
            names => names.iter().any(|name| name == "all" || name == interface.name),
        };
        if is_wanted {
            let source = folder(&metadata, interface.package)?;
            let roots: Vec<PathBuf> =
                interface.roots.iter().map(|root| source.join(root)).collect();
            let folders = match interface.extent {
                Extent::Folders(folders) => folders,
                Extent::Whole | Extent::Large => &[""],
            };
            let work = Work { name: interface.name, repository: &repository };
            let generated = work.generate(&roots, folders)?;
            match interface.extent {
                Extent::Whole => work.write_crate(&generated)?,
                Extent::Folders(_) | Extent::Large => work.write_crates(&generated)?,
            }
            work.check()?;
        }
    }
    Ok(())
}

/// All files below this folder, to which import paths are relative.
fn run_tree(folder: &Path) -> Result<(), Box<dyn Error>> {
    let work = Work { name: "tree", repository: &repository()? };
    let generated = work.generate(&[folder.to_owned()], &[""])?;
    work.write_crates(&generated)?;
    work.check()
}

fn repository() -> std::io::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()
}

/// What cargo knows of the crates that carry the files. Fetches them if they are not there.
fn metadata() -> Result<Value, Box<dyn Error>> {
    let manifest =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/interfaces/sources/Cargo.toml");
    let output = cargo()
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo cannot fetch the interfaces: {why}").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Where the sources of this package are.
fn folder(metadata: &Value, package: &str) -> Result<PathBuf, Box<dyn Error>> {
    let packages = metadata["packages"].as_array().ok_or("cargo's answer has no packages")?;
    let manifest = packages
        .iter()
        .find(|found| found["name"] == package)
        .and_then(|found| found["manifest_path"].as_str())
        .ok_or_else(|| format!("cargo does not know {package}"))?;
    Ok(Path::new(manifest).parent().ok_or("a manifest without a folder")?.to_owned())
}

/// What is done for one interface.
struct Work<'a> {
    name: &'a str,
    repository: &'a Path,
}

impl Work<'_> {
    /// Where its crate, or crates, are written.
    fn folder(&self) -> PathBuf {
        self.repository.join("target/interfaces").join(self.name)
    }

    /// Generates for the files of these folders below each root.
    fn generate(&self, roots: &[PathBuf], folders: &[&str]) -> Result<Generated, Box<dyn Error>> {
        let started = Instant::now();
        let mut config = Config::new().include_file("mod.rs");
        let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
        for root in roots {
            config = config.include(root);
            let mut found = Vec::new();
            for folder in folders.iter().map(|folder| root.join(folder)) {
                find_protos(&folder, &mut found)?;
            }
            // A name that two roots have is that of the first, as for the compiler.
            files.extend(found.into_iter().filter(|file| {
                file.strip_prefix(root).is_ok_and(|name| seen.insert(name.to_owned()))
            }));
        }
        let generated = config.generate(&files)?;
        let lines: usize = generated.files.values().map(|text| text.lines().count()).sum();
        println!(
            "{}: {} files, {} packages, {lines} lines of Rust in {:.1} s",
            self.name,
            generated.inputs.len(),
            generated.files.len() - 1,
            started.elapsed().as_secs_f64()
        );
        Ok(generated)
    }

    /// Writes all of it as one crate.
    fn write_crate(&self, generated: &Generated) -> Result<(), Box<dyn Error>> {
        let to = self.folder();
        generated.write_to(&to.join("src/generated"))?;
        let stubborn = self.repository.join("crates/stubborn");
        fs::write(
            to.join("Cargo.toml"),
            format!(
                "[package]\nname = \"interface-{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
                 [dependencies]\nstubborn = {{ path = {stubborn:?} }}\n\n[workspace]\n",
                self.name
            ),
        )?;
        fs::write(
            to.join("src/lib.rs"),
            "#![allow(deprecated, clippy::all, rustdoc::all)]\ninclude!(\"generated/mod.rs\");\n",
        )?;
        Ok(self.write_lock()?)
    }

    /// Writes it as a workspace.
    fn write_crates(&self, generated: &Generated) -> Result<(), Box<dyn Error>> {
        let stubborn = self.repository.join("crates/stubborn");
        let crates = split::write(generated, &stubborn, &self.folder())?;
        println!("{}: {crates} crates", self.name);
        Ok(self.write_lock()?)
    }

    /// The versions that this repository is built with.
    fn write_lock(&self) -> std::io::Result<()> {
        let lock = self.folder().join("Cargo.lock");
        fs::copy(self.repository.join("Cargo.lock"), lock).map(|_| ())
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        let status = cargo()
            .args(["check", "--quiet", "--workspace", "--keep-going", "--manifest-path"])
            .arg(self.folder().join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", self.repository.join("target/interfaces/target"))
            .status()?;
        if !status.success() {
            return Err(format!("what was generated for {} does not compile", self.name).into());
        }
        println!("{}: compiles, in {:.1} s", self.name, started.elapsed().as_secs_f64());
        Ok(())
    }
}

fn find_protos(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
