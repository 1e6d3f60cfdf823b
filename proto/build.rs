//! Compiles the protos in Rust: nobody needs protoc.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

const ROOT: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(format!("{ROOT}/tidegate/v1"))? {
        files.push(entry?.path());
    }
    files.sort();
    println!("cargo:rerun-if-changed={ROOT}");

    let descriptors = protox::compile(&files, [ROOT])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("tidegate.bin"), descriptors.encode_to_vec())?;
    // `Bytes` fields share the buffer a message was decoded from.
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .type_attribute(".tidegate.v1.ShardId", "#[derive(PartialOrd, Ord)]")
        .compile_fds(descriptors)?;
    Ok(())
}
