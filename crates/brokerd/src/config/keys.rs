//! Everything that can be set about a broker, each with its flag, its variable, its range and its default.
//!
//! Invariant: the command line, the environment and the file are read by this one table, so a rule that holds for
//! one holds for all; docs/configuration.md is checked against it.

use broker_core::admission::{MAX_CONNECTIONS, RateLimit};
use broker_core::broker::DEFAULT_DRAIN;
use clap::builder::RangedU64ValueParser;

/// The level of the log, for all or by target: `debug`, `brokerd=debug,broker_transport=trace`.
pub(crate) const LEVEL_VARIABLE: &str = "RUST_LOG";

/// Longest time that can be set, in milliseconds.
const AN_HOUR_MS: u64 = 3_600_000;

/// When a value that has changed in the file takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// With the reload.
    AtOnce,
    /// When the broker is started the next time.
    NextStart,
}

/// Something that can be set.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its table in the file; empty for the top.
    pub(crate) section: &'static str,
    /// Its name there.
    pub(crate) name: &'static str,
    pub(crate) flag: Option<&'static str>,
    pub(crate) variable: Option<&'static str>,
    pub(crate) change: Change,
}

impl Key {
    /// As it is told: `limits.hello-burst`.
    pub(crate) fn path(&self) -> String {
        path(self.section, self.name)
    }

    /// Its variable, for an option that has one.
    pub(crate) fn env(&self) -> &'static str {
        self.variable.unwrap_or_default()
    }

    /// What the command line calls it.
    pub(crate) fn id(&self) -> Option<String> {
        Some(self.flag?.trim_start_matches('-').replace('-', "_"))
    }
}

/// A name below a table of the file.
pub(crate) fn path(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// A whole number.
#[derive(Debug)]
pub(crate) struct Number {
    pub(crate) key: Key,
    pub(crate) least: u64,
    pub(crate) most: u64,
    pub(crate) default: u64,
    pub(crate) unit: &'static str,
}

impl Number {
    /// What takes this number from the command line and the environment.
    pub(crate) fn parser<T>(&self) -> RangedU64ValueParser<T>
    where
        T: TryFrom<u64> + Clone + Send + Sync,
    {
        RangedU64ValueParser::new().range(self.least..=self.most)
    }

    /// The default, as the command line has it.
    pub(crate) fn default<T: TryFrom<u64> + Default>(&self) -> T {
        T::try_from(self.default).unwrap_or_default()
    }
}

/// One of some words.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) key: Key,
    pub(crate) words: &'static [&'static str],
    pub(crate) default: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    flag: &'static str,
    variable: &'static str,
    change: Change,
) -> Key {
    Key { section, name, flag: Some(flag), variable: Some(variable), change }
}

pub(crate) static INSTANCE: Key = Key {
    section: "",
    name: "instance",
    flag: Some("--instance"),
    variable: None,
    change: Change::NextStart,
};
pub(crate) static KEEP_BACKENDS: Key =
    key("", "keep-backends", "--keep-backends", "RUNNING_PROCESS_BROKER_KEEP_BACKENDS", Change::AtOnce);
pub(crate) static SANDBOX: Key =
    key("", "sandbox", "--sandbox", "RUNNING_PROCESS_BROKER_SANDBOX", Change::NextStart);
pub(crate) static SOCKET: Key = Key {
    section: "paths",
    name: "socket",
    flag: Some("--socket"),
    variable: None,
    change: Change::NextStart,
};
pub(crate) static SERVICE_DIR: Key = key(
    "paths",
    "service-dir",
    "--service-dir",
    broker_transport::endpoint::SERVICE_DEF_DIR_VARIABLE,
    Change::NextStart,
);
pub(crate) static STATE_DIR: Key =
    key("paths", "state-dir", "--state-dir", "RUNNING_PROCESS_BROKER_STATE_DIR", Change::NextStart);
pub(crate) static LOG_FORMAT: Word = Word {
    key: key("log", "format", "--log", "RUNNING_PROCESS_BROKER_LOG", Change::NextStart),
    words: &["text", "json"],
    default: "text",
};
pub(crate) static LOG_LEVEL: Key =
    Key { section: "log", name: "level", flag: None, variable: Some(LEVEL_VARIABLE), change: Change::AtOnce };
pub(crate) static HELLO_TIMEOUT_MS: Number = Number {
    key: key(
        "limits",
        "hello-timeout-ms",
        "--hello-timeout-ms",
        "RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS",
        Change::AtOnce,
    ),
    least: 1,
    most: AN_HOUR_MS,
    default: 10_000,
    unit: "milliseconds",
};
pub(crate) static MAX_CONNECTIONS_OPEN: Number = Number {
    key: key(
        "limits",
        "max-connections",
        "--max-connections",
        "RUNNING_PROCESS_BROKER_MAX_CONNECTIONS",
        Change::AtOnce,
    ),
    least: 2,
    most: 1_000_000,
    default: MAX_CONNECTIONS as u64,
    unit: "connections",
};
pub(crate) static HELLO_BURST: Number = Number {
    key: key("limits", "hello-burst", "--hello-burst", "RUNNING_PROCESS_BROKER_HELLO_BURST", Change::AtOnce),
    least: 0,
    most: u32::MAX as u64,
    default: RateLimit::DEFAULT.burst() as u64,
    unit: "Hellos",
};
pub(crate) static HELLO_REFILL: Number = Number {
    key: key(
        "limits",
        "hello-refill",
        "--hello-refill",
        "RUNNING_PROCESS_BROKER_HELLO_REFILL",
        Change::AtOnce,
    ),
    least: 0,
    most: u32::MAX as u64,
    default: RateLimit::DEFAULT.refill_per_second() as u64,
    unit: "Hellos per second",
};
pub(crate) static DRAIN_MS: Number = Number {
    key: key("limits", "drain-ms", "--drain-ms", "RUNNING_PROCESS_BROKER_DRAIN_MS", Change::AtOnce),
    least: 0,
    most: AN_HOUR_MS,
    default: DEFAULT_DRAIN.as_millis() as u64,
    unit: "milliseconds",
};

/// What the file calls the list of backends that run already.
pub(crate) const BACKEND: &str = "backend";

/// A key, by what it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    Number(&'static Number),
    Switch(&'static Key),
    Word(&'static Word),
    /// A directory, by its whole path.
    Directory(&'static Key),
    /// Where a broker listens.
    Endpoint(&'static Key),
    Instance(&'static Key),
    Levels(&'static Key),
}

impl Entry {
    pub(crate) const fn key(self) -> &'static Key {
        match self {
            Self::Number(number) => &number.key,
            Self::Word(word) => &word.key,
            Self::Switch(key)
            | Self::Directory(key)
            | Self::Endpoint(key)
            | Self::Instance(key)
            | Self::Levels(key) => key,
        }
    }
}

/// All of them, in the order of the documentation.
pub(crate) static ENTRIES: [Entry; 13] = [
    Entry::Instance(&INSTANCE),
    Entry::Switch(&KEEP_BACKENDS),
    Entry::Switch(&SANDBOX),
    Entry::Endpoint(&SOCKET),
    Entry::Directory(&SERVICE_DIR),
    Entry::Directory(&STATE_DIR),
    Entry::Word(&LOG_FORMAT),
    Entry::Levels(&LOG_LEVEL),
    Entry::Number(&HELLO_TIMEOUT_MS),
    Entry::Number(&MAX_CONNECTIONS_OPEN),
    Entry::Number(&HELLO_BURST),
    Entry::Number(&HELLO_REFILL),
    Entry::Number(&DRAIN_MS),
];

/// The tables of the file that have a name.
pub(crate) fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    ENTRIES.iter().map(|entry| entry.key().section).filter(move |section| {
        let is_new = *section != last;
        last = section;
        is_new && !section.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_command_line_has_every_flag_and_variable_of_the_table() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for key in ENTRIES.iter().map(|entry| entry.key()) {
            let Some(id) = key.id() else { continue };
            let argument = serve.get_arguments().find(|argument| argument.get_id() == id.as_str());
            let argument = argument.unwrap_or_else(|| panic!("{} is no option of serve", key.path()));
            assert_eq!(argument.get_long().map(|long| format!("--{long}")).as_deref(), key.flag);
            let variable = argument.get_env().map(|variable| variable.to_str().unwrap());
            assert_eq!(variable, key.variable, "{}", key.path());
        }
    }

    #[test]
    fn every_option_of_serve_is_a_key_or_makes_no_sense_in_a_file() {
        let not_in_a_file = ["help", "json", "config", "backends", "takeover", "takeover_trial"];
        let command = Cli::command();
        for argument in command.find_subcommand("serve").unwrap().get_arguments() {
            let id = argument.get_id().as_str();
            let is_a_key = ENTRIES.iter().any(|entry| entry.key().id().as_deref() == Some(id));
            assert!(is_a_key || not_in_a_file.contains(&id), "{id}");
        }
    }

    #[test]
    fn defaults_keep_to_their_ranges_and_no_path_is_given_twice() {
        let mut paths = std::collections::BTreeSet::new();
        for entry in ENTRIES {
            assert!(paths.insert(entry.key().path()));
            if let Entry::Number(number) = entry {
                assert!((number.least..=number.most).contains(&number.default), "{}", number.key.path());
            }
        }
        assert_eq!(sections().collect::<Vec<_>>(), ["paths", "log", "limits"]);
    }

    /// How a key's row begins and ends in the documentation; what stands between is the default of a path.
    fn documented(entry: Entry) -> (String, String) {
        let key = entry.key();
        let code = |text: Option<&str>| text.map_or_else(|| " ".to_owned(), |text| format!(" `{text}` "));
        let reload = match key.change {
            Change::AtOnce => "at once",
            Change::NextStart => "next start",
        };
        let end = format!("|{}|{}| {reload} |", code(key.flag), code(key.variable));
        let begin = match entry {
            Entry::Number(Number { least, most, default, unit, .. }) => {
                format!("number | {least} to {most} | {unit} | {default} ")
            }
            Entry::Switch(_) => "switch | `true`, `false` | | `false` ".to_owned(),
            Entry::Word(Word { words, default, .. }) => {
                let words = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
                format!("string | {words} | | `{default}` ")
            }
            Entry::Directory(_) | Entry::Endpoint(_) => "path | absolute | | ".to_owned(),
            Entry::Instance(_) => "string | `shared`, `svc:NAME`, `inst:NAME` | | `shared` ".to_owned(),
            Entry::Levels(_) => "string | `LEVEL` or `TARGET=LEVEL,...` | | `info` ".to_owned(),
        };
        (format!("| `{}` | {begin}", key.path()), end)
    }

    #[test]
    fn the_documentation_has_a_row_for_every_key_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let mut rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
        for entry in ENTRIES {
            let (begin, end) = documented(entry);
            let found = rows.iter().position(|row| row.starts_with(&begin) && row.ends_with(&end));
            let row = found.unwrap_or_else(|| panic!("no row begins {begin:?} and ends {end:?}"));
            rows.remove(row);
        }
        for name in super::super::backend::NAMES {
            let begin = format!("| `{BACKEND}.{name}` | string |");
            let found = rows.iter().position(|row| row.starts_with(&begin));
            rows.remove(found.unwrap_or_else(|| panic!("no row begins {begin:?}")));
        }
        assert_eq!(rows, [""; 0]);
    }
}
