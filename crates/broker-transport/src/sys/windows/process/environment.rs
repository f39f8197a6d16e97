//! The environment block of a child.
//!
//! Names are the same in any case, and are sorted without regard to it. Invariant: every name is there once,
//! with the last of its values, and none is empty or has `=` in it. Pure, but for the variables of this process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::windows::ffi::OsStrExt;

use super::plan::{NUL_INSIDE, unpassable};
use crate::process::{BaseEnv, SpawnError, is_passed_on};

const EQUALS: u16 = b'=' as u16;

/// Without it not even a socket can be opened.
pub(super) const SYSTEM_ROOT: &str = "SystemRoot";

/// Variables by their names in upper case.
#[derive(Default)]
pub(super) struct Environment {
    variables: BTreeMap<Vec<u16>, (OsString, OsString)>,
}

impl Environment {
    pub(super) fn of(base: BaseEnv) -> Self {
        let mut environment = Self::default();
        if base == BaseEnv::Inherit {
            for (name, value) in std::env::vars_os().filter(|(name, _)| is_inherited(name)) {
                environment.insert(name, value);
            }
        }
        environment
    }

    /// Adds a variable, or gives it another value.
    pub(super) fn insert(&mut self, name: OsString, value: OsString) {
        self.variables.insert(key(&name), (name, value));
    }

    /// Adds a variable that is not there.
    pub(super) fn insert_missing(&mut self, name: &str, value: &OsStr) {
        let name = OsString::from(name);
        self.variables.entry(key(&name)).or_insert_with(|| (name, value.to_owned()));
    }

    /// `NAME=value`, each with its NUL, and a NUL at the end.
    pub(super) fn to_block(&self) -> Result<Vec<u16>, SpawnError> {
        let mut block = Vec::new();
        for (name, value) in self.variables.values() {
            if name.is_empty() || name.encode_wide().any(|unit| unit == EQUALS) {
                return Err(unpassable(name, "a variable's name is not empty and has no '='"));
            }
            for text in [name, value] {
                if text.encode_wide().any(|unit| unit == 0) {
                    return Err(unpassable(text, NUL_INSIDE));
                }
            }
            block.extend(name.encode_wide());
            block.push(EQUALS);
            block.extend(value.encode_wide());
            block.push(0);
        }
        if block.is_empty() {
            block.push(0);
        }
        block.push(0);
        Ok(block)
    }
}

/// Not passed on are what is this process's own, in whatever case, and the current directories of drives
/// (`=C:`), which the system keeps among the variables.
fn is_inherited(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b"=") && is_passed_on(&name.to_ascii_uppercase())
}

/// Upper case as the system has it: unit by unit, and only where one unit becomes one.
fn key(name: &OsStr) -> Vec<u16> {
    let upper = |unit: u16| {
        let mut upper = char::from_u32(unit.into()).map(char::to_uppercase).into_iter().flatten();
        match (upper.next().map(u32::from).map(u16::try_from), upper.next()) {
            (Some(Ok(upper)), None) => upper,
            _ => unit,
        }
    };
    name.encode_wide().map(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(pairs: &[(&str, &str)]) -> Result<String, SpawnError> {
        let mut environment = Environment::of(BaseEnv::Empty);
        for (name, value) in pairs {
            environment.insert(name.into(), value.into());
        }
        environment.to_block().map(|block| String::from_utf16(&block).unwrap())
    }

    #[test]
    fn names_are_sorted_in_any_case_and_the_last_value_wins() {
        let pairs = [("b", "1"), ("A", "2"), ("_c", "3"), ("B", "4=5"), ("ä", "6"), ("Ä", "")];
        assert_eq!(block(&pairs).unwrap(), "A=2\0B=4=5\0_c=3\0Ä=\0\0");
        assert_eq!(block(&[]).unwrap(), "\0\0");
    }

    #[test]
    fn what_would_be_read_as_another_variable_is_refused() {
        for pair in [("", "x"), ("a=b", "x"), ("=C:", "x"), ("a\0b", "x"), ("a", "x\0b=y")] {
            assert!(matches!(block(&[pair]), Err(SpawnError::Unpassable { .. })), "{pair:?}");
        }
    }

    #[test]
    fn a_missing_variable_is_added_and_one_in_another_case_is_not_missing() {
        let mut environment = Environment::of(BaseEnv::Empty);
        environment.insert("SYSTEMROOT".into(), "x".into());
        environment.insert_missing(SYSTEM_ROOT, "y".as_ref());
        environment.insert_missing("other", "z".as_ref());
        let block = String::from_utf16(&environment.to_block().unwrap()).unwrap();
        assert_eq!(block, "other=z\0SYSTEMROOT=x\0\0");
    }

    #[test]
    fn what_is_for_this_process_alone_is_not_passed_on_in_any_case() {
        for (name, is_fine) in
            [("Path", true), ("listen_pid", false), ("LISTEN_FDS", false), ("=C:", false), ("=", false)]
        {
            assert_eq!(is_inherited(name.as_ref()), is_fine, "{name}");
        }
    }
}
