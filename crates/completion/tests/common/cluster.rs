//! A PostgreSQL of the tests' own: real server processes in a folder that goes with them, on a Unix
//! socket. It is stopped when the test process ends, however that ends.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The programs of a PostgreSQL server, the newest that is installed; `None` if there is none.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// A command as a user that PostgreSQL runs as: it refuses to be root.
fn as_plain_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
    command
}

/// A server that runs as long as this process.
struct Cluster {
    socket: String,
    /// Ends the server when the pipe to it is closed.
    _keeper: Child,
}

/// Where its socket is; a cluster that was started once for all tests of this process. `None`, said
/// loudly, if there is no PostgreSQL here; in continuous integration that is a failure.
pub fn cluster() -> Option<&'static str> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| match programs() {
        Some(bin) => Some(start(&bin)),
        None if std::env::var_os("STUBBORN_NEEDS_POSTGRES").is_some() => {
            panic!("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
        }
        None => None,
    });
    if cluster.is_none() {
        eprintln!(
            "NOT TESTED: PostgreSQL is not installed here (Debian: apt-get install postgresql)"
        );
    }
    cluster.as_ref().map(|cluster| &cluster.socket[..])
}

/// The address of a new and empty database.
pub fn fresh_database() -> Option<String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let socket = cluster()?;
    let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let bin = programs()?;
    let made = Command::new(bin.join("createdb"))
        .args(["-h", socket, "-U", "tester", &name])
        .status()
        .expect("createdb runs");
    assert!(made.success(), "createdb {name}");
    Some(format!("postgres://tester@localhost/{name}?host={socket}"))
}

fn start(bin: &Path) -> Cluster {
    let folder = tempfile::Builder::new().prefix("stubborn-pg-").tempdir().expect("a folder");
    // The server's user must own it, and its name must fit into a socket's address.
    let folder = folder.keep();
    let path = folder.to_str().expect("a plain path").to_owned();
    if is_root() {
        std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).expect("chown");
    }
    let data = folder.join("data");
    let made = as_plain_user(&bin.join("initdb"))
        .args(["-A", "trust", "-U", "tester", "-N", "--locale=C", "-E", "UTF8", "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()
        .expect("initdb runs");
    assert!(made.success(), "initdb in {path}");
    // A shell waits for the end of this process, told by its end of the pipe, then ends the server
    // and removes the folder.
    let script = format!(
        "'{bin}/postgres' -D '{path}/data' -k '{path}' -c listen_addresses= -c fsync=off \
         -c max_connections=200 >'{path}/log' 2>&1 & server=$!; cat >/dev/null; \
         kill -INT $server; wait $server; rm -rf '{path}'",
        bin = bin.display(),
    );
    let keeper = as_plain_user(Path::new("/bin/sh"))
        .args(["-c", &script])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let ready = || {
        Command::new(bin.join("pg_isready"))
            .args(["-q", "-h", &path, "-U", "tester", "-d", "postgres"])
            .status()
            .is_ok_and(|status| status.success())
    };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !ready() {
        assert!(std::time::Instant::now() < until, "PostgreSQL does not start: see {path}/log");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Cluster { socket: path, _keeper: keeper }
}
