//! The environment: every `RUNNING_PROCESS_*` variable, and what places are derived from.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use broker_client::{DISABLE_VARIABLE, TIMEOUT_VARIABLE, broker_is_enabled, round_trip_timeout};
use broker_transport::endpoint::{Platform, SERVICE_DEF_DIR_VARIABLE};
use broker_transport::files::{self, FileKind};
use broker_transport::identity;
use clap::CommandFactory;
use clap::builder::Resettable;

use crate::cli::Cli;
use crate::config::{CONFIG_VARIABLE, keys, levels_for_us};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::{mend, place};
use crate::serve::place::ALLOW_PRIVILEGED;

const PREFIX: &str = "RUNNING_PROCESS_";
/// What a broker tells the processes that it starts.
const BACKEND_PREFIX: &str = "RUNNING_PROCESS_BROKER_V1_";
/// What a person or a script may set beside a broker's own settings.
const OTHERS: [&str; 4] = [DISABLE_VARIABLE, TIMEOUT_VARIABLE, CONFIG_VARIABLE, ALLOW_PRIVILEGED];
/// Shorter than a backend takes to start: a client gives up on what is under way.
const SHORT_CLIENT_TIMEOUT_MS: u128 = 1_000;
/// A client that is not scheduled for so long is no hostile one.
const SHORT_HELLO_TIMEOUT_MS: u64 = 100;
/// Letters in which a misspelt variable may differ from the one that is meant.
const NEAR: usize = 6;

/// Everything that a person or a script may set.
fn settings() -> impl Iterator<Item = &'static str> {
    let own = keys::ENTRIES.iter().filter_map(|entry| entry.key().variable);
    OTHERS.into_iter().chain(own).filter(|name| name.starts_with(PREFIX))
}

fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

pub(in crate::doctor) fn disable(_: &Facts) -> Finding {
    match broker_is_enabled() {
        Ok(true) => Finding::pass("not set: clients go through the broker"),
        Ok(false) => Finding::warn(
            format!("{DISABLE_VARIABLE}=1: clients of this environment pass the broker by"),
            mend::unset([DISABLE_VARIABLE]),
        ),
        Err(error) => Finding::fail(error.to_string(), mend::unset([DISABLE_VARIABLE]))
            .detail("every client of this environment refuses to begin"),
    }
}

pub(in crate::doctor) fn client_timeout(_: &Facts) -> Finding {
    let unset = mend::unset([TIMEOUT_VARIABLE]);
    match round_trip_timeout() {
        Ok(timeout) if value(TIMEOUT_VARIABLE).is_none() => {
            Finding::pass(format!("not set: a round trip may take {} ms", timeout.as_millis()))
        }
        Ok(timeout) if timeout.as_millis() < SHORT_CLIENT_TIMEOUT_MS => Finding::warn(
            format!("{} ms is less than a backend may take to start", timeout.as_millis()),
            unset,
        ),
        Ok(timeout) => Finding::pass(format!("a round trip may take {} ms", timeout.as_millis())),
        Err(error) => Finding::fail(error.to_string(), unset)
            .detail("every client of this environment refuses to begin"),
    }
}

pub(in crate::doctor) fn hello_timeout(_: &Facts) -> Finding {
    let keys::Number { least, most, default, .. } = keys::HELLO_TIMEOUT_MS;
    let variable = keys::HELLO_TIMEOUT_MS.key.env();
    let unset = mend::unset([variable]);
    let Some(value) = value(variable).filter(|value| !value.is_empty()) else {
        return Finding::pass(format!("not set: {default} ms"));
    };
    let millis = value.to_str().and_then(|text| text.parse().ok());
    match millis.filter(|millis| (least..=most).contains(millis)) {
        None => Finding::fail(
            format!("expected milliseconds from {least} to {most} in ${variable}, got {value:?}"),
            unset,
        )
        .detail("`brokerd serve` refuses to begin"),
        Some(millis) if millis < SHORT_HELLO_TIMEOUT_MS => Finding::warn(
            format!("{millis} ms: a broker started here cuts off clients of a busy machine"),
            unset,
        ),
        Some(millis) => Finding::pass(format!("{millis} ms")),
    }
}

pub(in crate::doctor) fn service_def_dir(_: &Facts) -> Finding {
    let unset = mend::unset([SERVICE_DEF_DIR_VARIABLE]);
    match value(SERVICE_DEF_DIR_VARIABLE).filter(|value| !value.is_empty()) {
        None => Finding::pass("not set: definitions are at their usual place"),
        Some(value) if !Path::new(&value).is_absolute() => Finding::fail(
            format!("expected an absolute path, got {value:?}"),
            std::path::absolute(&value)
                .map_or(unset, |absolute| mend::set(SERVICE_DEF_DIR_VARIABLE, absolute)),
        )
        .detail("clients refuse it, and a broker takes it from wherever it is started"),
        Some(value) => Finding::pass(value.to_string_lossy()),
    }
}

/// The variables of settings that have no check of their own: each as `brokerd serve` would take it.
pub(in crate::doctor) fn of_settings(_: &Facts) -> Finding {
    let of_their_own = [keys::HELLO_TIMEOUT_MS.key.env(), SERVICE_DEF_DIR_VARIABLE];
    let set: Vec<_> = (keys::ENTRIES.iter().map(|entry| entry.key()))
        .filter_map(|key| Some((key, key.variable?)))
        .filter(|(_, variable)| !of_their_own.contains(variable))
        .filter_map(|(key, variable)| {
            Some((key, variable, value(variable).filter(|value| !value.is_empty())?))
        })
        .collect();
    let bad: Vec<_> = (set.iter())
        .filter_map(|(key, variable, value)| Some((*variable, refused_by_serve(key, value)?)))
        .collect();
    if !bad.is_empty() {
        let found: Vec<_> = bad.iter().map(|(variable, why)| format!("{variable}: {why}")).collect();
        return Finding::fail(found.join("; "), mend::unset(bad.iter().map(|(variable, _)| variable)))
            .detail("`brokerd serve` refuses to begin");
    }
    if let Some(others) = not_levels() {
        return Finding::warn(
            format!("{} holds what is no level of the broker's log: {others}", keys::LEVEL_VARIABLE),
            mend::unset([keys::LEVEL_VARIABLE]),
        )
        .detail("`brokerd serve` passes that over; it may be another program's");
    }
    match set.iter().map(|(_, variable, _)| *variable).collect::<Vec<_>>() {
        none if none.is_empty() => Finding::pass("none set: the file and the defaults hold"),
        set => Finding::pass(format!("{} can be taken", set.join(", "))),
    }
}

/// What `RUST_LOG` holds that the broker makes nothing of.
fn not_levels() -> Option<String> {
    let text = value(keys::LEVEL_VARIABLE)?.to_string_lossy().into_owned();
    let (_, others) = levels_for_us(&text);
    (!others.is_empty()).then(|| others.join(","))
}

/// What `serve` has against a setting's value.
fn refused_by_serve(key: &keys::Key, value: &OsStr) -> Option<String> {
    let mut option = OsString::from(key.flag?);
    option.push("=");
    option.push(value);
    // By the definition of the command line, without what the environment has to say to it.
    let alone =
        |serve: clap::Command| serve.mut_args(|arg| arg.env(Resettable::<clap::builder::OsStr>::Reset));
    let command = Cli::command().mut_subcommand("serve", alone);
    let error = command.try_get_matches_from([OsStr::new("brokerd"), OsStr::new("serve"), &option]).err()?;
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    Some(line.strip_prefix("error: ").unwrap_or(line).to_owned())
}

pub(in crate::doctor) fn allow_privileged(_: &Facts) -> Finding {
    match value(ALLOW_PRIVILEGED) {
        None => Finding::pass("not set: a privileged user does not serve"),
        Some(value) if value == "1" && identity::is_privileged() => Finding::pass("1: this user may serve")
            .detail("every backend that such a broker starts runs with the system's highest rights"),
        Some(value) if value == "1" => Finding::pass("1: without effect for an ordinary user"),
        Some(value) => {
            Finding::warn(format!("{value:?} permits nothing, only 1 does"), mend::unset([ALLOW_PRIVILEGED]))
        }
    }
}

pub(in crate::doctor) fn of_a_backend(_: &Facts) -> Finding {
    let set: Vec<String> = names().into_iter().filter(|name| name.starts_with(BACKEND_PREFIX)).collect();
    if set.is_empty() {
        return Finding::pass("none set: this is no backend's environment");
    }
    Finding::warn(format!("{} set, as for a process that a broker starts", set.join(", ")), mend::unset(&set))
        .detail("a backend that is started from here takes itself for one that its broker has started")
}

pub(in crate::doctor) fn unknown(_: &Facts) -> Finding {
    let mut unknown = names();
    unknown.retain(|name| !name.starts_with(BACKEND_PREFIX) && !settings().any(|known| known == name));
    if unknown.is_empty() {
        return Finding::pass(format!("no other variable begins with {PREFIX}"));
    }
    let (mut found, mut mends) = (Vec::new(), Vec::new());
    for name in &unknown {
        match nearest(name) {
            Some(meant) if value(meant).is_none() => {
                found.push(format!("{name} means nothing; {meant} is meant?"));
                mends.push(mend::set(meant, value(name).unwrap_or_default()));
            }
            Some(meant) => found.push(format!("{name} means nothing; {meant} does")),
            None => found.push(format!("{name} means nothing")),
        }
    }
    mends.push(mend::unset(&unknown));
    Finding::warn(found.join("; "), mends.join(" && "))
}

/// The setting with the name that is most like this one.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    settings().min_by_key(distance).filter(|known| distance(known) <= NEAR)
}

/// All variables that are, or look like, this project's.
fn names() -> Vec<String> {
    let mut names: Vec<String> = std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    names.sort();
    names
}

/// Where sockets lie: the same for everybody who is to meet there, and nobody else's.
pub(in crate::doctor) fn runtime_place(_: &Facts) -> Finding {
    let variable = place::runtime_variable();
    let unset = mend::unset([variable]);
    let Some(value) = value(variable).filter(|value| !value.is_empty()) else { return without(variable) };
    let path = Path::new(&value);
    if !path.is_absolute() {
        return match Platform::CURRENT {
            Platform::Linux => Finding::warn(
                format!("${variable} is {value:?}, which is no absolute path and is passed over"),
                unset,
            ),
            Platform::MacOs | Platform::Windows => Finding::fail(
                format!("${variable} is {value:?}, which is no absolute path"),
                default_of(variable),
            ),
        };
    }
    match files::facts(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::warn(format!("{}: {error}", path.display()), mend::make_directory(path))
                .detail("a broker makes it, though whoever manages logins should have")
        }
        Err(error) => Finding::fail(format!("{}: {error}", path.display()), unset),
        Ok(facts) if facts.owner != identity::current_user_key() => Finding::warn(
            format!(
                "{} belongs to another user: who finds it so meets others than this user",
                path.display()
            ),
            unset,
        ),
        Ok(facts) if !matches!(facts.kind, FileKind::Directory | FileKind::Symlink) => {
            Finding::warn(format!("{} is {}, and no directory", path.display(), facts.kind), unset)
        }
        Ok(facts) if facts.writable_by_others && place::is_shared(path) => Finding::warn(
            format!("{} is everybody's directory, and not this user's alone", path.display()),
            unset,
        ),
        Ok(facts) if facts.writable_by_others => {
            Finding::warn(format!("{} can be written to by others", path.display()), mend::make_private(path))
        }
        Ok(_) => Finding::pass(path.display().to_string()),
    }
}

fn without(variable: &'static str) -> Finding {
    match Platform::CURRENT {
        Platform::Linux => {
            let usual = format!("/run/user/{}", identity::effective_uid());
            if Path::new(&usual).is_dir() {
                return Finding::warn(
                    format!("${variable} is not set, so brokers of this user's session are not found"),
                    mend::set(variable, usual),
                );
            }
            Finding::pass(format!("${variable} is not set: sockets lie below /tmp"))
        }
        Platform::MacOs | Platform::Windows => {
            Finding::fail(format!("${variable} is not set: no socket can be named"), default_of(variable))
        }
    }
}

fn default_of(variable: &str) -> String {
    place::default_of(variable).unwrap_or_else(|| mend::unset([variable]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_told_from_a_foreign_one() {
        assert_eq!(nearest("RUNNING_PROCESS_DISBALE"), Some(DISABLE_VARIABLE));
        assert_eq!(nearest("RUNNING_PROCESS_SERVICE_DIR"), Some(SERVICE_DEF_DIR_VARIABLE));
        assert_eq!(
            nearest("RUNNING_PROCESS_BROKER_HELLO_TIMEOUT"),
            Some("RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS")
        );
        assert_eq!(nearest("RUNNING_PROCESS_BROKER_CLIENT_TIMEOUT_S"), Some(TIMEOUT_VARIABLE));
        assert_eq!(nearest("RUNNING_PROCESS_SOMETHING_ELSE_ENTIRELY"), None);
    }
}
