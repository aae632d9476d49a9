//! Makes the stubs.

fn main() -> stubborn_build::Result {
    stubborn_build::compile(["proto/books.proto"])
}
