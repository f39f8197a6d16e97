//! Trying a program before it is executed in the broker's place.
//!
//! It is run as a process of its own, with the arguments that it will have, and has to say that it would take
//! over: so one that is no broker, that does not know an argument, or that finds its configuration bad, costs
//! nothing. Invariant: what is executed later is the path that was tried.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_core::services::PathKind;
use broker_transport::process::{ParentDeath, SpawnCommand, Spawner, StopSignal};
use thiserror::Error;

use crate::definitions::binary_facts;
use crate::failure::Failure;
use crate::output;

/// The option with which a program takes over; what it takes over is named after it.
pub(in crate::serve) const TAKEOVER: &str = "--takeover";
/// The option with which it is asked whether it would.
const TRIAL: &str = "--takeover-trial";
/// The option that names the configuration file.
const CONFIG_OPTION: &str = "--config";
/// The form of what is handed over. Additions to it do not change the number.
const FORM: u32 = 1;
/// How long it may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Lines of its standard error that are told.
const TOLD_LINES: usize = 4;

/// Why a program is not used.
#[derive(Debug, Error)]
pub(super) enum Unfit {
    #[error("expected an absolute path")]
    NotAbsolute,
    #[error("there is no such file")]
    Missing,
    #[error("it is not an executable file")]
    NotExecutable,
    #[error("it belongs to another user, or others may write to it")]
    Untrusted,
    #[error("{0}")]
    Spawn(#[from] broker_transport::process::SpawnError),
    #[error("it does not say within {} s whether it would take over", ANSWERS_WITHIN.as_secs())]
    Silent,
    #[error("it ended with {exit} instead of saying that it would take over{}", said(words))]
    Unwilling { exit: broker_transport::process::Exit, words: Vec<String> },
    #[error("it cannot be waited for: {0}")]
    Wait(std::io::Error),
}

fn said(words: &[String]) -> String {
    if words.is_empty() { String::new() } else { format!("; it said: {}", words.join("; ")) }
}

/// The line that a program answers with.
fn consent() -> String {
    format!("brokerd takes over, form {FORM}")
}

/// What this process was started with, without what a takeover has added.
pub(super) fn own_args() -> Vec<OsString> {
    std::env::args_os().skip(1).take_while(|arg| arg != TAKEOVER).collect()
}

/// With the path of the configuration file absolute: the one argument that is a path to be read.
fn with_absolute_config(args: Vec<OsString>) -> Vec<OsString> {
    let absolute = |path: &str| std::path::absolute(path).map(PathBuf::into_os_string).ok();
    let mut is_path = false;
    args.into_iter()
        .map(|arg| {
            let was_path = std::mem::replace(&mut is_path, arg == CONFIG_OPTION);
            let text = arg.to_str();
            let changed = match text.and_then(|text| text.strip_prefix(CONFIG_OPTION)?.strip_prefix('=')) {
                Some(path) => absolute(path).map(|path| {
                    let mut whole = OsString::from(CONFIG_OPTION);
                    whole.push("=");
                    whole.push(path);
                    whole
                }),
                None => text.filter(|_| was_path).and_then(absolute),
            };
            changed.unwrap_or(arg)
        })
        .collect()
}

/// The file that a path leads to, if it is one to execute.
pub(super) fn look_at(program: &Path) -> Result<PathBuf, Unfit> {
    let facts = binary_facts(program, None);
    match facts.kind {
        PathKind::Missing => return Err(Unfit::Missing),
        PathKind::File if facts.executable => {}
        PathKind::File | PathKind::Other => return Err(Unfit::NotExecutable),
    }
    if facts.foreign || facts.writable_by_others { Err(Unfit::Untrusted) } else { Ok(facts.resolved) }
}

/// Tries a program; the path to execute.
pub(super) async fn run(spawner: &Spawner, program: &Path) -> Result<PathBuf, Unfit> {
    if !program.is_absolute() {
        return Err(Unfit::NotAbsolute);
    }
    let program = look_at(program)?;
    let mut command = SpawnCommand::new(&program);
    // It stands elsewhere than this process.
    command.args = with_absolute_config(own_args());
    command.args.extend([TRIAL.into(), FORM.to_string().into()]);
    command.parent_death = ParentDeath::Terminate;
    let child = spawner.spawn(command).await?;
    let Ok(exit) = tokio::time::timeout(ANSWERS_WITHIN, child.wait()).await else {
        // It may have ended this very moment.
        let _ = child.signal(StopSignal::Kill);
        return Err(Unfit::Silent);
    };
    let exit = exit.map_err(Unfit::Wait)?;
    let words = child.stderr().last_lines(TOLD_LINES);
    if exit.is_success() && words.last() == Some(&consent()) {
        Ok(program)
    } else {
        Err(Unfit::Unwilling { exit, words })
    }
}

/// Says whether this program would take over what has this form.
///
/// # Errors
/// It would not.
pub(in crate::serve) fn answer(form: u32) -> Result<(), Failure> {
    if form != FORM {
        return Err(Failure::refused(format!("expected form {FORM} of what is handed over, got {form}"))
            .next("end the broker with `brokerd shutdown`, and start the new one"));
    }
    output::for_people(&format!("{}\n", consent()));
    Ok(())
}
