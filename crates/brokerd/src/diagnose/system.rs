//! What is to be known about the system, and about the broker's own process.
//!
//! Of the environment only what a broker looks at is told, and of the rest how much there is: a variable that holds
//! a secret need not say so in its name. What the system does not tell is `null`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use broker_core::time::UnixMillis;
use broker_transport::{endpoint, identity, limits};
use serde_json::{Map, Value, json};

/// How the names of variables begin that a broker or its backends look at.
const VARIABLES: [&str; 14] = [
    "RUNNING_PROCESS_",
    "XDG_",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "LANG",
    "LC_",
    "PATH",
    "HOME",
    "TMPDIR",
    "TEMP",
    "TMP",
    "APPDATA",
    "LOCALAPPDATA",
    "USERPROFILE",
];

/// What the broker knows about the process that it is.
pub(crate) struct Surroundings {
    pub(crate) instance: String,
    pub(crate) state_dir: PathBuf,
    /// Whether it serves in a sandbox.
    pub(crate) sandbox: bool,
    pub(crate) uptime: Duration,
    pub(crate) events_dropped: u64,
}

impl Surroundings {
    pub(super) fn summary(&self, now: UnixMillis) -> Value {
        let own = ProcessFacts::of("self");
        let descriptors = limits::descriptor_usage().ok();
        let inodes = limits::inode_usage(&self.state_dir).ok();
        let (variables, others) = variables();
        json!({
            "generated_at_unix_ms": now.get(),
            "broker": {
                "instance": self.instance,
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "executable": env::current_exe().ok().map(|path| path.display().to_string()),
                "sandbox": self.sandbox,
                "privileged": identity::is_privileged(),
                "uptime_seconds": self.uptime.as_secs(),
                "events_dropped": self.events_dropped,
                "threads": own.threads,
                "resident_bytes": own.resident_bytes,
                "descriptors_open": descriptors.map(|usage| usage.open),
                "descriptors_limit": descriptors.map(|usage| usage.limit),
            },
            "system": {
                "os": env::consts::OS,
                "arch": env::consts::ARCH,
                "kernel": line("/proc/sys/kernel/osrelease"),
                "processors": std::thread::available_parallelism().ok().map(usize::from),
                "memory_total_bytes": kilobytes("/proc/meminfo", "MemTotal:"),
                "memory_available_bytes": kilobytes("/proc/meminfo", "MemAvailable:"),
                "load_average": line("/proc/loadavg"),
                "memory_pressure": line("/proc/pressure/memory"),
                "inodes_total": inodes.map(|usage| usage.total),
                "inodes_free": inodes.map(|usage| usage.free),
            },
            "user": { "hash": endpoint::current_user_hash().ok().map(|hash| hash.to_string()) },
            "environment": variables,
            "other_variables": others,
        })
    }
}

/// The variables that are told, and how many are not.
fn variables() -> (Map<String, Value>, usize) {
    let (mut told, mut others) = (Map::new(), 0);
    for (name, value) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if VARIABLES.iter().any(|begin| name.to_ascii_uppercase().starts_with(begin)) {
            told.insert(name, Value::from(value.to_string_lossy()));
        } else {
            others += 1;
        }
    }
    told.sort_keys();
    (told, others)
}

/// What `/proc` tells about a process, where there is such a thing.
pub(super) struct ProcessFacts {
    pub(super) threads: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<usize>,
}

impl ProcessFacts {
    pub(super) fn of(process: &str) -> Self {
        let status = format!("/proc/{process}/status");
        Self {
            threads: number(&status, "Threads:"),
            resident_bytes: kilobytes(&status, "VmRSS:"),
            open_files: fs::read_dir(format!("/proc/{process}/fd")).ok().map(Iterator::count),
        }
    }
}

/// The first line of a short file.
fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The number that stands behind a name at the begin of a line.
fn number(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kilobytes(path: &str, name: &str) -> Option<u64> {
    number(path, name)?.checked_mul(1_024)
}
