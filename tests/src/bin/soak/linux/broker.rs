//! The broker that serves right now. What all of them say goes into one file, which is read at the end.

use std::fs::OpenOptions;
use std::num::NonZeroU32;
use std::process::{Child, Stdio};

use broker_protocol::prost::Message;
use broker_protocol::wire::LifecycleEvent;
use broker_tests::{Signal, World, has_died, linux};
use broker_transport::stream::BlockingStream;
use rustix::process::{Pid, kill_process};

pub(super) struct Broker(Child);

impl Broker {
    /// Starts one; it listens when this returns.
    pub(super) fn start(world: &World) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(world.path("log")).unwrap();
        let socket = world.socket();
        let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
        let options = ["--hello-burst", "100000", "--hello-refill", "100000"];
        let mut child = command.args(options).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        linux::wait_until("a broker", || {
            // What a killed one has just forked may hold its listener open for a moment more.
            let listener = BlockingStream::connect(&socket, None).ok().and_then(|stream| stream.peer().ok());
            let pid = listener.and_then(|listener| listener.pid).map(NonZeroU32::get);
            let listens = pid == Some(child.id()) || child.try_wait().unwrap().is_some();
            (!listens).then(|| "it does not listen".to_owned())
        });
        assert_eq!(child.try_wait().unwrap(), None, "{}", said(world));
        Self(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it in good order; what is wrong with that, or was said before.
    pub(super) fn end(mut self, world: &World) -> Vec<String> {
        let mut faults = Vec::new();
        signal(self.pid(), Signal::TERM);
        if !has_died(self.pid()) {
            self.0.kill().unwrap();
        }
        let status = self.0.wait().unwrap();
        if status.code() != Some(0) {
            faults.push(format!("the last broker ended with {status}"));
        }
        let left = linux::processes_of(&world.path(""));
        faults.extend(left.iter().map(|process| format!("at the end: {process:?}")));
        let files = [world.socket(), world.lock()].into_iter().filter(|file| file.exists());
        faults.extend(
            files
                .chain(linux::sockets_in(&super::rest::runtime_dir(world)))
                .map(|file| format!("at the end: {}", file.display())),
        );
        let said = said(world);
        // The death of a backend is an error, too, and was meant.
        let is_bad = |line: &&str| {
            line.contains("panicked") || line.contains("ERROR") && !line.contains(" DIED_CRASH ")
        };
        let bad = said.lines().filter(is_bad);
        faults.extend(bad.map(|line| format!("a broker said: {line}")));
        faults.extend(check_events(world));
        faults
    }
}

pub(super) fn signal(pid: u32, signal: Signal) -> bool {
    Pid::from_raw(pid.try_into().unwrap()).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

fn said(world: &World) -> String {
    std::fs::read_to_string(world.path("log")).unwrap_or_default()
}

/// Every log of events is whole, up to its last record.
fn check_events(world: &World) -> Option<String> {
    let logs = std::fs::read_dir(world.state_dir().join("events")).into_iter().flatten().flatten();
    let mut count = 0;
    for log in logs {
        let bytes = std::fs::read(log.path()).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if let Err(error) = LifecycleEvent::decode_length_delimited(&mut rest) {
                return Some(format!("{}: {error}", log.path().display()));
            }
            count += 1;
        }
    }
    println!("lifecycle events on disk: {count}");
    None
}
