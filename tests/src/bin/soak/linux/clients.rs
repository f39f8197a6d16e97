//! Clients of every kind, each doing one thing after the other until told to pause or to end.
//!
//! Invariant: what a request is answered with is compared with what was asked; and what fails, fails with an error
//! that somebody's death explains.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display, Formatter};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use broker_client::{
    Connector, FirstRequestError, Hello, HelloError, PayloadProtocol, SessionError, blocking,
};
use broker_tests::World;

use super::random::Random;

const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);
/// Services by the way in which their backends come and go.
const SERVICES: [(&str, &[&str]); 3] = [
    ("cache", &[]),
    ("passed", &["--label", "spawn.activation=listen-fds"]),
    ("short-lived", &["--label", "idle.timeout_secs=1"]),
];
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
/// How many clients there are of those that link the library, and of those that are processes of their own.
const LINKED: u64 = 4;
const PROCESSES: u64 = 2;
/// A round trip to a backend that may be stopped for a moment.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two things that a client does: others need the processor, too.
const PAUSE: Duration = Duration::from_millis(2);
/// Most requests of one session.
const MOST_REQUESTS: u64 = 5;
/// Errors that no death explains.
const NEVER: [&str; 9] = [
    "hung",
    "Protocol",
    "PeerRejected",
    "Internal",
    "VersionUnsupported",
    "VersionBlocked",
    "ServiceUnknown",
    "FieldTooLong",
    "wrong",
];

pub(super) fn define_services(world: &World) {
    for (service, options) in SERVICES {
        world.define(service, options);
    }
}

/// Starts a backend and asks for its process id.
pub(super) fn start_one(world: &World) -> u32 {
    let connector = connector(world, SERVICES[0].0, VERSIONS[0]).timeout(broker_tests::PATIENCE);
    let mut session = blocking::Session::connect(&connector).unwrap();
    std::str::from_utf8(&session.request(LANE, "?pid").unwrap()).unwrap().parse().unwrap()
}

fn connector(world: &World, service: &str, version: &str) -> Connector {
    let hello = Hello::new(service.parse().unwrap(), version.parse().unwrap());
    Connector::new(hello).broker(world.socket()).timeout(TIMEOUT)
}

/// How often what came of it.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, what: String) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(super) fn killed(&self) -> u64 {
        self.0.get("client killed").copied().unwrap_or_default()
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let is_fault = |what: &str| NEVER.iter().any(|never| what.contains(never));
        let faults = self.0.iter().filter(|(what, _)| is_fault(what));
        faults.map(|(what, count)| format!("{count} times: {what}")).collect()
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(|(what, count)| format!("{count:>9}  {what}")).collect();
        write!(f, "{}", lines.join("\n"))
    }
}

/// All of them.
pub(super) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    home: PathBuf,
    socket: PathBuf,
    connectors: Vec<Connector>,
    /// Held for reading while something is done.
    gate: RwLock<()>,
    ends: AtomicBool,
    tally: Mutex<Tally>,
}

impl Clients {
    pub(super) fn start(world: &World, seed: u64) -> Self {
        let pairs = SERVICES.iter().flat_map(|(service, _)| VERSIONS.map(|version| (*service, version)));
        let connectors = pairs
            .flat_map(|(service, version)| {
                [connector(world, service, version), connector(world, service, version).with_handoff()]
            })
            .collect();
        let shared = Arc::new(Shared {
            home: world.path(""),
            socket: world.socket(),
            connectors,
            gate: RwLock::default(),
            ends: AtomicBool::new(false),
            tally: Mutex::default(),
        });
        let threads = (0..LINKED + PROCESSES).map(|number| {
            let (shared, mut random) = (Arc::clone(&shared), Random::new(seed ^ ((number + 1) << 32)));
            std::thread::spawn(move || {
                while !shared.ends.load(Ordering::Relaxed) {
                    let said = {
                        let _open = shared.gate.read().unwrap();
                        if number < LINKED { shared.link(&mut random) } else { shared.run(&mut random) }
                    };
                    said.into_iter().for_each(|said| shared.tally.lock().unwrap().count(said));
                    std::thread::sleep(PAUSE);
                }
            })
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// Lets each finish what it does, and begin nothing until this is dropped.
    pub(super) fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.gate.write().unwrap()
    }

    pub(super) fn end(self) -> Tally {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.shared.tally.lock().unwrap())
    }
}

impl Shared {
    /// A session with some requests; what came of each.
    fn link(&self, random: &mut Random) -> Vec<String> {
        let connector = &self.connectors[random.below(self.connectors.len() as u64) as usize];
        // Some remember where the backend is, some are new to it all.
        let connector = match random.below(2) {
            0 => connector.clone(),
            _ => connector.clone().broker(&self.socket),
        };
        let question = |random: &mut Random| format!("good day {}", random.below(u64::MAX)).into_bytes();
        let mut said = Vec::new();
        let first = question(random);
        let begun = match random.below(2) {
            0 => blocking::Session::connect(&connector).map_err(FirstRequestError::from),
            _ => blocking::Session::connect_with_request(&connector, LANE, first.clone()).map(
                |(session, answer)| {
                    said.push(judged(&answer, &first));
                    session
                },
            ),
        };
        let mut session = match begun {
            Ok(session) => session,
            Err(error) => return vec![label(&error)],
        };
        said.push(format!("session by {:?}", session.origin()));
        for _ in 0..random.below(MOST_REQUESTS) {
            let question = question(random);
            match session.request(LANE, question.clone()) {
                Ok(answer) => said.push(judged(&answer, &question)),
                Err(error) => {
                    said.push(format!("request: {}", words(&error)));
                    break;
                }
            }
        }
        said
    }

    /// A client of its own process, which may be killed at any moment.
    fn run(&self, random: &mut Random) -> Vec<String> {
        let way = ["dial", "offered", "early"][random.below(3) as usize];
        let version = VERSIONS[random.below(VERSIONS.len() as u64) as usize];
        let mut command = Command::new(World::program("by-hand"));
        command.env_clear().env("HOME", &self.home).arg(&self.socket).args([version, way]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let is_killed = random.below(2) == 0;
        if is_killed {
            std::thread::sleep(Duration::from_micros(random.below(6_000)));
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        match said.trim().rsplit_once('\n') {
            Some((_, said)) => vec![format!("by hand: {said}")],
            None if is_killed => vec!["client killed".to_owned()],
            None => vec![format!("wrong: by hand: {output:?}")],
        }
    }
}

fn judged(answer: &[u8], question: &[u8]) -> String {
    if answer == question { "served".to_owned() } else { format!("wrong: {answer:?} to {question:?}") }
}

fn label(error: &FirstRequestError) -> String {
    match error {
        FirstRequestError::Session(SessionError::Hello(HelloError::Refused(refused))) => {
            format!("refused: {}", words(&refused.kind))
        }
        error => format!("connect: {}", words(error)),
    }
}

/// The names of an error and of what is in it, without their values.
fn words(error: &impl Debug) -> String {
    let text = format!("{error:?}");
    let names = text.split(['(', '{']).map(|part| part.rsplit([' ', ',']).find(|word| !word.is_empty()));
    let names = names.flatten().take_while(|name| name.starts_with(|first: char| first.is_ascii_uppercase()));
    names.take(4).collect::<Vec<_>>().join(" ")
}
