//! `stubborn sim`, as a program.
#![cfg(target_os = "linux")]

use std::process::Command;

#[test]
fn a_trace_on_a_full_disk_is_no_broken_promise() {
    for world in [&[][..], &["--groups"]] {
        let mut sim = Command::new(env!("CARGO_BIN_EXE_stubborn"));
        sim.args(["sim", "--seed", "1", "--trace", "/dev/full"]).args(world);
        let ran = sim.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(70), "{said}");
        assert!(said.contains("cannot write /dev/full: no storage space"), "{said}");
        assert!(said.contains("make room there"), "{said}");
    }
}
