//! What a service tells the manager that has started it, and what that one asks of it (sd_notify(3),
//! sd_watchdog_enabled(3), `JOURNAL_STREAM` in systemd.exec(5)).
//!
//! Only the ways are here; what is told, and when, is decided elsewhere. Invariants: telling never waits, and
//! what was meant for another process is not taken for this one's.

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use crate::sys::service_manager as sys;

/// Where the manager listens.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The manager that wants to hear of this process.
#[derive(Debug)]
pub struct ServiceManager(sys::Notifier);

impl ServiceManager {
    /// Connects to the one that `NOTIFY_SOCKET` names; `None` where there is none. A sandbox that is entered
    /// later does not end the connection.
    ///
    /// # Errors
    /// The variable names no socket that can be reached.
    pub fn connect() -> io::Result<Option<Self>> {
        match std::env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty()) {
            Some(name) => sys::Notifier::connect(name).map(Self).map(Some),
            None => Ok(None),
        }
    }

    /// Tells it something: lines such as `READY=1`.
    ///
    /// # Errors
    /// Its queue is full ([`WouldBlock`](io::ErrorKind::WouldBlock)), or it is not there any more.
    pub fn tell(&self, lines: &str) -> io::Result<()> {
        self.0.send(lines.as_bytes())
    }
}

/// How often at least the manager wants to hear `WATCHDOG=1`; `None` where it does not.
pub fn watchdog() -> Option<Duration> {
    watchdog_in(std::env::var_os::<&str>, std::process::id())
}

fn watchdog_in(variable: impl Fn(&'static str) -> Option<OsString>, own_pid: u32) -> Option<Duration> {
    let number = |value: OsString| value.to_str().and_then(|text| text.parse::<u64>().ok());
    // Without it, whoever has the other variable is meant.
    let pid = variable("WATCHDOG_PID");
    if pid.is_some_and(|pid| number(pid) != Some(own_pid.into())) {
        return None;
    }
    variable("WATCHDOG_USEC").and_then(number).filter(|micros| *micros > 0).map(Duration::from_micros)
}

/// Whether what is written to standard error goes straight to the journal, by the kernel's word.
pub fn logs_to_journal() -> bool {
    let stream = std::env::var_os("JOURNAL_STREAM").as_deref().and_then(device_and_inode);
    stream.is_some_and(|stream| sys::standard_error().is_ok_and(|own| own == stream))
}

fn device_and_inode(stream: &OsStr) -> Option<(u64, u64)> {
    let (device, inode) = stream.to_str()?.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_heeded_only_by_the_process_that_it_is_meant_for() {
        let interval = |variables: &[(&str, &str)]| {
            let lookup = |name: &'static str| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            watchdog_in(lookup, 42)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval(&[("WATCHDOG_USEC", "1000000")]), second);
        assert_eq!(interval(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "42")]), second);
        for none in [
            &[][..],
            &[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "41")],
            &[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "")],
            &[("WATCHDOG_USEC", "0")],
            &[("WATCHDOG_USEC", "soon")],
            &[("WATCHDOG_PID", "42")],
        ] {
            assert_eq!(interval(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_journal_s_stream_is_a_device_and_an_inode() {
        assert_eq!(device_and_inode("8:1027".as_ref()), Some((8, 1027)));
        for none in ["", "8", "8:", ":1", "8:1:2", "a:b"] {
            assert_eq!(device_and_inode(none.as_ref()), None, "{none}");
        }
    }
}
