//! Load on a server that answers one frame per connection, and what it costs that server.

pub mod clients;
pub mod plot;
pub mod process;
pub mod report;
pub mod samples;
pub mod servers;
