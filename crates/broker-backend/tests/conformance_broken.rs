//! The conformance kit can fail: a service that breaks one rule fails the check that is for it, and no other.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod broken;
mod common;

#[cfg(target_os = "linux")]
use std::io::Read;
use std::path::PathBuf;
#[cfg(target_os = "linux")]
use std::process::{Command, Stdio};

use broker_backend::PayloadProtocol;
use broker_backend::conformance::{Conformance, Finding, OlderFormat, PATIENCE, Report, Verdict};
use broker_transport::endpoint::Platform;
use tokio::task::JoinSet;

use broken::{Broken, Fault, OLD, OWN_LANE, SERVICE};
use common::Place;

/// Where the service that another test has started listens.
#[cfg(target_os = "linux")]
const PLACE: &str = "CONFORMANCE_TEST_PLACE";

/// Each fault, and the one check that it fails.
const FAULTS: [(Fault, &str); 37] = [
    (Fault::AnswersInAnotherFraming, "golden/answer"),
    (Fault::AnswersAsRequest, "golden/envelope"),
    (Fault::AnswersOnAnotherLane, "golden/lane"),
    (Fault::ForgetsRequestId, "golden/request-id"),
    (Fault::ForgetsTraceContext, "golden/trace-context"),
    (Fault::ForgetsTheIdOfWhatIsNoProbe, "golden/own-request"),
    (Fault::CutsTheNonce, "probe/nonce"),
    (Fault::ClaimsAnotherPid, "probe/pid"),
    (Fault::ClaimsAnotherBoot, "probe/boot-id"),
    (Fault::ClaimsAnotherExecutable, "probe/executable"),
    (Fault::ClaimsAnotherEndpoint, "probe/endpoint"),
    (Fault::TakesItsTime, "probe/in-time"),
    (Fault::ServesOneFramePerConnection, "probe/twice"),
    (Fault::AnswersNonceOf(31), "probe/nonce-of-31-bytes"),
    (Fault::AnswersNonceOf(33), "probe/nonce-of-33-bytes"),
    (Fault::WantsFramesInFewPieces, "probe/in-pieces"),
    (Fault::ReadsOneFrameAtATime, "probe/beside-a-stalled-frame"),
    (Fault::SwallowsTheFirstByteOfTheOldFormat, "mixed/older-format"),
    (Fault::RefusesFramesBesideAnOldClient, "mixed/old-first"),
    (Fault::EndsFramesForAnOldClient, "mixed/new-first"),
    (Fault::RefusesFramesInsideTheOldFormat, "mixed/interleaved"),
    (Fault::WantsTheOldFormatInFewPieces, "mixed/old-in-pieces"),
    (Fault::RefusesPiecesInsideTheOldFormat, "mixed/both-in-pieces"),
    (Fault::AcknowledgesAnotherToken, "handoff/accepted"),
    (Fault::DropsWhatItAccepted, "handoff/served"),
    (Fault::WantsOffersInFewPieces, "handoff/in-pieces"),
    (Fault::AcceptsAnotherToken, "handoff/wrong-token"),
    (Fault::AcceptsNoDescriptor, "handoff/no-descriptor"),
    (Fault::KeepsWhatItRejected, "handoff/rejected"),
    (Fault::DiesOfAClientThatIsGone, "handoff/client-gone"),
    (Fault::KeepsACopyOfEachConnection, "handoff/closed-after-use"),
    (Fault::LeavesAFileOpenPerOffer, "handoff/descriptors"),
    (Fault::DiesOfAnotherFramingByte, "hostile/framing-byte"),
    (Fault::ReadsWhatIsTooLong, "hostile/too-long"),
    (Fault::DiesOfWhatIsNoFrame, "hostile/not-a-frame"),
    (Fault::EndsEverybodyForATruncatedFrame, "hostile/truncated"),
    (Fault::DiesOfAnUnknownLane, "hostile/unknown-lane"),
];

/// What the kit cannot check here, beside what takes another process.
const NOT_CHECKED: &[&str] = match Platform::CURRENT {
    Platform::Linux | Platform::MacOs => &[],
    // The token is told once, and a pipe does not end in one direction.
    Platform::Windows => &["handoff/wrong-token", "handoff/closed-after-use"],
};

/// Where a service listens, and where it takes offers.
fn endpoints(place: &Place) -> [PathBuf; 2] {
    ["be.sock", "offers.sock"].map(|name| place.endpoint(name))
}

fn kit(fault: Fault, endpoint: PathBuf, offers: PathBuf) -> Conformance {
    let kit = Conformance::of(endpoint).patience(PATIENCE / 2);
    let with_own_request = |kit: Conformance| kit.own_request(PayloadProtocol::new(OWN_LANE), "?");
    match fault {
        // Those which it is late with are the second to the sixth connection: the ones that time is measured on.
        Fault::TakesItsTime => kit,
        // A request like that would be the one to be answered on a passed connection, too.
        Fault::ForgetsTheIdOfWhatIsNoProbe => with_own_request(kit),
        _ => {
            with_own_request(kit).older_format(OlderFormat::exchange(OLD.0, OLD.1)).offers_at(offers, SERVICE)
        }
    }
}

async fn report_on(fault: Fault) -> Report {
    let place = Place::new();
    let service = Broken::start(fault, endpoints(&place));
    kit(fault, service.endpoint.clone(), service.offers.clone()).run().await
}

/// Checks that each fault of a group is found by the check that is for it, and by no other.
async fn each_fails_its_check(group: &str) {
    let mut reports = JoinSet::new();
    for (fault, check) in FAULTS.into_iter().filter(|(_, check)| check.starts_with(group)) {
        // Its own test has it in another process.
        if fault != Fault::LeavesAFileOpenPerOffer && !NOT_CHECKED.contains(&check) {
            reports.spawn(async move { (fault, check, report_on(fault).await) });
        }
    }
    assert!(!reports.is_empty());
    while let Some(report) = reports.join_next().await {
        let (fault, check, report) = report.unwrap();
        assert_eq!(report.failed(), [check], "{fault:?}: {report}");
    }
}

#[tokio::test]
async fn a_service_written_by_hand_passes_and_there_is_a_fault_for_each_check_of_it() {
    let report = report_on(Fault::None).await;
    report.assert_passed();
    let skipped = report.skipped().into_iter().filter(|name| !name.starts_with("control/"));
    assert_eq!(skipped.collect::<Vec<_>>(), [NOT_CHECKED, &["handoff/descriptors"]].concat(), "{report}");
    let kit_s_own = ["golden/frame", "golden/probe", "golden/offer", "golden/acknowledgement"];
    for Finding { check, .. } in report.findings() {
        let has_fault = FAULTS.iter().any(|(_, name)| *name == check.name);
        let is_elsewhere = kit_s_own.contains(&check.name) || check.name.starts_with("control/");
        assert!(has_fault != is_elsewhere, "{}", check.name);
    }
}

#[tokio::test]
async fn an_answer_of_another_shape_fails_the_check_for_what_is_wrong_with_it() {
    each_fails_its_check("golden/").await;
}

#[tokio::test]
async fn lies_about_the_process_and_probes_that_are_not_answered_fail_their_own_check() {
    each_fails_its_check("probe/").await;
}

#[tokio::test]
async fn a_format_that_disturbs_the_other_is_found() {
    each_fails_its_check("mixed/").await;
}

#[tokio::test]
async fn offers_that_are_answered_wrongly_and_copies_that_are_kept_are_found() {
    each_fails_its_check("handoff/").await;
}

#[tokio::test]
async fn a_service_that_suffers_from_hostile_bytes_fails_there() {
    each_fails_its_check("hostile/").await;
}

#[tokio::test]
async fn a_service_that_has_died_is_asked_nothing_more() {
    let report = report_on(Fault::DiesOfAnotherFramingByte).await;
    let behind = report.findings().iter().skip_while(|finding| finding.check.name != "hostile/framing-byte");
    let hostile: Vec<_> =
        behind.skip(1).filter(|finding| finding.check.name.starts_with("hostile/")).collect();
    assert_eq!(hostile.len(), 4, "{report}");
    for finding in hostile {
        let why = "the service does not answer any more since hostile/framing-byte".to_owned();
        assert_eq!(finding.verdict, Verdict::Skipped { why });
    }
}

#[cfg(target_os = "linux")] // Elsewhere the kit does not count them.
#[test]
fn a_descriptor_that_stays_open_per_offer_is_found_in_another_process() {
    let place = Place::new();
    let [endpoint, offers] = endpoints(&place);
    let mut service = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serves_until_its_stdin_ends", "--ignored"])
        .env(PLACE, std::env::join_paths([&endpoint, &offers]).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let report = kit(Fault::LeavesAFileOpenPerOffer, endpoint, offers).run_blocking().unwrap();
    drop(service.stdin.take());
    service.wait().unwrap();
    assert_eq!(report.failed(), ["handoff/descriptors"], "{report}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "another test starts it as a process of its own"]
fn serves_until_its_stdin_ends() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoints = std::env::split_paths(&place).collect::<Vec<_>>().try_into().unwrap();
        let _service = Broken::start(Fault::LeavesAFileOpenPerOffer, endpoints);
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        ended.await.unwrap().unwrap();
    });
}
