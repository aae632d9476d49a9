//! `stubborn backup DIR FILE`

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;
use stubborn_store::backup::back_up;

use crate::error::Error;
use crate::folders::{self, bytes};
use crate::output::Output;
use crate::private;

/// Back up the data of a node that is stopped into one file.
///
/// The file has the state machine and all entries after it, with checksums; `stubborn restore` makes
/// a new group of it. It is as confidential as the data itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data folder of the node.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// The file to write. It must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let path = folders::find_one(&args.folder)?;
    if args.file.exists() {
        return Err(Error::usage(format!("{} exists", args.file.display()))
            .with_hint("name a file that does not"));
    }
    let folder = folders::open(&path)?;
    // A backup has its name only once it is whole.
    let aside = aside(&args.file);
    private::write(&aside, "").map_err(|e| Error::io("write", &aside, &e))?;
    let written = File::options()
        .write(true)
        .open(&aside)
        .map_err(|e| Error::io("write", &aside, &e))
        .and_then(|file| write(&path, &folder, file))
        .and_then(|written| {
            fs::rename(&aside, &args.file).map_err(|e| Error::io("write", &args.file, &e))?;
            Ok(written)
        });
    let (group, last) = written.inspect_err(|_| {
        let _ = fs::remove_file(&aside);
    })?;
    let size = fs::metadata(&args.file).map(|file| file.len()).unwrap_or_default();
    let shown = args.file.display().to_string();
    out.line(format_args!(
        "{shown}: group {group:016x} up to entry {last}, {}; restore it with: stubborn restore \
         {shown} --data NEW_DIR",
        bytes(size)
    ));
    out.json(&json!({
        "file": shown,
        "group": format!("{group:016x}"),
        "last": last,
        "bytes": size,
    }));
    Ok(())
}

/// Writes and syncs the backup; says which group's it is, and its last entry.
fn write(path: &Path, folder: &stubborn_store::Folder, file: File) -> Result<(u64, u64), Error> {
    let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let out = BufWriter::new(&file);
    let (info, last) = back_up(folder, out, made.as_secs(), |_| {})
        .map_err(|error| folders::told(path, &error))?;
    file.sync_all().map_err(|e| Error::internal(format!("cannot sync the backup: {e}")))?;
    Ok((info.group, last.index))
}

fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}
