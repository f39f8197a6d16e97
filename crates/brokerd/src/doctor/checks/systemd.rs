//! What systemd does to backends when it stops a broker (systemd.kill(5)).
//!
//! By default it ends every process of the unit at once, so that backends go while the broker still drains, and those
//! go, too, that were to be kept.

use broker_transport::endpoint::Platform;
use broker_transport::identity;

use super::units::{self, Scope, Unit};
use crate::doctor::contact::Contact;
use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;

/// What comes after all that a person would have put there.
const DROP_IN: &str = "zz-brokerd-kill-mode.conf";

pub(in crate::doctor) fn kill_mode(facts: &Facts) -> Finding {
    if Platform::CURRENT != Platform::Linux {
        return Finding::skip("there is no systemd here");
    }
    let mut units = Vec::new();
    for scope in [Scope::User, Scope::System] {
        units.extend(units::find(scope, &units::directories(scope)));
    }
    let running = running_unit(facts);
    match Finding::worst(units.iter().map(judge)) {
        Some(finding) => finding,
        None => match running {
            Some(name) if name.ends_with(".service") => {
                Finding::skip(format!("the broker runs in {name}, of which no unit file is found"))
            }
            Some(_) | None => Finding::skip("no unit runs a broker"),
        },
    }
}

/// The last part of the control group that the running broker is in.
fn running_unit(facts: &Facts) -> Option<String> {
    let pid = facts.contact().and_then(Contact::answers)?.pid?;
    let group = identity::control_group(pid).ok()?;
    group.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn judge(unit: &Unit) -> Finding {
    let Unit { name, kill_mode, keeps_backends, .. } = unit;
    let found = format!("{name} has KillMode={kill_mode}");
    match (kill_mode.as_str(), *keeps_backends) {
        ("process" | "none", _) => Finding::pass(found),
        ("mixed", false) => Finding::pass(found),
        (_, true) => Finding::fail(
            format!("{found}, which ends the backends that --keep-backends is to keep"),
            drop_in(unit, "process"),
        ),
        (_, false) => Finding::warn(
            format!("{found}, which ends backends while the broker still drains"),
            drop_in(unit, "mixed"),
        ),
    }
}

/// The command that sets another mode beside the unit's own file.
fn drop_in(unit: &Unit, kill_mode: &str) -> String {
    let directories = units::directories(unit.scope);
    let directory = directories.first().map(|first| first.join(format!("{}.d", unit.name)));
    let directory = directory.unwrap_or_default();
    let file = directory.join(DROP_IN);
    let (directory, file) = (mend::word(directory), mend::word(file));
    let line = format!("printf '[Service]\\nKillMode={kill_mode}\\n'");
    match unit.scope {
        Scope::User => {
            format!("mkdir -p {directory} && {line} >{file} && systemctl --user daemon-reload")
        }
        Scope::System => {
            let tee = mend::as_root(&format!("tee {file}"));
            let (mkdir, reload) =
                (mend::as_root(&format!("mkdir -p {directory}")), mend::as_root("systemctl daemon-reload"));
            format!("{mkdir} && {line} | {tee} >/dev/null && {reload}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Status;

    #[test]
    fn only_a_mode_that_ends_the_broker_alone_keeps_backends() {
        let judged = |kill_mode: &str, keeps_backends| {
            let (name, kill_mode) = ("x.service".to_owned(), kill_mode.to_owned());
            judge(&Unit { name, scope: Scope::User, kill_mode, keeps_backends }).status
        };
        assert_eq!(["process", "none"].map(|mode| judged(mode, true)), [Status::Pass; 2]);
        assert_eq!(["control-group", "mixed"].map(|mode| judged(mode, true)), [Status::Fail; 2]);
        assert_eq!(["process", "mixed"].map(|mode| judged(mode, false)), [Status::Pass; 2]);
        assert_eq!(judged("control-group", false), Status::Warn);
    }
}
