//! `brokerd service`: writing, showing and checking definitions.

use std::io;

use broker_core::services::Definition;
use broker_protocol::ServiceName;
use broker_protocol::prost::Message;
use broker_protocol::wire::{BrokerIsolation, ServiceDefinition};
use broker_transport::{endpoint, files, private_dir};
use serde::Serialize;
use serde_json::json;

use crate::cli::{Isolation, ServiceAddArgs, ServiceCommand, ServiceDirArgs, ServiceNameArgs};
use crate::definitions::DefinitionDir;
use crate::failure::Failure;
use crate::output;

/// Runs a `service` command.
pub(crate) fn run(command: ServiceCommand) -> Result<(), Failure> {
    match command {
        ServiceCommand::Add(args) => add(args),
        ServiceCommand::List(args) => list(&args),
        ServiceCommand::Show(args) => show(&args),
        ServiceCommand::Validate { service, dir } => validate(service, &dir),
        ServiceCommand::Remove(args) => remove(&args),
    }
}

/// The definition directory that a command means.
pub(crate) fn definition_dir(chosen: Option<&std::path::PathBuf>) -> Result<DefinitionDir, Failure> {
    match chosen {
        Some(path) => Ok(DefinitionDir::new(path.clone())),
        None => endpoint::service_definition_dir().map(DefinitionDir::new).map_err(|error| {
            Failure::usage(error).next("pass --service-dir DIR, or set RUNNING_PROCESS_SERVICE_DEF_DIR")
        }),
    }
}

fn add(args: ServiceAddArgs) -> Result<(), Failure> {
    let dir = definition_dir(args.dir.service_dir.as_ref())?;
    private_dir::ensure_private_dir(dir.path()).map_err(Failure::refused)?;
    let wire = wire_definition(&args)?;
    let definition = Definition::new(&wire).map_err(Failure::usage)?;
    let facts = crate::definitions::binary_facts(definition.binary(), definition.version_dir());
    definition.check_binary(definition.binary(), &facts).map_err(Failure::usage)?;
    let file = dir.file(args.service.as_str());
    files::write_atomically(&file, &wire.encode_to_vec())
        .map_err(|error| Failure::refused(format!("cannot write {}: {error}", file.display())))?;
    let summary = Summary::of(&definition, &wire);
    if args.dir.json {
        output::json_answer("service-add", &summary);
    } else {
        output::line(format_args!("wrote {}", file.display()));
        output::line(format_args!(
            "served by broker '{}' at {}",
            summary.broker_instance, summary.broker_endpoint
        ));
        for warning in &summary.warnings {
            output::for_people(&format!("warning: {warning}\n"));
        }
    }
    Ok(())
}

fn wire_definition(args: &ServiceAddArgs) -> Result<ServiceDefinition, Failure> {
    let text = |path: &std::path::Path| {
        let absolute = std::path::absolute(path)
            .map_err(|error| Failure::usage(format!("cannot make {} absolute: {error}", path.display())))?;
        absolute.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::usage(format!("{} is not UTF-8, which a definition cannot hold", path.display()))
        })
    };
    let (isolation, explicit_instance) = match &args.isolation {
        Isolation::Private => (BrokerIsolation::PrivateBroker, String::new()),
        Isolation::Shared => (BrokerIsolation::SharedBroker, String::new()),
        Isolation::Instance(name) => (BrokerIsolation::ExplicitInstance, name.to_string()),
    };
    Ok(ServiceDefinition {
        service_name: args.service.to_string(),
        binary_path: text(&args.binary)?,
        isolation: isolation.into(),
        explicit_instance,
        per_version_binary_dir: args.version_dir.as_deref().map(text).transpose()?.unwrap_or_default(),
        min_version: args.min_version.as_ref().map(ToString::to_string).unwrap_or_default(),
        version_allow_list: args.allow_versions.iter().map(ToString::to_string).collect(),
        labels: args.labels.iter().cloned().collect(),
    })
}

/// A definition as `show` and `list` print it. Keys are stable.
#[derive(Serialize)]
struct Summary {
    service_name: String,
    binary_path: String,
    broker_instance: String,
    broker_endpoint: String,
    per_version_binary_dir: Option<String>,
    min_version: Option<String>,
    version_allow_list: Vec<String>,
    labels: std::collections::BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Summary {
    fn of(definition: &Definition, wire: &ServiceDefinition) -> Self {
        Self {
            service_name: wire.service_name.clone(),
            binary_path: wire.binary_path.clone(),
            broker_instance: definition.instance().to_string(),
            broker_endpoint: output::broker_endpoint_text(definition.instance()),
            per_version_binary_dir: Some(wire.per_version_binary_dir.clone()).filter(|dir| !dir.is_empty()),
            min_version: definition.policy().minimum().map(ToString::to_string),
            version_allow_list: definition.policy().allowed().iter().map(ToString::to_string).collect(),
            labels: wire.labels.clone(),
            warnings: definition.settings().warnings.clone(),
        }
    }
}

/// One definition's standing, as `list` and `validate` print it.
#[derive(Serialize)]
struct Standing {
    service_name: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    warnings: Vec<String>,
}

fn standing(dir: &DefinitionDir, service: &ServiceName) -> Option<Standing> {
    let service_name = service.to_string();
    match dir.load(service.as_str()) {
        Ok(None) => None,
        Ok(Some((definition, _))) => Some(Standing {
            service_name,
            valid: true,
            broker_instance: Some(definition.instance().to_string()),
            rule: None,
            problem: None,
            warnings: definition.settings().warnings.clone(),
        }),
        Err(error) => Some(Standing {
            service_name,
            valid: false,
            broker_instance: None,
            rule: Some(error.rule()),
            problem: Some(error.to_string()),
            warnings: Vec::new(),
        }),
    }
}

fn names(dir: &DefinitionDir) -> Result<Vec<ServiceName>, Failure> {
    match dir.names() {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::refused(format!("cannot list {}: {error}", dir.path().display()))),
    }
}

fn unknown(dir: &DefinitionDir, service: &ServiceName) -> Failure {
    Failure::refused(format!(
        "no definition for '{service}': {} does not exist",
        dir.file(service.as_str()).display()
    ))
    .next("`brokerd service list` shows those that do")
}

fn list(args: &ServiceDirArgs) -> Result<(), Failure> {
    let dir = definition_dir(args.service_dir.as_ref())?;
    let standings: Vec<Standing> = names(&dir)?.iter().filter_map(|name| standing(&dir, name)).collect();
    if args.json {
        output::json_answer("service-list", &json!({ "services": standings }));
    } else if standings.is_empty() {
        output::for_people(&format!(
            "no definitions in {}; `brokerd service add NAME --binary PATH` writes one\n",
            dir.path().display()
        ));
    } else {
        for standing in &standings {
            print_standing(standing);
        }
    }
    Ok(())
}

fn print_standing(standing: &Standing) {
    match (&standing.problem, &standing.broker_instance) {
        (Some(problem), _) => output::line(format_args!("{:24} INVALID  {problem}", standing.service_name)),
        (None, instance) => {
            output::line(format_args!(
                "{:24} ok       broker '{}'",
                standing.service_name,
                instance.as_deref().unwrap_or("?")
            ));
        }
    }
    for warning in &standing.warnings {
        output::line(format_args!("{:24} warning  {warning}", ""));
    }
}

fn validate(service: Option<ServiceName>, args: &ServiceDirArgs) -> Result<(), Failure> {
    let dir = definition_dir(args.service_dir.as_ref())?;
    let standings: Vec<Standing> = match &service {
        Some(service) => vec![standing(&dir, service).ok_or_else(|| unknown(&dir, service))?],
        None => names(&dir)?.iter().filter_map(|name| standing(&dir, name)).collect(),
    };
    if let Err(error) = private_dir::check_private_dir(dir.path())
        && dir.path().exists()
    {
        return Err(Failure::refused(error));
    }
    if args.json {
        output::json_answer("service-validate", &json!({ "services": standings }));
    } else {
        standings.iter().for_each(print_standing);
    }
    match standings.iter().filter(|standing| !standing.valid).count() {
        0 => Ok(()),
        invalid => {
            Err(Failure::refused(format!("{invalid} of {} definitions cannot be used", standings.len()))
                .next("write it anew with `brokerd service add`"))
        }
    }
}

fn show(args: &ServiceNameArgs) -> Result<(), Failure> {
    let dir = definition_dir(args.dir.service_dir.as_ref())?;
    let file = dir.file(args.service.as_str());
    let (definition, _) = dir
        .load(args.service.as_str())
        .map_err(|error| Failure::refused(format!("{}: {error}", file.display())))?
        .ok_or_else(|| unknown(&dir, &args.service))?;
    let bytes = std::fs::read(&file)
        .map_err(|error| Failure::refused(format!("cannot read {}: {error}", file.display())))?;
    let wire = ServiceDefinition::decode(&bytes[..])
        .map_err(|error| Failure::refused(format!("{}: {error}", file.display())))?;
    let summary = Summary::of(&definition, &wire);
    if args.dir.json {
        output::json_answer("service-show", &summary);
        return Ok(());
    }
    output::line(format_args!("service          {}", summary.service_name));
    output::line(format_args!("binary           {}", summary.binary_path));
    output::line(format_args!("broker           {} at {}", summary.broker_instance, summary.broker_endpoint));
    output::line(format_args!(
        "version dir      {}",
        summary.per_version_binary_dir.as_deref().unwrap_or("-")
    ));
    output::line(format_args!("minimum version  {}", summary.min_version.as_deref().unwrap_or("any")));
    let allowed = summary.version_allow_list.join(", ");
    output::line(format_args!("allowed versions {}", if allowed.is_empty() { "all" } else { &allowed }));
    for (key, value) in &summary.labels {
        output::line(format_args!("label            {key}={value}"));
    }
    for warning in &summary.warnings {
        output::line(format_args!("warning          {warning}"));
    }
    Ok(())
}

fn remove(args: &ServiceNameArgs) -> Result<(), Failure> {
    let dir = definition_dir(args.dir.service_dir.as_ref())?;
    let file = dir.file(args.service.as_str());
    match std::fs::remove_file(&file) {
        Ok(()) => {
            if args.dir.json {
                output::json_answer("service-remove", &json!({ "removed": file.display().to_string() }));
            } else {
                output::line(format_args!(
                    "removed {}; a backend that runs goes on until it is stopped",
                    file.display()
                ));
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown(&dir, &args.service)),
        Err(error) => Err(Failure::refused(format!("cannot remove {}: {error}", file.display()))),
    }
}
