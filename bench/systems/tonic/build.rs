fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = "../../proto";
    println!("cargo:rerun-if-changed={directory}");
    let files = protox::compile(["echo.proto"], [directory])?;
    Ok(tonic_prost_build::configure().bytes(".").compile_fds(files)?)
}
