//! Taking out of a text what should not leave this machine.
//!
//! For what a backend wrote to its standard error before it died, which goes to clients and into events, and for
//! everything that goes into a diagnostic archive. Taken out are values whose name has KEY, TOKEN, SECRET or PASS
//! in it; the home directory becomes `~`, and in an archive the ids of users and groups become a hash that stays
//! the same on this machine. What bears no such name is not known to be a secret, and stays. Invariant: a
//! [`Redacted`] holds nothing that no [`Redactor`] has seen.

mod home;
mod ids;
mod secrets;

use std::cell::Cell;

use serde_json::{Map, Value};

use self::home::Homes;
use self::ids::StableIds;

/// What a secret becomes.
const REDACTED: &str = "<redacted>";
/// Parts of names that mark a secret.
pub(crate) const MARKS: [&str; 4] = ["KEY", "TOKEN", "SECRET", "PASS"];

/// Redacts one text, which may have several lines: secrets and the home directory.
pub(crate) fn redact(text: &str, home: Option<&str>) -> String {
    let (text, _) = secrets::take_out(text);
    Homes::new(home).take_out(&text).0
}

/// A text that may leave this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redacted(String);

impl Redacted {
    /// A text that is made of nothing but redacted values and words of our own.
    pub(crate) const fn made_of_redacted(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value that may leave this machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RedactedJson(Value);

impl RedactedJson {
    pub(crate) const fn get(&self) -> &Value {
        &self.0
    }

    /// For people to read.
    pub(crate) fn indented(&self) -> Redacted {
        Redacted(format!("{:#}\n", self.0))
    }

    /// For one line of many.
    pub(crate) fn line(&self) -> String {
        format!("{}\n", self.0)
    }
}

/// How often each rule took something out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) homes: u64,
    pub(crate) secrets: u64,
    pub(crate) ids: u64,
}

/// Every rule, as it applies to this user on this machine; counts what it takes out.
#[derive(Debug)]
pub(crate) struct Redactor {
    homes: Homes,
    ids: StableIds,
    counts: Cell<Counts>,
}

impl Redactor {
    /// The rules for the user that this process runs as.
    pub(crate) fn of_this_user() -> Self {
        Self::new(Homes::of_this_user(), StableIds::of_this_machine())
    }

    fn new(homes: Homes, ids: StableIds) -> Self {
        Self { homes, ids, counts: Cell::default() }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.get()
    }

    pub(crate) fn text(&self, text: &str) -> Redacted {
        Redacted(self.string(text))
    }

    /// Redacts every text in a value, and whatever lies under a name that marks a secret.
    pub(crate) fn json(&self, value: Value) -> RedactedJson {
        RedactedJson(self.value(value))
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
            Value::String(text) => Value::String(self.string(&text)),
            Value::Array(values) => values.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(entries) => {
                let entries = entries.into_iter();
                let redacted = entries.map(|(key, value)| {
                    let value = self.entry(&key, value);
                    (self.string(&key), value)
                });
                Value::Object(redacted.collect::<Map<_, _>>())
            }
        }
    }

    fn entry(&self, key: &str, value: Value) -> Value {
        if secrets::is_marked(key) && !is_nothing(&value) {
            self.count(Counts { secrets: u64::from(value != REDACTED), ..Counts::default() });
            return Value::from(REDACTED);
        }
        if let Some(id) = ids::is_named(key).then(|| id_of(&value)).flatten() {
            self.count(Counts { ids: 1, ..Counts::default() });
            return Value::from(self.ids.hash(&id));
        }
        self.value(value)
    }

    fn string(&self, text: &str) -> String {
        let (text, secrets) = secrets::take_out(text);
        // A path with an id in it may lie in a home whose name is one.
        let (text, homes) = self.homes.take_out(&text);
        let (text, ids) = self.ids.take_out(&text);
        self.count(Counts { homes, secrets, ids });
        text
    }

    fn count(&self, more: Counts) {
        let Counts { homes, secrets, ids } = self.counts.get();
        self.counts.set(Counts {
            homes: homes + more.homes,
            secrets: secrets + more.secrets,
            ids: ids + more.ids,
        });
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// The id of a user or group that a value is.
fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if ids::is_id(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(Homes::new(Some("/home/u")), StableIds::new("a machine"))
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "cannot bind /run/x.sock: in use",
            "port=80 host=a",
            "thread 'main' panicked at a.rs:3:5:",
            "a\n\nb\n",
        ] {
            assert_eq!(redact(text, None), text);
            assert_eq!(redactor().text(text).as_str(), text);
        }
    }

    #[test]
    fn a_value_is_redacted_by_its_name_and_by_what_it_says() {
        let redactor = redactor();
        let value = json!({
            "labels": {"env.API_KEY": "k1", "env.PORT": "80", "tokens": ["t1", {"deep": "t2"}], "PASS": 1234},
            "none": {"secret": null, "password": ""},
            "text": ["TOKEN=t3 at /home/u/x", 7, true],
            "/home/u/as_a_name": 1,
            "ownership": {"uid": 1000, "gid": "1000", "owner": "me"},
        });
        let id = redactor.ids.hash("1000");
        let expected = json!({
            "labels": {"env.API_KEY": REDACTED, "env.PORT": "80", "tokens": REDACTED, "PASS": REDACTED},
            "none": {"secret": null, "password": ""},
            "text": ["TOKEN=<redacted> at ~/x", 7, true],
            "~/as_a_name": 1,
            "ownership": {"uid": id, "gid": id, "owner": "me"},
        });
        let redacted = redactor.json(value);
        assert_eq!(*redacted.get(), expected);
        let counts = Counts { homes: 2, secrets: 4, ids: 2 };
        assert_eq!(redactor.counts(), counts);
        assert_eq!(redactor.json(expected), redacted, "once more changes nothing");
        assert_eq!(redactor.counts(), counts, "and counts nothing");
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_and_no_planted_value_stays(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("TOKEN".to_owned()), Just("--key".to_owned()), Just("=".to_owned()), Just(": ".to_owned()),
                    Just(" ".to_owned()), Just("\"".to_owned()), Just("'".to_owned()), Just("\\".to_owned()),
                    Just("\n".to_owned()), Just("Bearer".to_owned()), Just("/home/u".to_owned()),
                    Just("/run/user/7".to_owned()), Just("uid=7".to_owned()), Just("S-1-5-21-7".to_owned()),
                    any::<String>(),
                ],
                0..12,
            )
        ) {
            let text = format!("{}\nMY_TOKEN=pl4nted /home/u/pl4nted uid=4242 {0}", parts.concat());
            let redacted = redactor().text(&text);
            for planted in ["=pl4nted", "/home/u/", "uid=4242"] {
                prop_assert!(!redacted.as_str().contains(planted), "{planted} of {text:?} is in {redacted:?}");
            }
        }
    }
}
