//! What a platform cannot do yet, as a value.
//!
//! Invariant: nothing in this crate pretends. A function without an implementation on some platform
//! fails there with this error, inside an [`io::Error`] of kind `Unsupported`.

use std::io;

use thiserror::Error;

/// An operation that this crate does not implement on this platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{operation} is not implemented on {platform}")]
pub struct Unsupported {
    /// What was asked for.
    pub operation: &'static str,
    /// Where.
    pub platform: &'static str,
}

impl From<Unsupported> for io::Error {
    fn from(unsupported: Unsupported) -> Self {
        Self::new(io::ErrorKind::Unsupported, unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_the_way_through_an_io_error() {
        let unsupported = Unsupported { operation: "spawning", platform: "nowhere" };
        let error = io::Error::from(unsupported);
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Unsupported>());
        assert_eq!(inner, Some(&unsupported));
    }
}
