//! Printing: data on standard output, and nothing else there.

use std::io::Write;

use broker_protocol::BrokerInstance;
use serde::Serialize;

/// Prints a value as indented JSON.
///
/// A closed pipe is the reader's choice and no failure.
pub(crate) fn json(value: &impl Serialize) {
    if let Ok(mut text) = serde_json::to_string_pretty(value) {
        text.push('\n');
        text_out(&text);
    }
}

/// Prints text as it is.
pub(crate) fn text_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
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
