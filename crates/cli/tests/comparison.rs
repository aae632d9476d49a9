//! `docs/comparison.md` names, for what it says of us, tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_comparison_names_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let comparison = fs::read_to_string(repository.join("docs/comparison.md")).unwrap();
    let sources = sources(&repository.join("crates"));
    let mut rows = 0;
    for row in comparison.lines().filter(|line| line.starts_with("| ")) {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        for name in shown_by.split('`').skip(1).step_by(2) {
            let exists = if name.contains('/') {
                repository.join(name).exists()
            } else {
                let head = format!("fn {name}(");
                sources.iter().any(|source| source.contains(&head))
            };
            assert!(exists, "{name} shows nothing: there is none. The row is {row}");
            rows += 1;
        }
        let claims_something =
            row.rsplit('|').nth(2).is_some_and(|ours| ours.trim().starts_with("yes"));
        assert!(!claims_something || shown_by.contains('`'), "nothing shows this row: {row}");
    }
    assert!(rows > 20, "the tables have another form now: {rows} rows were read");
}

fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}
