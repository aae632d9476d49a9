//! Generates stubs for large public interfaces and compiles them: `cargo run --release -p
//! stubborn-build --example interfaces`, or with names of those that are wanted, or `all`.
//!
//! The `.proto` files come out of crates that carry them (`sources/Cargo.toml`). What is generated
//! is left in `target/interfaces`, a crate for each interface.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde_json::Value;
use stubborn_build::Config;

/// One interface: where its files are.
struct Interface {
    name: &'static str,
    package: &'static str,
    /// Folders within the package to which import paths are relative.
    roots: &'static [&'static str],
    /// Takes minutes and much memory to compile: only if it is asked for.
    large: bool,
}

const INTERFACES: [Interface; 5] = [
    Interface { name: "etcd", package: "etcd-client", roots: &["proto"], large: false },
    Interface {
        name: "opentelemetry",
        package: "opentelemetry-proto",
        roots: &["src/proto/opentelemetry-proto"],
        large: false,
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
        large: false,
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
        large: false,
    },
    Interface {
        name: "googleapis",
        package: "google-cloud-googleapis",
        roots: &["googleapis"],
        large: true,
    },
];

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).collect();
    if let Some(unknown) =
        wanted.iter().find(|name| *name != "all" && INTERFACES.iter().all(|i| i.name != **name))
    {
        let names = INTERFACES.map(|interface| interface.name).join(", ");
        eprintln!("error: there is no interface named {unknown}; there are {names}, and all");
        return ExitCode::from(2);
    }
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String]) -> Result<(), Box<dyn Error>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let target = repository.join("target/interfaces");
    let metadata = metadata()?;
    for interface in &INTERFACES {
        let is_wanted = match wanted {
            [] => !interface.large,
            names => names.iter().any(|name| name == "all" || name == interface.name),
        };
        if is_wanted {
            let source = folder(&metadata, interface.package)?;
            let crate_folder = target.join(interface.name);
            generate(interface, &source, &crate_folder)?;
            write_crate(interface, &repository, &crate_folder)?;
            check(interface, &repository, &crate_folder)?;
        }
    }
    Ok(())
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

fn generate(interface: &Interface, source: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let roots: Vec<PathBuf> = interface.roots.iter().map(|root| source.join(root)).collect();
    let mut config = Config::new().include_file("mod.rs");
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    for root in &roots {
        config = config.include(root);
        let mut found = Vec::new();
        find_protos(root, &mut found)?;
        // A name that two roots have is that of the first, as for the compiler.
        files.extend(
            found.into_iter().filter(|file| {
                file.strip_prefix(root).is_ok_and(|name| seen.insert(name.to_owned()))
            }),
        );
    }
    let generated = config.generate(&files)?;
    generated.write_to(&to.join("src/generated"))?;
    let lines: usize = generated.files.values().map(|text| text.lines().count()).sum();
    println!(
        "{}: {} files, {} packages, {lines} lines of Rust in {:.1} s",
        interface.name,
        files.len(),
        generated.files.len() - 1,
        started.elapsed().as_secs_f64()
    );
    Ok(())
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

fn write_crate(interface: &Interface, repository: &Path, to: &Path) -> std::io::Result<()> {
    let stubborn = repository.join("crates/stubborn");
    fs::write(
        to.join("Cargo.toml"),
        format!(
            "[package]\nname = \"interface-{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [dependencies]\nstubborn = {{ path = {stubborn:?} }}\n\n[workspace]\n",
            interface.name
        ),
    )?;
    // The versions that this repository is built with.
    fs::copy(repository.join("Cargo.lock"), to.join("Cargo.lock"))?;
    fs::write(
        to.join("src/lib.rs"),
        "#![allow(deprecated, clippy::all, rustdoc::all)]\ninclude!(\"generated/mod.rs\");\n",
    )
}

fn check(interface: &Interface, repository: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let status = cargo()
        .args(["check", "--quiet", "--manifest-path"])
        .arg(to.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", repository.join("target/interfaces/target"))
        .status()?;
    if !status.success() {
        return Err(format!("what was generated for {} does not compile", interface.name).into());
    }
    println!("{}: compiles, in {:.1} s", interface.name, started.elapsed().as_secs_f64());
    Ok(())
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
