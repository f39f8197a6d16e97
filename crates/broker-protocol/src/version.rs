//! Service versions: `^[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$`, ordered by semver precedence.
//!
//! A version is parsed once, where it enters. The rule is wider than semver in two places (leading
//! zeros, empty pre-release identifiers) and narrower in two (lower case only, no build part), so
//! the type is our own and the order is that of <https://semver.org/#spec-item-11>.
//!
//! Invariant: equal versions compare equal, hash equal and print the same: leading zeros are
//! dropped on parsing. Every numeric part fits 64 bits; one that does not is no version.

use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use thiserror::Error;

use crate::limits::MAX_VERSION;

/// A service's version.
///
/// ```
/// use broker_protocol::Version;
///
/// let floor = Version::parse("1.2.3")?;
/// assert!(Version::parse("1.2.3-rc.1")? < floor);
/// assert!(Version::parse("1.10.0")? > floor);
/// # Ok::<(), broker_protocol::VersionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    /// Without leading zeros in numeric identifiers, never empty; none for a release.
    ///
    /// Not an empty text: comparing two of those is a call of `memcmp` with addresses that nothing lies
    /// at, for which some processors take longer than for all the rest of a Hello (docs/decisions, 6).
    pre: Option<Box<str>>,
}

/// Why a text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VersionError {
    /// More than 64 bytes.
    #[error("a version has at most {MAX_VERSION} bytes, this one has {actual}")]
    TooLong {
        /// Its length in bytes.
        actual: usize,
    },
    /// Not `N.N.N` or `N.N.N-pre`.
    #[error("a version is NUMBER.NUMBER.NUMBER, optionally followed by -PRERELEASE of a-z, 0-9 and '.'")]
    Form,
    /// A number that does not fit 64 bits.
    #[error("a number in the version is larger than {}", u64::MAX)]
    Overflow,
}

impl VersionError {
    /// The rule that was broken, as one stable word for `Refused.details`.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "length",
            Self::Form => "form",
            Self::Overflow => "overflow",
        }
    }
}

impl Version {
    /// Parses a version of at most 64 bytes.
    ///
    /// # Errors
    /// [`VersionError`] says which rule `text` breaks.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        if text.len() > MAX_VERSION {
            return Err(VersionError::TooLong { actual: text.len() });
        }
        let bytes = text.as_bytes();
        let (major, rest) = leading_number(bytes)?;
        let (minor, rest) = leading_number(rest.strip_prefix(b".").ok_or(VersionError::Form)?)?;
        let (patch, rest) = leading_number(rest.strip_prefix(b".").ok_or(VersionError::Form)?)?;
        if rest.is_empty() {
            return Ok(Self { major, minor, patch, pre: None });
        }
        let pre = rest.strip_prefix(b"-").ok_or(VersionError::Form)?;
        if pre.is_empty() || !pre.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.')) {
            return Err(VersionError::Form);
        }
        let pre = &text[text.len() - pre.len()..];
        Ok(Self { major, minor, patch, pre: Some(canonical_pre_release(pre)?) })
    }

    /// The three numbers: major, minor, patch.
    pub const fn numbers(&self) -> (u64, u64, u64) {
        (self.major, self.minor, self.patch)
    }

    /// The pre-release part without its dash; empty for a release.
    pub fn pre_release(&self) -> &str {
        self.pre.as_deref().unwrap_or_default()
    }
}

fn leading_number(bytes: &[u8]) -> Result<(u64, &[u8]), VersionError> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return Err(VersionError::Form);
    }
    let (number, rest) = bytes.split_at(digits);
    number
        .iter()
        .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .map(|value| (value, rest))
        .ok_or(VersionError::Overflow)
}

/// A numeric identifier's value; `None` for an alphanumeric one.
fn numeric(identifier: &str) -> Option<Result<u64, VersionError>> {
    let digits_only = !identifier.is_empty() && identifier.bytes().all(|byte| byte.is_ascii_digit());
    digits_only.then(|| identifier.parse().map_err(|_| VersionError::Overflow))
}

fn canonical_pre_release(pre: &str) -> Result<Box<str>, VersionError> {
    let mut canonical = String::with_capacity(pre.len());
    for (index, identifier) in pre.split('.').enumerate() {
        if index > 0 {
            canonical.push('.');
        }
        match numeric(identifier) {
            Some(Err(overflow)) => return Err(overflow),
            Some(Ok(_)) => {
                let trimmed = identifier.trim_start_matches('0');
                canonical.push_str(if trimmed.is_empty() { "0" } else { trimmed });
            }
            None => canonical.push_str(identifier),
        }
    }
    Ok(canonical.into())
}

/// Semver precedence of one pre-release identifier: numeric ones by value and below the others.
fn compare_identifiers(left: &str, right: &str) -> Ordering {
    match (numeric(left), numeric(right)) {
        (Some(Ok(left)), Some(Ok(right))) => left.cmp(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) | (Some(_), Some(_)) => left.cmp(right),
    }
}

fn compare_pre_releases(left: Option<&str>, right: Option<&str>) -> Ordering {
    match (left, right) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => {
            let (mut left, mut right) = (left.split('.'), right.split('.'));
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return Ordering::Equal,
                    (None, Some(_)) => return Ordering::Less,
                    (Some(_), None) => return Ordering::Greater,
                    (Some(left), Some(right)) => match compare_identifiers(left, right) {
                        Ordering::Equal => {}
                        different => return different,
                    },
                }
            }
        }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers()
            .cmp(&other.numbers())
            .then_with(|| compare_pre_releases(self.pre.as_deref(), other.pre.as_deref()))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers() == other.numbers() && self.pre == other.pre
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.numbers().hash(state);
        self.pre.hash(state);
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if let Some(pre) = &self.pre {
            write!(f, "-{pre}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn the_semver_precedence_example_is_in_order() {
        let ascending = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2.0.0",
        ];
        for pair in ascending.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{} < {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn the_largest_number_passes_and_one_more_is_no_version() {
        assert_eq!(version("18446744073709551615.0.0").numbers().0, u64::MAX);
        assert_eq!(version("0.0.0-18446744073709551615").pre_release(), "18446744073709551615");
        for text in ["18446744073709551616.0.0", "0.18446744073709551616.0", "0.0.18446744073709551616"] {
            assert_eq!(Version::parse(text), Err(VersionError::Overflow), "{text}");
        }
        assert_eq!(Version::parse("0.0.0-18446744073709551616"), Err(VersionError::Overflow));
        assert!(Version::parse("0.0.0-18446744073709551616x").is_ok(), "not a number, so no overflow");
    }

    #[test]
    fn a_version_has_at_most_sixty_four_bytes() {
        let longest = format!("1.2.3-{}", "a".repeat(58));
        assert_eq!(longest.len(), 64);
        assert!(Version::parse(&longest).is_ok());
        assert_eq!(Version::parse(&format!("{longest}a")), Err(VersionError::TooLong { actual: 65 }));
    }

    #[test]
    fn leading_zeros_make_no_different_version() {
        assert_eq!(version("01.002.3-rc.007"), version("1.2.3-rc.7"));
        assert_eq!(version("01.002.3-rc.007").to_string(), "1.2.3-rc.7");
        assert_eq!(version("0.0.0-000").to_string(), "0.0.0-0");
    }

    #[test]
    fn texts_outside_the_rule_are_refused() {
        let texts = [
            "",
            "1",
            "1.2",
            "1.2.",
            "1.2.3.4",
            "v1.2.3",
            "1.2.3-",
            "1.2.3-RC",
            "1.2.3+b",
            "1.2.3-a+b",
            " 1.2.3",
            "1.2.3 ",
            "1..3",
            "-1.2.3",
            "+1.2.3",
            "1.2.3-ä",
            "1.2.3-a_b",
            "1.2.3--",
        ];
        for text in texts {
            assert_eq!(Version::parse(text), Err(VersionError::Form), "{text:?}");
        }
    }

    #[test]
    fn empty_identifiers_are_versions_because_the_rule_says_so() {
        assert!(version("1.0.0-a..b") < version("1.0.0-a.a"));
        assert!(version("1.0.0-1") < version("1.0.0-."), "a number is below an alphanumeric identifier");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,80}") {
            let _ = Version::parse(&text);
        }

        #[test]
        fn what_parses_prints_to_an_equal_version(text in "[0-9]{1,4}\\.[0-9]{1,4}\\.[0-9]{1,4}(-[a-z0-9.]{1,20})?") {
            if let Ok(version) = Version::parse(&text) {
                prop_assert_eq!(Version::parse(&version.to_string()), Ok(version));
            }
        }

        #[test]
        fn the_order_is_total(
            texts in proptest::collection::vec("[0-2]\\.[0-2]\\.[0-2](-[ab01.]{1,5})?", 3)
        ) {
            let [a, b, c] = [&texts[0], &texts[1], &texts[2]].map(|text| version(text));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
