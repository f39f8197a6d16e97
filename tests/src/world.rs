//! A home directory, a runtime directory and definitions that belong to one test.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use broker_protocol::prost::Message;
use broker_protocol::wire::LifecycleEvent;
use tempfile::TempDir;

use crate::PATIENCE;
use crate::hostile_peer::HostilePeer;
use crate::process::{Daemon, Finished};
use crate::sys;
use crate::wire::{Wire, is_listening};

/// What one test sees of the file system and the environment.
pub struct World {
    home: TempDir,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty home.
    pub fn new() -> Self {
        Self { home: sys::home() }
    }

    /// A path inside the home.
    pub fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    /// An endpoint of this world: on Unix the path below the home.
    pub fn endpoint(&self, below: &str) -> PathBuf {
        sys::endpoint(self.home.path(), below)
    }

    /// The endpoint that [`serve`](Self::serve) listens on.
    pub fn socket(&self) -> PathBuf {
        self.endpoint("run/s.sock")
    }

    /// The lock that goes with it.
    pub fn lock(&self) -> PathBuf {
        sys::lock(self.home.path(), &self.socket())
    }

    /// Where a broker keeps its own state.
    pub fn state_dir(&self) -> PathBuf {
        sys::state_dir(self.home.path())
    }

    /// Where the definitions of this user's services lie.
    pub fn definitions(&self) -> PathBuf {
        sys::definitions(self.home.path())
    }

    /// Where brokers look for their configuration.
    pub fn config_file(&self) -> PathBuf {
        self.definitions().with_file_name("brokerd.toml")
    }

    /// Writes that file, which nobody sees half written.
    pub fn configure(&self, text: &str) {
        let file = self.config_file();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let new = file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    }

    /// A program of this workspace, in the profile that the test was built in.
    pub fn program(name: &str) -> PathBuf {
        let test = std::env::current_exe().unwrap();
        let file = format!("{name}{EXE_SUFFIX}");
        let target = test.ancestors().find(|path| path.join(&file).is_file());
        match target {
            Some(target) => target.join(file),
            None => panic!("{name} is not built; run `cargo build --package {name}` first"),
        }
    }

    /// A command in this world's environment, and nothing of the test's own.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(sys::environment(self.home.path()))
            .env("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED", "1")
            .stdin(Stdio::null());
        command
    }

    /// Makes a program of these commands of sh(1), on Unix only. Another process writes it: a program that is open for
    /// writing, also in what another test has just forked, cannot be executed.
    pub fn script(&self, below: &str, commands: &str) -> PathBuf {
        let path = self.path(below);
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 700 "$2""#;
        let written = Command::new("/bin/sh").args(["-c", write, "sh", commands]).arg(&path).status();
        assert!(written.unwrap().success());
        path
    }

    /// `brokerd` with these arguments.
    pub fn brokerd(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&Self::program("brokerd"));
        command.args(arguments);
        command
    }

    /// Runs `brokerd` with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.brokerd(arguments))
    }

    /// Defines a service whose backend is `echo-backend`.
    pub fn define(&self, service: &str, options: &[&str]) {
        let backend = Self::program("echo-backend");
        let mut arguments = vec!["service", "add", service, "--binary", backend.to_str().unwrap()];
        arguments.extend(options);
        let added = self.run(&arguments);
        assert!(added.is_success(), "{added:?}");
    }

    /// Runs a backend of `cache` that nobody but the test has started; listens when this returns.
    pub fn run_backend(&self, endpoint: &Path) -> Daemon {
        // Where an endpoint is a file, it lies in a directory.
        std::fs::create_dir_all(self.path("own")).unwrap();
        let mut backend = self.command(&Self::program("echo-backend"));
        let backend = Daemon::spawn(backend.arg("--endpoint").arg(endpoint));
        let deadline = Instant::now() + PATIENCE;
        while !is_listening(endpoint) {
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::yield_now();
        }
        backend
    }

    /// Runs a broker on [`socket`](Self::socket), which serves every trust domain; returns once it listens.
    pub fn serve(&self, options: &[&str]) -> Daemon {
        let socket = self.socket();
        let mut arguments = vec!["serve", "--socket", socket.to_str().unwrap()];
        arguments.extend(options);
        Daemon::start(&mut self.brokerd(&arguments))
    }

    /// A connection to the broker.
    pub fn connect(&self) -> Wire {
        Wire::connect(&self.socket())
    }

    /// How many backends the broker has in this state.
    pub fn backends_in(&self, state: &str) -> usize {
        let status = self.ask("status");
        status["backends"].as_array().unwrap().iter().filter(|backend| backend["state"] == state).count()
    }

    /// Lets a process do to the broker what no client should: a behaviour of `hostile-peer`, and its options.
    pub fn hostile_peer(&self, arguments: &[&str]) -> HostilePeer {
        HostilePeer::start(self, &self.socket(), arguments)
    }

    /// Waits until so many events are on disk: a broker writes them beside all else.
    pub fn wait_for_events(&self, least: usize) {
        let log = self.state_dir().join("events").join("lifecycle.pb");
        let deadline = Instant::now() + PATIENCE;
        let count = || {
            let bytes = std::fs::read(&log).unwrap_or_default();
            let mut rest = &bytes[..];
            let events = std::iter::from_fn(|| LifecycleEvent::decode_length_delimited(&mut rest).ok());
            // Nothing is an event, too, of no length; at the end there is not even that.
            events.take_while(|event| event.ts_ms > 0).count()
        };
        while count() < least {
            assert!(Instant::now() < deadline, "{} events, not {least}", count());
            std::thread::yield_now();
        }
    }

    /// How many handoffs to backends of `cache` the broker has counted with this outcome.
    pub fn handoffs(&self, outcome: &str) -> u64 {
        self.metric("handoff_total", &format!("outcome=\"{outcome}\""))
    }

    /// How many Hellos for `cache` the broker has agreed to. One whose connection is passed on by control is
    /// on offer when it is counted.
    pub fn agreements(&self) -> u64 {
        self.metric("hello_total", "outcome=\"negotiated\"")
    }

    /// The sum of a metric of `cache` over its series with this label, which is each one's last.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let metrics = self.run(&["metrics", "--socket", self.socket().to_str().unwrap()]);
        let of_cache = format!("_{name}{{service=\"cache\",");
        let counts = metrics.stdout.lines().filter(|line| line.contains(&of_cache));
        let counts = counts.filter_map(|line| line.split_once(&format!("{label}}} ")));
        counts.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
    }

    /// An admin verb's answer as JSON.
    pub fn ask(&self, verb: &str) -> serde_json::Value {
        let answer = self.run(&[verb, "--socket", self.socket().to_str().unwrap(), "--json"]);
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}
