//! Makes the stubs.

fn main() -> stubborn_build::Result {
    stubborn_build::compile(["proto/testing.proto"])
}
