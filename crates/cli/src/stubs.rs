//! The generated stubs: the bank of the demo, the echo of the benchmark.
#![allow(dead_code, unreachable_pub)]

stubborn::include_protos!();
