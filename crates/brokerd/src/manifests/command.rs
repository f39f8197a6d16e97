//! `brokerd manifest`: listing, showing, verifying and pruning manifests.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use broker_protocol::wire::CacheManifest;
use broker_protocol::{ServiceName, Version};
use broker_transport::endpoint;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Found, ManifestDir, ManifestError, State, is_a_broker_s_alone, read};
use crate::failure::{EXIT_REFUSED, Failure};
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// List the manifests, and what has become of their processes
    List(ManifestArgs),
    /// Print one manifest
    Show {
        /// The service
        service: ServiceName,
        /// Its version
        version: Version,
        #[command(flatten)]
        args: ManifestArgs,
    },
    /// Check the seals of all manifests, or of the files that are named; exit code 1 when one is damaged
    Verify {
        /// Files [default: all of the directory]
        files: Vec<PathBuf>,
        #[command(flatten)]
        args: ManifestArgs,
    },
    /// Remove what a broker has written of processes that have ended. What is damaged, of another boot, or says
    /// more than that stays
    Prune {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        args: ManifestArgs,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ManifestArgs {
    /// Where the manifests are
    #[arg(long, value_name = "DIR")]
    manifest_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ManifestArgs {
    fn dir(&self) -> Result<ManifestDir, Failure> {
        let path = match &self.manifest_dir {
            Some(path) => std::path::absolute(path)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
            None => endpoint::manifest_dir().map_err(|error| {
                Failure::usage(error).next("pass --manifest-dir DIR, or set that variable")
            })?,
        };
        Ok(ManifestDir::new(path))
    }
}

/// Runs a `manifest` command.
pub(crate) fn run(command: ManifestCommand) -> Result<ExitCode, Failure> {
    match command {
        ManifestCommand::List(args) => list(&args),
        ManifestCommand::Show { service, version, args } => show(&service, &version, &args),
        ManifestCommand::Verify { files, args } => verify(&files, &args),
        ManifestCommand::Prune { dry_run, args } => prune(dry_run, &args),
    }
}

/// Every command's JSON.
fn print(command: &'static str, dir: &ManifestDir, rows: Value) {
    output::json_answer(
        command,
        &json!({ "directory": dir.path().display().to_string(), "manifests": rows }),
    );
}

fn all(dir: &ManifestDir) -> Result<Vec<Found>, Failure> {
    let (found, left_out) = dir.all().map_err(|error| {
        Failure::refused(format!("cannot read {}: {error}", dir.path().display()))
            .next("see to its rights, or pass another directory with --manifest-dir DIR")
    })?;
    if left_out > 0 {
        output::for_people(&format!("warning: {left_out} more manifests were left out\n"));
    }
    Ok(found)
}

#[derive(Serialize)]
struct Row {
    file: String,
    service_name: Option<String>,
    service_version: Option<String>,
    broker_instance: Option<String>,
    pid: Option<u32>,
    endpoint: Option<String>,
    state: Option<State>,
    error: Option<String>,
}

impl Row {
    fn of(found: &Found) -> Self {
        let manifest = found.content.as_ref().ok();
        let daemon = manifest.and_then(|manifest| manifest.current_daemon.as_ref());
        Self {
            file: found.path.display().to_string(),
            service_name: manifest.map(|manifest| manifest.service_name.clone()),
            service_version: manifest.map(|manifest| manifest.service_version.clone()),
            broker_instance: manifest.map(|manifest| manifest.broker_instance.clone()),
            pid: daemon.map(|daemon| daemon.pid),
            endpoint: daemon.and_then(|daemon| Some(daemon.ipc_endpoint.as_ref()?.path.clone())),
            state: manifest.map(State::of),
            error: found.content.as_ref().err().map(ToString::to_string),
        }
    }

    fn to_text(&self) -> String {
        if let Some(error) = &self.error {
            return format!("damaged: {error}");
        }
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let pid = self.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let state = self.state.map_or("", State::text);
        format!("{:24} {:16} {:>8}  {state}", text(&self.service_name), text(&self.service_version), pid)
    }
}

fn list(args: &ManifestArgs) -> Result<ExitCode, Failure> {
    let dir = args.dir()?;
    let rows: Vec<_> = all(&dir)?.iter().map(Row::of).collect();
    if args.json {
        print("manifest-list", &dir, json!(rows));
    } else if rows.is_empty() {
        output::line(format_args!("no manifests in {}", dir.path().display()));
    } else {
        output::line(format_args!("{:24} {:16} {:>8}  STATE", "SERVICE", "VERSION", "PID"));
        rows.iter().for_each(|row| output::line(format_args!("{}", row.to_text())));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(service: &ServiceName, version: &Version, args: &ManifestArgs) -> Result<ExitCode, Failure> {
    let dir = args.dir()?;
    let path = dir.file(service.as_str(), &version.to_string());
    let manifest = dir.read(&path).map_err(|error| match &error {
        ManifestError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::refused(format!(
                "there is no manifest of {service} {version} in {}",
                dir.path().display()
            ))
            .next("`brokerd manifest list` tells which there are")
        }
        _ => Failure::refused(error),
    })?;
    let shown = shown(&path, &manifest);
    if args.json {
        print("manifest-show", &dir, json!([shown]));
    } else {
        text(&shown, 0);
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(path: &Path, manifest: &CacheManifest) -> Value {
    let daemon = manifest.current_daemon.as_ref().map(|daemon| {
        json!({
            "pid": daemon.pid,
            "exe_path": daemon.exe_path,
            "endpoint": daemon.ipc_endpoint.as_ref().map(|endpoint| &endpoint.path),
            "started_at_unix_ms": daemon.started_at_unix_ms,
            "boot_id": daemon.boot_id,
            "idle_timeout_secs": daemon.idle_timeout_secs,
            "exe_hash_algorithm": daemon.exe_hash_algorithm,
            "exe_hash": hex(&daemon.exe_hash),
        })
    });
    let roots = manifest.roots.iter().map(|root| {
        json!({
            "path": root.path,
            "kind": root.kind().as_str_name(),
            "disposition": root.disposition().as_str_name(),
            "estimated_size_bytes": root.estimated_size_bytes,
        })
    });
    json!({
        "file": path.display().to_string(),
        "service_name": manifest.service_name,
        "service_version": manifest.service_version,
        "broker_instance": manifest.broker_instance,
        "broker_endpoint": manifest.observability.as_ref().map(|known| &known.health_check_endpoint),
        "created_at_unix_ms": manifest.created_at_unix_ms,
        "last_active_unix_ms": manifest.last_active_unix_ms,
        "state": State::of(manifest),
        "process": daemon,
        "roots": roots.collect::<Value>(),
        "provides": manifest.provides,
        "bundle_id": manifest.bundle_id,
        "sha256": hex(&manifest.self_sha256),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Prints what JSON holds as indented lines.
fn text(value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    for (name, field) in fields {
        let indent = "  ".repeat(depth);
        match field {
            Value::Object(_) => {
                output::line(format_args!("{indent}{name}"));
                text(field, depth + 1);
            }
            Value::Array(all) => {
                for one in all {
                    match one {
                        Value::Object(_) => {
                            output::line(format_args!("{indent}{name}"));
                            text(one, depth + 1);
                        }
                        other => output::line(format_args!("{indent}{name:22} {}", plain(other))),
                    }
                }
            }
            other => output::line(format_args!("{indent}{name:22} {}", plain(other))),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn verify(files: &[PathBuf], args: &ManifestArgs) -> Result<ExitCode, Failure> {
    let dir = args.dir()?;
    let found = if files.is_empty() {
        all(&dir)?
    } else {
        files.iter().map(|path| Found { content: read(path), path: path.clone() }).collect()
    };
    let damaged = found.iter().filter(|found| found.content.is_err()).count();
    if args.json {
        print("manifest-verify", &dir, json!(found.iter().map(Row::of).collect::<Vec<_>>()));
    } else {
        for Found { path, content } in &found {
            match content {
                Ok(_) => output::line(format_args!("ok       {}", path.display())),
                Err(error) => output::line(format_args!("damaged  {error}")),
            }
        }
        if found.is_empty() {
            output::line(format_args!("no manifests in {}", dir.path().display()));
        }
    }
    Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) })
}

/// What is to become of a manifest, and why.
fn fate(found: &Found) -> (bool, String) {
    match &found.content {
        Err(error) => (false, error.to_string()),
        Ok(manifest) => match State::of(manifest) {
            State::Ended if is_a_broker_s_alone(manifest) => (true, "its process has ended".to_owned()),
            State::Ended => (false, "it says more than which process runs".to_owned()),
            state @ (State::NoProcess | State::MayRun | State::OtherBoot) => (false, state.text().to_owned()),
        },
    }
}

fn prune(is_dry: bool, args: &ManifestArgs) -> Result<ExitCode, Failure> {
    let dir = args.dir()?;
    let mut rows = Vec::new();
    let mut failed = false;
    for found in all(&dir)? {
        let (is_to_go, why) = fate(&found);
        let removed = is_to_go && !is_dry;
        let outcome = if removed { std::fs::remove_file(&found.path) } else { Ok(()) };
        let error = outcome.err().map(|error| error.to_string());
        failed |= error.is_some();
        let file = found.path.display().to_string();
        if !args.json {
            match (&error, is_to_go, is_dry) {
                (Some(error), ..) => output::for_people(&format!("error: cannot remove {file}: {error}\n")),
                (None, true, true) => output::line(format_args!("would remove  {file}: {why}")),
                (None, true, false) => output::line(format_args!("removed       {file}: {why}")),
                (None, false, _) => output::line(format_args!("left alone    {file}: {why}")),
            }
        }
        rows.push(json!({
            "file": file, "to_be_removed": is_to_go, "removed": removed && error.is_none(), "reason": why,
            "error": error,
        }));
    }
    if args.json {
        print("manifest-prune", &dir, json!(rows));
    } else if rows.is_empty() {
        output::line(format_args!("no manifests in {}", dir.path().display()));
    }
    Ok(if failed { ExitCode::from(EXIT_REFUSED) } else { ExitCode::SUCCESS })
}
