//! The broker that answers: whether it is the one that is meant, of this version, and has what it needs.

use std::collections::BTreeSet;
use std::path::Path;

use broker_transport::endpoint::Platform;
use broker_transport::succession;
use serde_json::Value;

use super::executables::{self, Running};
use super::system;
use crate::doctor::contact::{Answers, Contact};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;

const NOBODY: &str = "no broker answers";
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");
/// What no broker tells.
const NOT_TOLD: &str = "what it was given as --backend, --log or in variables has to be given again";
/// What part of all connections may be open.
const MANY: f64 = 0.9;

/// Makes a check of what a broker says.
fn of_broker(facts: &Facts, look: impl Fn(&Answers) -> Finding) -> Finding {
    facts.contact().and_then(Contact::answers).map_or_else(|| Finding::skip(NOBODY), look)
}

/// The command that ends this broker and starts another in the same way, as far as it tells.
pub(super) fn restart(facts: &Facts, answers: &Answers) -> String {
    let mut serve = "brokerd serve".to_owned();
    for option in options(&answers.config) {
        serve.push(' ');
        serve.push_str(&option);
    }
    instead(facts, answers, &serve)
}

/// The command that ends this broker, waits until it is gone, and does something else then.
fn instead(facts: &Facts, answers: &Answers, then: &str) -> String {
    let shutdown = facts.broker_command("shutdown");
    match (Platform::CURRENT, answers.pid) {
        (Platform::Linux | Platform::MacOs, Some(pid)) => {
            format!("{shutdown}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done; {then}")
        }
        (Platform::Linux | Platform::MacOs, None) | (Platform::Windows, _) => {
            format!("{shutdown} && {then}")
        }
    }
}

/// The options that a broker was started with, by where its values come from. Several may come from one: the first is
/// the value itself.
fn options(config: &Value) -> Vec<String> {
    let groups = config.as_object().into_iter().flat_map(|groups| groups.values());
    let leaves = groups.filter_map(Value::as_object).flat_map(|group| group.values());
    let mut known = BTreeSet::new();
    leaves
        .filter_map(|leaf| {
            let flag = leaf["source"].as_str()?.strip_prefix("flag:")?;
            if !known.insert(flag) {
                return None;
            }
            match &leaf["value"] {
                Value::Bool(true) => Some(flag.to_owned()),
                Value::String(text) => Some(format!("{flag} {}", mend::word(text))),
                Value::Number(number) => Some(format!("{flag} {number}")),
                Value::Null | Value::Bool(false) | Value::Array(_) | Value::Object(_) => None,
            }
        })
        .collect()
}

pub(in crate::doctor) fn instance(facts: &Facts) -> Finding {
    of_broker(facts, |answers| {
        let says = answers.status["broker_instance"].as_str().unwrap_or_default();
        if facts.args.socket.is_some() || says == facts.args.instance.to_string() {
            return Finding::pass(format!("it is '{says}'"));
        }
        Finding::fail(
            format!("'{}' is expected there, and '{says}' listens", facts.args.instance),
            instead(facts, answers, &facts.serve_command()),
        )
    })
}

pub(in crate::doctor) fn version(facts: &Facts) -> Finding {
    of_broker(facts, |answers| match answers.version() {
        Some(OWN_VERSION) => Finding::pass(format!("{OWN_VERSION}, as this command")),
        Some(other) => Finding::warn(
            format!("the broker is {other}, this command is {OWN_VERSION}"),
            restart(facts, answers),
        )
        .detail(NOT_TOLD),
        None => Finding::warn("the broker does not tell its version", restart(facts, answers)),
    })
}

pub(in crate::doctor) fn executable(facts: &Facts) -> Finding {
    of_broker(facts, |answers| {
        let Some(running) = answers.pid.and_then(executables::running) else {
            return Finding::skip("what it executes cannot be told");
        };
        let stale = |path: &Path, what: &str| {
            let found = format!("it runs a {} that was {what} since", path.display());
            if succession::IS_OFFERED {
                return Finding::warn(found, facts.broker_command("upgrade"))
                    .detail("it goes on as this program; no connection and no backend is lost");
            }
            Finding::warn(found, restart(facts, answers)).detail(NOT_TOLD)
        };
        match running {
            Running::Same(path) => Finding::pass(path.display().to_string()),
            Running::Replaced(path) => stale(&path, "replaced"),
            Running::Removed(path) => stale(&path, "removed"),
        }
    })
}

/// A client and a broker that look for definitions in different places do not agree on who serves what.
pub(in crate::doctor) fn service_dir(facts: &Facts) -> Finding {
    let Some(own) = facts.service_dir.known() else { return Finding::skip("no directory is known here") };
    of_broker(facts, |answers| {
        let Some(theirs) = answers.setting("paths", "service_dir").as_str() else {
            return Finding::skip("the broker does not tell where it reads definitions");
        };
        let theirs = Path::new(theirs);
        let is_same = theirs == own || theirs.canonicalize().ok() == own.canonicalize().ok();
        if is_same {
            return Finding::pass(format!("it reads definitions in {}, as this environment", own.display()));
        }
        Finding::warn(
            format!("it reads definitions in {}, and not in {}", theirs.display(), own.display()),
            mend::set(broker_transport::endpoint::SERVICE_DEF_DIR_VARIABLE, theirs),
        )
        .detail("clients of this environment look for services elsewhere than the broker")
    })
}

pub(in crate::doctor) fn connections(facts: &Facts) -> Finding {
    of_broker(facts, |answers| {
        let open = answers.status["connections_open"].as_u64().unwrap_or_default();
        let most = answers.setting("limits", "connections").as_u64().unwrap_or_default();
        let found = format!("{open} of {most} are open");
        if answers.config["limits"]["connections"]["source"] == "runtime" {
            // Where this shell has more, it is enough to start it from here.
            let higher = system::higher_descriptor_limit().map_or_else(String::new, |raise| raise + "; ");
            let mend = format!("{higher}{}", restart(facts, answers));
            return Finding::warn(format!("{found}: fewer than wanted fit its descriptor limit"), mend);
        }
        if most > 0 && open as f64 >= most as f64 * MANY {
            return Finding::warn(
                format!("{found}: newcomers are about to take the place of others"),
                restart(facts, answers),
            )
            .detail("or find out who keeps them open; --max-connections sets how many there may be");
        }
        Finding::pass(found)
    })
}

pub(in crate::doctor) fn pressure(facts: &Facts) -> Finding {
    of_broker(facts, |answers| {
        if answers.status["fd_pressure"]["demoted"] == true {
            return Finding::warn(
                "it is short of file descriptors, and refuses Hellos",
                restart(facts, answers),
            )
            .detail("it recovers by itself once some are free; a higher limit keeps it from coming back");
        }
        Finding::pass("it is not short of file descriptors")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broker_is_started_again_with_the_options_that_it_was_started_with() {
        let leaf = |value: Value, source: &str| json!({ "value": value, "source": source });
        let config = json!({
            "broker": {
                "instance": leaf("shared".into(), "default"),
                "keep_backends": leaf(true.into(), "flag:--keep-backends"),
                "sandbox": leaf(false.into(), "default"),
            },
            "limits": {
                "connections": leaf(5.into(), "flag:--max-connections"),
                "connections_per_peer": leaf(2.into(), "flag:--max-connections"),
            },
            "paths": { "socket": leaf("/a".into(), "flag:--socket") },
        });
        assert_eq!(options(&config)[..2], ["--keep-backends", "--max-connections 5"]);
        assert!(options(&config)[2].starts_with("--socket "));
        assert!(options(&Value::Null).is_empty());
    }
}
