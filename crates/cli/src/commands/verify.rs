//! `stubborn verify DIR`

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use stubborn_store::verify;

use super::inspect;
use crate::error::{Error, Exit};
use crate::folders::{self, bytes};
use crate::output::{Output, Style};

/// Read everything in the data folder of a node that is stopped, and check it.
///
/// What is damaged is named with its file, place and entry, and the exit code is 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data folder of a node, or the folder of a cluster.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let (mut nodes, mut errors) = (Vec::new(), Vec::new());
    for path in folders::find(&args.folder)? {
        let folder = folders::open(&path)?;
        let bar = progress(out);
        let checked = verify(&*folder, |progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        });
        bar.finish_and_clear();
        match checked {
            Ok(survey) => {
                let good = out.paint(Style::Good, "sound");
                let entries = match survey.entries {
                    1 => "1 entry".to_owned(),
                    entries => format!("{entries} entries"),
                };
                let size = bytes(survey.snapshot.length);
                let shown = path.display();
                out.line(format_args!("{shown}: {good}: {entries}, a snapshot of {size}"));
                let mut node = inspect::to_json(&path, &survey);
                node["sound"] = true.into();
                nodes.push(node);
            }
            Err(error) => {
                let error = folders::told(&path, &error);
                nodes.push(json!({
                    "data": path.display().to_string(),
                    "sound": false,
                    "error": error.to_json()["error"],
                }));
                errors.push(error);
            }
        }
    }
    out.json(&json!({ "nodes": nodes }));
    // One that is damaged counts for more than one that could not be looked at.
    errors.sort_by_key(|error: &Error| error.exit() == Exit::Failed);
    let Some(last) = errors.pop() else { return Ok(()) };
    if !out.is_json() {
        errors.iter().for_each(|error| out.error(error));
    }
    Err(last.printed_if(out.is_json()))
}

fn progress(out: &Output) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
