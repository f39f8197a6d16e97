//! What goes into an archive, part by part, each redacted.

use serde_json::Value;

use super::part::Part;
use super::{Order, events, manifests, processes, report};
use crate::redact::{Redacted, RedactedJson, Redactor};

/// A part that there is.
pub(super) struct Found {
    pub(super) text: Redacted,
    /// How many records, where it is a list.
    pub(super) records: Option<usize>,
    /// What should be known about them.
    pub(super) note: Option<String>,
}

impl From<Redacted> for Found {
    fn from(text: Redacted) -> Self {
        Self { text, records: None, note: None }
    }
}

/// What is read once and shown in more than one part.
pub(super) struct Gathered<'a> {
    order: &'a Order,
    redactor: &'a Redactor,
    dump: RedactedJson,
    events: Result<Events, String>,
}

struct Events {
    rows: Vec<RedactedJson>,
    note: Option<String>,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(order: &'a Order, redactor: &'a Redactor) -> Self {
        let dump = redactor.json(parsed(&order.said.dump));
        let events = events::last(&order.event_log).map(|events| Events {
            rows: events.rows.into_iter().map(|row| redactor.json(row)).collect(),
            note: events.note,
        });
        Self { order, redactor, dump, events }
    }

    /// One part, or why there is none.
    pub(super) fn part(&self, part: Part) -> Result<Found, String> {
        let Order { said, surroundings, now, .. } = self.order;
        Ok(match part {
            Part::Status => self.json(parsed(&said.status)).into(),
            Part::Dump => self.dump.indented().into(),
            Part::Config => self.json(parsed(&said.config)).into(),
            Part::Metrics => self.redactor.text(&said.metrics).into(),
            Part::Events => {
                let events = self.events.as_ref().map_err(Clone::clone)?;
                let lines = events.rows.iter().map(RedactedJson::line).collect();
                Found {
                    text: Redacted::made_of_redacted(lines),
                    records: Some(events.rows.len()),
                    note: events.note.clone(),
                }
            }
            Part::Manifests => {
                let manifests = manifests::all()?;
                Found { note: manifests.note, ..self.list(manifests.rows) }
            }
            Part::Processes => self.list(processes::of(self.dump.get())),
            Part::System => self.json(surroundings.summary(*now)).into(),
            Part::Report => {
                let events = self.events.as_ref().ok().map(|events| &events.rows[..]);
                report::page(&self.dump, events, *now).into()
            }
        })
    }

    fn json(&self, value: Value) -> Redacted {
        self.redactor.json(value).indented()
    }

    fn list(&self, rows: Vec<Value>) -> Found {
        Found { records: Some(rows.len()), ..self.json(Value::from(rows)).into() }
    }
}

/// The broker's own JSON. Where it could not be written, the answer is a text that says so.
fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))
}
