//! `stubborn backup SOURCE FILE`

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use stubborn::ChannelBuilder;
use stubborn::group::{BackupRequest, GroupClient};
use stubborn_store::backup::{BackupInfo, BackupWriter, back_up};
use stubborn_store::replication::{Members, NodeId, Position};

use crate::error::Error;
use crate::folders::{self, bytes};
use crate::output::Output;
use crate::private;
use crate::remote::Access;
use crate::task::block_on;

/// How long a node has for a piece.
const PATIENCE: Duration = Duration::from_secs(30);

/// Back up a cluster that serves, or the data of a node that is stopped, into one file.
///
/// A node that serves gives its state as it is after one entry of the log, and goes on serving; who may
/// call it may do that. Of a node that is stopped the file has the state machine and all entries after
/// it. It has checksums; `stubborn restore` makes a new group of it. It is as confidential as the data
/// itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data folder of a node that is stopped, or the address of one that serves: HOST:PORT.
    #[arg(value_name = "SOURCE")]
    source: String,

    /// The file to write. It must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    if args.file.exists() {
        return Err(Error::usage(format!("{} exists", args.file.display()))
            .with_hint("name a file that does not"));
    }
    let source = Path::new(&args.source);
    let folder = match source.is_dir() {
        true => {
            let path = folders::find_one(source)?;
            Some((folders::open(&path)?, path))
        }
        false => None,
    };
    // A backup has its name only once it is whole.
    let aside = aside(&args.file);
    private::write(&aside, "").map_err(|e| Error::io("write", &aside, &e))?;
    let written = File::options()
        .write(true)
        .open(&aside)
        .map_err(|e| Error::io("write", &aside, &e))
        .and_then(|file| match &folder {
            Some((folder, path)) => write(path, folder, file),
            None => block_on(fetch(&args, file, out)),
        })
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
    let out = BufWriter::new(&file);
    let (info, last) =
        back_up(folder, out, now(), |_| {}).map_err(|error| folders::told(path, &error))?;
    file.sync_all().map_err(|e| Error::internal(format!("cannot sync the backup: {e}")))?;
    Ok((info.group, last.index))
}

/// Fetches the state of a node that serves, piece by piece.
async fn fetch(args: &Args, file: File, shown: &Output) -> Result<(u64, u64), Error> {
    let link = args.access.connect_with(&args.source, ChannelBuilder::reads_only).await?;
    let client = GroupClient::new(link.channel());
    let first = client.backup(BackupRequest::default()).deadline(PATIENCE).await?;
    let nodes = |numbers: &[u64]| numbers.iter().copied().filter_map(NodeId::new).collect();
    let members = Members {
        voters: nodes(&first.voters),
        learners: nodes(&first.learners),
        ..Members::default()
    };
    let node = NodeId::new(first.node).ok_or_else(|| Error::internal("the node has no number"))?;
    let at = Position { index: first.index, term: first.term };
    let info = BackupInfo { group: first.group, node, made: now(), at, members };
    let failed = |error: std::io::Error| Error::io("write", &args.file, &error);
    let mut writer = BackupWriter::begin(BufWriter::new(&file), &info).map_err(failed)?;
    writer.state(&first.piece).map_err(failed)?;
    let mut offset = first.piece.len() as u64;
    let mut total = first.total;
    let bar = progress(shown);
    while total == 0 || offset < total {
        let request = BackupRequest { backup: first.backup, offset };
        let reply = client.backup(request).deadline(PATIENCE).await?;
        if reply.piece.is_empty() && reply.total != offset {
            return Err(Error::internal("the node gave an empty piece of the backup"));
        }
        writer.state(&reply.piece).map_err(failed)?;
        offset += reply.piece.len() as u64;
        total = reply.total;
        bar.set_position(offset);
    }
    bar.finish_and_clear();
    writer.finish().and_then(|mut out| out.flush()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    link.close().await;
    Ok((info.group, at.index))
}

/// How much has come: how much there is, the node knows at the end.
fn progress(out: &Output) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {bytes}, {bytes_per_sec}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}
