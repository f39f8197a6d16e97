//! The operating system's randomness.

use broker_core::entropy::{Entropy, EntropyError};

/// Draws from the operating system (getrandom(2) and its like).
#[derive(Debug)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|error| EntropyError { os_code: error.raw_os_error() })
    }
}
