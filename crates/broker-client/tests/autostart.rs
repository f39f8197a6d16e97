//! Brokers that are started, where it does not take a real one to tell how that ends.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod fake;

use std::io;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[cfg(unix)]
use broker_client::KnownEnd;
use broker_client::{Connector, ExchangeError, HelloError, SessionError, StartError, StartFault};

use fake::bytes::{Response, number, text};
use fake::session::HALVES;
use fake::{FakeServer, Place, Request, hello};

const CONTROL: u64 = 0;

/// A time in which a connector has found that there is no broker.
const LONG: Duration = Duration::from_secs(10);

/// A program that runs these commands. Another process writes it: a program that is open for writing, also in
/// what another test has just forked, cannot be executed.
#[cfg(unix)]
fn script(place: &Place, commands: &str) -> PathBuf {
    let path = place.path().join("program");
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 700 "$2""#;
    let written = Command::new("/bin/sh").args(["-c", write, "sh", commands]).arg(&path).status();
    assert!(written.unwrap().success());
    path
}

/// One that finds no broker, and starts this program.
fn connector(place: &Place, program: &Path, timeout: Duration) -> Connector {
    Connector::new(hello()).broker(place.endpoint("absent.sock")).start_broker(program).timeout(timeout)
}

#[cfg(unix)]
fn shell(command: &str) -> bool {
    Command::new("/bin/sh").args(["-c", command]).status().unwrap().success()
}

/// A broker that closes this many connections without a reply, and then names the backend.
fn closing(times: usize, backend: PathBuf) -> FakeServer {
    let hellos = AtomicUsize::new(0);
    FakeServer::replying(move |request: &Request| {
        if hellos.fetch_add(1, Ordering::Relaxed) < times {
            return Vec::new();
        }
        let endpoint = text(3, backend.to_str().unwrap());
        let fields = [number(1, 1), text(2, "1.2.4"), endpoint, number(6, 1_800), number(8, 77)];
        Response::new(CONTROL, request.id(), text(1, fields.concat())).bytes()
    })
}

#[test]
fn a_connection_that_is_closed_without_a_reply_is_made_anew_once_where_brokers_are_started() {
    for half in HALVES {
        let backend = FakeServer::stalling(|_| Vec::new());
        let connect = |broker: &FakeServer, change: fn(Connector) -> Connector| {
            half.connect(&change(Connector::new(hello()).broker(broker.endpoint())))
        };
        let starting = |connector: Connector| connector.start_broker("/absent/brokerd");
        let is_closed = |error: &SessionError| {
            matches!(error, SessionError::Hello(HelloError::Exchange(ExchangeError::Closed { .. })))
        };

        let broker = closing(1, backend.endpoint());
        connect(&broker, starting).unwrap();
        assert_eq!(broker.requests().len(), 2);

        let broker = closing(2, backend.endpoint());
        assert!(is_closed(&connect(&broker, starting).unwrap_err()));
        assert_eq!(broker.requests().len(), 2);

        let broker = closing(1, backend.endpoint());
        assert!(is_closed(&connect(&broker, |connector| connector).unwrap_err()));
        assert_eq!(broker.requests().len(), 1);
    }
}

#[test]
fn a_connection_that_is_reset_is_made_anew_once_where_brokers_are_started() {
    for half in HALVES {
        // It closes with the Hello unread, if that has come yet: then the client's side is reset.
        let broker = FakeServer::unread(Vec::new());
        let connector = Connector::new(hello()).broker(broker.endpoint()).start_broker("/absent/brokerd");
        let error = half.connect(&connector).unwrap_err();
        assert!(matches!(error, SessionError::Hello(HelloError::Exchange(_))), "{error}");
        assert_eq!(broker.connections(), 2);
    }
}

#[cfg(unix)] // Its program is a script of sh(1).
#[test]
fn a_program_that_ends_otherwise_than_for_another_broker_has_failed() {
    let place = Place::new();
    for half in HALVES {
        for (commands, said) in
            [("exit 1", "exit status: 1"), ("exit 0", "exit status: 0"), ("kill -9 $$", "signal: 9")]
        {
            let program = script(&place, commands);
            let error = half.connect(&connector(&place, &program, Duration::MAX)).unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, SessionError::NotStarted(StartError { fault: StartFault::Ended { .. }, .. })),
                "{text}"
            );
            assert!(text.contains(program.to_str().unwrap()) && text.contains(said), "{text}");
        }
    }
}

#[test]
fn what_is_no_program_is_not_executed() {
    let place = Place::new();
    for half in HALVES {
        for (program, kind) in [
            ("/absent/brokerd", io::ErrorKind::NotFound),
            ("no-such-broker", io::ErrorKind::NotFound),
            #[cfg(unix)]
            ("/dev/null", io::ErrorKind::PermissionDenied),
        ] {
            let error = half.connect(&connector(&place, program.as_ref(), Duration::MAX)).unwrap_err();
            let text = error.to_string();
            let SessionError::NotStarted(StartError { command, fault: StartFault::NotExecuted { source } }) =
                error
            else {
                panic!("{text}")
            };
            assert_eq!(source.kind(), kind, "{text}");
            assert!(command.starts_with(program) && text.contains(&command), "{text}");
        }
    }
}

/// Whether the time was over before anything was started.
fn was_too_short(error: &SessionError) -> bool {
    match error {
        SessionError::NoBroker { .. } => true,
        SessionError::NotStarted(StartError { fault: StartFault::NotExecuted { source }, .. }) => {
            source.kind() == io::ErrorKind::TimedOut
        }
        _ => false,
    }
}

/// The fault of a start that the time was over for.
#[cfg(unix)]
fn fault_in_time(connect: impl Fn(Duration) -> SessionError) -> (StartFault, String) {
    let mut timeout = Duration::from_millis(50);
    loop {
        let error = connect(timeout);
        let text = error.to_string();
        match error {
            error if was_too_short(&error) && timeout < LONG => timeout *= 2,
            SessionError::NotStarted(StartError { fault, .. }) => return (fault, text),
            _ => panic!("{text}"),
        }
    }
}

#[cfg(unix)] // Its program is a script of sh(1).
#[test]
fn a_started_program_that_does_not_listen_in_time_is_named_with_its_process() {
    let place = Place::new();
    let program = script(&place, "exec /bin/sleep 600");
    for half in HALVES {
        let connect = |timeout| half.connect(&connector(&place, &program, timeout)).unwrap_err();
        let (fault, text) = fault_in_time(connect);
        let StartFault::NotListening { pid, .. } = fault else { panic!("{text}") };
        assert!(shell(&format!("kill {pid}")), "{text}");
        let process = format!("process {pid}");
        for part in [program.to_str().unwrap(), &process, "absent.sock"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[cfg(unix)] // Its program is a script of sh(1).
#[test]
fn a_program_that_makes_way_for_nobody_is_started_again_until_the_time_is_up() {
    let place = Place::new();
    let starts = place.path().join("starts");
    let program = script(&place, &format!("echo >>'{}'; exit 3", starts.display()));
    for half in HALVES {
        let mut timeout = Duration::from_millis(50);
        while !std::fs::read(&starts).is_ok_and(|starts| starts.len() > 2) {
            assert!(timeout < Duration::from_secs(120), "it is not started again");
            let (fault, text) = fault_in_time(|at_least| {
                half.connect(&connector(&place, &program, timeout.max(at_least))).unwrap_err()
            });
            timeout *= 2;
            match fault {
                StartFault::Displaced { end: KnownEnd::MadeWay, lock, .. } => {
                    assert!(
                        text.contains(lock.to_str().unwrap()) && text.contains("absent.sock.lock"),
                        "{text}"
                    );
                }
                // It had not ended yet.
                StartFault::NotListening { .. } => {}
                _ => panic!("{text}"),
            }
        }
        std::fs::remove_file(&starts).unwrap();
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_start_waits_for_a_thread_that_may_block_and_not_beyond_the_limit() {
    let place = Place::new();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let busy = runtime.spawn_blocking(move || released.recv().is_err());
    let mut timeout = Duration::from_millis(50);
    let error = loop {
        let connector = connector(&place, "/absent/brokerd".as_ref(), timeout);
        match runtime.block_on(broker_client::Session::connect(&connector)).unwrap_err() {
            // The time was over before anything was started.
            SessionError::NoBroker { .. } if timeout < LONG => timeout *= 2,
            error => break error,
        }
    };
    drop(release);
    assert!(runtime.block_on(busy).unwrap());
    assert!(was_too_short(&error) && error.to_string().contains("/absent/brokerd"), "{error}");
}
