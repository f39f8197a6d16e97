//! A broker under the load that its upgrades are promised for. What is measured is for people; that every Hello is
//! answered holds however fast the machine is.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::process::Command;

#[test]
fn three_upgrades_within_30_s_of_2000_hellos_per_second_fail_none_of_them() {
    let load = Command::new(env!("CARGO_BIN_EXE_upgrade-load"))
        .args(["--rate", "2000", "--seconds", "30", "--upgrades", "3"])
        .output()
        .unwrap();
    let (said, failures) = (String::from_utf8_lossy(&load.stdout), String::from_utf8_lossy(&load.stderr));
    assert_eq!(said.lines().next(), Some("60000 Hellos answered, 0 failed, 3 upgrades"), "{failures}");
    assert!(load.status.success());
}
