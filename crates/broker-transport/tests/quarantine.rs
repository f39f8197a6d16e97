//! The mark that a download carries on macOS.
#![cfg(target_os = "macos")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::process::Command;

use broker_transport::files::is_quarantined;

#[test]
fn a_download_is_in_quarantine_until_the_user_approves_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    assert!(!is_quarantined(&path));
    for (flags, is_held) in [("0081", true), ("00c1", false)] {
        let value = format!("{flags};5f8e7a1c;Test;");
        let mut xattr = Command::new("/usr/bin/xattr");
        assert!(xattr.args(["-w", "com.apple.quarantine", &value]).arg(&path).status().unwrap().success());
        assert_eq!(is_quarantined(&path), is_held, "{flags}");
    }
    assert!(!is_quarantined(&dir.path().join("absent")));
}
