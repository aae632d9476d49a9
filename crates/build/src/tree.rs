//! The module tree that follows the packages, and the names of their files.

use std::fmt::Write;

use prost_build::Module;

/// The file of a package: `bank.v1.rs`, and `_.rs` for the package without a name.
pub(crate) fn file_name(module: &Module) -> String {
    let parts: Vec<_> = module.parts().map(|p| p.trim_start_matches("r#")).collect();
    if parts.is_empty() { "_.rs".into() } else { format!("{}.rs", parts.join(".")) }
}

/// Modules that include the files of these packages, nested as the packages are.
pub(crate) fn modules(packages: Vec<Vec<String>>) -> String {
    let mut out = String::from(crate::polish::HEADER);
    let mut packages = packages;
    packages.sort();
    let mut open: Vec<String> = Vec::new();
    for package in packages {
        let common = open.iter().zip(&package).take_while(|(a, b)| a == b).count();
        close(&mut out, &mut open, common);
        for part in &package[common..] {
            let indent = "    ".repeat(open.len());
            let is_root = open.is_empty();
            open.push(part.clone());
            let name = open.join(".").replace("r#", "");
            let _ = writeln!(out, "{indent}/// Package `{name}`.");
            if is_root {
                // Not all of it is used by everybody, and names and shapes come from elsewhere.
                out.push_str("#[allow(clippy::all, dead_code, unreachable_pub)]\n");
            }
            let _ = writeln!(out, "{indent}pub mod {part} {{");
        }
        let indent = "    ".repeat(open.len());
        let file = file_name(&Module::from_parts(package));
        let _ = writeln!(out, "{indent}include!(\"{file}\");");
    }
    close(&mut out, &mut open, 0);
    out
}

fn close(out: &mut String, open: &mut Vec<String>, depth: usize) {
    while open.len() > depth {
        open.pop();
        let _ = writeln!(out, "{}}}", "    ".repeat(open.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_share_a_prefix_are_nested_once() {
        let package = |p: &str| crate::names::module_path(p);
        let packages = vec![package("a.bc"), package("a.b.c"), package(""), package("a.b")];
        let got = modules(packages);
        let lines: Vec<_> = got
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with("//") && !l.starts_with('#'))
            .collect();
        let expected = [
            "include!(\"_.rs\");",
            "pub mod a {",
            "pub mod b {",
            "include!(\"a.b.rs\");",
            "pub mod c {",
            "include!(\"a.b.c.rs\");",
            "}",
            "}",
            "pub mod bc {",
            "include!(\"a.bc.rs\");",
            "}",
            "}",
        ];
        assert_eq!(lines, expected);
    }
}
