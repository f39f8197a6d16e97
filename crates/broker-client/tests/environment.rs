//! What the environment changes, each in a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod fake;

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use broker_client::{
    AdminError, ConfigError, Connector, DISABLE_VARIABLE, DiscoveryError, ExchangeError, HelloError,
    SessionError, TIMEOUT_VARIABLE, broker_is_enabled, broker_of, round_trip_timeout,
};
use broker_transport::endpoint::{SERVICE_DEF_DIR_VARIABLE, broker_endpoint};

use fake::FakeServer;
use fake::bytes::{number, text};
use fake::session::HALVES;

/// Set in the processes that a test starts of itself.
const CHILD_VARIABLE: &str = "BROKER_CLIENT_TEST_CHILD";

/// Runs `check` in a process in which the variable has the value; `test` is the name of the caller.
fn with_variable(test: &str, variable: &str, value: impl AsRef<OsStr>, check: impl FnOnce()) {
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        return check();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_VARIABLE, "1")
        .env(variable, value)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{failed}");
}

#[test]
fn a_one_switches_the_broker_off() {
    with_variable("a_one_switches_the_broker_off", DISABLE_VARIABLE, "1", || {
        assert_eq!(broker_is_enabled(), Ok(false));
    });
}

#[test]
fn where_the_broker_is_switched_off_nothing_is_dialled() {
    let test = "where_the_broker_is_switched_off_nothing_is_dialled";
    with_variable(test, DISABLE_VARIABLE, "1", || {
        let broker = FakeServer::unread(vec![]);
        let connector = Connector::new(fake::hello()).broker(broker.endpoint());
        for half in HALVES {
            let error = half.connect(&connector).unwrap_err();
            assert!(matches!(error, SessionError::Disabled), "{error}");
        }
        // Connections are accepted in order, so those of the sessions would have been counted by now.
        let asked = broker.inquire().len();
        assert_eq!(broker.connections(), asked);
    });
}

#[test]
fn a_session_without_a_timeout_of_its_own_takes_the_environments() {
    let test = "a_session_without_a_timeout_of_its_own_takes_the_environments";
    with_variable(test, TIMEOUT_VARIABLE, "20", || {
        let broker = FakeServer::stalling(|_| vec![]);
        let connector = Connector::new(fake::hello()).broker(broker.endpoint());
        for half in HALVES {
            let error = half.connect(&connector).unwrap_err();
            let SessionError::Hello(HelloError::Exchange(ExchangeError::TimedOut { after, .. })) = error
            else {
                panic!("{error}")
            };
            assert_eq!(after, Duration::from_millis(20));
        }
    });
}

#[test]
fn another_switch_is_an_error() {
    with_variable("another_switch_is_an_error", DISABLE_VARIABLE, "yes", || {
        let ConfigError { variable, value, .. } = broker_is_enabled().unwrap_err();
        assert_eq!((variable, value.as_os_str()), (DISABLE_VARIABLE, OsStr::new("yes")));
    });
}

#[test]
fn the_variable_bounds_an_admin_request() {
    with_variable("the_variable_bounds_an_admin_request", TIMEOUT_VARIABLE, "20", || {
        let twenty = Duration::from_millis(20);
        assert_eq!(round_trip_timeout(), Ok(twenty));
        for outcome in FakeServer::stalling(|_| vec![]).inquire() {
            let error = outcome.unwrap_err();
            let AdminError::Exchange(ExchangeError::TimedOut { after, .. }) = error else {
                panic!("{error}")
            };
            assert_eq!(after, twenty);
        }
    });
}

#[test]
fn a_timeout_that_is_none_is_an_error_before_anything_is_sent() {
    let test = "a_timeout_that_is_none_is_an_error_before_anything_is_sent";
    with_variable(test, TIMEOUT_VARIABLE, "soon", || {
        let broker = FakeServer::stalling(|_| vec![]);
        for outcome in broker.inquire() {
            let error = outcome.unwrap_err();
            assert!(matches!(&error, AdminError::Config(error) if error.value == "soon"), "{error}");
        }
        assert_eq!(broker.requests().len(), 0);
    });
}

#[test]
fn the_broker_of_a_service_is_found_by_its_definition() {
    let definitions = tempfile::tempdir().unwrap();
    let isolations = [
        ("own", number(3, 0)),
        ("common", number(3, 1)),
        ("named", [number(3, 2), text(4, "ci-1")].concat()),
    ];
    for (service, isolation) in isolations {
        let bytes = [text(1, service), text(2, "/bin/true"), isolation].concat();
        std::fs::write(definitions.path().join(format!("{service}.servicedef")), bytes).unwrap();
    }
    let test = "the_broker_of_a_service_is_found_by_its_definition";
    with_variable(test, SERVICE_DEF_DIR_VARIABLE, definitions.path(), || {
        for (service, instance) in [("own", "svc:own"), ("common", "shared"), ("named", "inst:ci-1")] {
            let broker = broker_of(&service.parse().unwrap()).unwrap();
            assert_eq!(broker.instance.to_string(), instance);
            assert_eq!(broker.endpoint, broker_endpoint(&broker.instance).unwrap());
        }
        let error = broker_of(&"absent".parse().unwrap()).unwrap_err();
        assert!(matches!(error, DiscoveryError::NotDefined { .. }), "{error}");
    });
}
