//! Generates the stubs that the demo and the benchmark are made with.

use std::path::PathBuf;

const FILES: [&str; 2] = ["../../examples/bank/bank.proto", "proto/echo.proto"];

fn main() -> stubborn_build::Result {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let generated =
        stubborn_build::Config::new().bytes(".bench.v1.Payload.data").generate(FILES)?;
    for input in &generated.inputs {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    // The warnings are not printed: that bank.proto has a stream is meant.
    generated.write_to(&out)
}
