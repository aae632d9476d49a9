//! Files with tokens taken out, doubled and exchanged: whatever comes of it is code or an error
//! with a place, never a panic.

use std::fs;

use proptest::prelude::*;
use stubborn_build::Config;

const FILES: [&str; 5] = ["shapes", "legacy", "semantics", "keywords", "deprecated"];

/// Words, strings and single signs, with the white space before each.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = false;
    for c in text.chars() {
        let is_word = c.is_alphanumeric() || c == '_' || c == '.';
        match tokens.last_mut() {
            Some(last) if (is_word && word) || last.trim().is_empty() => last.push(c),
            _ => tokens.push(c.into()),
        }
        word = is_word;
    }
    tokens
}

#[derive(Clone, Debug)]
enum Change {
    Remove(prop::sample::Index),
    Double(prop::sample::Index),
    Exchange(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        index().prop_map(Change::Remove),
        index().prop_map(Change::Double),
        (index(), index()).prop_map(|(a, b)| Change::Exchange(a, b)),
    ]
}

fn apply(tokens: &mut Vec<String>, change: &Change) {
    match change {
        Change::Remove(at) => drop(tokens.remove(at.index(tokens.len()))),
        Change::Double(at) => {
            let at = at.index(tokens.len());
            tokens.insert(at, tokens[at].clone());
        }
        Change::Exchange(a, b) => {
            let (a, b) = (a.index(tokens.len()), b.index(tokens.len()));
            tokens.swap(a, b);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_code_or_an_error(
        file in 0..FILES.len(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let path = format!("tests/proto/{}.proto", FILES[file]);
        let mut tokens = tokens(&fs::read_to_string(path).unwrap());
        for change in &changes {
            apply(&mut tokens, change);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.proto");
        fs::write(&path, tokens.concat()).unwrap();
        if let Err(error) = Config::new().generate([&path]) {
            let text = error.to_string();
            prop_assert!(!text.contains("please report this"), "{text}");
            prop_assert!(error.line().is_some(), "no place: {text}");
        }
    }
}
