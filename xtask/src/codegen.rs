//! Generates the wire types of `broker-protocol` from `proto/`.
//!
//! The compiler is protox, so nobody needs `protoc`; the output is checked in, so that building
//! the crates needs neither.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::{TaskError, TaskResult, root};

const PROTO_FILES: [&str; 4] = [
    "broker_v1_envelope.proto",
    "broker_v1_admin.proto",
    "broker_v1_service_def.proto",
    "broker_v1_manifest.proto",
];
const PACKAGE: &str = ".running_process.broker.v1";
/// Messages that carry tokens or payloads: their `Debug` is written by hand and tells no secret.
const REDACTED: [&str; 5] = ["Frame", "Hello", "Negotiated", "HandoffOffer", "HandoffAck"];
const GENERATED: &str = "crates/broker-protocol/generated/running_process.broker.v1.rs";
const BANNER: &str = "// Written by `cargo xtask codegen` from proto/. Do not edit.\n";

/// Writes the generated file.
pub(crate) fn write() -> TaskResult {
    let target = root().join(GENERATED);
    let text = generate()?;
    fs::write(&target, text).map_err(|error| format!("cannot write {}: {error}", target.display()))?;
    println!("wrote {GENERATED}");
    Ok(())
}

/// Fails when the generated file is not what `proto/` says.
pub(crate) fn check() -> TaskResult {
    let target = root().join(GENERATED);
    let current = fs::read_to_string(&target)
        .map_err(|error| format!("cannot read {}: {error}; run `cargo xtask codegen`", target.display()))?;
    if current == generate()? {
        println!("{GENERATED} is current");
        Ok(())
    } else {
        Err(format!("{GENERATED} is not what proto/ says; run `cargo xtask codegen` and commit the result")
            .into())
    }
}

fn generate() -> Result<String, TaskError> {
    let proto = root().join("proto");
    let files: Vec<PathBuf> = PROTO_FILES.iter().map(|name| proto.join(name)).collect();
    let descriptors = protox::compile(&files, [&proto]).map_err(|error| format!("{error:?}"))?;
    let scratch = tempfile::tempdir()?;
    prost_build::Config::new()
        .out_dir(scratch.path())
        .btree_map([PACKAGE])
        .bytes([format!("{PACKAGE}.Frame.payload"), format!("{PACKAGE}.HandoffOffer.hello_reply_frame")])
        .skip_debug(REDACTED.map(|message| format!("{PACKAGE}.{message}")))
        .compile_fds(descriptors)?;
    read_single_file(scratch.path())
}

fn read_single_file(folder: &Path) -> Result<String, TaskError> {
    let text = fs::read_to_string(folder.join("running_process.broker.v1.rs"))?;
    Ok(format!("{BANNER}{text}"))
}
