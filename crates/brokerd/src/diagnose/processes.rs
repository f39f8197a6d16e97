//! The backends' processes, as the system sees them.
//!
//! What it does not tell is `null`: a process that has ended, another user's, or a system without `/proc`.

use broker_transport::identity;
use serde_json::{Value, json};

use super::system::ProcessFacts;

/// One row for each backend that `dump` tells of.
pub(super) fn of(dump: &Value) -> Vec<Value> {
    let backends = dump["backend_table"].as_array().map_or(&[][..], Vec::as_slice);
    backends
        .iter()
        .map(|backend| {
            let mut row = backend.clone();
            let pid = backend["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            row["process"] = pid.map_or(Value::Null, process);
            row
        })
        .collect()
}

fn process(pid: u32) -> Value {
    let executable = identity::process_executable(pid).ok();
    let facts = ProcessFacts::of(&pid.to_string());
    json!({
        "executable": executable.map(|path| path.display().to_string()),
        "threads": facts.threads,
        "resident_bytes": facts.resident_bytes,
        "open_files": facts.open_files,
    })
}
