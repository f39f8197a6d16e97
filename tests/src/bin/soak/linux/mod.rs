//! One broker after the other, services in several versions, clients of every kind; and one of them is killed, or
//! stopped for a while, or goes on as another program, again and again.
//!
//! In the first two thirds the broker is among those who die. In the last it is left alone, so that its memory can
//! be compared with itself. Every few deaths all clients pause, and nothing may be left but what runs. Invariant:
//! whatever was found is told with the seed, and makes the exit code 1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may end at any surprise")]

mod broker;
mod clients;
mod memory;
mod random;
mod rest;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use broker_tests::{Signal, World, exists, linux};
use clap::Parser;

use self::broker::Broker;
use self::clients::Clients;
use self::memory::Memory;
use self::random::Random;
use self::rest::Rest;

/// Deaths between two looks at what is left.
const DEATHS_BETWEEN_LOOKS: u64 = 50;
/// Longest pause between two deaths, and longest stop, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 60;
const LONGEST_STOP_MS: u64 = 150;

/// Mixed load with random deaths.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// How long
    #[arg(long, default_value_t = 30, conflicts_with = "deaths")]
    minutes: u64,
    /// End after so many deaths instead
    #[arg(long)]
    deaths: Option<u64>,
    /// What the choices are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How far the soak is: by the clock, or by deaths.
struct Progress {
    begun: Instant,
    minutes: u64,
    most_deaths: Option<u64>,
}

impl Progress {
    /// From 0 to 1.
    fn done(&self, deaths: u64) -> f64 {
        match self.most_deaths {
            Some(most) => deaths as f64 / most as f64,
            None => self.begun.elapsed().as_secs_f64() / (self.minutes * 60) as f64,
        }
    }
}

#[derive(Debug, Default)]
struct Deaths {
    broker: u64,
    backends: u64,
    stops: u64,
    /// Not one of them, though as sudden to whoever is at work.
    upgrades: u64,
}

impl Deaths {
    const fn all(&self) -> u64 {
        self.broker + self.backends + self.stops
    }
}

pub(super) fn main() -> ExitCode {
    let options = Options::parse();
    let progress = Progress { begun: Instant::now(), minutes: options.minutes, most_deaths: options.deaths };
    println!("seed {}", options.seed);
    let faults = run(&progress, options.seed);
    println!("took {} s", progress.begun.elapsed().as_secs());
    for fault in &faults {
        println!("LEFT: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(progress: &Progress, seed: u64) -> Vec<String> {
    let world = World::new();
    clients::define_services(&world);
    let mut broker = Broker::start(&world);
    let rest = Rest::measure(&world, &broker);
    let clients = Clients::start(&world, seed);
    let mut random = Random::new(seed);
    let (mut deaths, mut memory, mut faults) = (Deaths::default(), Memory::default(), Vec::new());
    let (mut next_look, mut looks) = (DEATHS_BETWEEN_LOOKS, 0);
    while progress.done(deaths.all()) < 1.0 && faults.is_empty() {
        let is_left_alone = progress.done(deaths.all()) > 2.0 / 3.0;
        match random.below(20) {
            0 | 1 if !is_left_alone => {
                broker.kill();
                broker = Broker::start(&world);
                deaths.broker += 1;
            }
            2 if !is_left_alone => {
                faults.extend(upgrade(&world));
                deaths.upgrades += 1;
            }
            3..=6 => deaths.stops += u64::from(stop_for_a_while(&world, &broker, &mut random)),
            _ => deaths.backends += u64::from(kill_a_backend(&world, &broker, &mut random)),
        }
        std::thread::sleep(Duration::from_millis(random.below(LONGEST_PAUSE_MS)));
        if deaths.all() >= next_look {
            next_look = deaths.all() + DEATHS_BETWEEN_LOOKS;
            looks += 1;
            let _paused = clients.pause();
            faults.extend(rest.look(&world, &broker));
            if is_left_alone {
                memory.sample(broker.pid());
            }
        }
    }
    let tally = clients.end();
    faults.extend(rest.look(&world, &broker));
    faults.extend(tally.faults());
    faults.extend(memory.judge(progress.most_deaths.is_none()));
    faults.extend(broker.end(&world));
    println!("killed: {} brokers, {} backends, {} clients", deaths.broker, deaths.backends, tally.killed());
    println!("went on as another program: {} times", deaths.upgrades);
    println!("stopped for a while: {} backends; looked for leftovers {looks} times", deaths.stops);
    println!("{tally}\n{memory}");
    faults
}

/// Has the broker go on as another program, in the middle of everything.
fn upgrade(world: &World) -> Option<String> {
    let upgraded = world.run(&["upgrade", "--socket", world.socket().to_str().unwrap()]);
    (!upgraded.is_success()).then(|| format!("the broker was not upgraded: {upgraded:?}"))
}

fn a_backend(world: &World, broker: &Broker, random: &mut Random) -> Option<u32> {
    let processes = linux::processes_of(&world.path("")).into_iter();
    let backends: Vec<u32> =
        processes.filter(|process| process.parent == broker.pid()).map(|process| process.pid).collect();
    (!backends.is_empty()).then(|| backends[random.below(backends.len() as u64) as usize])
}

fn kill_a_backend(world: &World, broker: &Broker, random: &mut Random) -> bool {
    a_backend(world, broker, random).is_some_and(|pid| broker::signal(pid, Signal::KILL))
}

fn stop_for_a_while(world: &World, broker: &Broker, random: &mut Random) -> bool {
    let Some(pid) = a_backend(world, broker, random) else { return false };
    let is_stopped = broker::signal(pid, Signal::STOP);
    std::thread::sleep(Duration::from_millis(random.below(LONGEST_STOP_MS)));
    is_stopped && exists(pid) && broker::signal(pid, Signal::CONT)
}
