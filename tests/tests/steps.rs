//! Death at every step: the broker, a backend or a client is killed before each of the system calls it makes while
//! a client is served, one run after the other, until a run is over before its step comes.
//!
//! The usual run takes about a dozen steps of each, evenly spread. `cargo xtask faults` takes all; `BROKER_FAULTS_EVERY`
//! (every how many) and `BROKER_FAULTS_FROM` (the first) say by hand which.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "steps/scene.rs"]
mod scene;

use scene::{Role, Way, die_at_every_step};

#[test]
fn a_broker_may_die_at_any_step_of_a_hello() {
    die_at_every_step(Way::Dialled, Role::Broker);
}

#[test]
fn a_broker_may_die_at_any_step_of_a_start() {
    die_at_every_step(Way::Started, Role::Broker);
}

#[test]
fn a_broker_may_die_at_any_step_of_a_start_with_a_listener() {
    die_at_every_step(Way::Passed, Role::Broker);
}

#[test]
fn a_broker_may_die_at_any_step_of_an_adoption() {
    die_at_every_step(Way::Adopted, Role::Broker);
}

#[test]
fn a_broker_may_die_at_any_step_of_a_dialled_offer() {
    die_at_every_step(Way::Offered, Role::Broker);
}

#[test]
fn a_backend_may_die_at_any_step_of_a_request() {
    die_at_every_step(Way::Dialled, Role::Backend);
}

#[test]
fn a_backend_may_die_at_any_step_of_its_start() {
    die_at_every_step(Way::Started, Role::Backend);
}

#[test]
fn a_backend_may_die_at_any_step_of_its_start_with_a_listener() {
    die_at_every_step(Way::Passed, Role::Backend);
}

#[test]
fn a_backend_may_die_at_any_step_of_an_adoption() {
    die_at_every_step(Way::Adopted, Role::Backend);
}

#[test]
fn a_backend_may_die_at_any_step_of_a_dialled_offer() {
    die_at_every_step(Way::Offered, Role::Backend);
}

#[test]
fn a_client_may_die_at_any_step_of_a_hello() {
    die_at_every_step(Way::Dialled, Role::Client);
}

#[test]
fn a_client_may_die_at_any_step_of_a_start() {
    die_at_every_step(Way::Started, Role::Client);
}

#[test]
fn a_client_may_die_at_any_step_of_a_start_with_a_listener() {
    die_at_every_step(Way::Passed, Role::Client);
}

#[test]
fn a_client_may_die_at_any_step_of_an_adoption() {
    die_at_every_step(Way::Adopted, Role::Client);
}

#[test]
fn a_client_may_die_at_any_step_of_a_dialled_offer() {
    die_at_every_step(Way::Offered, Role::Client);
}

#[test]
fn a_broker_may_die_at_any_step_of_its_upgrade() {
    die_at_every_step(Way::Upgraded, Role::Broker);
}

#[test]
fn whoever_asks_for_an_upgrade_may_die_at_any_step_of_it() {
    die_at_every_step(Way::Upgraded, Role::Client);
}
