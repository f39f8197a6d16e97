//! The configuration file that a broker which is started here would read.

use std::path::Path;

use broker_transport::endpoint::SERVICE_DEF_DIR_VARIABLE;

use crate::config::{CONFIG_VARIABLE, Fault, NotRead, keys};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;

pub(in crate::doctor) fn file(facts: &Facts) -> Finding {
    match facts.configuration() {
        Ok(file) => match &file.path {
            Some(path) => Finding::pass(format!("{} is good", path.display())),
            None => Finding::pass("there is none, so the defaults hold"),
        },
        Err(not_read) => unread(not_read),
    }
}

fn unread(NotRead { path, fault }: &NotRead) -> Finding {
    let is_named = std::env::var_os(CONFIG_VARIABLE).is_some_and(|value| !value.is_empty());
    let mends = match fault {
        Fault::Absent => mend::unset([CONFIG_VARIABLE]),
        // The name may be wrong, and not what lies there.
        _ if is_named => mend::unset([CONFIG_VARIABLE]),
        Fault::Foreign => mend::make_own(path),
        Fault::WritableByOthers => mend::close_to_others(path),
        Fault::Io(_) => mend::make_readable(path),
        Fault::Link(_) | Fault::NotRegular(_) | Fault::TooLong { .. } | Fault::Wrong(_) => {
            mend::set_aside(path)
        }
    };
    let found = match fault {
        Fault::Wrong(problems) => match &problems[..] {
            [first, others @ ..] if !others.is_empty() => {
                format!("{}:{first}, and {} more", path.display(), others.len())
            }
            [first, ..] => format!("{}:{first}", path.display()),
            [] => format!("{}: it cannot be read", path.display()),
        },
        fault => format!("{}: {fault}", path.display()),
    };
    let check = format!("brokerd config check {}", mend::word(path.as_os_str()));
    let detail =
        format!("no broker begins with it; one that runs keeps what it has. `{check}` tells all of it");
    Finding::fail(found, mends).detail(detail)
}

/// The file is the broker's alone: clients and `brokerd service` go by the environment.
pub(in crate::doctor) fn service_dir(facts: &Facts) -> Finding {
    let Ok(file) = facts.configuration() else { return Finding::skip("the file cannot be read") };
    let Some(theirs) = file.values.text(&keys::SERVICE_DIR).map(Path::new) else {
        return Finding::pass("it leaves the definitions where the environment has them");
    };
    let Some(own) = facts.service_dir.known() else { return Finding::skip("no directory is known here") };
    if theirs == own
        || theirs.canonicalize().is_ok_and(|theirs| own.canonicalize().is_ok_and(|own| theirs == own))
    {
        return Finding::pass(format!("it has the definitions in {}, as this environment", own.display()));
    }
    if std::env::var_os(SERVICE_DEF_DIR_VARIABLE).is_some_and(|value| !value.is_empty()) {
        return Finding::pass(format!(
            "it says {}, which {SERVICE_DEF_DIR_VARIABLE} outweighs",
            theirs.display()
        ));
    }
    Finding::warn(
        format!("it has the definitions in {}, but clients look in {}", theirs.display(), own.display()),
        mend::set(SERVICE_DEF_DIR_VARIABLE, theirs),
    )
    .detail("a broker reads `paths.service-dir` of its file; clients and `brokerd service` know only the variable")
}
