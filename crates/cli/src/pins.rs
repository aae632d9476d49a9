//! What servers of this machine leave for programs of the same user: their key, or the folder of
//! their cluster with a client's certificate. An address of the loopback interface is then enough to
//! reach them, as safely as with the pin in the address.
//!
//! A file for each address, in a directory that belongs to the user and that nobody else may enter.
//! Whoever could put a wrong key there can run programs as the user anyway; so what is found there
//! says as much as what the user has copied. Without such a directory nothing is left and nothing
//! is believed.
//!
//! A server that is killed cannot remove what it left. So a note names its process in its first line,
//! and that of a process which is gone is not believed.

mod author;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use stubborn::Fingerprint;

use self::author::Author;
use crate::private;

/// What was left; it is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Left {
    path: PathBuf,
    text: String,
}

/// Leaves the key of a server that listens on `local`. `None` where other machines could be meant,
/// or where there is no private place for it.
pub(crate) fn leave(local: SocketAddr, pin: Fingerprint) -> Option<Left> {
    leave_in(&directory()?, local, pin)
}

/// The key that a server of this user has left for the address HOST:PORT.
pub(crate) fn find(address: &str) -> Option<Fingerprint> {
    find_in(&directory()?, address)
}

/// Leaves the folder of the cluster of which a node listens on `local`.
pub(crate) fn leave_folder(local: SocketAddr, folder: &Path) -> Option<Left> {
    write_in(&directory()?, local, "cluster", fs::canonicalize(folder).ok()?.to_str()?)
}

/// The folder of the cluster of which a node of this user listens on the address HOST:PORT.
pub(crate) fn find_folder(address: &str) -> Option<PathBuf> {
    read_in(&directory()?, address, "cluster").map(PathBuf::from)
}

fn leave_in(directory: &Path, local: SocketAddr, pin: Fingerprint) -> Option<Left> {
    write_in(directory, local, "pin", &pin.to_string())
}

fn find_in(directory: &Path, address: &str) -> Option<Fingerprint> {
    read_in(directory, address, "pin")?.parse().ok()
}

fn write_in(directory: &Path, local: SocketAddr, kind: &str, text: &str) -> Option<Left> {
    let path = directory.join(name(local, kind)?);
    private::make_directory(directory).ok()?;
    if !private::is_private(directory) {
        return None;
    }
    // Under another name first, so that nobody reads half a key.
    let new = directory.join(format!(".{}", std::process::id()));
    let text = format!("{}\n{text}", Author::own());
    let written = private::write(&new, &text).and_then(|()| fs::rename(&new, &path));
    written.ok().map(|()| Left { path, text })
}

fn read_in(directory: &Path, address: &str, kind: &str) -> Option<String> {
    let path = directory.join(name(parse(address)?, kind)?);
    if !private::is_private(directory) || !private::is_private(&path) {
        return None;
    }
    let note = fs::read_to_string(path).ok()?;
    let (author, text) = note.split_once('\n')?;
    author.parse::<Author>().is_ok_and(Author::is_there).then(|| text.to_owned())
}

impl Drop for Left {
    fn drop(&mut self) {
        // Another server may have the address by now.
        if fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What people write for an address of this machine.
fn parse(address: &str) -> Option<SocketAddr> {
    let address = address.strip_prefix("stubborn://").unwrap_or(address);
    match address.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => address.parse().ok(),
    }
}

/// The file for an address; none for one that other machines could have.
fn name(address: SocketAddr, kind: &str) -> Option<String> {
    let host = match address.ip() {
        ip if !ip.is_loopback() => return None,
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(_) => "v6".to_owned(),
    };
    Some(format!("{host}-{}.{kind}", address.port()))
}

/// `$XDG_RUNTIME_DIR/stubborn`, else one in the directory for temporary files.
#[cfg(unix)]
fn directory() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    Some(match runtime.map(PathBuf::from).filter(|path| private::is_private(path)) {
        Some(runtime) => runtime.join("stubborn"),
        None => std::env::temp_dir().join(format!("stubborn-{}", private::user())),
    })
}

/// Elsewhere it is not known who may enter a directory.
#[cfg(not(unix))]
fn directory() -> Option<PathBuf> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    fn allow(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_found_under_the_address_it_was_left_for_until_its_server_ends() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("stubborn");
        let pin = Fingerprint([7; 32]);
        let left = leave_in(&place, at("127.0.0.1:7500"), pin).unwrap();
        for address in ["127.0.0.1:7500", "localhost:7500", "stubborn://127.0.0.1:7500"] {
            assert_eq!(find_in(&place, address), Some(pin), "{address}");
        }
        for other in ["127.0.0.1:7501", "127.0.0.2:7500", "[::1]:7500", "localhost", "", "x:7500"] {
            assert_eq!(find_in(&place, other), None, "{other}");
        }
        let mode = fs::metadata(&left.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(left);
        assert_eq!(find_in(&place, "127.0.0.1:7500"), None);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn a_server_that_ends_late_leaves_the_key_of_the_next_one() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("stubborn");
        let first = leave_in(&place, at("[::1]:7500"), Fingerprint([1; 32])).unwrap();
        let _second = leave_in(&place, at("[::1]:7500"), Fingerprint([2; 32])).unwrap();
        drop(first);
        assert_eq!(find_in(&place, "[::1]:7500"), Some(Fingerprint([2; 32])));
    }

    #[test]
    fn a_note_of_a_process_that_is_gone_or_does_not_say_whose_it_is_is_not_believed() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("stubborn");
        let pin = Fingerprint([7; 32]);
        let left = leave_in(&place, at("127.0.0.1:7500"), pin).unwrap();
        let note = fs::read_to_string(&left.path).unwrap();
        let write = |author: &str| fs::write(&left.path, format!("{author}{pin}")).unwrap();
        // No process has such a number.
        for author in [&format!("{} 1\n", i32::MAX), "", "\n", "x 1\n"] {
            write(author);
            assert_eq!(find_in(&place, "127.0.0.1:7500"), None, "{author:?}");
        }
        fs::write(&left.path, note).unwrap();
        assert_eq!(find_in(&place, "127.0.0.1:7500"), Some(pin));
    }

    #[test]
    fn nothing_is_left_or_believed_where_others_may_enter() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("stubborn");
        let left = leave_in(&place, at("127.0.0.1:7500"), Fingerprint([7; 32])).unwrap();
        allow(&left.path, 0o644);
        assert_eq!(find_in(&place, "127.0.0.1:7500"), None);
        allow(&left.path, 0o600);
        allow(&place, 0o770);
        assert_eq!(find_in(&place, "127.0.0.1:7500"), None);
        assert!(leave_in(&place, at("127.0.0.1:7501"), Fingerprint([7; 32])).is_none());
        allow(&place, 0o700);
        let link = home.path().join("link");
        symlink(&place, &link).unwrap();
        assert_eq!(find_in(&link, "127.0.0.1:7500"), None);
        assert_eq!(find_in(&place, "127.0.0.1:7500"), Some(Fingerprint([7; 32])));
    }

    #[test]
    fn an_address_of_another_machine_has_no_key() {
        let home = tempfile::tempdir().unwrap();
        for address in ["192.0.2.1:7500", "0.0.0.0:7500", "[2001:db8::1]:7500"] {
            assert!(leave_in(home.path(), at(address), Fingerprint([7; 32])).is_none());
        }
    }
}
