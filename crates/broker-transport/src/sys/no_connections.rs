//! Connections where this crate cannot count them yet.

use std::io;
use std::path::Path;

use crate::unsupported::Unsupported;

pub(crate) fn has_connections(_endpoint: &Path) -> io::Result<bool> {
    let operation = "telling whether an endpoint has connections";
    Err(Unsupported { operation, platform: std::env::consts::OS }.into())
}
