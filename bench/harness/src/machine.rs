//! What the figures were taken on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::results::Machine;

/// This machine, and the commit that is checked out in this directory.
pub(crate) fn describe(repository: &Path) -> Machine {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches([':', ' ', '\t']).trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kilobytes: f64 =
        memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    Machine {
        processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gib: (kilobytes / f64::from(1 << 20) * 10.0).round() / 10.0,
        kernel: field(&read("/proc/sys/kernel/osrelease"), "").unwrap_or_else(unknown),
        rustc: output(repository, "rustc", &["--version"]).unwrap_or_else(unknown),
        commit: output(repository, "git", &["rev-parse", "--short=12", "HEAD"]),
    }
}

fn output(directory: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(directory).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
