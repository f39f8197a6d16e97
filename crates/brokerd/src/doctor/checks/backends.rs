//! The broker's backends: whether each answers, may run by its definition, and is what its definition names.

use std::path::Path;

use broker_core::services::Definition;
use broker_protocol::Version;
use broker_transport::identity;
use broker_transport::probe::{ProbeFailure, probe_identity_blocking};
use serde_json::Value;

use super::executables::{self, Running};
use crate::definitions::{self, DefinitionDir};
use crate::doctor::contact::Contact;
use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;

/// One that is in the broker's table.
struct Entry<'a> {
    service: &'a str,
    version: &'a str,
    state: &'a str,
    pid: Option<u32>,
    endpoint: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn of(entry: &'a Value) -> Option<Self> {
        Some(Self {
            service: entry["service_name"].as_str()?,
            version: entry["service_version"].as_str()?,
            state: entry["state"].as_str()?,
            pid: entry["pid"].as_u64().and_then(|pid| pid.try_into().ok()),
            endpoint: entry["backend_pipe"].as_str(),
        })
    }

    /// The command that ends it; the next Hello starts another, or is refused.
    fn end(&self, facts: &Facts) -> String {
        self.pid.map_or_else(|| facts.broker_command("status"), mend::end)
    }
}

pub(in crate::doctor) fn each(facts: &Facts) -> Vec<(String, Finding)> {
    let Some(answers) = facts.contact().and_then(Contact::answers) else { return Vec::new() };
    // By the broker's own word, which may look elsewhere than this command.
    let definitions =
        answers.setting("paths", "service_dir").as_str().map(|path| DefinitionDir::new(path.into()));
    let entries = answers.status["backends"].as_array().into_iter().flatten().filter_map(Entry::of);
    entries
        .map(|entry| {
            let name = format!("{}.{}", entry.service, entry.version);
            (name, look(facts, definitions.as_ref(), &entry))
        })
        .collect()
}

fn look(facts: &Facts, definitions: Option<&DefinitionDir>, entry: &Entry<'_>) -> Finding {
    match entry.state {
        "running" => {}
        "failed" => {
            return Finding::warn("its last start failed", hello_command(facts, entry)).detail(
                "the command starts it anew, and says what is wrong; `brokerd backend-health` says what was",
            );
        }
        state => return Finding::pass(state.to_owned()),
    }
    let by_definition = definitions.map(|definitions| against_definition(facts, definitions, entry));
    let findings = [answers(facts, entry), by_definition, executable(facts, entry)];
    let number = entry.pid.map_or_else(String::new, |pid| format!(" as process {pid}"));
    Finding::worst(findings.into_iter().flatten().filter(|finding| !finding.is_in_order()))
        .unwrap_or_else(|| Finding::pass(format!("runs{number}, answers, and is what is defined")))
}

fn hello_command(facts: &Facts, entry: &Entry<'_>) -> String {
    let hello = format!("brokerd hello {} {}", entry.service, entry.version);
    match &facts.args.socket {
        Some(socket) => format!("{hello} --socket {}", mend::word(socket)),
        None => hello,
    }
}

/// Whether it answers the identity probe.
fn answers(facts: &Facts, entry: &Entry<'_>) -> Option<Finding> {
    let error = probe_identity_blocking(Path::new(entry.endpoint?)).err()?;
    let is_stopped = |pid: &u32| identity::process_is_stopped(*pid).is_ok_and(|is_stopped| is_stopped);
    Some(match (&error.cause, entry.pid) {
        (ProbeFailure::TimedOut { .. }, Some(pid)) if is_stopped(&pid) => {
            Finding::fail(format!("process {pid} is stopped"), mend::go_on(pid))
        }
        (_, Some(pid)) => Finding::fail(error.to_string(), mend::kill(pid)),
        (_, None) => Finding::fail(error.to_string(), entry.end(facts)),
    })
}

/// Whether its definition still wants it as it is.
fn against_definition(facts: &Facts, definitions: &DefinitionDir, entry: &Entry<'_>) -> Finding {
    let Ok(version) = Version::parse(entry.version) else {
        return Finding::warn(format!("{} is no version", entry.version), entry.end(facts));
    };
    match definitions.load(entry.service) {
        Ok(None) => Finding::warn("nobody defines its service any more", entry.end(facts)),
        // Its own check tells.
        Err(_) => Finding::skip("its definition cannot be used"),
        Ok(Some((definition, _))) => match definition.policy().check(&version) {
            Err(_) => Finding::warn(
                format!("runs, though its definition does not allow version {version} any more"),
                entry.end(facts),
            ),
            Ok(()) => by_binary(facts, entry, &definition, &version),
        },
    }
}

/// Whether it executes what would be started for this version now.
fn by_binary(facts: &Facts, entry: &Entry<'_>, definition: &Definition, version: &Version) -> Finding {
    let Ok(wanted) = definitions::resolve_binary(definition, version) else {
        return Finding::skip("its executable cannot be used");
    };
    let Some(Running::Same(actual)) = entry.pid.and_then(executables::running) else {
        return Finding::skip("what it executes is told elsewhere");
    };
    if executables::is_script(&wanted) || actual.canonicalize().is_ok_and(|actual| actual == wanted) {
        return Finding::pass("it executes what is defined");
    }
    Finding::warn(
        format!("executes {}, and its definition names {}", actual.display(), wanted.display()),
        entry.end(facts),
    )
}

/// Whether its executable is still the one that is on the disk.
fn executable(facts: &Facts, entry: &Entry<'_>) -> Option<Finding> {
    let (path, what) = match executables::running(entry.pid?)? {
        Running::Same(_) => return None,
        Running::Replaced(path) => (path, "replaced"),
        Running::Removed(path) => (path, "removed"),
    };
    Some(Finding::warn(format!("executes a {} that was {what} since", path.display()), entry.end(facts)))
}
