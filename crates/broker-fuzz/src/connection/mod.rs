//! Whole connections: a broker, driven through whatever order of events, keeps what ARCHITECTURE.md says of it.
//!
//! Every Hello ends in exactly one reply or in its connection's end; one start at a time; no token and no id twice;
//! every bound holds; a drain ends. What happens comes from the bytes, but only what a shell may do: a process that
//! was started is told of once, an answer comes on a connection that is there. `world` is that shell.

mod definitions;
mod offers;
mod processes;
mod script;
mod world;

use arbitrary::{Arbitrary, Unstructured};
use broker_core::broker::Broker;

use self::script::Event;
use self::world::{Flaky, World};
use crate::seed::Seed;

/// Takes the first byte for a broker's configuration, the rest for what happens to it.
pub fn target(bytes: &[u8]) {
    live(bytes);
}

/// A broker that has lived through all of it, to its end.
fn live(bytes: &[u8]) -> Option<Broker<Flaky>> {
    let mut script = Unstructured::new(bytes);
    let mut world = World::new(u8::arbitrary(&mut script).ok()?);
    while !script.is_empty() && !world.has_stopped() {
        let Ok(event) = Event::arbitrary(&mut script) else { break };
        world.happens(event, &mut script);
    }
    Some(world.ends())
}

/// The lives of connections and backends that matter most.
pub fn seeds() -> Vec<Seed> {
    script::seeds()
}

#[cfg(test)]
mod tests {
    use broker_core::metrics::{HandoffOutcome, HelloOutcome};
    use broker_protocol::wire::{ErrorCode, EventKind};

    use super::*;

    fn lives() -> Vec<Broker<Flaky>> {
        seeds().iter().filter_map(|seed| live(&seed.bytes)).collect()
    }

    #[test]
    fn the_seeds_come_to_every_outcome_of_an_offer() {
        let lives = lives();
        for outcome in HandoffOutcome::ALL {
            let count = |broker: &Broker<Flaky>| -> u64 {
                broker.metrics().series().iter().map(|series| series.handoffs(outcome)).sum()
            };
            assert!(lives.iter().any(|broker| count(broker) > 0), "{outcome:?}");
        }
    }

    #[test]
    fn the_seeds_come_to_every_answer_that_a_broker_gives() {
        let lives = lives();
        let answers = [
            HelloOutcome::Negotiated,
            HelloOutcome::Refused(ErrorCode::ErrorServiceUnknown),
            HelloOutcome::Refused(ErrorCode::ErrorBackendSpawnFailed),
            HelloOutcome::Refused(ErrorCode::ErrorRateLimited),
            HelloOutcome::Refused(ErrorCode::ErrorShuttingDown),
            HelloOutcome::Refused(ErrorCode::ErrorPeerRejected),
            HelloOutcome::Refused(ErrorCode::ErrorInternal),
            HelloOutcome::Refused(ErrorCode::ErrorFdPressure),
        ];
        for answer in answers {
            let count = |broker: &Broker<Flaky>| -> u64 {
                broker.metrics().series().iter().map(|series| series.hellos(answer)).sum()
            };
            assert!(lives.iter().any(|broker| count(broker) > 0), "{answer:?}");
        }
    }

    #[test]
    fn the_seeds_come_to_every_end_of_a_backend() {
        let lives = lives();
        for kind in
            [EventKind::DiedCrash, EventKind::DiedIdle, EventKind::DiedShutdown, EventKind::SecurityViolation]
        {
            let told =
                |broker: &Broker<Flaky>| broker.recent_events().any(|event| event.get().kind() == kind);
            assert!(lives.iter().any(told), "{kind:?}");
        }
    }
}
