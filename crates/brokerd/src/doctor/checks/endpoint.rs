//! Where the broker listens: its name, its socket, its lock, and who answers there.

use std::path::PathBuf;

use broker_client::{AdminReply, RefusedKind};
use broker_transport::endpoint::{self, EndpointError, Platform};
use broker_transport::files::{self, FileKind};
use broker_transport::identity;
use broker_transport::listener::is_abandoned;
use broker_transport::lock::{self, LockError, LockStanding};
use broker_transport::stream::ConnectErrorKind;

use super::broker;
use super::dirs::underivable;
use crate::doctor::contact::{Contact, HelloAnswer};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;

const NOBODY: &str = "no broker answers";

pub(in crate::doctor) fn path(facts: &Facts) -> Finding {
    let limit = Platform::CURRENT.max_endpoint_len();
    let length = facts.socket.path.as_ref().map(|path| endpoint::check_length(Platform::CURRENT, path));
    match (&facts.socket.path, length) {
        (Ok(path), Ok(Ok(()))) => {
            Finding::pass(format!("{} has {} of {limit} bytes", path.display(), path.as_os_str().len()))
        }
        (_, Ok(Err(error))) => Finding::fail(error.to_string(), facts.socket.elsewhere()),
        (_, Err(error)) => Finding::fail(error.to_string(), underivable(&facts.socket, error)),
        (Err(error), Ok(Ok(()))) => Finding::fail(error.to_string(), facts.socket.elsewhere()),
    }
}

/// The longest name that is ever made: a backend's.
pub(in crate::doctor) fn backend_path(facts: &Facts) -> Finding {
    match endpoint::new_backend_endpoint() {
        Ok(_) => Finding::pass("the socket of a backend has a name that fits"),
        Err(error @ EndpointError::TooLong { .. }) => {
            Finding::fail(error.to_string(), facts.runtime_dir.elsewhere()).detail("no backend can listen")
        }
        Err(error) => Finding::fail(error.to_string(), underivable(&facts.runtime_dir, &error)),
    }
}

/// What lies where the socket should be.
pub(in crate::doctor) fn socket(facts: &Facts) -> Finding {
    let Some(path) = facts.socket.known() else { return Finding::skip("no socket is known") };
    if Platform::CURRENT == Platform::Windows {
        return Finding::skip("a pipe is no file");
    }
    let found = match files::facts(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return without_socket(facts),
        Err(error) => {
            return Finding::fail(format!("{}: {error}", path.display()), facts.socket.elsewhere());
        }
    };
    if found.kind != FileKind::Socket {
        let what = format!("{} is {}: no broker can listen there", path.display(), found.kind);
        return Finding::fail(what, mend::set_aside(path));
    }
    if found.owner != identity::current_user_key() {
        let what = format!("{} belongs to another user, {}", path.display(), found.owner);
        let is_served = !matches!(facts.contact(), Some(Contact::Nobody(_)));
        if is_served || !path.parent().is_some_and(mend::may_be_changed) {
            return Finding::fail(what, facts.socket.elsewhere());
        }
        return Finding::fail(what, mend::remove([path]));
    }
    if let Some(Contact::Nobody(error)) = facts.contact()
        && error.kind == ConnectErrorKind::Refused
    {
        // Between binding and listening a broker holds its lock.
        if let Some(LockStanding::Held { .. }) = lock_standing(facts) {
            let what = format!("{} is being bound, or its broker does not listen", path.display());
            return Finding::warn(what, format!("sleep 1; {}", facts.broker_command("doctor")));
        }
        let what = format!("{} is stale: nobody listens there", path.display());
        return Finding::warn(what, mend::remove([path])).detail("the next broker replaces it, too");
    }
    if found.writable_by_others {
        let what = format!("{} lets others connect", path.display());
        return Finding::warn(what, mend::close_to_others(path));
    }
    Finding::pass(format!("{} is this user's socket", path.display()))
}

fn lock_standing(facts: &Facts) -> Option<LockStanding> {
    lock::standing(&endpoint::lock_path(facts.socket.known()?).ok()?).ok()
}

/// A broker without its socket is one that nobody reaches.
fn without_socket(facts: &Facts) -> Finding {
    match lock_standing(facts) {
        Some(LockStanding::Held { entry: Some(entry) }) => Finding::fail(
            format!("there is none, though process {} serves it: somebody removed it", entry.pid),
            mend::end(entry.pid),
        )
        .detail(format!("then start the broker anew: `{}`", facts.serve_command())),
        _ => Finding::skip("there is none: no broker has begun there"),
    }
}

pub(in crate::doctor) fn lock(facts: &Facts) -> Finding {
    let Some(Ok(path)) = facts.socket.known().map(endpoint::lock_path) else {
        return Finding::skip("no lock is known");
    };
    let standing = lock::standing(&path);
    if let (Ok(LockStanding::Absent | LockStanding::Left { .. }), Some(answers)) =
        (&standing, facts.contact().and_then(Contact::answers))
    {
        let found = format!("a broker answers, and nobody holds {}: somebody removed it", path.display());
        return Finding::warn(found, broker::restart(facts, answers))
            .detail("as long as that is so, only the socket keeps a second broker away");
    }
    match standing {
        Ok(LockStanding::Absent) => Finding::pass("nobody holds it"),
        Ok(LockStanding::Held { entry: Some(entry) }) => {
            Finding::pass(format!("process {} holds it", entry.pid))
        }
        Ok(LockStanding::Held { entry: None }) => {
            let found = format!("{} is held by a process that has not said which", path.display());
            if matches!(facts.contact(), Some(Contact::Nobody(_))) {
                return Finding::warn(found, format!("sleep 1; {}", facts.broker_command("doctor")))
                    .detail("no broker can begin there until that process has ended");
            }
            Finding::pass(found)
        }
        Ok(LockStanding::Left { entry }) => {
            let by = entry.map_or_else(String::new, |entry| format!(" by process {}", entry.pid));
            let found = format!("{} was left behind{by}", path.display());
            Finding::warn(found, mend::remove([&path])).detail("the next broker takes it over, too")
        }
        Err(error @ LockError::NotAFile { .. }) => Finding::fail(error.to_string(), mend::set_aside(&path)),
        Err(error @ (LockError::Io { .. } | LockError::Held { .. })) => {
            let mend =
                if mend::may_be_changed(&path) { mend::set_aside(&path) } else { facts.socket.elsewhere() };
            Finding::fail(error.to_string(), mend)
        }
    }
}

/// Whether there is a broker that answers.
pub(in crate::doctor) fn listener(facts: &Facts) -> Finding {
    let Some(contact) = facts.contact() else { return Finding::skip("no socket is known") };
    let process = |pid: &Option<u32>| {
        pid.map_or_else(|| "a process of unknown number".to_owned(), |pid| format!("process {pid}"))
    };
    match contact {
        Contact::Answers(answers) => Finding::pass(format!("{} answers", process(&answers.pid))),
        Contact::Nobody(error) if error.kind == ConnectErrorKind::PermissionDenied => {
            Finding::fail(error.to_string(), facts.socket.elsewhere())
        }
        Contact::Nobody(error) => Finding::warn(error.to_string(), facts.serve_command())
            .detail("a client that starts brokers itself needs none to run before"),
        Contact::Foreign { user } => {
            let found = format!("a process of user {user} listens there, to which nothing is said");
            Finding::fail(found, facts.socket.elsewhere())
        }
        Contact::Silent { pid } => silent(facts, *pid, &process(pid)),
        Contact::Broken { pid, why } => {
            let mend = pid.map_or_else(|| facts.socket.elsewhere(), mend::end);
            Finding::fail(format!("{} does not answer as a broker does: {why}", process(pid)), mend)
        }
    }
}

fn silent(facts: &Facts, pid: Option<u32>, process: &str) -> Finding {
    match pid {
        Some(pid) if identity::process_is_stopped(pid).is_ok_and(|is_stopped| is_stopped) => {
            Finding::fail(format!("{process} is stopped, and does not answer"), mend::go_on(pid))
        }
        Some(pid) => {
            Finding::fail(format!("{process} takes connections and does not answer"), mend::kill(pid))
                .detail(format!("then start the broker anew: `{}`", facts.serve_command()))
        }
        None => Finding::fail(
            "whoever listens there has too much to do to take a connection",
            facts.broker_command("status"),
        ),
    }
}

/// A Hello that takes the whole way and starts nothing.
pub(in crate::doctor) fn hello(facts: &Facts) -> Finding {
    let Some(answers) = facts.contact().and_then(Contact::answers) else { return Finding::skip(NOBODY) };
    let refused = match &answers.hello {
        HelloAnswer::Negotiated => {
            return Finding::pass("a Hello for a service of a random name was agreed on");
        }
        HelloAnswer::Refused(refused) => refused,
    };
    let again = || format!("sleep 2; {}", facts.broker_command("doctor"));
    let restart = || format!("{}; {}", facts.broker_command("shutdown"), facts.serve_command());
    let found = format!("a Hello for a service of a random name is refused: {}", refused.reason);
    match refused.kind {
        RefusedKind::ServiceUnknown => {
            Finding::pass("a Hello for a service that there is not is refused for that very reason")
        }
        RefusedKind::RateLimited { .. } => Finding::warn(found, again()),
        RefusedKind::FdPressure => {
            Finding::fail(found, again()).detail("it recovers by itself once descriptors are free")
        }
        RefusedKind::ShuttingDown { .. } => Finding::warn(found, facts.serve_command())
            .detail("the broker is about to end; start another when it has"),
        RefusedKind::VersionUnsupported
        | RefusedKind::PeerRejected
        | RefusedKind::VersionBlocked
        | RefusedKind::SpawnFailed
        | RefusedKind::Internal
        | RefusedKind::Other(_) => Finding::fail(found, restart()),
    }
}

pub(in crate::doctor) fn healthz(facts: &Facts) -> Finding {
    admin(facts, |answers| &answers.healthz)
}

pub(in crate::doctor) fn readyz(facts: &Facts) -> Finding {
    admin(facts, |answers| &answers.readyz)
}

fn admin(facts: &Facts, of: impl Fn(&crate::doctor::contact::Answers) -> &AdminReply) -> Finding {
    let Some(answers) = facts.contact().and_then(Contact::answers) else { return Finding::skip(NOBODY) };
    let reply = of(answers);
    let said = reply.body.trim().to_owned();
    if reply.exit_code == 0 {
        return Finding::pass(said);
    }
    Finding::warn(said, facts.serve_command()).detail("the broker is about to end; start another when it has")
}

/// Sockets that brokers and backends have left behind, beside the one that is meant.
pub(in crate::doctor) fn leftovers(facts: &Facts) -> Finding {
    let brokers = endpoint::find_brokers().into_iter().map(|(_, path)| path);
    let stale: Vec<PathBuf> = brokers
        .chain(endpoint::find_backends())
        .filter(|path| Some(path.as_path()) != facts.socket.known())
        .filter(|path| matches!(is_abandoned(path), Ok(true)))
        .collect();
    if stale.is_empty() {
        return Finding::pass("no other socket was left behind");
    }
    Finding::warn(format!("{} sockets were left behind", stale.len()), mend::remove(&stale))
        .detail("of backends the next broker removes them, too")
}
