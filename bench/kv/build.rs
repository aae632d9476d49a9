fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["etcd.proto"], ["proto"])?;
    Ok(tonic_prost_build::configure().bytes(".").build_server(false).compile_fds(files)?)
}
