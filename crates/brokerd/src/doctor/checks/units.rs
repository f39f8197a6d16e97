//! Unit files of systemd: finding those that run a broker, and reading what they say (systemd.unit(5)).
//!
//! Only the files are read; the manager itself is not asked, which need not be there. Invariant: of files with one name
//! the first directory's counts, and of settings the last.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Longest unit file that is read.
const MAX_UNIT: u64 = 256 * 1024;

/// Whose manager reads a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    User,
    System,
}

/// A service that runs a broker.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) kill_mode: String,
    pub(super) keeps_backends: bool,
}

/// Where a user's manager and the system's look, the first directory first.
pub(super) fn directories(scope: Scope) -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| Path::new(value).is_absolute());
    let home = variable("HOME").map(PathBuf::from);
    let below_home = |below: &str| home.as_ref().map(|home| home.join(below).into_os_string());
    let of_user = |base: Option<OsString>| base.map(|base| PathBuf::from(base).join("systemd/user"));
    match scope {
        Scope::User => [
            of_user(variable("XDG_CONFIG_HOME").or_else(|| below_home(".config"))),
            Some("/etc/systemd/user".into()),
            of_user(variable("XDG_RUNTIME_DIR")),
            Some("/run/systemd/user".into()),
            of_user(variable("XDG_DATA_HOME").or_else(|| below_home(".local/share"))),
            Some("/usr/local/lib/systemd/user".into()),
            Some("/usr/lib/systemd/user".into()),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Scope::System => [
            "/etc/systemd/system",
            "/run/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
        ]
        .map(PathBuf::from)
        .to_vec(),
    }
}

/// Every service in these directories that runs a broker.
pub(super) fn find(scope: Scope, directories: &[PathBuf]) -> Vec<Unit> {
    let mut files = BTreeMap::new();
    for directory in directories {
        for path in entries(directory, ".service") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.entry(name).or_insert(path);
        }
    }
    files.into_iter().filter_map(|(name, path)| read(scope, directories, name, &path)).collect()
}

fn read(scope: Scope, directories: &[PathBuf], name: String, path: &Path) -> Option<Unit> {
    let mut settings = Settings::default();
    settings.read(&text(path)?);
    let mut drop_ins = BTreeMap::new();
    for directory in directories {
        for path in entries(&directory.join(format!("{name}.d")), ".conf") {
            drop_ins.entry(path.file_name().map(ToOwned::to_owned)).or_insert(path);
        }
    }
    for path in drop_ins.values() {
        settings.read(&text(path)?);
    }
    let serves = settings.commands.iter().find(|command| is_broker(command))?;
    Some(Unit {
        keeps_backends: serves.iter().any(|word| word == "--keep-backends"),
        kill_mode: settings.kill_mode.unwrap_or_else(|| "control-group".to_owned()),
        name,
        scope,
    })
}

fn entries(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_meant = |path: &PathBuf| path.to_string_lossy().ends_with(ending);
    entries.map(|entry| entry.path()).filter(is_meant).collect()
}

/// A link to a file will do, one to a device is how a unit is masked.
fn text(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_UNIT {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

/// `brokerd serve`, whatever stands before it.
fn is_broker(command: &[String]) -> bool {
    let position =
        command.iter().position(|word| Path::new(word).file_name().is_some_and(|name| name == "brokerd"));
    position.is_some_and(|position| command.get(position + 1).is_some_and(|word| word == "serve"))
}

/// What is read of the section `[Service]`.
#[derive(Default)]
struct Settings {
    kill_mode: Option<String>,
    commands: Vec<Vec<String>>,
}

impl Settings {
    fn read(&mut self, text: &str) {
        let mut is_service = false;
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                is_service = line == "[Service]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| is_service) else { continue };
            match (key.trim(), value.trim()) {
                ("KillMode", "") => self.kill_mode = None,
                ("KillMode", value) => self.kill_mode = Some(value.to_owned()),
                ("ExecStart", "") => self.commands.clear(),
                ("ExecStart", value) => self.commands.push(split(value)),
                _ => {}
            }
        }
    }
}

/// The words of a command, its first without the prefixes that say how it is run.
fn split(command: &str) -> Vec<String> {
    let command = command.trim_start_matches(['@', '-', ':', '+', '!']);
    shell_words::split(command).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_unit_is_what_its_first_file_and_the_last_of_its_settings_say() {
        let place = tempfile::tempdir().unwrap();
        let dirs = [place.path().join("a"), place.path().join("b")];
        write(
            &dirs[0].join("x.service"),
            "[Unit]\nKillMode=none\n[Service]\nExecStart=-/opt/brokerd serve \\\n  --keep-backends\nKillMode = mixed\n",
        );
        write(&dirs[1].join("x.service"), "[Service]\nExecStart=/bin/true\n");
        write(&dirs[1].join("x.service.d/50.conf"), "[Service]\nKillMode=process\n");
        write(&dirs[0].join("x.service.d/10.conf"), "[Service]\nKillMode=none\n");
        write(&dirs[1].join("y.service"), "[Service]\nExecStart=/usr/bin/env A=b brokerd serve\n");
        write(&dirs[1].join("z.service"), "[Service]\nExecStart=brokerd status\n");
        let units = find(Scope::User, &dirs);
        let facts: Vec<_> =
            units.iter().map(|unit| (&*unit.name, &*unit.kill_mode, unit.keeps_backends)).collect();
        assert_eq!(facts, [("x.service", "process", true), ("y.service", "control-group", false)]);
    }

    #[test]
    fn a_command_that_is_reset_counts_no_more() {
        let mut settings = Settings::default();
        settings.read("[Service]\nExecStart=brokerd serve\nExecStart=\nExecStart=other\n");
        assert_eq!(settings.commands, [["other"]]);
    }
}
