//! A process cannot go on as another program here: there is no execve(2).
//!
//! Invariant: nothing is taken from, or given to, anybody.

use std::io;

use super::unsupported;
use crate::process::Spawner;
use crate::succession::Inheritance;

pub(crate) const IS_OFFERED: bool = false;

pub(crate) fn take(_number: i32) -> io::Result<Inheritance> {
    unsupported("going on as another program")
}

pub(crate) fn reap(_orphans: Vec<u32>, _spawner: &Spawner) -> io::Result<()> {
    Ok(())
}
