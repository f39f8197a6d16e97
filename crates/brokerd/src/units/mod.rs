//! `brokerd install-units`: has the system run the broker, by units of systemd or by an agent of launchd.
//!
//! It writes files and starts nothing: what is left to do is told as commands. Invariant: where one of the files is
//! there and says something else, none is touched, unless that is asked for.

mod launchd;
mod systemd;

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use broker_protocol::BrokerInstance;
use broker_transport::endpoint::{Platform, SERVICE_DEF_DIR_VARIABLE};
use broker_transport::files;
use serde::Serialize;
use serde_json::json;

use crate::cli::InstallUnitsArgs;
use crate::failure::Failure;
use crate::output;

/// What the system is to run.
#[derive(Clone, Debug)]
struct Service {
    /// The absolute path of this program.
    program: String,
    instance: BrokerInstance,
    /// Where the definitions are, if not where the broker looks by itself.
    service_dir: Option<String>,
    keep_backends: bool,
    sandbox: bool,
}

impl Service {
    /// `serve` and its options.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["serve".to_owned(), "--instance".to_owned(), self.instance.to_string()];
        if let Some(dir) = &self.service_dir {
            arguments.extend(["--service-dir".to_owned(), dir.clone()]);
        }
        let switches = [(self.keep_backends, "--keep-backends"), (self.sandbox, "--sandbox")];
        arguments
            .extend(switches.into_iter().filter(|(is_on, _)| *is_on).map(|(_, option)| option.to_owned()));
        arguments
    }

    /// A name for what runs this instance: `brokerd`, `brokerd-svc-cache`.
    fn name(&self, separator: char) -> String {
        match &self.instance {
            BrokerInstance::Shared => "brokerd".to_owned(),
            named => format!("brokerd{separator}{named}").replace(':', &separator.to_string()),
        }
    }
}

/// A file, and what is to be in it.
#[derive(Debug)]
struct Unit {
    path: PathBuf,
    content: String,
}

/// Everything that is to be done.
#[derive(Debug)]
struct Plan {
    units: Vec<Unit>,
    /// What a person runs next.
    next: Vec<String>,
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    /// It is not there.
    Written,
    /// It says something else.
    Replaced,
    /// It says this already.
    Unchanged,
}

/// Writes the units, or says what would be written.
pub(crate) fn run(args: &InstallUnitsArgs) -> Result<(), Failure> {
    let plan = plan(args)?;
    let mut changes = Vec::new();
    for unit in &plan.units {
        changes.push(change(unit, args.force)?);
    }
    if !args.dry_run {
        let to_do = plan.units.iter().zip(&changes).filter(|(_, change)| **change != Change::Unchanged);
        for (unit, _) in to_do {
            write(unit)?;
        }
    }
    if args.json {
        print_json(&plan, &changes, args.dry_run);
    } else {
        print_text(&plan, &changes, args.dry_run);
    }
    Ok(())
}

fn plan(args: &InstallUnitsArgs) -> Result<Plan, Failure> {
    let service = Service {
        program: text(std::env::current_exe().map_err(Failure::refused)?)?,
        instance: args.instance.clone(),
        service_dir: service_dir()?,
        keep_backends: args.keep_backends,
        sandbox: args.sandbox,
    };
    match Platform::CURRENT {
        Platform::Linux => systemd::plan(&service, args.socket_activation),
        Platform::MacOs if args.socket_activation => Err(Failure::refused(
            "launchd passes sockets in a way of its own, which the broker does not take",
        )
        .next("leave out --socket-activation: the agent is started at login")),
        Platform::MacOs if args.sandbox => Err(Failure::refused("there is no sandbox on this system")
            .next("leave out --sandbox, which changes nothing else")),
        Platform::MacOs => launchd::plan(&service),
        Platform::Windows => Err(Failure::refused("there are no units on this system").next(format!(
            "have it started at every logon: schtasks /Create /SC ONLOGON /TN brokerd /TR \"{} {}\"",
            service.program,
            service.arguments().join(" ")
        ))),
    }
}

/// The system's manager has another environment than who installs, whose clients look there.
fn service_dir() -> Result<Option<String>, Failure> {
    match std::env::var_os(SERVICE_DEF_DIR_VARIABLE).filter(|value| !value.is_empty()) {
        Some(dir) => {
            let dir = PathBuf::from(dir);
            text(std::path::absolute(&dir).map_err(Failure::usage)?).map(Some)
        }
        None => Ok(None),
    }
}

fn text(path: PathBuf) -> Result<String, Failure> {
    path.into_os_string().into_string().map_err(|path| {
        Failure::refused(format!("{} is not UTF-8, which units are", path.display()))
            .next("move it to where its path is")
    })
}

/// A directory of this user's, by its variable or below the home directory.
fn directory(variable: Option<&str>, below_home: &str) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match (variable.and_then(absolute), absolute("HOME")) {
        (Some(chosen), _) => Ok(chosen),
        (None, Some(home)) => Ok(home.join(below_home)),
        (None, None) => Err(Failure::usage("expected an absolute path in $HOME").next("set it")),
    }
}

fn change(unit: &Unit, may_replace: bool) -> Result<Change, Failure> {
    match std::fs::read(&unit.path) {
        Ok(content) if content == unit.content.as_bytes() => Ok(Change::Unchanged),
        Ok(_) if may_replace => Ok(Change::Replaced),
        Ok(_) => Err(Failure::refused(format!("{} says something else already", unit.path.display()))
            .next("look at it, and at what `--dry-run --force` prints; --force replaces it")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Change::Written),
        Err(error) => Err(Failure::refused(format!("cannot read {}: {error}", unit.path.display()))
            .next("see to what is there")),
    }
}

fn write(unit: &Unit) -> Result<(), Failure> {
    let written = unit.path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = written.and_then(|()| files::write_atomically(&unit.path, unit.content.as_bytes()));
    written.map_err(|error| {
        Failure::refused(format!("cannot write {}: {error}", unit.path.display())).next("make that possible")
    })
}

fn print_json(plan: &Plan, changes: &[Change], is_dry_run: bool) {
    let file = |(unit, change): (&Unit, &Change)| json!({ "path": unit.path.display().to_string(), "change": change, "content": unit.content });
    let files: Vec<_> = plan.units.iter().zip(changes).map(file).collect();
    output::json_answer(
        "install-units",
        &json!({ "dry_run": is_dry_run, "files": files, "next": plan.next }),
    );
}

fn print_text(plan: &Plan, changes: &[Change], is_dry_run: bool) {
    let mut text = String::new();
    for (unit, change) in plan.units.iter().zip(changes) {
        let path = display(&unit.path);
        if is_dry_run {
            let _ = writeln!(text, "# {path}\n{}", unit.content);
        } else {
            let change = match change {
                Change::Written => "wrote",
                Change::Replaced => "replaced",
                Change::Unchanged => "unchanged",
            };
            let _ = writeln!(text, "{change} {path}");
        }
    }
    output::text_out(&text);
    if !is_dry_run {
        output::for_people(&format!("next: {}\n", plan.next.join(" && ")));
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn service(instance: &str) -> Service {
        Service {
            program: "/opt/brokerd".to_owned(),
            instance: instance.parse().unwrap(),
            service_dir: None,
            keep_backends: false,
            sandbox: false,
        }
    }

    #[test]
    fn every_instance_has_a_name_and_arguments_of_its_own() {
        assert_eq!(service("shared").name('-'), "brokerd");
        assert_eq!(service("svc:cache").name('-'), "brokerd-svc-cache");
        assert_eq!(service("inst:ci").name('.'), "brokerd.inst.ci");
        let all = Service {
            service_dir: Some("/srv/defs".to_owned()),
            keep_backends: true,
            sandbox: true,
            ..service("svc:cache")
        };
        let expected = "serve --instance svc:cache --service-dir /srv/defs --keep-backends --sandbox";
        assert_eq!(all.arguments().join(" "), expected);
    }
}
