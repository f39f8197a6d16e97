//! Commands under limits of the kernel: file systems of their own, few descriptors, no rights beyond a user's.
//!
//! Each is wrapped by programs that become it, so its process id is that of what is spawned. Invariant: what is
//! mounted is seen by that process and its children alone, and ends with them.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

/// Whether this process may mount; says what is not tested where it may not.
pub fn may_mount(what: &str) -> bool {
    let may = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !may {
        println!("not tested, as it takes the right to mount: {what}");
    }
    may
}

/// The command in a mount namespace of its own, after these commands of sh(1).
pub fn after(commands: &str, command: &Command) -> Command {
    let mut sh = vec!["--mount", "--", "/bin/sh", "-ec"];
    let script = format!("{commands}\nexec \"$@\"");
    sh.extend([script.as_str(), "sh"]);
    wrapped("unshare", &sh, command)
}

/// The command with so many descriptors at most, those that it begins with included.
pub fn with_descriptors(most: u32, command: &Command) -> Command {
    let script = format!("ulimit -n {most}\nexec \"$@\"");
    wrapped("/bin/sh", &["-ec", &script, "sh"], command)
}

/// The command without root's right to open what its owner has closed. Whoever is not root has none.
pub fn with_rights_of_a_user(command: &Command) -> Command {
    if geteuid().is_root() {
        wrapped("setpriv", &["--bounding-set=-dac_override,-dac_read_search", "--"], command)
    } else {
        wrapped("env", &["--"], command)
    }
}

/// A path as a process sees it.
pub fn seen_by(pid: u32, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{}", path.display()))
}

fn wrapped(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(program);
    wrapped.args(arguments).arg(command.get_program()).args(command.get_args()).env_clear();
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}
