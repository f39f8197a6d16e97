//! `[[backend]]`: backends that run already, as `--backend` names them.
//!
//! Invariant: what is taken would be taken from the command line too, and no backend is named twice.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::keys::BACKEND;
use super::parse::Reader;
use super::problem::shown;
use crate::backend_arg::{BackendArg, whole};

pub(super) const SERVICE: &str = "service";
pub(super) const VERSION: &str = "version";
pub(super) const ENDPOINT: &str = "endpoint";
pub(super) const HANDOFF: &str = "handoff";
/// The keys of one.
pub(crate) const NAMES: [&str; 4] = [SERVICE, VERSION, ENDPOINT, HANDOFF];

/// Reads all of them.
pub(super) fn read(reader: &mut Reader<'_>, list: &DeArray<'_>) {
    for entry in list {
        match entry.get_ref() {
            DeValue::Table(table) => one(reader, entry, table),
            other => reader.wrong(entry.span(), BACKEND, "a table, [[backend]]", other),
        }
    }
}

fn one(reader: &mut Reader<'_>, entry: &Spanned<DeValue<'_>>, table: &DeTable<'_>) {
    let problems = reader.problems.len();
    let mut texts: BTreeMap<&str, (&str, std::ops::Range<usize>)> = BTreeMap::new();
    for (name, value) in table {
        let word: &str = name.get_ref();
        let path = format!("{BACKEND}.{}", shown(word));
        if !NAMES.contains(&word) {
            reader.unknown(BACKEND, word, name.span());
            continue;
        }
        match value.get_ref() {
            DeValue::String(text) => {
                texts.insert(word, (text, value.span()));
            }
            other => reader.wrong(value.span(), &path, "a string", other),
        }
    }
    let mut field = |name: &'static str| match texts.get(name) {
        Some((text, at)) => Some((*text, at.clone())),
        None => {
            if !table.iter().any(|(known, _)| known.get_ref() == name) && name != HANDOFF {
                reader.add(entry.span(), &format!("{BACKEND}.{name}"), "it is missing");
            }
            None
        }
    };
    let (service, version, endpoint, handoff) =
        (field(SERVICE), field(VERSION), field(ENDPOINT), field(HANDOFF));
    let service = service.and_then(|(text, at)| taken(reader, SERVICE, at, text.parse()));
    let version = version.and_then(|(text, at)| taken(reader, VERSION, at, text.parse()));
    let endpoint = endpoint.and_then(|(text, at)| taken(reader, ENDPOINT, at, place(text)));
    let handoff = handoff.and_then(|(text, at)| taken(reader, HANDOFF, at, place(text)));
    let (Some(service), Some(version), Some(endpoint)) = (service, version, endpoint) else { return };
    if reader.problems.len() > problems {
        return;
    }
    let backend = BackendArg { service, version, endpoint, handoff };
    if reader.values.backends.iter().any(|other| other.is_of_the_same(&backend)) {
        let why = format!("{} {} is named twice", backend.service, backend.version);
        reader.add(entry.span(), BACKEND, &why);
        return;
    }
    reader.values.backends.push(backend);
}

fn taken<T, E: std::fmt::Display>(
    reader: &mut Reader<'_>,
    name: &str,
    at: std::ops::Range<usize>,
    parsed: Result<T, E>,
) -> Option<T> {
    parsed.map_err(|error| reader.add(at, &format!("{BACKEND}.{name}"), &error.to_string())).ok()
}

fn place(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected an endpoint, got nothing".to_owned()),
        text if text.contains('\0') => Err("it holds a NUL".to_owned()),
        text => whole(text.to_owned()),
    }
}
