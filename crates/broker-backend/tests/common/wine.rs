//! Telling Wine, which leaves some things out.
//!
//! Invariant: a test that goes without something says what, and why.

use std::path::Path;

/// Says that something is not tested, where this is Wine.
pub(crate) fn goes_without(what: &str) -> bool {
    let is_wine = Path::new(r"C:\windows\system32\winecfg.exe").exists();
    if is_wine {
        println!("not tested: Wine does not {what}");
    }
    is_wine
}
