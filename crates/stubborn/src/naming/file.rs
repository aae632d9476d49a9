//! A file that lists the servers of a service.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{Target, parse_target};
use super::{MAX_ADDRESSES, Resolver, Resolving, system};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A file with a `HOST[:PORT]` in each line; what follows a `#` is left aside. It is read again every
/// second, so that it may also be put in place by a rename, or lie behind a link that is turned (as
/// Kubernetes does with its ConfigMaps). A file that is gone or cannot be understood changes nothing.
#[derive(Debug)]
pub struct HostsFile {
    path: PathBuf,
    /// What it said when its hosts were told.
    told: Option<Vec<u8>>,
}

impl HostsFile {
    /// The servers that the file at this path lists.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), told: None }
    }
}

impl Resolver for HostsFile {
    fn next(&mut self) -> Resolving<'_> {
        Box::pin(async {
            loop {
                let text = read(self.path.clone()).await?;
                if self.told.as_ref() != Some(&text) {
                    let targets = parse(&self.path, &text)?;
                    let found = system::look_up(&targets).await?;
                    self.told = Some(text);
                    return Ok(found);
                }
                tokio::time::sleep(EVERY).await;
            }
        })
    }

    fn look_again(&mut self) {
        // Names in it may have moved.
        self.told = None;
    }
}

async fn read(path: PathBuf) -> io::Result<Vec<u8>> {
    let reading = tokio::task::spawn_blocking(move || {
        let named = |error: io::Error| io::Error::new(error.kind(), explain(&path, &error));
        let mut text = Vec::new();
        // Opening a FIFO would wait for somebody who writes to it.
        if !std::fs::metadata(&path).map_err(named)?.is_file() {
            let why = explain(&path, &"no regular file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let file = std::fs::File::open(&path).map_err(named)?;
        io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE + 1), &mut text).map_err(named)?;
        if text.len() as u64 > MAX_FILE {
            let why = format!("more than {MAX_FILE} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, explain(&path, &why)));
        }
        Ok(text)
    });
    reading.await.map_err(io::Error::other)?
}

fn parse(path: &Path, text: &[u8]) -> io::Result<Vec<Target>> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, explain(path, &why));
    let text = std::str::from_utf8(text).map_err(|_| wrong("it is no text".into()))?;
    let mut targets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let host = line.split('#').next().unwrap_or_default().trim();
        if host.is_empty() {
            continue;
        }
        targets.push(parse_target(host).map_err(|why| wrong(format!("line {number}: {why}")))?);
    }
    match targets.len() {
        0 => Err(wrong("it lists no host".into())),
        1..=MAX_ADDRESSES => Ok(targets),
        _ => Err(wrong(format!("it lists more than {MAX_ADDRESSES} hosts"))),
    }
}

fn explain(path: &Path, why: &impl std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, HostsFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, text).unwrap();
        (folder, HostsFile::new(path))
    }

    #[tokio::test]
    async fn each_line_is_a_host_and_comments_are_left_aside() {
        let (_folder, mut file) = file("# the bank\n127.0.0.1:1\n\n 127.0.0.2:2 # spare\n");
        let found = file.next().await.unwrap();
        assert_eq!(found, ["127.0.0.1:1".parse().unwrap(), "127.0.0.2:2".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_file_put_in_its_place_by_a_rename_is_noticed() {
        let (folder, mut file) = file("127.0.0.1:1");
        file.next().await.unwrap();
        let new = folder.path().join("new");
        std::fs::write(&new, "127.0.0.1:2").unwrap();
        std::fs::rename(new, folder.path().join("hosts")).unwrap();
        assert_eq!(file.next().await.unwrap(), ["127.0.0.1:2".parse().unwrap()]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_said_with_path_and_line() {
        for (text, why) in [
            ("127.0.0.1:1\na b", "line 2"),
            ("# nothing", "lists no host"),
            (&"127.0.0.1\n".repeat(65), "more than 64"),
            (&"#".repeat(70_000), "more than 65536 bytes"),
        ] {
            let (_folder, mut file) = file(text);
            let error = file.next().await.unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("hosts"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let error = HostsFile::new(folder.path()).next().await.unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        let mut missing = HostsFile::new("/nowhere/hosts");
        assert_eq!(missing.next().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
