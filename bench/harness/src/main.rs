//! Runs the systems of the benchmark side by side and says how they compare.

mod arguments;
mod build;
mod catalogue;
mod child;
mod environment;
mod goal;
mod machine;
mod measure;
mod report;
mod results;
mod rows;
mod schedule;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use arguments::Arguments;
use catalogue::System;
use environment::Cores;
use results::{Results, SystemInfo};
use rows::Row;
use schedule::Plan;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False if something could not be run.
fn perform(arguments: &Arguments) -> Result<bool, String> {
    if arguments.list {
        list();
        return Ok(true);
    }
    let results = match &arguments.from_json {
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?
        }
        None => measure(arguments)?,
    };
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string(&results).map_err(|e| e.to_string())?;
        write(file, &text)?;
    }
    if let Some(file) = &arguments.html {
        write(file, &report::page(&results))?;
    }
    if arguments.write_docs {
        report::write_docs(&workspace().join("../docs/performance.md"), &results)?;
    }
    Ok(complain(&results))
}

/// Says what could not be run. False if there was something.
fn complain(results: &Results) -> bool {
    let mut complete = true;
    for row in &results.rows {
        for entry in &row.entries {
            if let Some(failure) = &entry.failure {
                eprintln!("error: {}: {}: {failure}", row.id, entry.system);
                complete = false;
            }
        }
    }
    for reason in &results.not_run {
        eprintln!("error: not run: {reason}");
        complete = false;
    }
    complete
}

fn list() {
    println!("rows:");
    for row in rows::all() {
        println!("  {:<22}{}", row.id, row.title);
    }
    println!("systems (* is encrypted):");
    for system in catalogue::SYSTEMS {
        let mark = if system.encrypted { " *" } else { "" };
        println!("  {:<22}{}", format!("{}{mark}", system.id), system.how);
    }
}

fn measure(arguments: &Arguments) -> Result<Results, String> {
    let rows = arguments.chosen_rows()?;
    let mut systems = arguments.chosen_systems()?;
    // What takes part in none of the rows need not be built.
    systems.retain(|system| rows.iter().any(|row| row.includes(system)));
    let cores = Cores::choose(&arguments.cores)?;
    let workspace = workspace();
    let programs = build::programs(&workspace, &systems)?;
    environment::remove_leftovers();
    link::clean_up_on_signals().map_err(|e| e.to_string())?;
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 0.3 } else { 0.7 });
    let plan = Plan {
        repetitions: arguments.repetitions.map_or(if arguments.quick { 1 } else { 3 }, usize::from),
        warm_up: Duration::from_millis(if arguments.quick { 150 } else { 250 }),
        measure: Duration::from_secs_f64(seconds),
        hold: Duration::from_secs(if arguments.quick { 5 } else { 20 }),
        cores,
        realtime: arguments.realtime,
        programs,
    };
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut results = Results {
        format: results::FORMAT,
        command: env::args().skip(1).fold("cargo xtask bench".into(), |all, a| all + " " + &a),
        started,
        machine: machine::describe(&workspace),
        repetitions: plan.repetitions,
        seconds,
        systems: systems.iter().map(|system| info(system)).collect(),
        rows: Vec::new(),
        not_run: Vec::new(),
    };
    run_all(&plan, &rows, &systems, &mut results);
    Ok(results)
}

/// Runs every row and prints its table when it is there.
fn run_all(plan: &Plan, rows: &[Row], systems: &[&'static System], results: &mut Results) {
    let takes_part = |row: &Row| -> Vec<&'static System> {
        systems.iter().copied().filter(|system| row.includes(system)).collect()
    };
    let steps: usize = rows.iter().map(|row| plan.steps(row, takes_part(row).len())).sum();
    let bar = ProgressBar::new(steps as u64);
    let template = "{bar:30.green} {pos}/{len}  {elapsed} of {duration}  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("##-"));
    }
    let mut begun = 0;
    for row in rows {
        let systems = takes_part(row);
        if systems.is_empty() {
            continue;
        }
        let outcome = plan.run(row, &systems, |what| {
            bar.set_position(begun);
            bar.set_message(what.to_owned());
            begun += 1;
        });
        match outcome {
            Ok(row) => {
                bar.suspend(|| println!("{}", report::table(&row)));
                results.rows.push(row);
            }
            Err(why) => {
                let why = format!("{}: {why}", row.id);
                bar.suspend(|| println!("{why}\n"));
                results.not_run.push(why);
            }
        }
    }
    bar.finish_and_clear();
}

fn info(system: &System) -> SystemInfo {
    SystemInfo {
        id: system.id.into(),
        part: system.part,
        version: system.library.and_then(catalogue::version).map(str::to_owned),
        encrypted: system.encrypted,
        how: system.how.into(),
    }
}

/// Where `bench/` is.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}
