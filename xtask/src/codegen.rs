//! Generates the wire types of `broker-protocol` from `proto/`.
//!
//! The compiler is protox, so nobody needs `protoc`; the output is checked in, so that building
//! the crates needs neither.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::{TaskError, TaskResult, root};

const PROTO_FILES: [&str; 6] = [
    "broker_v1_envelope.proto",
    "broker_v1_admin.proto",
    "broker_v1_service_def.proto",
    "broker_v1_manifest.proto",
    "broker_control_v1.proto",
    "broker_local_v1.proto",
];
/// The published protocol, and what is ours alone. Each becomes a file of its own.
const PACKAGES: [&str; 2] = ["running_process.broker.v1", "local_service_broker.v1"];
const PACKAGE: &str = ".running_process.broker.v1";
/// Messages that carry tokens or payloads: their `Debug` is written by hand and tells no secret.
const REDACTED: [&str; 5] = ["Frame", "Hello", "Negotiated", "HandoffOffer", "HandoffAck"];
const GENERATED: &str = "crates/broker-protocol/generated";
const BANNER: &str = "// Written by `cargo xtask codegen` from proto/. Do not edit.\n";

/// Writes the generated files.
pub(crate) fn write() -> TaskResult {
    for (name, text) in generate()? {
        let target = root().join(&name);
        fs::write(&target, text).map_err(|error| format!("cannot write {}: {error}", target.display()))?;
        println!("wrote {name}");
    }
    Ok(())
}

/// Fails when a generated file is not what `proto/` says.
pub(crate) fn check() -> TaskResult {
    for (name, text) in generate()? {
        let target = root().join(&name);
        let current = fs::read_to_string(&target).map_err(|error| {
            format!("cannot read {}: {error}; run `cargo xtask codegen`", target.display())
        })?;
        if current != text {
            return Err(format!(
                "{name} is not what proto/ says; run `cargo xtask codegen` and commit the result"
            )
            .into());
        }
        println!("{name} is current");
    }
    Ok(())
}

/// The files, by their path from the root, and what they hold.
fn generate() -> Result<Vec<(String, String)>, TaskError> {
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
    PACKAGES.iter().map(|package| read_package(scratch.path(), package)).collect()
}

fn read_package(folder: &Path, package: &str) -> Result<(String, String), TaskError> {
    let name = format!("{package}.rs");
    let text = fs::read_to_string(folder.join(&name))?;
    Ok((format!("{GENERATED}/{name}"), format!("{BANNER}{text}")))
}
