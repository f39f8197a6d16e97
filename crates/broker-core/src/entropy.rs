//! Randomness as a dependency.
//!
//! This crate draws no randomness of its own: whoever drives it passes an [`Entropy`], so that a
//! simulation can be replayed from a seed. [`BlockEntropy`] stands between the system's source and the
//! Hello path, where a system call per token would cost more than the rest of the decision.
//!
//! Invariant of [`BlockEntropy`]: no byte is handed out twice, none that a failed draw left behind is
//! handed out at all, and none stays in memory once it was handed out.

use std::fmt::{self, Debug, Formatter};

use thiserror::Error;
use zeroize::Zeroize;

/// How many bytes [`BlockEntropy`] draws at a time: 64 handoff tokens.
pub const BLOCK_LEN: usize = 1_024;

/// The source of randomness gave none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the source of randomness failed{}", .os_code.map(|code| format!(" (OS error {code})")).unwrap_or_default())]
pub struct EntropyError {
    /// The operating system's error code, where there is one.
    pub os_code: Option<i32>,
}

/// A source of random bytes, fit for secrets unless its documentation says otherwise.
pub trait Entropy {
    /// Fills all of `out`.
    ///
    /// # Errors
    /// [`EntropyError`] where the source gives nothing; what `out` holds then must not be used. The
    /// next call tries again.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError>;
}

impl<E: Entropy + ?Sized> Entropy for &mut E {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(out)
    }
}

/// Draws [`BLOCK_LEN`] bytes at a time from its source and hands them out in slices.
///
/// Not for a process that forks and goes on in the child: both halves would hand out the same bytes.
/// (A broker starts its children by `exec`, which keeps none of this.)
///
/// ```
/// use broker_core::entropy::{BlockEntropy, Entropy, SeededEntropy};
///
/// let mut entropy = BlockEntropy::new(SeededEntropy::new(1));
/// let mut token = [0; 16];
/// entropy.fill(&mut token)?;
/// assert_ne!(token, [0; 16]);
/// # Ok::<(), broker_core::entropy::EntropyError>(())
/// ```
pub struct BlockEntropy<E> {
    source: E,
    /// Boxed, so that moving the value leaves no copy of the bytes behind.
    block: Box<[u8; BLOCK_LEN]>,
    /// Where the bytes not yet handed out begin.
    next: usize,
}

impl<E> BlockEntropy<E> {
    /// Blocks from `source`; the first is drawn when it is needed.
    pub fn new(source: E) -> Self {
        Self { source, block: Box::new([0; BLOCK_LEN]), next: BLOCK_LEN }
    }
}

impl<E: Entropy> BlockEntropy<E> {
    /// Replaces the block. What was left of the old one is never used: at most a token's worth.
    #[cold]
    fn refill(&mut self) -> Result<(), EntropyError> {
        self.next = BLOCK_LEN;
        let drawn = self.source.fill(&mut self.block[..]);
        if drawn.is_ok() {
            self.next = 0;
        } else {
            self.block.zeroize();
        }
        drawn
    }
}

impl<E: Entropy> Entropy for BlockEntropy<E> {
    /// Copies out of the block, drawing a new one where too little is left. A request for a
    /// whole block or more goes to the source itself.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        if out.len() >= BLOCK_LEN {
            return self.source.fill(out);
        }
        if out.len() > BLOCK_LEN - self.next {
            self.refill()?;
        }
        let fresh = &mut self.block[self.next..self.next + out.len()];
        out.copy_from_slice(fresh);
        fresh.zeroize();
        self.next += out.len();
        Ok(())
    }
}

impl<E> Drop for BlockEntropy<E> {
    fn drop(&mut self) {
        self.block.zeroize();
    }
}

impl<E> Debug for BlockEntropy<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockEntropy").field("left", &(BLOCK_LEN - self.next)).finish_non_exhaustive()
    }
}

/// A reproducible stream of bytes (SplitMix64), for tests and simulation only: whoever sees eight
/// aligned bytes knows all that follow.
#[derive(Clone, Debug)]
pub struct SeededEntropy {
    state: u64,
}

impl SeededEntropy {
    /// The stream of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    const fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_word().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod doubles {
    use super::{Entropy, EntropyError, SeededEntropy};

    /// Counts its draws and fails while told to, leaving half of what was asked for behind.
    #[derive(Debug)]
    pub(crate) struct FlakyEntropy {
        pub(crate) inner: SeededEntropy,
        pub(crate) failing: bool,
        pub(crate) draws: usize,
    }

    impl FlakyEntropy {
        pub(crate) const ERROR: EntropyError = EntropyError { os_code: Some(38) };

        pub(crate) const fn working() -> Self {
            Self { inner: SeededEntropy::new(1), failing: false, draws: 0 }
        }

        pub(crate) const fn failing() -> Self {
            Self { failing: true, ..Self::working() }
        }
    }

    impl Entropy for FlakyEntropy {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
            self.draws += 1;
            if self.failing {
                let half = out.len() / 2;
                self.inner.fill(&mut out[..half])?;
                return Err(Self::ERROR);
            }
            self.inner.fill(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::doubles::FlakyEntropy;
    use super::*;

    fn take<const N: usize>(entropy: &mut impl Entropy) -> Result<[u8; N], EntropyError> {
        let mut bytes = [0; N];
        entropy.fill(&mut bytes).map(|()| bytes)
    }

    #[test]
    fn a_block_is_handed_out_in_order_and_to_the_last_byte() {
        let block: [u8; 2 * BLOCK_LEN] = take(&mut SeededEntropy::new(1)).unwrap();
        let mut entropy = BlockEntropy::new(FlakyEntropy::working());
        for token in block.chunks(16) {
            assert_eq!(take::<16>(&mut entropy).unwrap(), token);
        }
        assert_eq!(entropy.source.draws, 2);
    }

    #[test]
    fn nothing_is_drawn_before_it_is_needed() {
        let mut entropy = BlockEntropy::new(FlakyEntropy::working());
        assert_eq!(take::<0>(&mut entropy), Ok([]));
        assert_eq!(entropy.source.draws, 0);
        take::<1>(&mut entropy).unwrap();
        assert_eq!(entropy.source.draws, 1);
    }

    #[test]
    fn a_byte_that_was_handed_out_is_wiped() {
        let mut entropy = BlockEntropy::new(SeededEntropy::new(1));
        take::<16>(&mut entropy).unwrap();
        assert_eq!(entropy.block[..16], [0; 16]);
        assert_ne!(entropy.block[16..32], [0; 16]);
    }

    #[test]
    fn a_request_that_the_rest_cannot_fill_gets_a_fresh_block() {
        let mut entropy = BlockEntropy::new(FlakyEntropy::working());
        take::<{ BLOCK_LEN - 8 }>(&mut entropy).unwrap();
        take::<8>(&mut entropy).unwrap();
        assert_eq!(entropy.source.draws, 1);

        let mut entropy = BlockEntropy::new(FlakyEntropy::working());
        take::<{ BLOCK_LEN - 8 }>(&mut entropy).unwrap();
        take::<9>(&mut entropy).unwrap();
        assert_eq!(entropy.source.draws, 2);
        assert_eq!(entropy.next, 9);
    }

    #[test]
    fn a_request_for_less_than_a_block_is_served_from_one_and_others_by_the_source() {
        let mut entropy = BlockEntropy::new(FlakyEntropy::working());
        take::<{ BLOCK_LEN - 1 }>(&mut entropy).unwrap();
        assert_eq!((entropy.source.draws, entropy.next), (1, BLOCK_LEN - 1));

        let mut entropy = BlockEntropy::new(FlakyEntropy::working());
        take::<8>(&mut entropy).unwrap();
        let whole = take::<BLOCK_LEN>(&mut entropy).unwrap();
        let more = take::<{ BLOCK_LEN + 1 }>(&mut entropy).unwrap();
        assert_ne!(whole[BLOCK_LEN - 8..], [0; 8]);
        assert_ne!(more[BLOCK_LEN - 7..], [0; 8]);
        assert_eq!((entropy.source.draws, entropy.next), (3, 8));
    }

    #[test]
    fn what_a_failed_draw_left_of_the_block_is_not_handed_out() {
        let mut entropy = BlockEntropy::new(FlakyEntropy::working());
        take::<{ BLOCK_LEN - 8 }>(&mut entropy).unwrap();
        entropy.source.failing = true;
        assert_eq!(take::<16>(&mut entropy), Err(FlakyEntropy::ERROR));
        assert_eq!(take::<8>(&mut entropy), Err(FlakyEntropy::ERROR));
        entropy.source.failing = false;
        assert_ne!(take::<8>(&mut entropy).unwrap(), [0; 8]);
    }

    #[test]
    fn a_failure_comes_through_leaves_nothing_behind_and_is_retried() {
        let mut entropy = BlockEntropy::new(FlakyEntropy::failing());
        assert_eq!(take::<16>(&mut entropy), Err(FlakyEntropy::ERROR));
        assert!(entropy.block.iter().all(|byte| *byte == 0));
        assert_eq!(take::<16>(&mut entropy), Err(FlakyEntropy::ERROR));
        assert_eq!(take::<{ BLOCK_LEN + 1 }>(&mut entropy), Err(FlakyEntropy::ERROR));
        entropy.source.failing = false;
        assert_ne!(take::<16>(&mut entropy).unwrap(), [0; 16]);
        assert_eq!(entropy.source.draws, 4);
    }

    #[test]
    fn a_seed_gives_the_same_stream_however_it_is_read() {
        let whole: [u8; 16] = take(&mut SeededEntropy::new(7)).unwrap();
        let mut halves = SeededEntropy::new(7);
        let (first, second): ([u8; 8], [u8; 8]) = (take(&mut halves).unwrap(), take(&mut halves).unwrap());
        assert_eq!([first, second].concat(), whole);
        assert_ne!(whole, take::<16>(&mut SeededEntropy::new(8)).unwrap());
    }

    #[test]
    fn debug_shows_how_much_is_left_and_no_byte_of_it() {
        let mut entropy = BlockEntropy::new(SeededEntropy::new(1));
        take::<24>(&mut entropy).unwrap();
        assert_eq!(format!("{entropy:?}"), "BlockEntropy { left: 1000, .. }");
    }

    #[test]
    fn the_error_names_the_systems_code_where_there_is_one() {
        assert_eq!(FlakyEntropy::ERROR.to_string(), "the source of randomness failed (OS error 38)");
        assert_eq!(EntropyError { os_code: None }.to_string(), "the source of randomness failed");
    }
}
