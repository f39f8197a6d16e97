//! `brokerd diagnose`: asks the broker for an archive, and says where it is and what is in it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use broker_core::time::UnixMillis;
use broker_protocol::wire::{AdminReplyKind, AdminRequest, AdminVerb};
use serde_json::Value;

use super::output::default_name;
use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::{admin_commands, output};

/// Runs the command. The broker has a directory of its own, so it is told an absolute path.
pub(crate) fn run(path: Option<PathBuf>, admin: &AdminArgs) -> Result<ExitCode, Failure> {
    let path = path.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        PathBuf::from(default_name(UnixMillis::new(now.as_millis() as u64)))
    });
    let path = std::path::absolute(path).map_err(Failure::usage)?;
    let output_path = path.into_os_string().into_string().map_err(|path| {
        Failure::usage(format!("{} is not UTF-8, which the broker's messages are", path.display()))
    })?;
    let request =
        AdminRequest { verb: AdminVerb::Diagnose.into(), output_path, json: true, ..AdminRequest::default() };
    let reply = admin_commands::exchange(&request, admin)?;
    if reply.kind() != AdminReplyKind::Json {
        output::for_people(&format!("error: {}", reply.body));
    } else if admin.json {
        output::text_out(&reply.body);
        output::text_out("\n");
    } else {
        output::text_out(&told(&serde_json::from_str(&reply.body).unwrap_or_default()));
    }
    Ok(ExitCode::from(u8::try_from(reply.exit_code).unwrap_or(1)))
}

/// The answer for people. A broker of another version may leave something out.
fn told(answer: &Value) -> String {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!("wrote {}", text(&answer["output"]))];
    for entry in array(&answer["bundle"]["entries"]) {
        let is_there = entry["present"].as_bool().unwrap_or(true);
        let records = entry["record_count"].as_u64().map(|count| format!("{count} records"));
        let notes: Vec<_> = records.into_iter().chain(entry["note"].as_str().map(str::to_owned)).collect();
        let line =
            format!("{} {:32} {}", if is_there { " " } else { "!" }, text(&entry["path"]), notes.join(", "));
        lines.push(line.trim_end().to_owned());
    }
    let replaced = |name: &str| {
        let rules = array(&answer["redaction_policy"]);
        let rule = rules.iter().find(|rule| rule["name"] == name);
        rule.and_then(|rule| rule["replaced"].as_u64()).unwrap_or_default()
    };
    lines.push(format!(
        "redacted: {} values of secret names, {} home directories, {} ids of users or groups",
        replaced("secret-env"),
        replaced("home"),
        replaced("acl-identities"),
    ));
    lines.push(
        "Open report.html first. Read what is in the archive before you give it to others.\n".to_owned(),
    );
    lines.join("\n")
}
