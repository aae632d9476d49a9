//! A crate for each package, since all of a large interface in one is more than a compiler can hold:
//! packages that use each other in a circle share one. A crate shows the packages that it uses where
//! the generated code looks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use prost::Message;
use prost_build::Module;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use stubborn_build::Generated;

/// Packages, and those which each uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Packages that become one crate, and which crates they use, by place in the list.
struct Part {
    name: String,
    packages: Vec<String>,
    uses: BTreeSet<usize>,
}

/// Writes a workspace into this folder: how many crates it has.
pub(crate) fn write(
    generated: &Generated,
    stubborn: &Path,
    to: &Path,
) -> Result<usize, Box<dyn Error>> {
    let parts = parts(&uses(generated)?);
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    fs::create_dir_all(to)?;
    write_if_changed(
        &to.join("Cargo.toml"),
        &format!(
            "[workspace]\nresolver = \"3\"\nmembers = {names:?}\n\n\
             [workspace.dependencies]\nstubborn = {{ path = {stubborn:?} }}\n"
        ),
    )?;
    for part in &parts {
        let folder = to.join(&part.name);
        fs::create_dir_all(folder.join("src"))?;
        write_if_changed(&folder.join("Cargo.toml"), &manifest(part, &names))?;
        write_if_changed(&folder.join("src/lib.rs"), &root(part, &parts))?;
        for package in &part.packages {
            let name = file_name(package);
            write_if_changed(&folder.join("src").join(&name), &generated.files[&name])?;
        }
    }
    Ok(parts.len())
}

/// Leaves a file alone that is as it should be, so that what was checked is not checked again.
fn write_if_changed(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::read(path) {
        Ok(old) if old == text.as_bytes() => Ok(()),
        _ => fs::write(path, text),
    }
}

fn manifest(part: &Part, names: &[&str]) -> String {
    let mut text = format!(
        "[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nstubborn.workspace = true\n",
        part.name
    );
    for used in &part.uses {
        let name = names[*used];
        let _ = writeln!(text, "{name} = {{ path = \"../{name}\" }}");
    }
    text
}

/// The module tree: what is in this crate, and what is shown of others.
fn root(part: &Part, parts: &[Part]) -> String {
    let mut tree = Node::default();
    for package in &part.packages {
        let text = format!("include!(\"{}\");", file_name(package));
        tree.at(package).push(text);
    }
    for used in part.uses.iter().map(|used| &parts[*used]) {
        for package in &used.packages {
            let path = Module::from_protobuf_package_name(package);
            let path: Vec<&str> = std::iter::once(used.name.as_str()).chain(path.parts()).collect();
            tree.at(package).push(format!("pub use ::{}::*;", path.join("::")));
        }
    }
    let mut text = "#![allow(warnings, clippy::all, rustdoc::all)]\n".to_owned();
    tree.write(&mut text);
    text
}

#[derive(Default)]
struct Node {
    content: Vec<String>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn at(&mut self, package: &str) -> &mut Vec<String> {
        let mut node = self;
        for part in Module::from_protobuf_package_name(package).parts() {
            node = node.children.entry(part.to_owned()).or_default();
        }
        &mut node.content
    }

    fn write(&self, text: &mut String) {
        for line in &self.content {
            let _ = writeln!(text, "{line}");
        }
        for (name, node) in &self.children {
            let _ = writeln!(text, "pub mod {name} {{");
            node.write(text);
            text.push_str("}\n");
        }
    }
}

/// Which packages use which, of those that Rust was generated for.
fn uses(generated: &Generated) -> Result<Uses, Box<dyn Error>> {
    let set = FileDescriptorSet::decode(generated.file_descriptor_set.as_slice())?;
    let by_name: BTreeMap<&str, &FileDescriptorProto> =
        set.file.iter().map(|file| (file.name(), file)).collect();
    let mut uses = Uses::new();
    for file in
        set.file.iter().filter(|file| generated.files.contains_key(&file_name(file.package())))
    {
        let used = uses.entry(file.package().to_owned()).or_default();
        for import in &file.dependency {
            note(import, &by_name, used);
        }
    }
    let known: BTreeSet<String> = uses.keys().cloned().collect();
    for (package, used) in &mut uses {
        used.retain(|other| other != package && known.contains(other));
    }
    Ok(uses)
}

/// What an import gives: its package, and what it imports publicly.
fn note(file: &str, files: &BTreeMap<&str, &FileDescriptorProto>, used: &mut BTreeSet<String>) {
    let file = files[file];
    used.insert(file.package().to_owned());
    for public in &file.public_dependency {
        let index = usize::try_from(*public).expect("an index");
        note(&file.dependency[index], files, used);
    }
}

fn file_name(package: &str) -> String {
    let module = Module::from_protobuf_package_name(package);
    let parts: Vec<&str> = module.parts().map(|part| part.trim_start_matches("r#")).collect();
    if parts.is_empty() { "_.rs".into() } else { format!("{}.rs", parts.join(".")) }
}

/// Circles of packages, as crates.
fn parts(uses: &Uses) -> Vec<Part> {
    let mut search = Search { uses, order: BTreeMap::new(), open: Vec::new(), circles: Vec::new() };
    for package in uses.keys() {
        search.visit(package);
    }
    let circles = search.circles;
    let place: BTreeMap<&str, usize> = circles
        .iter()
        .enumerate()
        .flat_map(|(place, circle)| circle.iter().map(move |package| (*package, place)))
        .collect();
    let mut taken = BTreeSet::new();
    circles
        .iter()
        .enumerate()
        .map(|(own, circle)| {
            let first = circle[0].replace('.', "_").to_lowercase();
            let mut name = format!("p_{first}");
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            let used = circle.iter().flat_map(|package| &uses[*package]);
            let used = used.map(|package| place[package.as_str()]).filter(|used| *used != own);
            Part {
                name,
                packages: circle.iter().map(|package| (*package).to_owned()).collect(),
                uses: used.collect(),
            }
        })
        .collect()
}

/// Tarjan's search for strongly connected components.
struct Search<'a> {
    uses: &'a Uses,
    /// When a package was first seen; `usize::MAX` once its circle is known.
    order: BTreeMap<&'a str, usize>,
    open: Vec<&'a str>,
    circles: Vec<Vec<&'a str>>,
}

impl<'a> Search<'a> {
    /// The earliest package that can be reached from this one.
    fn visit(&mut self, package: &'a str) -> usize {
        if let Some(seen) = self.order.get(package) {
            return *seen;
        }
        let own = self.order.len();
        self.order.insert(package, own);
        self.open.push(package);
        let mut earliest = own;
        for used in &self.uses[package] {
            earliest = earliest.min(self.visit(used));
        }
        if earliest == own {
            let start = self.open.iter().rposition(|open| *open == package).expect("it is open");
            let mut circle = self.open.split_off(start);
            for done in &circle {
                self.order.insert(done, usize::MAX);
            }
            circle.sort_unstable();
            self.circles.push(circle);
        }
        earliest
    }
}
