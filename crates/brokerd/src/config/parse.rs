//! From the text of a configuration file to values, or to everything that is wrong with it.
//!
//! Knows nothing of files, flags and variables. Invariants: there are values or problems, never both; no text
//! makes it panic.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use broker_protocol::BrokerInstance;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::backend;
use super::file::Reach;
use super::keys::{self, BACKEND, ENTRIES, Entry, Key, Number, Word, sections};
use super::problem::{Problem, Text, nearest, shown};
use crate::backend_arg::{BackendArg, whole};

/// What a file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    numbers: HashMap<Id, u64>,
    switches: HashMap<Id, bool>,
    texts: HashMap<Id, String>,
    pub(crate) backends: Vec<BackendArg>,
}

type Id = (&'static str, &'static str);

const fn id(key: &Key) -> Id {
    (key.section, key.name)
}

impl Values {
    pub(crate) fn number(&self, number: &Number) -> Option<u64> {
        self.numbers.get(&id(&number.key)).copied()
    }

    pub(crate) fn switch(&self, key: &Key) -> Option<bool> {
        self.switches.get(&id(key)).copied()
    }

    pub(crate) fn text(&self, key: &Key) -> Option<&str> {
        self.texts.get(&id(key)).map(String::as_str)
    }
}

/// Reads a file's text.
///
/// # Errors
/// Everything that is wrong with it, from top to bottom; never nothing.
pub(super) fn parse(text: &str, reach: Reach) -> Result<Values, Vec<Problem>> {
    let (table, faults) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text: Text(text), reach, values: Values::default(), problems: Vec::new() };
    for fault in faults {
        let at = fault.span().unwrap_or(0..0);
        reader.problems.push(reader.text.problem(&at, None, format!("this is no TOML: {}", fault.message())));
    }
    let spoilt: Vec<_> = reader.problems.iter().map(|problem| problem.line).collect();
    reader.top(table.get_ref());
    let Reader { values, mut problems, .. } = reader;
    // What is left of a line that is no TOML is not worth a complaint of its own.
    let mut index = 0;
    problems.retain(|problem| {
        index += 1;
        index <= spoilt.len() || !spoilt.contains(&problem.line)
    });
    if problems.is_empty() {
        return Ok(values);
    }
    problems.sort();
    Err(problems)
}

pub(super) struct Reader<'a> {
    pub(super) text: Text<'a>,
    reach: Reach,
    pub(super) values: Values,
    pub(super) problems: Vec<Problem>,
}

impl Reader<'_> {
    fn top(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let word: &str = name.get_ref();
            match (word, value.get_ref()) {
                (BACKEND, DeValue::Array(list)) => backend::read(self, list),
                (BACKEND, other) => {
                    self.wrong(value.span(), BACKEND, "a list of tables, [[backend]]", other);
                }
                (section, DeValue::Table(table)) if sections().any(|known| known == section) => {
                    table.iter().for_each(|(name, value)| self.setting(section, name, value));
                }
                (section, other) if sections().any(|known| known == section) => {
                    self.wrong(value.span(), section, &format!("a table, [{section}]"), other);
                }
                _ => self.setting("", name, value),
            }
        }
    }

    fn setting(
        &mut self,
        section: &str,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let word: &str = name.get_ref();
        let known = ENTRIES.iter().find(|entry| (entry.key().section, entry.key().name) == (section, word));
        let Some(entry) = known else {
            self.unknown(section, word, name.span());
            return;
        };
        let at = value.span();
        match (*entry, value.get_ref()) {
            (Entry::Number(number), value) => self.number(at, number, value),
            (Entry::Switch(key), DeValue::Boolean(is_on)) => {
                self.values.switches.insert(id(key), *is_on);
            }
            (Entry::Switch(key), other) => self.wrong(at, &key.path(), "true or false", other),
            (Entry::Word(word), DeValue::String(text)) if word.words.contains(&&**text) => {
                self.keep(&word.key, text);
            }
            (Entry::Word(word), other) => self.wrong(at, &word.key.path(), &one_of(word), other),
            (Entry::Directory(key), DeValue::String(text)) => {
                self.checked(at, key, text, |path| match Path::new(path).is_absolute() {
                    true => Ok(()),
                    false => Err(format!("expected an absolute path, got \"{}\"", shown(path))),
                });
            }
            (Entry::Endpoint(key), DeValue::String(text)) => {
                self.of_one_broker(name.span(), key);
                self.checked(at, key, text, |path| match path {
                    "" => Err("expected where to listen, got nothing".to_owned()),
                    path => whole(path.to_owned()).map(drop),
                });
            }
            (Entry::Instance(key), DeValue::String(text)) => {
                self.of_one_broker(name.span(), key);
                self.checked(at, key, text, |text| {
                    text.parse::<BrokerInstance>().map(drop).map_err(|error| error.to_string())
                });
            }
            (Entry::Levels(key), DeValue::String(text)) => {
                self.checked(at, key, text, |text| levels(text).map(drop));
            }
            (Entry::Directory(key) | Entry::Endpoint(key), other) => {
                self.wrong(at, &key.path(), "a path, as a string", other);
            }
            (Entry::Instance(key) | Entry::Levels(key), other) => {
                self.wrong(at, &key.path(), "a string", other);
            }
        }
    }

    fn number(&mut self, at: Range<usize>, number: &'static Number, value: &DeValue<'_>) {
        let Number { key, least, most, unit, .. } = number;
        let taken = match value {
            DeValue::Integer(integer) => {
                whole_number(integer).filter(|value| (*least..=*most).contains(value))
            }
            _ => None,
        };
        match taken {
            Some(value) => {
                self.values.numbers.insert(id(key), value);
            }
            None => {
                let expected = format!("a whole number from {least} to {most} ({unit})");
                self.wrong(at, &key.path(), &expected, value);
            }
        }
    }

    fn checked(
        &mut self,
        at: Range<usize>,
        key: &'static Key,
        text: &str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) {
        let checked = if text.contains('\0') { Err("it holds a NUL".to_owned()) } else { check(text) };
        match checked {
            Ok(()) => self.keep(key, text),
            Err(why) => self.add(at, &key.path(), &why),
        }
    }

    fn keep(&mut self, key: &'static Key, text: &str) {
        self.values.texts.insert(id(key), text.to_owned());
    }

    /// Two brokers cannot have the same name or place.
    fn of_one_broker(&mut self, at: Range<usize>, key: &Key) {
        if self.reach == Reach::EveryBroker {
            let why = "every broker of this user reads this file, and this is one broker's; put it into a file of \
                       its own, and name that with --config FILE";
            self.add(at, &key.path(), why);
        }
    }

    pub(super) fn add(&mut self, at: Range<usize>, path: &str, why: &str) {
        self.problems.push(self.text.problem(&at, Some(path), format!("{path}: {why}")));
    }

    pub(super) fn wrong(&mut self, at: Range<usize>, path: &str, expected: &str, got: &DeValue<'_>) {
        self.add(at, path, &format!("expected {expected}, got {}", described(got)));
    }

    pub(super) fn unknown(&mut self, section: &str, name: &str, at: Range<usize>) {
        let here = ENTRIES.iter().map(|entry| entry.key()).filter(|key| key.section == section);
        let here = here
            .map(|key| key.name)
            .chain(sections().chain([BACKEND]).filter(|_| section.is_empty()))
            .chain(backend::NAMES.into_iter().filter(|_| section == BACKEND));
        let elsewhere = || {
            let names = ENTRIES.iter().map(|entry| entry.key().name);
            let name = nearest(name, names)?;
            ENTRIES.iter().find(|entry| entry.key().name == name).map(|entry| entry.key().path())
        };
        let meant = nearest(name, here).map(|name| keys::path(section, name)).or_else(elsewhere);
        let path = keys::path(section, &shown(name));
        let problem = self.text.problem(&at, Some(&path), format!("unknown key `{path}`"));
        self.problems.push(Problem { suggestion: meant, ..problem });
    }
}

/// The levels of the log that a text names: `LEVEL`, or `TARGET=LEVEL,...`. One word that is no level would be taken
/// for a target, and nothing else would be told of.
pub(crate) fn levels(text: &str) -> Result<Targets, String> {
    let wrong = text.split(',').find(|part| !is_level_or_pair(part));
    match (wrong, text.parse::<Targets>()) {
        (None, Ok(levels)) => Ok(levels),
        (wrong, _) => Err(format!(
            "expected a level (error, warn, info, debug, trace or off), or TARGET=LEVEL,..., got \"{}\"",
            shown(wrong.unwrap_or(text))
        )),
    }
}

/// The levels in a variable that other programs read as well, and the parts of it that are none: those are for them.
pub(crate) fn levels_for_us(text: &str) -> (String, Vec<&str>) {
    let (levels, others): (Vec<_>, Vec<_>) = text.split(',').partition(|part| is_level_or_pair(part));
    (levels.join(","), others.into_iter().filter(|part| !part.is_empty()).collect())
}

fn is_level_or_pair(part: &str) -> bool {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_whole = match part.split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(part),
    };
    is_whole && part.parse::<Targets>().is_ok()
}

fn one_of(word: &Word) -> String {
    word.words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
}

fn whole_number(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()).ok()
}

/// A value, or what kind of one it is.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{}\"", shown(text)),
        DeValue::Integer(number) => shown(&number.to_string()),
        DeValue::Float(number) => format!("the fraction {}", shown(&number.to_string())),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests;
