//! Printing: data on standard output, and nothing else there.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use broker_protocol::BrokerInstance;
use serde::Serialize;

use crate::admin::Body;
use crate::failure::Failure;

/// Prints a value as indented JSON.
///
/// A closed pipe is the reader's choice and no failure.
pub(crate) fn json(value: &impl Serialize) {
    if let Ok(mut text) = serde_json::to_string_pretty(value) {
        text.push('\n');
        text_out(&text);
    }
}

/// Prints an answer as JSON, behind the head that every answer has.
pub(crate) fn json_answer(command: &'static str, content: &impl Serialize) {
    json(&Body { schema_version: 1, command, generated_at_unix_ms: unix_ms(), content });
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why data could not be printed, the first time it could not.
static UNPRINTED: OnceLock<String> = OnceLock::new();

/// Prints text as it is.
pub(crate) fn text_out(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => _ = UNPRINTED.set(error.to_string()),
        Ok(()) | Err(_) => {}
    }
}

/// Whether all that was to be printed was: a script must not take a part for the whole.
///
/// # Errors
/// Some of it was not, and somebody may be reading.
pub(crate) fn all_printed() -> Result<(), Failure> {
    match UNPRINTED.get() {
        None => Ok(()),
        Some(why) => Err(Failure::refused(format!("cannot write to standard output: {why}"))
            .next("make room, or let it go elsewhere; what was asked for is done")),
    }
}

/// Prints a line of text.
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    text_out(&format!("{text}\n"));
}

/// Says something to a person, on standard error.
pub(crate) fn for_people(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Where a broker listens, or why nobody can tell.
pub(crate) fn broker_endpoint_text(instance: &BrokerInstance) -> String {
    match broker_transport::endpoint::broker_endpoint(instance) {
        Ok(path) => path.display().to_string(),
        Err(error) => format!("({error})"),
    }
}
