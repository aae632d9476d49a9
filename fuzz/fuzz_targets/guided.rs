//! The coverage-guided fuzzer for the target that the variable `TARGET` names.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stubborn_fuzz::{TARGETS, Target};

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    let wanted = std::env::var("TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    *found.unwrap_or_else(|| panic!("set TARGET to one of {names:?}"))
});

fuzz_target!(|data: &[u8]| (CHOSEN.1)(data));
