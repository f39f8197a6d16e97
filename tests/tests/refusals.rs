//! Every way of being refused, by bytes written by hand (behaviour.md 2).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;

use std::path::PathBuf;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminRequest, ErrorCode, Frame, FrameKind, Hello, Refused};
use broker_tests::{Wire, World, agreed, frame_of, hello, refused, reply_of};

/// What these bytes, and nothing after them, are answered with.
fn answer_to(world: &World, bytes: &[u8]) -> Refused {
    let mut wire = world.connect();
    wire.write(bytes);
    #[cfg(unix)]
    wire.finish();
    let refusal = refused(reply_of(&wire.receive()));
    assert_eq!(wire.rest(), b"");
    refusal
}

fn request(hello: &Hello) -> Frame {
    Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec())
}

#[test]
fn rows_1_to_7_hostile_bytes_are_refused_and_the_next_client_is_served() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let unsupported = ErrorCode::ErrorVersionUnsupported;
    let rejected = ErrorCode::ErrorPeerRejected;
    let good = request(&hello("cache", "1.0.0"));
    let framed = |frame: &Frame| frame_of(&frame.encode_to_vec());
    let cases: Vec<(&str, Vec<u8>, ErrorCode, &str)> = vec![
        ("another framing version", vec![2, 0, 0, 0, 0], unsupported, "framing_version"),
        ("only another framing version", vec![0], unsupported, "framing_version"),
        ("a text", b"GET / HTTP/1.1\r\n\r\n".to_vec(), unsupported, "framing_version"),
        ("64 KiB and one byte", vec![1, 1, 0, 1, 0], rejected, "frame_body"),
        ("4 GiB", vec![1, 255, 255, 255, 255], rejected, "frame_body"),
        ("half a header", vec![1, 5], rejected, "frame_body"),
        ("half a body", vec![1, 5, 0, 0, 0, 8, 1], rejected, "frame_body"),
        ("no frame", frame_of(&[0xFF; 40]), rejected, "frame"),
        ("an empty frame", frame_of(&[]), unsupported, "envelope_version"),
        (
            "another envelope",
            framed(&Frame { envelope_version: 2, ..good.clone() }),
            unsupported,
            "envelope_version",
        ),
        ("a response", framed(&Frame { kind: FrameKind::Response.into(), ..good.clone() }), rejected, "kind"),
        (
            "an unknown lane",
            framed(&Frame { payload_protocol: 0x7A63, ..good.clone() }),
            rejected,
            "payload_protocol",
        ),
        ("compressed", framed(&Frame { payload_encoding: 1, ..good.clone() }), rejected, "payload_encoding"),
        ("no Hello", framed(&Frame { payload: vec![0xFF; 9].into(), ..good.clone() }), rejected, "payload"),
        (
            "no admin request",
            framed(&Frame {
                payload_protocol: PayloadProtocol::ADMIN.id(),
                payload: vec![0xFF; 9].into(),
                ..good.clone()
            }),
            rejected,
            "payload",
        ),
    ];
    // A pipe has no end behind which its other direction goes on: who closes it is told nothing any more.
    let is_told = |what: &str| cfg!(unix) || !what.starts_with("half");
    for (what, bytes, code, field) in cases.into_iter().filter(|case| is_told(case.0)) {
        let refusal = answer_to(&world, &bytes);
        assert_eq!((refusal.code(), &refusal.details["field"][..]), (code, field), "{what}: {refusal:?}");
        assert_eq!(refusal.retry_after_ms, 0, "{what}");
        assert!(refusal.reason.len() > 20, "{what}: {}", refusal.reason);
    }
    agreed(world.connect().say(&hello("cache", "1.0.0")));
}

#[test]
fn row_2_a_body_of_exactly_64_kib_is_read() {
    let world = World::new();
    let _broker = world.serve(&[]);
    // An unknown field fills the frame up; it is no Hello for a service that exists, but it is read.
    let mut body = request(&hello("cache", "1.0.0")).encode_to_vec();
    body.extend([0x82, 0x08]); // field 128, a string
    let rest = 65_536 - body.len() - 3;
    body.extend([(rest & 0x7F) as u8 | 0x80, (rest >> 7) as u8 & 0x7F | 0x80, (rest >> 14) as u8]);
    body.resize(65_536, b'x');
    assert_eq!(answer_to(&world, &frame_of(&body)).code(), ErrorCode::ErrorServiceUnknown);
}

#[test]
fn row_3_a_peer_that_trickles_is_cut_off_at_the_deadline_counted_from_accept() {
    let world = World::new();
    let _broker = world.serve(&["--hello-timeout-ms", "200"]);
    let mut trickling = world.connect();
    let mut silent = world.connect();
    trickling.write(&[1, 100]);
    let refusal = refused(reply_of(&trickling.receive()));
    assert_eq!((refusal.code(), &refusal.details["rule"][..]), (ErrorCode::ErrorPeerRejected, "deadline"));
    assert_eq!(&refusal.details["actual"], "2");
    assert_eq!(silent.rest(), b"", "who asked nothing is told nothing");
}

#[test]
fn row_10_the_permit_after_the_burst_is_waited_for() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&["--hello-burst", "2", "--hello-refill", "1"]);
    // A service that is unknown takes no time, in which a permit could come back.
    refused(world.connect().say(&hello("nothing", "1.0.0")));
    refused(world.connect().say(&hello("nothing", "1.0.0")));
    let limited = refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(limited.code(), ErrorCode::ErrorRateLimited);
    assert!((1..=1_000).contains(&limited.retry_after_ms), "{}", limited.retry_after_ms);
}

#[test]
fn rows_11_to_14_fields_peers_and_services() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let code = |hello: Hello| refused(world.connect().say(&hello)).code();
    let good = || hello("cache", "1.0.0");
    assert_eq!(
        code(Hello { client_min_protocol: 2, client_max_protocol: 3, ..good() }),
        ErrorCode::ErrorVersionUnsupported
    );
    assert_eq!(code(hello("Cache", "1.0.0")), ErrorCode::ErrorPeerRejected);
    assert_eq!(code(hello("../cache", "1.0.0")), ErrorCode::ErrorPeerRejected);
    assert_eq!(code(hello("cache", "1.0")), ErrorCode::ErrorPeerRejected);
    assert_eq!(code(hello("cache", "18446744073709551616.0.0")), ErrorCode::ErrorPeerRejected);
    assert_eq!(code(Hello { client_lib_name: "x".repeat(65), ..good() }), ErrorCode::ErrorPeerRejected);
    assert_eq!(code(Hello { peer_pid: std::process::id() + 1, ..good() }), ErrorCode::ErrorPeerRejected);
    assert_eq!(code(hello("unknown", "1.0.0")), ErrorCode::ErrorServiceUnknown);
    agreed(world.connect().say(&Hello { peer_pid: 0, client_lib_name: "x".repeat(64), ..good() }));
}

#[test]
fn row_14_a_broker_sends_the_client_of_another_trust_domain_to_the_right_one() {
    let world = World::new();
    world.define("own", &[]);
    world.define("common", &["--isolation", "shared"]);
    let shared = broker_tests::Daemon::start(&mut world.brokerd(&["serve"]));
    let listed: serde_json::Value =
        serde_json::from_str(&world.run(&["list-instances", "--json"]).stdout).unwrap();
    let socket = PathBuf::from(listed["instances"][0]["pipe"].as_str().unwrap());
    agreed(Wire::connect(&socket).say(&hello("common", "1.0.0")));
    let refusal = refused(Wire::connect(&socket).say(&hello("own", "1.0.0")));
    assert_eq!(
        (refusal.code(), &refusal.details["broker_instance"][..]),
        (ErrorCode::ErrorServiceUnknown, "svc:own")
    );
    let right = refusal.details["pipe"].clone();

    let private = broker_tests::Daemon::start(&mut world.brokerd(&["serve", "--instance", "svc:own"]));
    agreed(Wire::connect(right.as_ref()).say(&hello("own", "1.0.0")));
    refused(Wire::connect(right.as_ref()).say(&hello("common", "1.0.0")));
    private.stop();
    shared.stop();
}

// By modes and symbolic links; access control lists are the transport's own tests.
#[cfg(unix)]
#[test]
fn row_15_a_definition_that_breaks_a_rule_is_refused_with_the_rule_s_name() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let file = world.path(".config/running-process/services/cache.servicedef");
    let rule = || {
        let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
        assert_eq!(refusal.code(), ErrorCode::ErrorInternal);
        refusal.details["rule"].clone()
    };
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, [0xFF; 10]).unwrap();
    assert_eq!(rule(), "encoding");
    std::fs::write(&file, vec![0; 1_048_577]).unwrap();
    assert_eq!(rule(), "size");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), &file).unwrap();
    assert_eq!(rule(), "unreadable");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &good).unwrap();
    agreed(world.connect().say(&hello("cache", "1.0.0")));

    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &good).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o662)).unwrap();
    assert_eq!(rule(), "untrusted");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();

    let dir = file.parent().unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o770)).unwrap();
    std::fs::write(&file, &good).unwrap();
    assert_eq!(rule(), "directory");
}

// By modes and symbolic links; access control lists are the transport's own tests.
#[cfg(unix)]
#[test]
fn row_15_an_executable_that_is_missing_or_open_to_others_is_refused_until_it_is_mended() {
    let world = World::new();
    let binary = world.path("echo");
    std::fs::copy(World::program("echo-backend"), &binary).unwrap();
    assert!(world.run(&["service", "add", "cache", "--binary", binary.to_str().unwrap()]).is_success());
    let _broker = world.serve(&[]);
    let rule = || {
        let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
        assert_eq!(refusal.code(), ErrorCode::ErrorInternal);
        refusal.details["rule"].clone()
    };
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(rule(), "binary-writable-by-others");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(rule(), "binary-not-executable");
    std::fs::remove_file(&binary).unwrap();
    assert_eq!(rule(), "binary-missing");
    std::fs::copy(World::program("echo-backend"), &binary).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    agreed(world.connect().say(&hello("cache", "1.0.0")));
}

#[test]
fn row_16_versions_below_the_floor_or_outside_the_list_are_blocked() {
    let world = World::new();
    world.define("cache", &["--min-version", "1.2.0"]);
    world.define("list", &["--allow-version", "1.0.0", "--allow-version", "2.0.0"]);
    let _broker = world.serve(&[]);
    for (service, version) in [("cache", "1.1.9"), ("cache", "1.2.0-rc.1"), ("list", "1.5.0")] {
        let refusal = refused(world.connect().say(&hello(service, version)));
        assert_eq!((refusal.code(), refusal.retry_after_ms), (ErrorCode::ErrorVersionBlocked, 30_000));
    }
    agreed(world.connect().say(&hello("cache", "1.2.0")));
    agreed(world.connect().say(&hello("list", "2.0.0")));
}

#[test]
fn rows_17_and_18_a_backend_that_exits_is_told_with_its_last_words_and_only_three_times() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let _broker = world.serve(&[]);
    for _ in 0..3 {
        let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
        assert_eq!((refusal.code(), refusal.retry_after_ms), (ErrorCode::ErrorBackendSpawnFailed, 1_000));
        assert_eq!((&refusal.details["stage"][..], &refusal.details["exit_status"][..]), ("ready", "3"));
        assert!(!refusal.details["stderr"].is_empty());
    }
    let spent = refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!((spent.code(), &spent.details["attempts"][..]), (ErrorCode::ErrorRateLimited, "3"));
    assert!((1..=30_000).contains(&spent.retry_after_ms));
}

#[test]
fn row_18_a_backend_that_never_listens_is_killed_when_its_time_is_up() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--hang", "--label", "spawn.timeout_ms=150"]);
    let _broker = world.serve(&[]);
    let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(
        (refusal.code(), &refusal.details["stage"][..]),
        (ErrorCode::ErrorBackendSpawnFailed, "ready")
    );
    assert!(!refusal.details.contains_key("signal"), "that signal was ours");
}

#[test]
fn row_18_a_client_that_waits_no_longer_is_told_so_and_the_start_goes_on() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--delay-ms 300"]);
    let _broker = world.serve(&[]);
    let mut wire = world.connect();
    wire.send(&Frame { deadline_unix_ms: 1, ..request(&hello("cache", "1.0.0")) });
    let refusal = refused(reply_of(&wire.receive()));
    assert_eq!(&refusal.details["stage"], "deadline");
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(world.ask("dump")["spawn_budgets"][0]["attempts_used"], 0);
}

#[test]
fn row_18_a_backend_that_claims_to_be_another_process_is_not_used() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--wrong-identity"]);
    let _broker = world.serve(&[]);
    let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(
        (refusal.code(), &refusal.details["stage"][..]),
        (ErrorCode::ErrorBackendSpawnFailed, "identity")
    );
}

// Windows executes no scripts.
#[cfg(unix)]
#[test]
fn a_script_that_makes_way_for_the_real_program_becomes_ready() {
    let world = World::new();
    let script = world.path("script");
    let real = World::program("echo-backend");
    std::fs::write(&script, format!("#!/bin/sh\nexec {}\n", real.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(world.run(&["service", "add", "cache", "--binary", script.to_str().unwrap()]).is_success());
    let _broker = world.serve(&[]);
    for patch in 0..5 {
        agreed(world.connect().say(&hello("cache", &format!("1.0.{patch}"))));
    }
}

// Windows executes no scripts.
#[cfg(unix)]
#[test]
fn row_18_a_program_that_cannot_be_executed_is_told_as_such() {
    let world = World::new();
    let script = world.path("script");
    std::fs::write(&script, "#!/absent/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let added = world.run(&["service", "add", "cache", "--binary", script.to_str().unwrap()]);
    assert!(added.is_success(), "{added:?}");
    let _broker = world.serve(&[]);
    let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(&refusal.details["stage"], "exec");
    assert!(refusal.details["cause"].contains("interpreter"), "{refusal:?}");
}

// The clients of a pipe do not queue: who is accepted first is not theirs to say.
#[cfg(unix)]
#[test]
fn a_peer_over_its_share_is_closed_at_once_and_the_rest_is_served() {
    let world = World::new();
    let _broker = world.serve(&["--max-connections", "4"]);
    let _held = [world.connect(), world.connect()];
    // Both are accepted before the third, as connections queue in order.
    assert_eq!(world.connect().rest(), b"");
    drop(_held);
    let metrics = loop {
        let answer = world.run(&["metrics", "--socket", world.socket().to_str().unwrap()]);
        if answer.is_success() {
            break answer.stdout;
        }
    };
    assert!(metrics.contains(r#"peer_rejected_total{reason="over-share"} 1"#), "{metrics}");
}

#[test]
fn an_unknown_admin_verb_is_a_usage_error() {
    let world = World::new();
    let _broker = world.serve(&[]);
    let mut wire = world.connect();
    let request = AdminRequest { verb: 99, ..AdminRequest::default() };
    wire.send(&Frame::request(PayloadProtocol::ADMIN, 3, request.encode_to_vec()));
    let frame = wire.receive();
    let reply = broker_protocol::wire::AdminReply::decode(frame.payload.clone()).unwrap();
    assert_eq!((frame.request_id, reply.exit_code), (3, 2));
}
