//! Network namespaces of this program.

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// All names begin so, then comes the process that made them.
const PREFIX: &str = "stubborn-link-";

/// Namespaces that are to be removed when the program ends.
static ALIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Why this machine cannot have a path, in words for its user.
#[derive(Debug)]
pub struct Unavailable(pub(crate) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// A network namespace with a name. When it is dropped, the processes in it are killed and it is
/// removed.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// If there is no program `ip`, or this user may not make namespaces.
    pub(crate) fn new() -> Result<Self, Unavailable> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        // Noted first, so that an interrupt in between does not leave it behind.
        alive().push(name.clone());
        let namespace = Self { name };
        ip(&["netns", "add", &namespace.name])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The words before a command line that let it run in this namespace.
    pub fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).into()
    }

    /// A command that will run in this namespace. Its process is the program's own.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }

    /// Runs `ip` with these arguments in this namespace.
    pub(crate) fn ip(&self, args: &[&str]) -> Result<(), Unavailable> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Sets a kernel parameter of this namespace, for example `net.ipv4.tcp_congestion_control`.
    ///
    /// # Errors
    /// If the kernel refuses, for example because the module of a congestion control is missing.
    pub fn set(&self, parameter: &str, value: &str) -> Result<(), Unavailable> {
        let file = format!("/proc/sys/{}", parameter.replace('.', "/"));
        let script = "printf %s \"$1\" > \"$2\"";
        let mut command = self.command("sh");
        run(command.args(["-c", script, "sh", value, &file]))
            .map_err(|why| Unavailable(format!("cannot set {parameter} to {value}: {why}")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut alive = alive();
        if let Some(index) = alive.iter().position(|name| *name == self.name) {
            remove(&alive.swap_remove(index));
        }
    }
}

/// Removes all namespaces of this process. For the end of the program: what uses them breaks.
pub(crate) fn remove_all() {
    for name in std::mem::take(&mut *alive()) {
        remove(&name);
    }
}

/// Removes the namespaces of processes that are gone: those that were killed before they could
/// clean up.
pub(crate) fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(pid) = owner.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        if test_kill_process(pid).is_err() {
            remove(&name);
        }
    }
}

fn alive() -> std::sync::MutexGuard<'static, Vec<String>> {
    ALIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Kills the processes in a namespace and removes it. Nothing can be done about failures.
fn remove(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
    let pids = pids.map(|output| output.stdout).unwrap_or_default();
    let pids = String::from_utf8_lossy(&pids);
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw)
    {
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = ip(&["netns", "del", name]);
}

/// Runs `ip` in the namespace of this process.
pub(crate) fn ip(args: &[&str]) -> Result<(), Unavailable> {
    run(Command::new("ip").args(args))
        .map_err(|why| Unavailable(format!("`ip {}` failed: {why}", args.join(" "))))
}

/// Runs a command that prints nothing where it succeeds.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(if why.trim().is_empty() { output.status.to_string() } else { why.trim().to_owned() })
}
