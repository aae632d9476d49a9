//! `stubborn sim --groups --calm` and `--cuts`: groups whose links are bad, and whose time counts.

use std::time::Duration;

use serde_json::json;
use stubborn_sim::{Cut, explore_cuts, simulate_calm, simulate_deaths};

use super::{Args, broken};
use crate::error::{Error, Exit};
use crate::output::Output;

/// The part of all datagrams that is lost between nodes that nothing else ails.
const LOSS: f64 = 0.3;

/// The part that is lost where leaders die.
const LOSS_AT_DEATHS: f64 = 0.2;

/// Leaders that die in a run.
const DEATHS: u64 = 20;

/// A run lasts so long, so that several can go on at once.
const RUN: Duration = Duration::from_secs(600);

/// Counts the elections of groups of three and five nodes that nothing ails but a lossy network, and
/// how long clients wait when a leader dies.
pub(super) fn calm(hours: f64, args: &Args, out: &Output) -> Result<(), Error> {
    let lasts = Duration::try_from_secs_f64(hours * 3_600.0)
        .map_err(|_| Error::usage(format!("not a number of hours: {hours}")))?;
    let runs = (lasts.as_secs_f64() / RUN.as_secs_f64()).ceil().max(1.0) as u64;
    let lasts = lasts.min(RUN);
    let mut needless = 0;
    for nodes in [3, 5] {
        let (mut elections, mut commands) = (0, 0);
        for seed in args.first..args.first + runs {
            let (_, counts) = simulate_calm(seed, nodes, LOSS, lasts, None)
                .map_err(|failure| broken(&failure, "--groups --calm HOURS "))?;
            elections += counts.elections;
            commands += counts.commands;
        }
        let (_, deaths) = simulate_deaths(args.first, nodes, LOSS_AT_DEATHS, DEATHS, None)
            .map_err(|failure| broken(&failure, "--groups --calm HOURS "))?;
        needless += elections;
        out.json(&json!({
            "nodes": nodes,
            "loss": LOSS,
            "simulated_s": lasts.as_secs_f64() * runs as f64,
            "needless_elections": elections,
            "commands": commands,
            "leaders_died": deaths.deaths,
            "mean_gap_ms": deaths.gap_us as f64 / 1_000.0 / deaths.deaths.max(1) as f64,
            "gaps_over_300_ms": deaths.over_300_ms,
        }));
        out.line(format_args!(
            "{nodes} nodes at {:.0} % loss each way, {:.0} s of simulated time: {elections} needless \
             elections, {commands} commands",
            LOSS * 100.0,
            lasts.as_secs_f64() * runs as f64
        ));
        out.line(format_args!(
            "  at {:.0} % loss {} leaders died: clients waited for {:.0} ms on the mean, {} times more \
             than 300 ms",
            LOSS_AT_DEATHS * 100.0,
            deaths.deaths,
            deaths.gap_us as f64 / 1_000.0 / deaths.deaths.max(1) as f64,
            deaths.over_300_ms
        ));
    }
    if needless > 0 {
        let message = format!("{needless} elections were held that nobody needed");
        return Err(Error::new(Exit::Failed, message));
    }
    Ok(())
}

/// Cuts groups of three and five nodes as the OmniPaxos paper does.
pub(super) fn cuts(args: &Args, threads: usize, out: &Output) -> Result<(), Error> {
    for (cut, nodes) in Cut::ALL.into_iter().flat_map(|cut| [(cut, 3), (cut, 5)]) {
        let batch = explore_cuts((args.first, args.runs), cut, nodes, threads, |_| {});
        if let Some(failure) = &batch.failure {
            return Err(broken(failure, "--groups --cuts "));
        }
        let mean = batch.counts.first_us as f64 / 1_000.0 / batch.runs.max(1) as f64;
        out.json(&json!({
            "cut": format!("{cut:?}"), "nodes": nodes, "runs": batch.runs, "mean_first_commit_ms": mean,
        }));
        out.line(format_args!(
            "{cut:?} with {nodes} nodes: {} runs, the first commit after {mean:.0} ms on the mean",
            batch.runs
        ));
    }
    Ok(())
}
