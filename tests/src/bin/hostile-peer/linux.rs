//! The command line, and who does what it says.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::behaviour::{self, Peer};
use crate::progress::Progress;

/// A peer that does to a broker what no client should.
#[derive(Debug, Parser)]
#[command(name = "hostile-peer")]
struct Options {
    /// Where the broker listens
    socket: PathBuf,
    /// What is done to it
    behaviour: Behaviour,
    /// How much of it; without it, as much as there is time for
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// After how much of it a line is printed
    #[arg(long, default_value_t = 1)]
    round: u64,
    /// Connections at once, where there are several
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Time between two bytes
    #[arg(long, default_value_t = 1_000)]
    tick_ms: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Behaviour {
    /// Opens connections and says nothing
    Hold,
    /// Says one byte at a time
    Trickle,
    /// Leaves out the last byte of the longest frame that is read
    HalfFrames,
    /// Declares frames of 16 MiB and sends them
    #[value(name = "declare-16-mib")]
    Declare16Mib,
    /// Sends frames that are none
    Garbage,
    /// Attaches descriptors to its Hello
    AttachDescriptors,
    /// Says Hello and reads no answer
    NeverRead,
    /// Asks for the longest answer there is, and does not read it
    NeverReadDump,
    /// Connects and is gone
    Vanish,
}

pub(crate) fn main() {
    let options = Options::parse();
    let progress = Progress::start(options.count, options.round);
    let peer = Peer { socket: options.socket, connections: options.connections, progress };
    match options.behaviour {
        Behaviour::Hold => behaviour::hold(&peer),
        Behaviour::Trickle => behaviour::trickle(&peer, Duration::from_millis(options.tick_ms)),
        Behaviour::HalfFrames => behaviour::half_frames(&peer),
        Behaviour::Declare16Mib => behaviour::declare(&peer),
        Behaviour::Garbage => behaviour::garbage(&peer),
        Behaviour::AttachDescriptors => behaviour::attach_descriptors(&peer),
        Behaviour::NeverRead => behaviour::never_read(&peer, &behaviour::hello_frame()),
        Behaviour::NeverReadDump => behaviour::never_read(&peer, &behaviour::dump_frame()),
        Behaviour::Vanish => behaviour::vanish(&peer),
    }
}
