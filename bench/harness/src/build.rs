//! Builds the programs of the systems that are asked for, and no others.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::catalogue::System;

/// Builds them, and returns where they are.
///
/// # Errors
/// If cargo fails; it has said why.
pub(crate) fn programs(workspace: &Path, systems: &[&System]) -> Result<PathBuf, String> {
    let mut packages: Vec<_> = systems.iter().map(|system| system.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--release", "--locked"]);
    for package in &packages {
        command.args(["--package", package]);
    }
    let status = command.status().map_err(|e| format!("cannot start cargo: {e}"))?;
    if !status.success() {
        return Err(format!(
            "cargo could not build {}; leave a system out with --systems",
            packages.join(", ")
        ));
    }
    let directory = std::env::current_exe().map_err(|e| e.to_string())?;
    Ok(directory.parent().map(Path::to_owned).unwrap_or_default())
}
