//! The one-time token of a handoff.
//!
//! Invariant: a token's bytes never appear in `Debug` output, are compared in constant time and are
//! wiped when the token is dropped.

use std::fmt::{self, Debug, Formatter};

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of a handoff token, in bytes.
pub const HANDOFF_TOKEN_LEN: usize = 16;

/// A one-time handoff token of 128 bits.
///
/// ```
/// use broker_protocol::HandoffToken;
///
/// let token = HandoffToken::from_bytes([7; 16]);
/// assert_eq!(format!("{token:?}"), "HandoffToken(<redacted>)");
/// assert_eq!(token, HandoffToken::try_from(&[7u8; 16][..])?);
/// # Ok::<(), broker_protocol::TokenLengthError>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HandoffToken([u8; HANDOFF_TOKEN_LEN]);

/// A token on the wire that is not 16 bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a handoff token is {HANDOFF_TOKEN_LEN} bytes, this one has {actual}")]
pub struct TokenLengthError {
    /// The length that came.
    pub actual: usize,
}

impl HandoffToken {
    /// A token of these bytes, which the caller drew from a source of randomness or took off the wire.
    pub const fn from_bytes(bytes: [u8; HANDOFF_TOKEN_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the wire only.
    pub const fn as_bytes(&self) -> &[u8; HANDOFF_TOKEN_LEN] {
        &self.0
    }
}

impl TryFrom<&[u8]> for HandoffToken {
    type Error = TokenLengthError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| TokenLengthError { actual: bytes.len() })
    }
}

impl PartialEq for HandoffToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for HandoffToken {}

impl Debug for HandoffToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("HandoffToken(<redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixteen_bytes_are_a_token() {
        assert!(HandoffToken::try_from(&[1u8; 16][..]).is_ok());
        for length in [0, 15, 17] {
            assert_eq!(
                HandoffToken::try_from(&vec![1u8; length][..]),
                Err(TokenLengthError { actual: length })
            );
        }
    }

    #[test]
    fn tokens_are_equal_only_when_every_bit_is() {
        let token = HandoffToken::from_bytes([0xA5; 16]);
        for bit in 0..128 {
            let mut bytes = [0xA5; 16];
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(token, HandoffToken::from_bytes(bytes));
        }
        assert_eq!(token, token.clone());
    }
}
