//! The configuration file (docs/configuration.md).
//!
//! `keys` is the table of everything that can be set, which flags, variables and the file share; `parse` reads the
//! text, `file` gets it from where it lies, `check` is the command. What the values mean for a broker is said in
//! `serve::settings`.
//!
//! Invariant: a file is taken as a whole or not at all, and whatever is wrong with it is told with its place.

mod backend;
pub(crate) mod check;
mod file;
pub(crate) mod keys;
mod parse;
mod problem;

pub(crate) use file::{CONFIG_VARIABLE, Fault, File, Location, NotRead};
pub(crate) use parse::{Values, levels, levels_for_us};
