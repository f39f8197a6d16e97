//! What only Linux tells of processes, and does to them.

mod limited;
mod processes;
mod steps;

pub use self::limited::{after, may_mount, seen_by, with_descriptors, with_rights_of_a_user};
pub use self::processes::{Process, open_descriptors, processes_of, sockets_in, wait_until, zombies_of};
pub use self::steps::{Killed, Run, Victim, run};
