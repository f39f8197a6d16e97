//! Which versions of a service may be asked for (behaviour.md 2, row 16).

use broker_protocol::{PolicyBlock, Version};

/// A floor and an allow-list; both empty means that every version is allowed.
///
/// ```
/// use broker_core::services::VersionPolicy;
/// use broker_protocol::Version;
///
/// let policy = VersionPolicy::new(Some(Version::parse("1.2.0")?), Vec::new());
/// assert!(policy.check(&Version::parse("1.2.0")?).is_ok());
/// assert!(policy.check(&Version::parse("1.2.0-rc.1")?).is_err()); // below its release
/// # Ok::<(), broker_protocol::VersionError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionPolicy {
    minimum: Option<Version>,
    /// Sorted, so that a long list costs little on the Hello path.
    allowed: Vec<Version>,
}

impl VersionPolicy {
    /// A policy with this floor and this allow-list.
    pub fn new(minimum: Option<Version>, mut allowed: Vec<Version>) -> Self {
        allowed.sort_unstable();
        allowed.dedup();
        Self { minimum, allowed }
    }

    /// The floor.
    pub const fn minimum(&self) -> Option<&Version> {
        self.minimum.as_ref()
    }

    /// The allow-list in ascending order; empty means all.
    pub fn allowed(&self) -> &[Version] {
        &self.allowed
    }

    /// Whether the policy mentions this very version.
    pub fn names(&self, version: &Version) -> bool {
        self.minimum.as_ref() == Some(version) || self.allowed.binary_search(version).is_ok()
    }

    /// Whether `wanted` may be asked for.
    ///
    /// # Errors
    /// What blocks it.
    pub fn check(&self, wanted: &Version) -> Result<(), PolicyBlock> {
        if let Some(minimum) = self.minimum.as_ref().filter(|minimum| wanted < *minimum) {
            return Err(PolicyBlock::BelowMinimum(minimum.clone()));
        }
        if !self.allowed.is_empty() && self.allowed.binary_search(wanted).is_err() {
            return Err(PolicyBlock::NotAllowed(self.allowed.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn the_floor_itself_passes_and_its_pre_release_does_not() {
        let policy = VersionPolicy::new(Some(version("1.2.0")), Vec::new());
        assert_eq!(policy.check(&version("1.2.0")), Ok(()));
        assert_eq!(policy.check(&version("1.2.1-alpha")), Ok(()));
        for below in ["1.2.0-rc.9", "1.1.999", "0.18446744073709551615.0"] {
            assert_eq!(
                policy.check(&version(below)),
                Err(PolicyBlock::BelowMinimum(version("1.2.0"))),
                "{below}"
            );
        }
    }

    #[test]
    fn a_non_empty_list_allows_only_what_it_names() {
        let policy = VersionPolicy::new(None, vec![version("2.0.0"), version("1.0.0"), version("1.0.0")]);
        assert_eq!(policy.allowed(), [version("1.0.0"), version("2.0.0")]);
        assert_eq!(policy.check(&version("2.0.0")), Ok(()));
        assert!(matches!(policy.check(&version("1.5.0")), Err(PolicyBlock::NotAllowed(_))));
    }

    #[test]
    fn the_floor_is_checked_before_the_list() {
        let policy = VersionPolicy::new(Some(version("1.0.0")), vec![version("0.9.0")]);
        assert!(matches!(policy.check(&version("0.9.0")), Err(PolicyBlock::BelowMinimum(_))));
        assert!(matches!(policy.check(&version("1.0.0")), Err(PolicyBlock::NotAllowed(_))));
    }

    #[test]
    fn a_policy_names_its_floor_and_its_list_and_nothing_else() {
        let policy = VersionPolicy::new(Some(version("1.0.0")), vec![version("1.5.0")]);
        assert!(policy.names(&version("1.0.0")) && policy.names(&version("1.5.0")));
        assert!(!policy.names(&version("1.2.0")) && !VersionPolicy::default().names(&version("1.0.0")));
    }

    #[test]
    fn an_empty_policy_allows_everything() {
        assert_eq!(VersionPolicy::default().check(&version("0.0.0-0")), Ok(()));
    }
}
