//! The conformance kit, run against backends of this crate: every check passes, or says why it is skipped.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::time::Duration;

use broker_backend::bytes::Bytes;
use broker_backend::conformance::{Conformance, OlderFormat, PATIENCE, Report, Verdict};
use broker_backend::{LegacyConnection, PayloadProtocol, Request, Response, detect_frames};
use broker_transport::endpoint::Platform;

use common::{Place, Served};

const NEEDS_THE_KIT_S_OWN_PROCESS: [&str; 6] = [
    "control/announcement",
    "control/offer",
    "control/reply-first",
    "control/usage",
    "control/quiesce",
    "control/offer-after-quiesce",
];

async fn echo(request: Request) -> Bytes {
    request.into_payload()
}

/// The older format: a line in, the same line in capitals out.
async fn shout(client: LegacyConnection) {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        match client.stream.read_some(&mut byte).await {
            Ok(1) => line.push(byte[0]),
            _ => return,
        }
    }
    let _ = client.stream.send_all(&line.to_ascii_uppercase()).await;
}

/// Checks what was skipped, but for what is skipped for every service in this process.
fn assert_skipped(report: &Report, expected: &[&str]) {
    report.assert_passed();
    let mut skipped = report.skipped();
    skipped.retain(|name| !NEEDS_THE_KIT_S_OWN_PROCESS.contains(name));
    assert_eq!(skipped, expected, "{report}");
}

const MIXED: [&str; 6] = [
    "mixed/older-format",
    "mixed/old-first",
    "mixed/new-first",
    "mixed/interleaved",
    "mixed/old-in-pieces",
    "mixed/both-in-pieces",
];

#[tokio::test]
async fn a_bound_backend_passes() {
    let served = Served::start(echo);
    let report = Conformance::of(&served.endpoint).own_request(PayloadProtocol::CLUD, "ping").run().await;
    let handoff = report.skipped().into_iter().filter(|name| name.starts_with("handoff/"));
    assert_skipped(&report, &[&MIXED[..], &handoff.collect::<Vec<_>>()].concat());
    served.stop().await;
}

#[tokio::test]
async fn a_backend_that_hangs_up_on_lanes_that_it_does_not_speak_passes() {
    let served = Served::start(async |request: Request| match request.lane() {
        PayloadProtocol::CLUD => Response::new("pong"),
        _ => Response::hang_up(),
    });
    let kit = Conformance::of(&served.endpoint).own_request(PayloadProtocol::CLUD, "ping");
    kit.run().await.assert_passed();
    served.stop().await;
}

#[tokio::test]
async fn a_backend_with_an_older_format_and_offers_passes() {
    let place = Place::new();
    let offers = place.endpoint("offers.sock");
    let served = Served::start_with(echo, |backend| {
        backend.with_legacy(detect_frames, shout).with_offers_at(&offers).unwrap()
    });
    let report = Conformance::of(&served.endpoint)
        .older_format(OlderFormat::exchange("ping\n", "PING\n"))
        .offers_at(&offers, "me")
        .own_request(PayloadProtocol::new(0xF001), "ping")
        .run()
        .await;
    // It was bound without a service's name, and its descriptors are this process's.
    let mut expected = vec!["handoff/rejected", "handoff/descriptors"];
    if Platform::CURRENT == Platform::Windows {
        // The token is told once, and a pipe does not end in one direction.
        expected = vec![
            "handoff/wrong-token",
            "handoff/rejected",
            "handoff/closed-after-use",
            "handoff/descriptors",
        ];
    }
    assert_skipped(&report, &expected);
    served.stop().await;
    place.assert_left_empty();
}

#[tokio::test]
async fn an_older_format_may_be_recognised_instead_of_known() {
    let served = Served::start_with(echo, |backend| backend.with_legacy(detect_frames, shout));
    let format = OlderFormat::recognised("what?\n", |answer| answer.ends_with(b"\n"));
    let report = Conformance::of(&served.endpoint).older_format(format).run().await;
    report.assert_passed();
    assert!(!report.skipped().iter().any(|name| name.starts_with("mixed/")), "{report}");
    served.stop().await;
}

#[test]
fn a_test_without_a_runtime_runs_it_against_a_service_on_a_thread() {
    let (tell, told) = std::sync::mpsc::channel();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let served = Served::start(echo);
            tell.send((served.endpoint.clone(), stop)).unwrap();
            stopped.await.unwrap();
            served.stop().await;
        });
    });
    let (endpoint, stop) = told.recv().unwrap();
    Conformance::of(endpoint).run_blocking().unwrap().assert_passed();
    stop.send(()).unwrap();
    serving.join().unwrap();
}

#[tokio::test]
async fn where_nobody_listens_one_check_fails_and_the_rest_say_why_they_were_not_carried_out() {
    let place = Place::new();
    let endpoint = place.endpoint("nobody.sock");
    let report = Conformance::of(&endpoint).patience(Duration::from_millis(10)).run().await;
    assert_eq!(report.failed(), ["golden/answer"], "{report}");
    assert_eq!(report.endpoint(), endpoint);
    for finding in &report.findings()[5..] {
        assert!(matches!(&finding.verdict, Verdict::Skipped { why } if !why.is_empty()), "{finding:?}");
    }
}

#[tokio::test]
async fn a_service_that_begins_to_listen_a_moment_later_is_waited_for() {
    let place = Place::new();
    let endpoint = place.endpoint("be.sock");
    let kit = Conformance::of(&endpoint).patience(PATIENCE);
    let late = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        broker_backend::Backend::bind(&endpoint).unwrap().serve(echo).await
    };
    tokio::select! {
        report = kit.run() => report.assert_passed(),
        ended = late => panic!("{ended:?}"),
    }
}
