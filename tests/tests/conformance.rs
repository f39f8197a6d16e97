//! The conformance kit, run against a service that it starts as a broker does.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use broker_backend::PayloadProtocol;
use broker_backend::conformance::{Conformance, Program, Report};
use broker_tests::World;

fn echo_backend() -> Program {
    Program::new(World::program("echo-backend"), "cache".parse().unwrap(), "1.2.3".parse().unwrap())
}

fn skipped(report: &Report, group: &str) -> Vec<&'static str> {
    report.skipped().into_iter().filter(|name| name.starts_with(group)).collect()
}

#[test]
fn a_backend_that_a_broker_would_start_passes_with_its_control_connection() {
    let world = World::new();
    std::fs::create_dir(world.path("run")).unwrap();
    let offers = world.endpoint("run/offers.sock");
    let program = echo_backend().arg("--offers-at").arg(&offers);
    let report = Conformance::of_program(program)
        .offers_at(&offers, "cache")
        .own_request(PayloadProtocol::new(0xF001), "ping")
        .run_blocking()
        .unwrap();
    report.assert_passed();
    // It has no older format, and that is all that was not checked, but for what the system lacks.
    let mut unchecked = skipped(&report, "mixed/");
    assert_eq!(unchecked.len(), 6, "{report}");
    if cfg!(windows) {
        unchecked.extend(["handoff/wrong-token", "handoff/closed-after-use"]);
    }
    if cfg!(not(target_os = "linux")) {
        unchecked.push("handoff/descriptors");
    }
    assert_eq!(report.skipped(), unchecked, "{report}");
    assert!(!report.endpoint().exists(), "the endpoint's directory is gone");
}

#[test]
fn a_backend_without_an_endpoint_for_offers_gets_them_on_its_control_connection_all_the_same() {
    let report = Conformance::of_program(echo_backend()).run_blocking().unwrap();
    report.assert_passed();
    assert_eq!(skipped(&report, "handoff/").len(), 9, "{report}");
    assert_eq!(skipped(&report, "control/"), [""; 0], "{report}");
}

#[test]
fn a_backend_that_claims_to_be_another_process_fails_the_check_for_that() {
    let report = Conformance::of_program(echo_backend().arg("--wrong-identity")).run_blocking().unwrap();
    assert_eq!(report.failed(), ["probe/pid"], "{report}");
}

#[test]
fn a_program_that_ends_instead_of_serving_is_quoted() {
    let program = echo_backend().arg("--fail").arg("7");
    let report = Conformance::of_program(program).run_blocking().unwrap();
    assert_eq!(report.failed(), ["golden/answer"], "{report}");
    assert!(report.to_string().contains("exit code 7: echo-backend: failing"), "{report}");
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let program = Program::new("/nowhere/service", "cache".parse().unwrap(), "1.2.3".parse().unwrap());
    let report = Conformance::of_program(program).run_blocking().unwrap();
    assert_eq!(report.failed(), ["golden/answer"], "{report}");
    assert!(report.to_string().contains("/nowhere/service"), "{report}");
}
