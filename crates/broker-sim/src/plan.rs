//! What a seed decides before anything happens: the broker's limits, the services, and which faults there are.
//!
//! Each history has some kinds of faults and not others, and limits that are small enough to be met.

use std::time::Duration;

use broker_core::admission::{ConnectionLimits, RateLimit};
use broker_core::broker::{BackendsOnExit, BrokerConfig};
use broker_core::handoff::HandoffLimits;
use broker_core::hello::HelloConfig;
use broker_core::services::TrustDomain;
use broker_protocol::BrokerInstance;

use crate::chance::Chance;

/// How often something goes wrong, in percent of the cases where it could.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A client connects and says nothing.
    pub(crate) silence: u8,
    /// A client leaves part of a frame, and then nothing.
    pub(crate) half_frames: u8,
    /// A client sends bytes that are no request.
    pub(crate) hostile_bytes: u8,
    /// A client leaves at any moment.
    pub(crate) vanishing: u8,
    /// A process cannot be started, or dies before it is ready.
    pub(crate) failing_starts: u8,
    /// A start takes longer than it may.
    pub(crate) hanging_starts: u8,
    /// A backend dies at any moment.
    pub(crate) deaths: u8,
    /// A backend ignores being asked to end.
    pub(crate) stubbornness: u8,
    /// An offer cannot be sent.
    pub(crate) full_lines: u8,
    /// A backend rejects an offer.
    pub(crate) rejections: u8,
    /// A backend never answers.
    pub(crate) silent_backends: u8,
    /// An answer comes late, or twice, or is somebody else's.
    pub(crate) odd_answers: u8,
    /// A control connection ends although its backend lives.
    pub(crate) lost_controls: u8,
    /// A definition is edited, broken or taken away.
    pub(crate) edits: u8,
    /// Descriptors run out.
    pub(crate) descriptor_shortage: u8,
    /// The broker's machine sleeps, or its calendar is set.
    pub(crate) clock_jumps: u8,
    /// Timers are seen late.
    pub(crate) late_timers: u8,
    /// The configuration is edited.
    pub(crate) reconfigurations: u8,
    /// The broker goes on as another program.
    pub(crate) upgrades: u8,
    /// The broker is killed.
    pub(crate) crashes: u8,
}

impl Faults {
    fn draw(chance: &mut Chance) -> Self {
        let mut often = |most: u64| {
            if chance.percent(50) { 0 } else { u8::try_from(chance.between(1, most)).unwrap_or(100) }
        };
        Self {
            silence: often(40),
            half_frames: often(40),
            hostile_bytes: often(40),
            vanishing: often(50),
            failing_starts: often(60),
            hanging_starts: often(30),
            deaths: often(40),
            stubbornness: often(60),
            full_lines: often(40),
            rejections: often(50),
            silent_backends: often(50),
            odd_answers: often(50),
            lost_controls: often(30),
            edits: often(30),
            descriptor_shortage: often(20),
            clock_jumps: often(10),
            late_timers: often(50),
            reconfigurations: often(30),
            upgrades: often(30),
            crashes: often(20),
        }
    }
}

/// What one history is about.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) config: BrokerConfig,
    pub(crate) faults: Faults,
    /// How many connections clients make.
    pub(crate) connections: u32,
    /// How long after the other they come, at most.
    pub(crate) gap: Duration,
    /// How many processes the clients are.
    pub(crate) peers: u32,
    pub(crate) services: usize,
    pub(crate) versions: usize,
    pub(crate) hello_timeout: Duration,
    pub(crate) spawn_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    /// Whether backends are given their listener.
    pub(crate) listens_early: bool,
    /// How many backends run already and announce themselves.
    pub(crate) daemons: u32,
    /// When the broker is told to end, counted in connections; never where it is more than there are.
    pub(crate) drain_after: u32,
    pub(crate) drain_deadline: Option<Duration>,
}

impl Plan {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let connections = u32::try_from(chance.between(5, 60)).unwrap_or(5);
        let keep = chance.percent(30);
        Self {
            config: config(chance, keep),
            faults: Faults::draw(chance),
            connections,
            gap: Duration::from_millis(1 << chance.between(0, 13)),
            peers: u32::try_from(chance.between(1, 5)).unwrap_or(1),
            services: chance.below(3) + 1,
            versions: chance.below(3) + 1,
            hello_timeout: Duration::from_millis(1 << chance.between(4, 13)),
            spawn_timeout: Duration::from_millis(1 << chance.between(4, 13)),
            idle_timeout: chance.percent(60).then(|| Duration::from_secs(chance.between(1, 60))),
            listens_early: chance.percent(30),
            daemons: u32::try_from(chance.between(0, 3)).unwrap_or(0),
            drain_after: u32::try_from(chance.between(1, 2 * u64::from(connections))).unwrap_or(1),
            drain_deadline: chance.percent(50).then(|| Duration::from_millis(chance.between(0, 20_000))),
        }
    }
}

/// A configuration with a few of everything, so that each limit is met.
pub(crate) fn config(chance: &mut Chance, keep: bool) -> BrokerConfig {
    let mut few = |least: u64, most: u64| usize::try_from(chance.between(least, most)).unwrap_or(1);
    let connections = ConnectionLimits::of_total(few(2, 16)).with_buffered(few(0, 4) * 1_000);
    let handoff = HandoffLimits {
        capacity: few(0, 6),
        per_backend: few(1, 4),
        per_peer: few(1, 4),
        ..HandoffLimits::default()
    };
    let starts_per_peer = few(1, 4);
    let mut number = |least: u64, most: u64| u32::try_from(chance.between(least, most)).unwrap_or(1);
    let rate_limit = RateLimit::new(number(1, 40), number(1, 40));
    BrokerConfig {
        hello: HelloConfig { rate_limit, domain: TrustDomain::Every, handoff, ..HelloConfig::default() },
        connections,
        starts_per_peer,
        wait: Duration::from_millis(1 << chance.between(5, 14)),
        on_exit: if keep { BackendsOnExit::Keep } else { BackendsOnExit::Stop },
        ..BrokerConfig::new(BrokerInstance::Shared)
    }
}
