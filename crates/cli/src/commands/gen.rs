//! `stubborn gen FILES`

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use stubborn_build::{Config, Generated};

use crate::error::{Error, Exit};
use crate::output::{Output, Style};

/// Generate Rust from .proto files.
///
/// The same as `stubborn_build` does in a build script, for projects that commit what is generated.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The .proto files; what they import is generated too.
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// Where to write. Existing files are replaced.
    #[arg(short, long, value_name = "DIR", default_value = "src/generated")]
    out: PathBuf,

    /// Look for files and imports here; without this, where the files are.
    #[arg(short = 'I', long, value_name = "DIR")]
    include: Vec<PathBuf>,

    /// Write nothing: fail if what is there differs from what would be written.
    #[arg(long)]
    check: bool,

    /// Generate no clients.
    #[arg(long)]
    no_client: bool,

    /// Generate no server traits.
    #[arg(long)]
    no_server: bool,

    /// Generate no `connect` function in clients.
    #[arg(long)]
    no_connect: bool,

    /// The path of the runtime crate in generated code.
    #[arg(long, value_name = "PATH", default_value = "::stubborn")]
    runtime: String,

    /// Use types that exist already: `common.v1=::common::v1`.
    #[arg(long = "extern", value_name = "PROTO=RUST", value_parser = pair)]
    externs: Vec<(String, String)>,

    /// Give a service or a method another name in Rust: `bank.v1.Bank/new=open`.
    #[arg(long = "rename", value_name = "PROTO=RUST", value_parser = pair)]
    renames: Vec<(String, String)>,

    /// Add an attribute to types: `bank.v1.Account=#[derive(Eq)]`; `.` is every type.
    #[arg(long = "type-attribute", value_name = "PATH=ATTRIBUTE", value_parser = pair)]
    type_attributes: Vec<(String, String)>,

    /// Add an attribute to fields: `bank.v1.Account.name=#[serde(skip)]`.
    #[arg(long = "field-attribute", value_name = "PATH=ATTRIBUTE", value_parser = pair)]
    field_attributes: Vec<(String, String)>,

    /// Make map fields BTreeMaps; `.` is every field.
    #[arg(long = "btree-map", value_name = "PATH")]
    btree_maps: Vec<String>,

    /// Make bytes fields `Bytes`; `.` is every field.
    #[arg(long, value_name = "PATH")]
    bytes: Vec<String>,

    /// Also write the encoded FileDescriptorSet of all files.
    #[arg(long, value_name = "FILE")]
    descriptor_set: Option<PathBuf>,

    /// The name of the file with the module tree.
    #[arg(long, value_name = "NAME", default_value = "mod.rs")]
    include_file: String,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let generated = config(&args).generate(&args.files)?;
    let stale = stale(&generated, &args);
    if args.check {
        return report_check(&stale, out);
    }
    generated.write_to(&args.out)?;
    if let Some(path) = &args.descriptor_set {
        fs::write(path, &generated.file_descriptor_set)
            .map_err(|e| Error::io("write", path, &e))?;
    }
    for path in generated.files.keys().map(|name| args.out.join(name)) {
        let change = if stale.contains(&path) { "wrote" } else { "unchanged" };
        out.line(format_args!("{} {}", out.paint(Style::Faint, change), path.display()));
    }
    out.json(&json!({
        "files": generated.files.keys().map(|name| args.out.join(name)).collect::<Vec<_>>(),
        "changed": stale,
        "inputs": generated.inputs,
    }));
    Ok(())
}

fn config(args: &Args) -> Config {
    let mut config = Config::new()
        .runtime(&args.runtime)
        .include_file(&args.include_file)
        .client(!args.no_client)
        .server(!args.no_server)
        .connect(!args.no_connect);
    for directory in &args.include {
        config = config.include(directory);
    }
    for (proto, rust) in &args.externs {
        config = config.extern_path(proto, rust);
    }
    for (proto, rust) in &args.renames {
        config = config.rename(proto, rust);
    }
    for (path, attribute) in &args.type_attributes {
        config = config.type_attribute(path, attribute);
    }
    for (path, attribute) in &args.field_attributes {
        config = config.field_attribute(path, attribute);
    }
    for path in &args.btree_maps {
        config = config.btree_map(path);
    }
    args.bytes.iter().fold(config, |config, path| config.bytes(path))
}

/// The files that are not there as they should be.
fn stale(generated: &Generated, args: &Args) -> Vec<PathBuf> {
    let differs = |path: &Path, content: &[u8]| fs::read(path).map_or(true, |old| old != content);
    let files = generated.files.iter().map(|(name, text)| (args.out.join(name), text.as_bytes()));
    let set = &generated.file_descriptor_set;
    let set = args.descriptor_set.iter().map(|path| (path.clone(), set.as_slice()));
    files
        .chain(set)
        .filter(|(path, content)| differs(path, content))
        .map(|(path, _)| path)
        .collect()
}

fn report_check(stale: &[PathBuf], out: &Output) -> Result<(), Error> {
    if stale.is_empty() {
        out.line(format_args!("{}", out.paint(Style::Good, "fresh")));
        out.json(&json!({ "fresh": true, "stale": [] }));
        return Ok(());
    }
    let names: Vec<_> = stale.iter().map(|p| p.display().to_string()).collect();
    Err(Error::new(Exit::Failed, format!("not fresh: {}", names.join(", ")))
        .with_hint("write them with the same command without --check")
        .with("stale", names))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("expected two parts with '=' between them".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_split_at_its_first_sign() {
        assert_eq!(pair("a=#[x = 1]"), Ok(("a".into(), "#[x = 1]".into())));
        assert!(pair("a").is_err());
        assert!(pair("=b").is_err());
    }
}
