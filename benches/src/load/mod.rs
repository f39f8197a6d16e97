//! Load on a server that answers one frame per connection, and what it costs that server.

#[cfg(unix)]
pub mod clients;
pub mod plot;
#[cfg(target_os = "linux")]
pub mod process;
pub mod report;
pub mod samples;
#[cfg(unix)]
pub mod servers;
