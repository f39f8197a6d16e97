//! The machine and the user: who this is, how many descriptors there are, and what time it is.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker_transport::endpoint::Platform;
use broker_transport::{files, identity, limits};

use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;
use crate::serve::place::ALLOW_PRIVILEGED;
use crate::serve::settings::RESERVED_DESCRIPTORS;
use broker_core::admission::MAX_CONNECTIONS;

/// For as many connections as a broker takes where nobody says otherwise.
const WANTED_DESCRIPTORS: u64 = MAX_CONNECTIONS as u64 + RESERVED_DESCRIPTORS;
/// Fewer, and a broker does not begin.
const FEWEST_DESCRIPTORS: u64 = 40;
/// 2020-01-01: this program is younger.
const YOUNGEST_PAST: Duration = Duration::from_secs(1_577_836_800);
/// Both clocks are read with this pause between.
const PAUSE: Duration = Duration::from_millis(5);
/// By which they may differ after it: a clock that is slewed differs by far less.
const STEP: Duration = Duration::from_millis(200);
/// A file that is newer than this is from the future.
const TOLERANCE: Duration = Duration::from_secs(120);

pub(in crate::doctor) fn user(facts: &Facts) -> Finding {
    let is_allowed = std::env::var_os(ALLOW_PRIVILEGED).is_some_and(|value| value == "1");
    let name = identity::current_user_key();
    if !identity::is_privileged() {
        return Finding::pass(format!("user {name}, an ordinary one"));
    }
    if is_allowed {
        return Finding::pass(format!("user {name}, privileged, and {ALLOW_PRIVILEGED}=1 lets it serve"));
    }
    let mend = mend::set(ALLOW_PRIVILEGED, "1");
    let detail = "every backend would run with these rights, so rather serve as an ordinary user";
    if facts.contact().is_some_and(|contact| contact.answers().is_some()) {
        let found = format!("user {name} is privileged; the broker that runs could not be started from here");
        return Finding::warn(found, mend).detail(detail);
    }
    Finding::fail(format!("user {name} is privileged, and a broker refuses to serve"), mend).detail(detail)
}

pub(in crate::doctor) fn machine_id(_: &Facts) -> Finding {
    if Platform::CURRENT != Platform::Linux {
        return match identity::user_identity_text() {
            Ok(_) => Finding::pass("this user's endpoints have a stable name"),
            Err(error) => Finding::fail(error.to_string(), "brokerd doctor --socket PATH"),
        };
    }
    match identity::machine_id() {
        Some(_) => Finding::pass("there is one: endpoints keep their names"),
        None => Finding::warn(
            "there is none: endpoints change their names with every boot",
            mend::as_root("systemd-machine-id-setup"),
        ),
    }
}

pub(in crate::doctor) fn boot_id(_: &Facts) -> Finding {
    match identity::boot_id() {
        Ok(boot_id) => Finding::pass(boot_id),
        Err(error) => Finding::fail(error.to_string(), mend::as_root("mount -t proc proc /proc"))
            .detail("without it no backend can prove that it is the one that was started"),
    }
}

pub(in crate::doctor) fn descriptors(_: &Facts) -> Finding {
    let limits::DescriptorLimits { soft, hard } = limits::descriptor_limits();
    judge_descriptors(soft, hard)
}

/// The command after which this shell may have as many descriptors as a broker wants; `None` where it may already.
pub(super) fn higher_descriptor_limit() -> Option<String> {
    (limits::descriptor_limits().hard < WANTED_DESCRIPTORS).then(raise_descriptor_limit)
}

fn raise_descriptor_limit() -> String {
    let more = WANTED_DESCRIPTORS.next_power_of_two();
    match Platform::CURRENT {
        Platform::Linux => mend::as_root(&format!("prlimit --nofile={more}:{more} --pid $$")),
        Platform::MacOs | Platform::Windows => format!("ulimit -n {more}"),
    }
}

fn judge_descriptors(soft: u64, hard: u64) -> Finding {
    let text = |limit: u64| if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() };
    let found = format!("soft limit {}, hard limit {}", text(soft), text(hard));
    if hard >= WANTED_DESCRIPTORS {
        return Finding::pass(format!("{found}: enough for {MAX_CONNECTIONS} connections"));
    }
    let mend = raise_descriptor_limit();
    if hard < FEWEST_DESCRIPTORS {
        return Finding::fail(format!("{found}: too few for a broker to begin"), mend);
    }
    Finding::warn(format!("{found}: too few for {MAX_CONNECTIONS} connections"), mend)
        .detail("a broker takes fewer connections then; for good, raise it in /etc/security/limits.conf or LimitNOFILE=")
}

pub(in crate::doctor) fn clock(_: &Facts) -> Finding {
    let before = (Instant::now(), SystemTime::now());
    std::thread::sleep(PAUSE);
    let steady = before.0.elapsed();
    judge_clock(before.1, SystemTime::now(), steady)
}

fn judge_clock(before: SystemTime, after: SystemTime, steady: Duration) -> Finding {
    let mend = match Platform::CURRENT {
        Platform::Linux => mend::as_root("timedatectl set-ntp true"),
        Platform::MacOs => mend::as_root("sntp -sS time.apple.com"),
        Platform::Windows => "w32tm /resync".to_owned(),
    };
    let since = before.duration_since(UNIX_EPOCH).unwrap_or_default();
    if since < YOUNGEST_PAST {
        let found = format!("it is {} s after 1970 by the clock, which is before 2020", since.as_secs());
        return Finding::fail(found, mend).detail("deadlines and event times are wrong");
    }
    match after.duration_since(before) {
        Ok(passed) if passed.abs_diff(steady) <= STEP => {
            Finding::pass("it is plausible, and runs as fast as the monotonic one")
        }
        Ok(_) | Err(_) => Finding::warn("the clock was set just now, or jumps", mend),
    }
}

/// Files of the broker's that are newer than now: the clock was set back, or was wrong when they were written.
pub(in crate::doctor) fn file_times(facts: &Facts) -> Finding {
    let now = SystemTime::now() + TOLERANCE;
    let Ok(now) = now.duration_since(UNIX_EPOCH) else { return Finding::skip("the clock is before 1970") };
    let future = looked_at(facts).into_iter().find(|path| {
        files::facts(path).is_ok_and(|facts| facts.modified_ns > i128::try_from(now.as_nanos()).unwrap_or(0))
    });
    match future {
        None => Finding::pass("nothing was written in the future"),
        Some(path) => {
            let mend = match Platform::CURRENT {
                Platform::Linux | Platform::MacOs => format!("touch {}", mend::word(&path)),
                Platform::Windows => format!("copy /B {0}+,, {0}", mend::word(&path)),
            };
            Finding::warn(format!("{} was written in the future", path.display()), mend)
                .detail("where the clock is behind, set it first: `timedatectl set-ntp true`")
        }
    }
}

fn looked_at(facts: &Facts) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::env::current_exe().into_iter().collect();
    if let Some(definitions) = facts.definitions() {
        let names = definitions.names().unwrap_or_default();
        paths.extend(names.iter().map(|name| definitions.file(name.as_str())));
    }
    paths.extend(facts.state_dir().known().map(|state| state.join("events").join("lifecycle.pb")));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Status;

    #[test]
    fn descriptors_are_enough_few_or_too_few() {
        let judged = [
            (1_024, u64::MAX),
            (256, WANTED_DESCRIPTORS),
            (256, WANTED_DESCRIPTORS - 1),
            (256, FEWEST_DESCRIPTORS),
            (30, FEWEST_DESCRIPTORS - 1),
        ]
        .map(|(soft, hard)| judge_descriptors(soft, hard).status);
        assert_eq!(judged, [Status::Pass, Status::Pass, Status::Warn, Status::Warn, Status::Fail]);
    }

    #[test]
    fn a_clock_before_its_time_fails_and_one_that_jumps_is_told() {
        let now = UNIX_EPOCH + YOUNGEST_PAST;
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        assert_eq!(judge_clock(now, now, none).status, Status::Pass);
        assert_eq!(judge_clock(now - second, now, second).status, Status::Fail);
        assert_eq!(judge_clock(now, now + second, none).status, Status::Warn);
        assert_eq!(judge_clock(now, now + second, second).status, Status::Pass);
        assert_eq!(judge_clock(now + second, now, none).status, Status::Warn);
    }
}
