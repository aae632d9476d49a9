use std::error::Error;
use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = "../../proto";
    println!("cargo:rerun-if-changed={directory}");
    let files = protox::compile(["echo.proto"], [directory])?;
    let descriptors = Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(&descriptors, files.encode_to_vec())?;
    connectrpc_build::Config::new()
        .descriptor_set(descriptors)
        .files(&["echo.proto"])
        .generate_json(false)
        .include_file("_connectrpc.rs")
        .compile()?;
    Ok(())
}
