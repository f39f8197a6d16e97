//! What an access list permits, and to whom.
//!
//! Pure: `security` reads the lists. Invariant: in doubt others may. Entries that forbid are left out of account,
//! and one of an unknown kind counts as one that permits.

use windows_sys::Win32::Foundation::{GENERIC_ALL, GENERIC_WRITE};
use windows_sys::Win32::Security::INHERIT_ONLY_ACE;
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_APPEND_DATA, FILE_DELETE_CHILD, FILE_WRITE_ATTRIBUTES, FILE_WRITE_DATA, FILE_WRITE_EA,
    WRITE_DAC, WRITE_OWNER,
};

use super::identity::{LOCAL_SYSTEM, user_key};

/// Rights by which a file or what lies in a directory is changed, now or by way of the list itself.
pub(super) const WRITE: u32 =
    FILE_WRITE_DATA | FILE_APPEND_DATA | FILE_WRITE_EA | FILE_WRITE_ATTRIBUTES | REPLACE | GENERIC_WRITE;

/// Rights by which something else can be put in the place of a directory, or of what lies in it.
pub(super) const REPLACE: u32 = DELETE | FILE_DELETE_CHILD | WRITE_DAC | WRITE_OWNER | GENERIC_ALL;

/// Those who may do everything on this machine anyway, or stand for the owner, who is asked for by himself:
/// `LocalSystem`, the administrators, `TrustedInstaller`, and the placeholders `CREATOR OWNER` and `OWNER RIGHTS`.
const SYSTEMS_OWN: [&str; 3] =
    [LOCAL_SYSTEM, "S-1-5-32-544", "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"];
const OWNERS_OWN: [&str; 2] = ["S-1-3-0", "S-1-3-4"];

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
    /// Of a kind that this crate does not know.
    Unknown,
}

/// One entry of an access list.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) effect: Effect,
    /// `ACE_HEADER.AceFlags`.
    pub(super) flags: u32,
    pub(super) rights: u32,
    pub(super) sid: String,
}

/// Who owns something, and who may do what with it.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) owner: String,
    /// `None` where there is no list: then everybody may do everything.
    pub(super) entries: Option<Vec<Entry>>,
}

/// Which entries count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those of the object itself.
    Itself,
    /// Also those that are there for what will be made in it.
    WithChildren,
}

impl Access {
    /// Somebody besides this user and the system who has one of these rights.
    pub(super) fn other_with(&self, rights: u32, scope: Scope, own_sid: &str) -> Option<&str> {
        let Some(entries) = &self.entries else { return Some("everybody") };
        let counts = |entry: &&Entry| {
            let is_known = SYSTEMS_OWN.contains(&entry.sid.as_str())
                || OWNERS_OWN.contains(&entry.sid.as_str())
                || entry.sid == own_sid;
            let is_in_scope = scope == Scope::WithChildren || entry.flags & INHERIT_ONLY_ACE == 0;
            match entry.effect {
                Effect::Allow => entry.rights & rights != 0 && is_in_scope && !is_known,
                Effect::Deny => false,
                Effect::Unknown => true,
            }
        };
        entries.iter().find(counts).map(|entry| entry.sid.as_str())
    }

    /// Whether it belongs to this user, or to the system.
    pub(super) fn is_owned_by(&self, own_sid: &str) -> bool {
        self.owner == own_sid || SYSTEMS_OWN.contains(&self.owner.as_str())
    }

    /// The owner's number: 0 for the system's own, as for root on Unix. What an administrator makes belongs to
    /// all of them by default.
    pub(super) fn owner_key(&self, own_sid: &str) -> u64 {
        let is_the_systems = self.owner != own_sid && SYSTEMS_OWN.contains(&self.owner.as_str());
        if is_the_systems { 0 } else { user_key(&self.owner) }
    }
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::Storage::FileSystem::{FILE_GENERIC_EXECUTE, FILE_GENERIC_READ};

    use super::*;

    const OWN: &str = "S-1-5-21-1-2-3-1001";
    const OTHER: &str = "S-1-5-21-1-2-3-1002";
    const USERS: &str = "S-1-5-32-545";

    fn allow(sid: &str, rights: u32) -> Entry {
        Entry { effect: Effect::Allow, flags: 0, rights, sid: sid.into() }
    }

    fn access(entries: Vec<Entry>) -> Access {
        Access { owner: OWN.into(), entries: Some(entries) }
    }

    #[test]
    fn without_a_list_everybody_may_and_with_an_empty_one_nobody() {
        let none = Access { owner: OWN.into(), entries: None };
        assert_eq!(none.other_with(WRITE, Scope::Itself, OWN), Some("everybody"));
        assert_eq!(access(vec![]).other_with(WRITE, Scope::WithChildren, OWN), None);
    }

    #[test]
    fn this_user_and_the_system_are_not_others() {
        let known = [OWN, LOCAL_SYSTEM, "S-1-5-32-544", "S-1-3-0", "S-1-3-4", SYSTEMS_OWN[2]];
        let list = access(known.iter().map(|sid| allow(sid, u32::MAX)).collect());
        assert_eq!(list.other_with(WRITE, Scope::WithChildren, OWN), None);
        assert_eq!(list.other_with(WRITE, Scope::WithChildren, OTHER), Some(OWN));
    }

    #[test]
    fn every_right_to_write_counts_and_reading_does_not() {
        for bit in 0..u32::BITS {
            let right = 1 << bit;
            let list = access(vec![allow(USERS, right)]);
            let expected = (WRITE & right != 0).then_some(USERS);
            assert_eq!(list.other_with(WRITE, Scope::Itself, OWN), expected, "{right:#x}");
        }
        let reading = access(vec![allow(USERS, FILE_GENERIC_READ | FILE_GENERIC_EXECUTE)]);
        assert_eq!(reading.other_with(WRITE, Scope::WithChildren, OWN), None);
        // As on a data drive's root: making something is permitted, taking its place is not.
        let making = access(vec![allow(USERS, FILE_APPEND_DATA | FILE_WRITE_DATA)]);
        assert_eq!(making.other_with(REPLACE, Scope::Itself, OWN), None);
    }

    #[test]
    fn what_is_only_for_children_counts_where_they_are_asked_for() {
        let list = access(vec![Entry { flags: INHERIT_ONLY_ACE, ..allow(USERS, GENERIC_ALL) }]);
        assert_eq!(list.other_with(WRITE, Scope::Itself, OWN), None);
        assert_eq!(list.other_with(WRITE, Scope::WithChildren, OWN), Some(USERS));
    }

    #[test]
    fn forbidding_takes_nothing_back_and_the_unknown_counts() {
        let deny = Entry { effect: Effect::Deny, ..allow(OTHER, u32::MAX) };
        assert_eq!(access(vec![deny.clone()]).other_with(WRITE, Scope::Itself, OWN), None);
        let both = access(vec![deny, allow(OTHER, DELETE)]);
        assert_eq!(both.other_with(WRITE, Scope::Itself, OWN), Some(OTHER));
        let unknown = Entry { effect: Effect::Unknown, ..allow("?", 0) };
        assert_eq!(access(vec![unknown]).other_with(WRITE, Scope::Itself, OWN), Some("?"));
    }

    #[test]
    fn the_systems_own_files_have_the_number_that_roots_have() {
        let owned_by = |owner: &str| Access { owner: owner.into(), entries: None };
        for owner in SYSTEMS_OWN {
            assert!(owned_by(owner).is_owned_by(OWN));
            assert_eq!(owned_by(owner).owner_key(OWN), 0);
        }
        assert!(owned_by(OWN).is_owned_by(OWN) && !owned_by(OTHER).is_owned_by(OWN));
        assert_eq!(owned_by(OWN).owner_key(OWN), user_key(OWN));
        assert_eq!(owned_by(OTHER).owner_key(OWN), user_key(OTHER));
        assert_eq!(owned_by(LOCAL_SYSTEM).owner_key(LOCAL_SYSTEM), user_key(LOCAL_SYSTEM));
        assert!(!owned_by("S-1-3-4").is_owned_by(OWN), "a placeholder owns nothing");
    }
}
