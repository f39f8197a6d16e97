//! Generates the message types of `broker-protocol` from `proto/`, one file for each package.
//!
//! The compiler is protox, so nobody needs `protoc`; the output is checked in, so that building
//! the crates needs neither.

use std::fs;
use std::path::PathBuf;

use crate::workspace::{TaskError, TaskResult, root};

/// Those of one package stand together, in the order in which its types are written.
const PROTO_FILES: [&str; 5] = [
    "broker_v1_envelope.proto",
    "broker_v1_admin.proto",
    "broker_v1_service_def.proto",
    "broker_v1_manifest.proto",
    "broker_local_v1.proto",
];
/// The packages of these files; each becomes a file of its name.
const PACKAGES: [&str; 2] = ["running_process.broker.v1", "local_service_broker.v1"];
const WIRE: &str = ".running_process.broker.v1";
/// Messages that carry tokens or payloads: their `Debug` is written by hand and tells no secret.
const REDACTED: [&str; 5] = ["Frame", "Hello", "Negotiated", "HandoffOffer", "HandoffAck"];
const GENERATED: &str = "crates/broker-protocol/generated";
const BANNER: &str = "// Written by `cargo xtask codegen` from proto/. Do not edit.\n";

/// Writes the generated files.
pub(crate) fn write() -> TaskResult {
    for Generated { name, text } in generate()? {
        let target = root().join(&name);
        fs::write(&target, text).map_err(|error| format!("cannot write {}: {error}", target.display()))?;
        println!("wrote {name}");
    }
    Ok(())
}

/// Fails when a generated file is not what `proto/` says.
pub(crate) fn check() -> TaskResult {
    for Generated { name, text } in generate()? {
        let target = root().join(&name);
        let current = fs::read_to_string(&target).map_err(|error| {
            format!("cannot read {}: {error}; run `cargo xtask codegen`", target.display())
        })?;
        if current != text {
            let remedy = "run `cargo xtask codegen` and commit the result";
            return Err(format!("{name} is not what proto/ says; {remedy}").into());
        }
        println!("{name} is current");
    }
    Ok(())
}

/// A file as it should be.
struct Generated {
    /// Its path below the workspace's root.
    name: String,
    text: String,
}

fn generate() -> Result<Vec<Generated>, TaskError> {
    let proto = root().join("proto");
    let files: Vec<PathBuf> = PROTO_FILES.iter().map(|name| proto.join(name)).collect();
    let descriptors = protox::compile(&files, [&proto]).map_err(|error| format!("{error:?}"))?;
    let scratch = tempfile::tempdir()?;
    prost_build::Config::new()
        .out_dir(scratch.path())
        .btree_map(["."])
        .bytes([format!("{WIRE}.Frame.payload"), format!("{WIRE}.HandoffOffer.hello_reply_frame")])
        .skip_debug(REDACTED.map(|message| format!("{WIRE}.{message}")))
        .compile_fds(descriptors)?;
    PACKAGES
        .iter()
        .map(|package| {
            let text = fs::read_to_string(scratch.path().join(format!("{package}.rs")))?;
            Ok(Generated { name: format!("{GENERATED}/{package}.rs"), text: format!("{BANNER}{text}") })
        })
        .collect()
}
