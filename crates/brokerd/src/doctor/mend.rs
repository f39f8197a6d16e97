//! The commands that mend: whole, quoted, and in the words of the system's own shell.
//!
//! On Unix they are for sh(1), on Windows for cmd. Invariants: a path stands in them as one word, whatever
//! characters it has, as long as they are text; and what belongs to others is not taken from them
//! ([`may_be_changed`]).

use std::ffi::OsStr;
use std::path::Path;

use broker_transport::endpoint::Platform;
use broker_transport::{files, identity};

/// What a set-aside file's name ends with.
const ASIDE: &str = ".aside";

const fn is_windows() -> bool {
    matches!(Platform::CURRENT, Platform::Windows)
}

/// One word of a command.
pub(super) fn word(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    if is_windows() { format!("\"{text}\"") } else { shell_words::quote(&text).into_owned() }
}

/// Several words.
pub(super) fn words<T: AsRef<OsStr>>(texts: impl IntoIterator<Item = T>) -> String {
    texts.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A command that takes the system's highest rights.
pub(super) fn as_root(command: &str) -> String {
    if is_windows() || identity::is_privileged() { command.to_owned() } else { format!("sudo {command}") }
}

/// Whether what lies at a path is this user's to change: it belongs to the user, or lies in a directory that does. A
/// system's directory, or another user's, is not to be mended for the sake of a broker.
pub(super) fn may_be_changed(path: &Path) -> bool {
    is_own(path) || path.parent().is_some_and(is_own)
}

fn is_own(path: &Path) -> bool {
    files::facts(path).is_ok_and(|facts| facts.owner == identity::current_user_key())
}

/// A command that only the owner of a file can carry out.
fn as_owner(path: &Path, command: &str) -> String {
    if is_own(path) { command.to_owned() } else { as_root(command) }
}

/// Takes variables out of the shell's environment.
pub(super) fn unset<T: AsRef<OsStr>>(names: impl IntoIterator<Item = T>) -> String {
    if is_windows() {
        let names = names.into_iter().map(|name| format!("set {}=", name.as_ref().to_string_lossy()));
        return names.collect::<Vec<_>>().join(" & ");
    }
    format!("unset {}", words(names))
}

/// Sets a variable for all that the shell starts.
pub(super) fn set(name: &str, value: impl AsRef<OsStr>) -> String {
    if is_windows() {
        return format!("set {name}={}", value.as_ref().to_string_lossy());
    }
    format!("export {name}={}", word(value))
}

/// Takes the right to write from all but the owner.
pub(super) fn close_to_others(path: &Path) -> String {
    if is_windows() {
        return format!("icacls {} /inheritance:r /grant:r \"%USERNAME%\":F", word(path));
    }
    as_owner(path, &format!("chmod go-w {}", word(path)))
}

/// Leaves a directory to its owner alone.
pub(super) fn make_private(path: &Path) -> String {
    if is_windows() {
        return format!("icacls {} /inheritance:r /grant:r \"%USERNAME%\":(OI)(CI)F", word(path));
    }
    as_owner(path, &format!("chmod 700 {}", word(path)))
}

/// Makes this user the owner.
pub(super) fn make_own(path: &Path) -> String {
    if is_windows() {
        return format!("takeown /F {}", word(path));
    }
    as_root(&format!("chown {} {}", identity::effective_uid(), word(path)))
}

/// Makes this user the owner, and the only one who may write.
pub(super) fn make_own_and_private(path: &Path) -> String {
    if is_windows() || !is_own(path) {
        return format!("{} && {}", make_own(path), make_private(path));
    }
    make_private(path)
}

/// Lets the owner of a file read it.
pub(super) fn make_readable(path: &Path) -> String {
    if is_windows() {
        return format!("icacls {} /grant \"%USERNAME%\":R", word(path));
    }
    as_owner(path, &format!("chmod u+r {}", word(path)))
}

/// Makes a file one that its owner can execute.
pub(super) fn make_executable(path: &Path) -> String {
    if is_windows() {
        return format!("icacls {} /grant \"%USERNAME%\":RX", word(path));
    }
    as_owner(path, &format!("chmod u+x {}", word(path)))
}

/// Makes a private directory where there is none, and what is missing above it.
pub(super) fn make_directory(path: &Path) -> String {
    if is_windows() {
        return format!("mkdir {}", word(path));
    }
    let nearest = path.ancestors().skip(1).find(|path| path.exists());
    if nearest.is_some_and(files::is_writable_directory) {
        return format!("install -d -m 700 {}", word(path));
    }
    as_root(&format!("install -d -m 700 -o {} {}", identity::effective_uid(), word(path)))
}

/// Gives a file another name, so that nothing is lost.
pub(super) fn set_aside(path: &Path) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(ASIDE);
    let verb = if is_windows() { "move" } else { "mv" };
    format!("{verb} {} {}", word(path), word(aside))
}

/// Puts a file of its own in the place of a link or of one that has other names.
pub(super) fn replace_by_copy(path: &Path) -> String {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".copy");
    let (from, copy) = (word(path), word(copy));
    if is_windows() {
        return format!("copy {from} {copy} && move /Y {copy} {from}");
    }
    format!("cp {from} {copy} && mv -f {copy} {from}")
}

/// Gives a file another name, where there is none.
pub(super) fn rename(from: &Path, to: &Path) -> String {
    let verb = if is_windows() { "move" } else { "mv" };
    format!("{verb} {} {}", word(from), word(to))
}

/// Removes files.
pub(super) fn remove<T: AsRef<OsStr>>(paths: impl IntoIterator<Item = T>) -> String {
    format!("{} {}", if is_windows() { "del" } else { "rm" }, words(paths))
}

/// Ends a process.
pub(super) fn end(pid: u32) -> String {
    if is_windows() { format!("taskkill /PID {pid} /F") } else { format!("kill {pid}") }
}

/// Ends a process that does not listen to anything else.
pub(super) fn kill(pid: u32) -> String {
    if is_windows() { format!("taskkill /PID {pid} /F") } else { format!("kill -KILL {pid}") }
}

/// Lets a stopped process go on.
pub(super) fn go_on(pid: u32) -> String {
    format!("kill -CONT {pid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        if is_windows() {
            assert_eq!(word(r"C:\a b"), r#""C:\a b""#);
            assert_eq!(unset(["A", "B"]), "set A= & set B=");
            return;
        }
        for path in ["/a", "/a b", "/it's", "/$(id)`x`;\"&|", "/ü\n"] {
            assert_eq!(shell_words::split(&word(path)).unwrap(), [path]);
            let words = shell_words::split(&make_private(path.as_ref())).unwrap();
            assert_eq!(words[words.len() - 3..], ["chmod", "700", path]);
        }
        assert_eq!(unset(["A", "B c"]), "unset A 'B c'");
    }
}
