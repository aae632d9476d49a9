//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::catalogue::{SYSTEMS, System};
use crate::rows::{self, Row};

/// Runs ours, the floors and the peers side by side, as separate processes on separate processors,
/// and says how they compare.
///
/// The default takes less than 20 minutes on four processors, --quick less than 4. The programs of
/// the systems are built first.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version, about)]
pub(crate) struct Arguments {
    /// Short runs, one repetition, without the rows that take long.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Which rows: over a good network, over bad paths, or both.
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Networks::Good)]
    pub(crate) networks: Networks,

    /// Only these rows; a name ending in * stands for all that begin so. See --list.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) rows: Vec<String>,

    /// Only these systems, in the same way.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) systems: Vec<String>,

    /// Repetitions of each system in each row. 3 by default, 1 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) repetitions: Option<u16>,

    /// How long each repetition measures. 0.7 by default, 0.3 with --quick.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,

    /// The processors to use, the server's first. By default the last ones.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,

    /// Lets client and server run before everything else on their processors, with `chrt`: for a
    /// machine that is busy with other things.
    #[arg(long)]
    pub(crate) realtime: bool,

    /// Writes all figures to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Writes a page with plots to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Writes the table into docs/performance.md.
    #[arg(long)]
    pub(crate) write_docs: bool,

    /// Makes page and docs from figures that --json wrote before, without measuring.
    #[arg(long, value_name = "FILE")]
    pub(crate) from_json: Option<PathBuf>,

    /// Lists rows and systems.
    #[arg(long)]
    pub(crate) list: bool,
}

/// Networks to measure on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Networks {
    Good,
    Bad,
    All,
}

impl Networks {
    fn include(self, row: &Row) -> bool {
        match self {
            Self::Good => !row.is_bad(),
            Self::Bad => row.is_bad(),
            Self::All => true,
        }
    }
}

impl Arguments {
    /// The rows that are asked for.
    ///
    /// # Errors
    /// If a name is nobody's.
    pub(crate) fn chosen_rows(&self) -> Result<Vec<Row>, String> {
        let mut rows = chosen(rows::all(), &self.rows, "row", |row| &row.id)?;
        if self.rows.is_empty() {
            rows.retain(|row| self.networks.include(row) && !(self.quick && row.slow));
        }
        Ok(rows)
    }

    /// The systems that are asked for.
    ///
    /// # Errors
    /// If a name is nobody's.
    pub(crate) fn chosen_systems(&self) -> Result<Vec<&'static System>, String> {
        chosen(SYSTEMS.iter().collect(), &self.systems, "system", |system| system.id)
    }
}

/// Those whose names are asked for; all if none are.
fn chosen<T>(
    all: Vec<T>,
    wanted: &[String],
    what: &str,
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>, String> {
    let matches = |wanted: &str, name: &str| match wanted.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == wanted,
    };
    for wanted in wanted {
        if !all.iter().any(|each| matches(wanted, name(each))) {
            return Err(format!("there is no {what} named {wanted}; --list shows all"));
        }
    }
    let is_wanted = |each: &T| wanted.is_empty() || wanted.iter().any(|w| matches(w, name(each)));
    Ok(all.into_iter().filter(is_wanted).collect())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|s| (0.01..=600.0).contains(s));
    seconds.ok_or_else(|| "expected seconds, from 0.01 to 600".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["bench"].iter().chain(arguments))
    }

    #[test]
    fn without_names_everything_is_chosen_and_quick_leaves_out_what_takes_long() {
        let all = parse(&["--networks", "all"]).unwrap();
        assert_eq!(all.chosen_rows().unwrap().len(), rows::all().len());
        assert_eq!(all.chosen_systems().unwrap().len(), SYSTEMS.len());
        let quick = parse(&["--quick"]).unwrap().chosen_rows().unwrap();
        assert!(quick.iter().all(|row| !row.slow) && quick.len() < rows::all().len());
        let asked_for = parse(&["--quick", "--rows", "idle-10000"]).unwrap();
        assert_eq!(asked_for.chosen_rows().unwrap().len(), 1);
    }

    #[test]
    fn bad_networks_are_measured_where_they_are_asked_for() {
        let bad = |arguments: &[&str]| {
            let rows = parse(arguments).unwrap().chosen_rows().unwrap();
            rows.iter().filter(|row| row.is_bad()).count() * 100 / rows.len()
        };
        assert_eq!((bad(&[]), bad(&["--networks", "bad"])), (0, 100));
        assert_eq!(bad(&["--rows", "20ms-*"]), 100);
    }

    #[test]
    fn names_choose_and_a_star_stands_for_what_follows() {
        let arguments = parse(&["--rows", "64B-1,16MiB-*", "--systems", "ours,udp-*"]).unwrap();
        let rows: Vec<_> = arguments.chosen_rows().unwrap().into_iter().map(|r| r.id).collect();
        assert_eq!(rows, ["64B-1", "16MiB-1500", "16MiB-9000", "16MiB-65535"]);
        let systems: Vec<_> = arguments.chosen_systems().unwrap().iter().map(|s| s.id).collect();
        assert_eq!(systems, ["ours", "udp-blocking", "udp-tokio", "udp-batched"]);
    }

    #[test]
    fn what_does_not_exist_is_an_error_that_says_so() {
        let error = parse(&["--rows", "65B-1"]).unwrap().chosen_rows().unwrap_err();
        assert!(error.contains("no row named 65B-1"), "{error}");
        let error = parse(&["--systems", "thrift"]).unwrap().chosen_systems().unwrap_err();
        assert!(error.contains("no system named thrift"), "{error}");
        for wrong in [["--seconds", "0"], ["--seconds", "NaN"], ["--repetitions", "0"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
