//! The committed output is what the generator writes today.
//!
//! After a change that is meant: `STUBBORN_BLESS=1 cargo test -p stubborn-build --test golden`
//! writes it anew; the difference is then reviewed like any other.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use common::{CASES, config};

fn golden(case: &str) -> PathBuf {
    Path::new("tests/golden").join(case)
}

fn committed(case: &str) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(golden(case)) else { return BTreeMap::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn the_committed_output_is_fresh() {
    for (case, files, change) in CASES {
        let generated = change(config()).generate(*files).unwrap().files;
        if env::var_os("STUBBORN_BLESS").is_some() {
            let _ = fs::remove_dir_all(golden(case));
            change(config()).out_dir(golden(case)).compile(*files).unwrap();
        }
        let committed = committed(case);
        let names: Vec<_> = generated.keys().collect();
        assert_eq!(
            committed.keys().collect::<Vec<_>>(),
            names,
            "the files of {case}: see golden.rs"
        );
        for (name, text) in &generated {
            let difference =
                committed[name].lines().zip(text.lines()).find(|(old, new)| old != new);
            assert!(
                committed[name] == *text,
                "tests/golden/{case}/{name} is not fresh (see golden.rs): {difference:#?}"
            );
        }
    }
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
