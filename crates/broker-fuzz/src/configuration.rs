//! What people and the broker write into variables and labels: what is taken says what was written, and a place
//! that is derived is a whole path.
//!
//! Options of the daemon's command line are read in its own program, by clap and by parsers of a few lines, and so is
//! its configuration file; nothing can call these from outside. What they are made of (names, versions, instances) is
//! `names`' business, and that no text of a file does harm is a property that is tested beside its parser.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use broker_backend::{Environment, EnvironmentError, environment};
use broker_client::fuzzing::{is_enabled, timeout};
use broker_core::services::{Activation, Settings};
use broker_transport::endpoint::{
    Platform, RuntimePlaces, manifest_dir_in, runtime_dir, service_definition_dir_in, state_dir_in,
};

use crate::names::{is_name, is_version};
use crate::seed::{Seed, seed};

/// Takes the bytes for lines of `NAME=VALUE`: labels of a definition, and variables of an environment.
pub fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs: BTreeMap<String, String> = text
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    are_settings(&pairs);
    is_a_backend_s_environment(&pairs);
    are_whole_places(&pairs);
    for value in pairs.values() {
        is_a_client_s_variable(value);
    }
}

/// The rules about labels, said once more in the plainest words.
pub(crate) fn labels_keep_the_rules(labels: &BTreeMap<String, String>) -> bool {
    let number = |value: &str, least: u64, most: u64| {
        value.parse::<u64>().is_ok_and(|number| least <= number && number <= most)
    };
    labels.iter().all(|(label, value)| {
        let keeps_its_own = match label.as_str() {
            "handoff.enabled" => matches!(value.as_str(), "true" | "false"),
            "handoff.endpoint" => !value.is_empty(),
            "spawn.timeout_ms" => number(value, 1, 3_600_000),
            "spawn.activation" => matches!(value.as_str(), "bind" | "listen-fds"),
            "spawn.args" => shell_words::split(value).is_ok(),
            "idle.timeout_secs" => number(value, 0, 31_536_000),
            _ => label.strip_prefix("env.").is_none_or(is_free_variable),
        };
        keeps_its_own && !label.contains('\0') && !value.contains('\0')
    })
}

/// A variable's name that the broker does not set itself.
fn is_free_variable(name: &str) -> bool {
    let is_taken = ["RUNNING_PROCESS_BROKER_V1_", "LISTEN_", "NOTIFY_SOCKET"]
        .iter()
        .any(|taken| name.starts_with(taken));
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && !is_taken && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn are_settings(labels: &BTreeMap<String, String>) {
    let settings = match Settings::from_labels(labels) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(!labels_keep_the_rules(labels), "{labels:?} are not taken: {error}");
            return;
        }
    };
    assert!(labels_keep_the_rules(labels), "{labels:?} are taken");
    assert_eq!(settings.handoff_enabled, labels.get("handoff.enabled").is_none_or(|value| value == "true"));
    assert_eq!(settings.handoff_endpoint.as_ref(), labels.get("handoff.endpoint"));
    let longest = Duration::from_secs(3_600);
    assert!(!settings.spawn_timeout.is_zero() && settings.spawn_timeout <= longest);
    assert!(settings.idle_timeout.is_none_or(|timeout| !timeout.is_zero()));
    let is_passed = labels.get("spawn.activation").is_some_and(|value| value == "listen-fds");
    assert_eq!(settings.activation == Activation::ListenFds, is_passed);
    for (name, value) in &settings.env {
        assert_eq!(labels.get(&format!("env.{name}")), Some(value));
        assert!(!name.contains(['=', '\0']) && !value.contains('\0'), "a process can be given it");
    }
    assert_eq!(settings.env.len(), labels.keys().filter(|label| label.starts_with("env.")).count());
    let known = [
        "handoff.enabled",
        "handoff.endpoint",
        "spawn.timeout_ms",
        "spawn.activation",
        "spawn.args",
        "idle.timeout_secs",
    ];
    let is_ours =
        |label: &&String| ["handoff.", "spawn.", "idle."].iter().any(|ours| label.starts_with(ours));
    let unknown = labels.keys().filter(is_ours).filter(|label| !known.contains(&label.as_str()));
    assert_eq!(settings.warnings.len(), unknown.count(), "a warning for each label that has no effect");
    are_the_same_words_when_quoted(&settings.args);
}

fn are_the_same_words_when_quoted(words: &[String]) {
    assert!(words.iter().all(|word| !word.contains('\0')), "a process can be given them");
    let quoted = [("spawn.args".to_owned(), shell_words::join(words))].into();
    let again = Settings::from_labels(&quoted).expect("quoted words are words");
    assert_eq!(again.args, words);
}

fn is_a_backend_s_environment(pairs: &BTreeMap<String, String>) {
    let lookup = |variable: &'static str| pairs.get(variable).map(OsString::from);
    let value = |variable: &str| pairs.get(variable).map_or("", String::as_str);
    match Environment::parse(lookup) {
        Ok(parsed) => {
            assert!(
                is_name(value(environment::SERVICE_NAME)) && is_version(value(environment::SERVICE_VERSION))
            );
            assert_eq!(parsed.service.as_str(), value(environment::SERVICE_NAME));
            assert_eq!(parsed.instance.to_string(), value(environment::INSTANCE));
            assert_eq!(parsed.endpoint, Path::new(value(environment::BACKEND_PIPE)));
            assert_eq!(parsed.namespace, value(environment::BACKEND_NAMESPACE));
            assert_eq!(parsed.traceparent.as_ref(), pairs.get(environment::TRACEPARENT));
        }
        Err(EnvironmentError::Missing { variable, .. }) => assert!(!pairs.contains_key(variable)),
        Err(EnvironmentError::Invalid { variable, value, rule }) => {
            assert_eq!(pairs.get(variable), Some(&value), "the error shows what is wrong: {rule}");
        }
        Err(EnvironmentError::NoBroker | EnvironmentError::NotUtf8 { .. }) => {}
    }
}

fn are_whole_places(pairs: &BTreeMap<String, String>) {
    let env = |variable: &str| pairs.get(variable).map(OsString::from);
    let places = RuntimePlaces {
        uid: 1000,
        xdg_runtime_dir: env("XDG_RUNTIME_DIR"),
        tmpdir: env("TMPDIR"),
        local_app_data: env("LOCALAPPDATA"),
    };
    let here = Platform::CURRENT;
    let derived = [
        service_definition_dir_in(here, env),
        manifest_dir_in(here, env),
        state_dir_in(here, env),
        runtime_dir(here, &places),
    ];
    for place in derived.into_iter().flatten() {
        assert!(place.is_absolute(), "{} leads elsewhere from every directory", place.display());
    }
    for platform in [Platform::Linux, Platform::MacOs, Platform::Windows] {
        let _ = (
            service_definition_dir_in(platform, env),
            manifest_dir_in(platform, env),
            state_dir_in(platform, env),
            runtime_dir(platform, &places),
        );
    }
}

fn is_a_client_s_variable(value: &str) {
    match is_enabled(Some(value.into())) {
        Ok(enabled) => assert!(!enabled && value == "1"),
        Err(error) => assert!(error.to_string().contains(&format!("{value:?}")), "the error shows it"),
    }
    let is_number = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
    let expected = value.parse::<u64>().ok().filter(|millis| is_number && *millis > 0);
    match timeout(Some(value.into())) {
        Ok(timeout) => assert_eq!(Some(timeout), expected.map(Duration::from_millis)),
        Err(error) => {
            assert_eq!(expected, None);
            assert!(error.to_string().contains(&format!("{value:?}")), "the error shows it");
        }
    }
}

/// Labels and variables, each with every kind of value.
pub fn seeds() -> Vec<Seed> {
    let started = [
        (environment::SERVICE_NAME, "cache"),
        (environment::SERVICE_VERSION, "1.2.3"),
        (environment::BACKEND_PIPE, "/run/be.sock"),
        (environment::BACKEND_NAMESPACE, "0"),
        (environment::INSTANCE, "svc:cache"),
        (environment::TRACEPARENT, "00-trace"),
    ];
    let started = started.map(|(name, value)| format!("{name}={value}\n")).concat();
    vec![
        seed("nothing", ""),
        seed("environment-of-a-backend", &started[..]),
        seed("environment-without-its-end", &started[..started.len() / 2]),
        seed("environment-of-a-bad-version", started.replace("1.2.3", "1.2")),
        seed("environment-of-a-bad-instance", started.replace("svc:cache", "svc:")),
        seed("environment-of-a-relative-endpoint", started.replace("/run/", "")),
        seed(
            "labels",
            "handoff.enabled=false\nspawn.timeout_ms=2500\nspawn.activation=listen-fds\nidle.timeout_secs=0\n",
        ),
        seed("words", "spawn.args=--name 'a b' \"c \\\" d\" e\\ f '' -v # not a comment"),
        seed("words-that-do-not-end", "spawn.args=a 'b"),
        seed("words-on-the-last-backslash", "spawn.args=a \\"),
        seed("variables", "env.RUST_LOG=info\nenv._X1=\nhandoff.endpoint=/run/offers.sock"),
        seed("reserved-variables", "env.NOTIFY_SOCKET=/run/x"),
        seed("reserved-prefix", "env.RUNNING_PROCESS_BROKER_V1_X=1"),
        seed("variable-without-a-name", "env.=1"),
        seed("unknown-labels", "spawn.shell=1\nhandoff.=\nidle.x=1\nteam=builds"),
        seed("numbers-at-their-limits", "spawn.timeout_ms=3600000\nidle.timeout_secs=31536000"),
        seed("numbers-past-their-limits", "spawn.timeout_ms=3600001\nidle.timeout_secs=31536001"),
        seed("a-client-s-numbers", "a=1\nb=0\nc=-1\nd=+5\ne=18446744073709551615\nf=18446744073709551616"),
        seed(
            "places",
            "HOME=/home/u\nXDG_STATE_HOME=/s\nXDG_CONFIG_HOME=rel\nXDG_DATA_HOME=/d\nXDG_RUNTIME_DIR=/run/1",
        ),
        seed("places-of-other-systems", "TMPDIR=/var/t\nLOCALAPPDATA=C:\\L\nAPPDATA=C:\\R\nHOME=rel"),
        seed("chosen-place", "RUNNING_PROCESS_SERVICE_DEF_DIR=/srv/defs\nHOME="),
    ]
}
