//! What somebody sees who runs the example before anything else.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::process::Command;

#[test]
fn without_a_definition_it_says_what_is_missing() {
    // Absolute everywhere.
    let nowhere = std::env::temp_dir().join("nowhere-of-echo-client");
    let outcome = Command::new(env!("CARGO_BIN_EXE_echo-client"))
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("XDG_RUNTIME_DIR", "/nonexistent")
        .env("APPDATA", &nowhere)
        .env("LOCALAPPDATA", &nowhere)
        .output()
        .unwrap();
    let text = String::from_utf8(outcome.stderr).unwrap();
    assert!(!outcome.status.success() && outcome.stdout.is_empty());
    assert!(
        text.contains("brokerd service add build-cache") || text.contains("build-cache.servicedef"),
        "{text}"
    );
    assert!(!text.contains("NotDefined"), "for people, not for debugging: {text}");
}
