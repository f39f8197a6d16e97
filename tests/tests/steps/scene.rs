//! One broker, one service and one client, again and again, with one of them dying a step later each time.
//!
//! Invariant: what a run leaves behind is looked at before the next begins, so a fault is told with its step.

use std::path::PathBuf;
use std::process::Command;

use broker_protocol::prost::Message;
use broker_protocol::wire::{Hello, LifecycleEvent, hello_reply};
use broker_tests::linux::{self, Victim};
use broker_tests::{Daemon, Wire, World, agreed, has_died, hello, is_listening, kill};

const BIT_0: u64 = 1;
/// How many runs must be over before a step until there is no such step: how many a run takes differs a little.
const LAST_RUNS: u32 = 3;
/// At about how many of its steps the usual run kills.
const USUAL_KILLS: u64 = 12;

/// What becomes of the client's Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The backend runs, and the client dials it.
    Dialled,
    /// The backend is started, and binds its endpoint.
    Started,
    /// The backend is started, and given its listener.
    Passed,
    /// The connection is passed on over the control connection, with a request behind the Hello.
    Adopted,
    /// The connection is offered to a registered backend of plain v1.
    Offered,
    /// The broker goes on as another program when half of it is there.
    Upgraded,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Broker,
    Backend,
    Client,
}

/// Kills `role` at one step after the other.
pub(crate) fn die_at_every_step(way: Way, role: Role) {
    let number = |variable: &str| std::env::var(variable).ok().map(|text| text.parse::<u64>().unwrap());
    let mut scene = Scene::new(way, role);
    let Outcome::Over { steps: mut most } = scene.run(u64::MAX) else { panic!("killed without a reason") };
    let stride = number("BROKER_FAULTS_EVERY").unwrap_or((most / USUAL_KILLS).max(1));
    let from = number("BROKER_FAULTS_FROM").unwrap_or(1);
    let (mut step, mut kills, mut over) = (from, 0, 0);
    while over < LAST_RUNS {
        match scene.run(step) {
            Outcome::Killed => {
                (kills, over) = (kills + 1, 0);
                step += stride;
            }
            Outcome::Over { steps } => {
                over += 1;
                most = most.max(steps);
            }
        }
    }
    println!("{way:?}, {role:?}: {most} steps, killed at {kills}, said {:?}", scene.said);
    scene.end();
}

enum Outcome {
    Killed,
    Over { steps: u64 },
}

struct Scene {
    way: Way,
    role: Role,
    world: World,
    broker: Option<Daemon>,
    /// A backend that the broker did not start.
    registered: Option<Daemon>,
    /// How many sockets the broker has open when nobody asks for anything, beside one for each backend that it has
    /// started.
    at_rest: Option<usize>,
    /// Counted on where each run takes a backend that was never started.
    version: u64,
    /// How often a client said what.
    said: std::collections::BTreeMap<String, u32>,
}

impl Scene {
    fn new(way: Way, role: Role) -> Self {
        let world = World::new();
        match way {
            Way::Passed => world.define("cache", &["--label", "spawn.activation=listen-fds"]),
            Way::Dialled | Way::Started | Way::Adopted | Way::Offered | Way::Upgraded => {
                world.define("cache", &[]);
            }
        }
        let said = std::collections::BTreeMap::new();
        Self { way, role, world, broker: None, registered: None, at_rest: None, version: 0, said }
    }

    fn run(&mut self, step: u64) -> Outcome {
        self.prepare();
        let victim = match (self.role, self.way) {
            (Role::Broker, _) => Victim::Process(self.broker()),
            (Role::Backend, Way::Started | Way::Passed) => Victim::ForkedBy(self.broker()),
            (Role::Backend, _) => Victim::Process(self.backend()),
            (Role::Client, _) => Victim::Client,
        };
        let others: Vec<u32> = self.inhabitants();
        let unaffected = self.unaffected();
        let run = linux::run(victim, step, &mut self.client(), &others);
        let said = run.said.trim().to_owned();
        let context = format!("{:?}, {:?}, step {step} ({:?}): {said:?}", self.way, self.role, run.killed);
        let Some(killed) = run.killed else {
            assert_eq!(said, "served", "{context}");
            self.settle(&context, unaffected);
            return Outcome::Over { steps: run.steps };
        };
        let is_fine = match self.role {
            // Whoever loses its broker has its answer or an end.
            Role::Broker => matches!(&*said, "served" | "closed" | "unreachable"),
            // One that was starting is reported; one that is gone cannot be reached.
            Role::Backend => {
                matches!(&*said, "served" | "closed" | "unreachable")
                    || (self.is_started() && said == "refused ERROR_BACKEND_SPAWN_FAILED")
            }
            Role::Client => matches!(&*said, "" | "served"),
        };
        assert!(is_fine, "{context}");
        *self.said.entry(said).or_default() += 1;
        match self.role {
            Role::Broker => self.broker.take().unwrap().let_go(),
            Role::Backend if self.way == Way::Offered => self.registered.take().unwrap().let_go(),
            Role::Backend => assert!(has_died(killed.pid), "{context}"),
            Role::Client => {}
        }
        self.settle(&context, unaffected);
        Outcome::Killed
    }

    /// Brings everything up that a run takes.
    fn prepare(&mut self) {
        if self.is_started() {
            self.version += 1;
        }
        if self.way == Way::Offered && (self.registered.is_none() || self.broker.is_none()) {
            // A broker asks a registered backend when it begins.
            self.broker = None;
            self.registered = None;
            self.registered = Some(self.run_registered());
        }
        if self.broker.is_none() {
            self.broker =
                Some(self.world.serve(&self.options().iter().map(String::as_str).collect::<Vec<_>>()));
        }
        match self.way {
            Way::Started | Way::Passed => {}
            Way::Dialled | Way::Upgraded => _ = self.backend(),
            // The announcement may come a moment after the first agreement.
            Way::Adopted | Way::Offered => linux::wait_until("no handoff", || {
                let mut client = self.world.connect();
                let hello = Hello { client_capabilities: BIT_0, ..hello("cache", &self.version()) };
                let agreed = agreed(client.say(&hello));
                if agreed.handle_passed_token.is_empty() {
                    return Some(format!("{agreed:?}"));
                }
                client.try_receive().is_err().then(|| "the offer was not taken".to_owned())
            }),
        }
        if self.at_rest.is_none() {
            self.at_rest = Some(self.broker.as_ref().unwrap().descriptors_at_rest() - self.backends().len());
        }
    }

    /// A backend that has nothing to do with who dies, and how many descriptors it has open.
    fn unaffected(&self) -> Option<(u32, usize)> {
        let is_meant = self.role == Role::Client && !self.is_started();
        is_meant.then(|| self.backend()).map(|backend| (backend, linux::open_descriptors(backend)))
    }

    /// What must hold after each run, whoever died in it.
    fn settle(&mut self, context: &str, unaffected: Option<(u32, usize)>) {
        check_events(&self.world, context);
        if self.role == Role::Broker {
            // The next one takes the endpoint over at once, whoever is about to end.
            self.registered = None;
            let old = linux::processes_of(&self.world.path(""));
            self.broker = None;
            self.prepare();
            linux::wait_until(context, || {
                let mut left = linux::processes_of(&self.world.path(""));
                left.retain(|process| old.iter().any(|old| old.pid == process.pid));
                (!left.is_empty()).then(|| format!("{left:?} outlive their broker"))
            });
        }
        if let Some((backend, at_most)) = unaffected {
            assert_eq!(self.backend(), backend, "{context}");
            linux::wait_until(context, || {
                let open = linux::open_descriptors(backend);
                (open > at_most).then(|| format!("the backend has {open} descriptors open, before {at_most}"))
            });
        }
        // Somebody is served, whatever happened.
        linux::wait_until(context, || self.is_served().err());
        if self.is_started() {
            self.end_backends(context);
        }
        let broker = self.broker.as_ref().unwrap();
        let pid = broker.pid();
        linux::wait_until(context, || {
            let (open, at_rest) = (broker.descriptors(), self.at_rest.unwrap() + self.backends().len());
            (open > at_rest).then(|| format!("{open} sockets are open, at rest {at_rest}"))
        });
        linux::wait_until(context, || {
            let zombies = linux::zombies_of(pid);
            (!zombies.is_empty()).then(|| format!("zombies: {zombies:?}"))
        });
        linux::wait_until(context, || {
            let (sockets, backends) = (linux::sockets_in(&self.runtime_dir()), self.backends());
            (sockets.len() != backends.len()).then(|| format!("sockets {sockets:?} of {backends:?}"))
        });
        linux::wait_until(context, || {
            let dump = self.world.ask("dump");
            let table = dump["backend_table"].as_array().unwrap();
            let is_quiet =
                dump["connections_open"] == 1 && table.iter().all(|row| row["waiting_hellos"] == 0);
            (!is_quiet).then(|| format!("{} {table:?}", dump["connections_open"]))
        });
    }

    /// A client that nobody disturbs.
    fn is_served(&self) -> Result<(), String> {
        let mut client = self.world.connect();
        let agreed = match client.say(&hello("cache", &self.version())) {
            hello_reply::Result::Negotiated(agreed) => agreed,
            hello_reply::Result::Refused(refused) => return Err(format!("{refused:?}")),
        };
        let mut backend =
            Wire::try_connect(agreed.backend_pipe.as_ref()).map_err(|error| error.to_string())?;
        assert_eq!(backend.tell("good day"), "good day");
        Ok(())
    }

    /// Ends the broker in good order; nothing is left.
    fn end(mut self) {
        self.broker.take().unwrap().stop();
        self.registered = None;
        linux::wait_until("at the end", || {
            let left = linux::processes_of(&self.world.path(""));
            (!left.is_empty()).then(|| format!("{left:?}"))
        });
        assert!(!self.world.socket().exists() && !self.world.lock().exists());
        assert_eq!(linux::sockets_in(&self.runtime_dir()), Vec::<PathBuf>::new());
    }

    fn client(&self) -> Command {
        let mut client = self.world.command(&World::program("by-hand"));
        client.arg(self.world.socket()).arg(self.version()).arg(match self.way {
            Way::Dialled | Way::Started | Way::Passed => PathBuf::from("dial"),
            Way::Adopted => PathBuf::from("early"),
            Way::Offered => PathBuf::from("offered"),
            Way::Upgraded => World::program("brokerd"),
        });
        client
    }

    fn options(&self) -> Vec<String> {
        let mut options = vec!["--hello-burst".to_owned(), "100000".to_owned()];
        if self.way == Way::Offered {
            let at = |name| self.world.endpoint(name).display().to_string();
            let (endpoint, offers) = (at("own/b.sock"), at("own/h.sock"));
            let backend = format!("service=cache,version=1.0.0,endpoint={endpoint},handoff={offers}");
            options.extend(["--backend".to_owned(), backend]);
        }
        options
    }

    fn run_registered(&self) -> Daemon {
        let own = self.world.path("own");
        let _ = std::fs::remove_dir_all(&own);
        std::fs::create_dir_all(&own).unwrap();
        let mut command = self.world.command(&World::program("echo-backend"));
        command.arg("--endpoint").arg(self.world.endpoint("own/b.sock"));
        let backend = Daemon::spawn(command.arg("--offers-at").arg(self.world.endpoint("own/h.sock")));
        linux::wait_until("a registered backend", || {
            let is_up = ["own/b.sock", "own/h.sock"].map(|name| is_listening(&self.world.endpoint(name)));
            (is_up != [true; 2]).then(|| "it does not listen".to_owned())
        });
        backend
    }

    const fn is_started(&self) -> bool {
        matches!(self.way, Way::Started | Way::Passed)
    }

    fn version(&self) -> String {
        format!("1.0.{}", self.version)
    }

    fn runtime_dir(&self) -> PathBuf {
        self.world.path("xdg/running-process/broker")
    }

    fn broker(&self) -> u32 {
        self.broker.as_ref().unwrap().pid()
    }

    fn backend(&self) -> u32 {
        let agreed = agreed(self.world.connect().say(&hello("cache", &self.version())));
        Wire::connect(agreed.backend_pipe.as_ref()).tell("?pid").parse().unwrap()
    }

    fn inhabitants(&self) -> Vec<u32> {
        linux::processes_of(&self.world.path("")).into_iter().map(|process| process.pid).collect()
    }

    /// The backends that the broker has started.
    fn backends(&self) -> Vec<u32> {
        let broker = self.broker();
        let children = linux::processes_of(&self.world.path("")).into_iter();
        children.filter(|process| process.parent == broker).map(|process| process.pid).collect()
    }

    fn end_backends(&self, context: &str) {
        for backend in self.backends() {
            kill(backend);
        }
        linux::wait_until(context, || {
            let left = self.backends();
            (!left.is_empty()).then(|| format!("{left:?}"))
        });
    }
}

/// The log of events is whole, up to its last record.
fn check_events(world: &World, context: &str) {
    // A broker that dies early has written nothing.
    let bytes = std::fs::read(world.state_dir().join("events/lifecycle.pb")).unwrap_or_default();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        LifecycleEvent::decode_length_delimited(&mut rest)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
    }
}
