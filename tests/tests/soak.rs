//! A short soak: mixed load, random deaths, nothing left. `cargo xtask soak` is the long one.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use broker_tests::Finished;

#[test]
fn nothing_is_left_of_a_hundred_and_fifty_deaths() {
    let soak = Finished::of(std::process::Command::new(env!("CARGO_BIN_EXE_soak")).args(["--deaths", "150"]));
    println!("{}", soak.stdout);
    assert!(soak.is_success(), "{}\n{}", soak.stdout, soak.stderr);
}
