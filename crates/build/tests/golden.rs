//! The committed output is what the generator writes today.
//!
//! After a change that is meant: `STUBBORN_BLESS=1 cargo test -p stubborn-build --test golden`
//! writes it anew; the difference is then reviewed like any other.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use common::{CASES, config};
use stubborn_build::Config;

fn golden(case: &str) -> PathBuf {
    Path::new("tests/golden").join(case)
}

fn committed(directory: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Compares with what is committed, or commits it if asked to.
fn check(directory: &Path, config: &Config, files: &[&str]) {
    let generated = config.generate(files).unwrap().files;
    if env::var_os("STUBBORN_BLESS").is_some() {
        let _ = fs::remove_dir_all(directory);
        config.clone().out_dir(directory).compile(files).unwrap();
    }
    let committed = committed(directory);
    let shown = directory.display();
    let names: Vec<_> = generated.keys().collect();
    assert_eq!(committed.keys().collect::<Vec<_>>(), names, "files in {shown}: see golden.rs");
    for (name, text) in &generated {
        let difference = committed[name].lines().zip(text.lines()).find(|(old, new)| old != new);
        let fresh = committed[name] == *text;
        assert!(fresh, "{shown}/{name} is not fresh (see golden.rs): {difference:#?}");
    }
}

#[test]
fn the_committed_output_is_fresh() {
    for (case, files, change) in CASES {
        check(&golden(case), &change(config()), files);
    }
}

#[test]
fn the_services_in_the_runtime_crate_are_fresh() {
    let config = Config::new().include("proto").include_file("mod.rs").bytes(".stubborn.kv.v1");
    let directory = Path::new("../stubborn/src/generated");
    let files = [
        "stubborn/reflection",
        "stubborn/kv",
        "stubborn/group",
        "stubborn/metrics",
        "stubborn/trace",
        "grpc/health/v1/health",
    ];
    let files = files.map(|name| format!("proto/{name}.proto"));
    check(directory, &config, &files.each_ref().map(String::as_str));
}

#[test]
fn the_services_of_the_grpc_door_are_fresh() {
    let config = Config::new().include("proto").include_file("mod.rs");
    let directory = Path::new("../stubborn/src/grpc/generated");
    check(directory, &config, &["proto/grpc/reflection/v1/reflection.proto"]);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for (case, files, change) in CASES {
        let first = change(config()).generate(*files).unwrap();
        for _ in 0..3 {
            let again = change(config()).generate(*files).unwrap();
            assert_eq!(first.files, again.files, "{case}");
            assert_eq!(first.file_descriptor_set, again.file_descriptor_set, "{case}");
        }
    }
}
