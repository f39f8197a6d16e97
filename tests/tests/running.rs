//! A broker that a service manager runs: what it is told, given and shown (sd_notify(3), sd_listen_fds(3)).
//!
//! The manager is the test: it binds the sockets that systemd would bind, and reads what systemd would read.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "running/activation.rs"]
mod activation;
#[path = "running/journal.rs"]
mod journal;
#[path = "running/notify.rs"]
mod notify;
#[path = "running/units.rs"]
mod units;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use broker_tests::{PATIENCE, World};

/// The socket of a manager, and everything that it has heard.
struct Manager {
    socket: UnixDatagram,
    name: String,
    heard: Vec<String>,
}

impl Manager {
    fn at_a_path(world: &World) -> Self {
        let path = world.path("notify");
        let name = path.to_str().unwrap().to_owned();
        Self::of(UnixDatagram::bind(&path).unwrap(), name)
    }

    fn by_an_abstract_name(world: &World) -> Self {
        let name = format!("brokerd-test{}", world.path("").display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::of(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn of(socket: UnixDatagram, name: String) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, name, heard: Vec::new() }
    }

    /// The next message.
    fn next(&mut self) -> String {
        let mut message = [0; 4096];
        let length =
            self.socket.recv(&mut message).unwrap_or_else(|error| panic!("{error}: {:?}", self.heard));
        let message = String::from_utf8(message[..length].to_vec()).unwrap();
        self.heard.push(message.clone());
        message
    }

    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let message = self.next();
            if message.contains(text) {
                return message;
            }
        }
    }

    /// Whether something comes within this time.
    fn hears_within(&mut self, limit: Duration) -> bool {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let came = self.socket.recv(&mut [0; 4096]).is_ok();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        came
    }

    /// How often this was heard.
    fn count(&self, text: &str) -> usize {
        self.heard.iter().filter(|message| message.contains(text)).count()
    }

    /// `brokerd serve` as this manager's service.
    fn service(&self, world: &World, options: &[&str]) -> Command {
        let socket = world.socket();
        let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
        command.args(options).env("NOTIFY_SOCKET", &self.name);
        command
    }
}
