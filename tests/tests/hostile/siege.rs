//! A broker that peers try to wear down, and what must hold meanwhile and afterwards.
//!
//! Idle is the broker with its backend running and one Hello answered, when nobody is connected. Invariants:
//! every Hello of the client is agreed to; the broker never has more than [`MOST_RESIDENT_KIB`] resident; and once
//! the peers are gone it has as many descriptors as before, no dead child, and at most a fifth more memory.

use std::fs;
use std::path::Path;
use std::time::Instant;

use broker_tests::{Daemon, HostilePeer, PATIENCE, Wire, World, agreed, hello};

/// The most that a broker may ever have resident, in KiB.
const MOST_RESIDENT_KIB: u64 = 32 * 1024;
/// Hellos after each round of a peer's; all of a test stay within one client's permits.
const HELLOS_IN_A_ROUND: usize = 4;

pub(crate) struct Siege {
    world: World,
    broker: Daemon,
    idle: Look,
}

/// What a broker takes from the system.
#[derive(Clone, Copy, Debug)]
struct Look {
    resident_kib: u64,
    descriptors: usize,
}

impl Siege {
    /// A broker that is idle.
    pub(crate) fn begin(options: &[&str]) -> Self {
        Self::of(|world| world.serve(options))
    }

    /// A broker that is idle and may have so many descriptors, not one more.
    pub(crate) fn begin_with_descriptors(most: u32) -> Self {
        Self::of(|world| {
            let socket = world.socket();
            let mut limited = world.command(Path::new("/bin/sh"));
            limited.args(["-c", &format!("ulimit -n {most} && exec \"$@\""), "sh"]);
            limited.arg(World::program("brokerd")).args(["serve", "--socket"]).arg(socket);
            Daemon::start(&mut limited)
        })
    }

    fn of(serve: impl FnOnce(&World) -> Daemon) -> Self {
        let world = World::new();
        world.define("cache", &[]);
        let broker = serve(&world);
        let mut siege = Self { world, broker, idle: Look { resident_kib: 0, descriptors: 0 } };
        siege.serve(2);
        siege.broker.descriptors_at_rest();
        siege.idle = siege.look();
        siege
    }

    /// Connects without saying anything.
    pub(crate) fn connect(&self) -> Wire {
        self.world.connect()
    }

    /// Lets a process do something to the broker.
    pub(crate) fn peer(&self, arguments: &[&str]) -> HostilePeer {
        self.world.hostile_peer(arguments)
    }

    /// Says Hello as often as this, and is served each time.
    pub(crate) fn serve(&self, hellos: usize) {
        for _ in 0..hellos {
            agreed(self.world.connect().say(&hello("cache", "1.0.0")));
        }
    }

    /// Says Hello for as many rounds of a peer's, then stops it.
    pub(crate) fn serve_during(&self, mut peer: HostilePeer, rounds: usize) {
        for _ in 0..rounds {
            peer.wait_for_round();
            self.serve(HELLOS_IN_A_ROUND);
        }
        peer.stop();
    }

    /// Says Hello for as many rounds of a peer's, then waits for its end; how much it has done.
    pub(crate) fn serve_to_the_end(&self, mut peer: HostilePeer, rounds: usize) -> u64 {
        for _ in 0..rounds {
            peer.wait_for_round();
            self.serve(HELLOS_IN_A_ROUND);
        }
        peer.wait()
    }

    /// A metric's value; 0 where it has none yet.
    pub(crate) fn counted(&self, series: &str) -> u64 {
        let metrics = self.world.run(&["metrics", "--socket", self.world.socket().to_str().unwrap()]);
        let name = format!("running_process_broker_v1_{series} ");
        let line = metrics.stdout.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// The peers are gone: the broker serves, and is soon as it was before they came.
    pub(crate) fn lift(self) {
        self.serve(1);
        let peak = self.peak_kib();
        let (idle, deadline) = (self.idle, Instant::now() + PATIENCE);
        loop {
            let now = self.look();
            let dead = self.dead_children();
            if now.descriptors == idle.descriptors
                && now.resident_kib * 5 <= idle.resident_kib * 6
                && dead == 0
            {
                println!("idle {idle:?}, peak {peak} KiB, afterwards {now:?}");
                break;
            }
            assert!(
                Instant::now() < deadline,
                "idle {idle:?}, peak {peak} KiB, afterwards {now:?} and {dead} dead"
            );
            std::thread::yield_now();
        }
        assert!(peak < MOST_RESIDENT_KIB, "{peak} KiB");
        self.broker.stop();
    }

    fn look(&self) -> Look {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.broker.pid())).unwrap().count();
        Look { resident_kib: self.memory("VmRSS:"), descriptors }
    }

    fn peak_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.broker.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Children of the broker that have died and that nobody has waited for.
    fn dead_children(&self) -> usize {
        let parent = self.broker.pid().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
        // What follows the name, which may hold anything: the state, then the parent.
        let fields = stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()));
        fields.filter(|fields| fields.starts_with(&format!("Z {parent} "))).count()
    }
}
