//! `brokerd`: the daemon and its command line.

#![forbid(unsafe_code)]
// They panic where nobody reads any more; `output` does not.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod admin;
mod admin_commands;
mod backend_arg;
mod cli;
mod config;
mod definitions;
mod demo;
mod diagnose;
mod doctor;
mod failure;
mod hello;
mod journal;
mod manifests;
mod output;
mod redact;
mod serve;
mod service;
mod shell_help;
mod top;
mod units;

use std::path::PathBuf;
use std::process::ExitCode;

use broker_protocol::wire::{AdminRequest, AdminVerb};
use clap::{ArgMatches, FromArgMatches};
use cli::{Cli, Command, ConfigCommand};
use failure::Failure;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli.command, &matches).and_then(|code| output::all_printed().map(|()| code)) {
        Ok(code) => code,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}

/// What the thread does that answers; its allocations are counted where the broker is built for that.
#[cfg(not(feature = "count-allocations"))]
fn counted<T>(run: impl FnOnce() -> T) -> T {
    run()
}

#[cfg(feature = "count-allocations")]
fn counted<T>(run: impl FnOnce() -> T) -> T {
    let mut outcome = None;
    let counted = allocation_counter::measure(|| outcome = Some(run()));
    output::for_people(&format!("allocations: {}\n", counted.count_total));
    let Some(outcome) = outcome else { unreachable!("it has run") };
    outcome
}

fn run(command: Command, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let ask = admin_commands::ask;
    match command {
        Command::Serve(args) => {
            let matches = matches.subcommand_matches("serve").unwrap_or(matches);
            serve::run(args, matches.clone())
        }
        Command::Hello(args) => hello::run(&args),
        Command::Service(command) => service::run(command).map(|()| ExitCode::SUCCESS),
        Command::Manifest(command) => manifests::run(command),
        Command::Demo { json } => demo::run(json),
        Command::DemoBackend => demo::backend(),
        Command::Status(args) => ask("status", AdminVerb::Status, &args),
        Command::Doctor(args) => Ok(doctor::run(args)),
        Command::Dump(args) => ask("dump", AdminVerb::Dump, &args),
        Command::ListInstances(args) => admin_commands::list_instances(&args),
        Command::Healthz(args) => ask("healthz", AdminVerb::Healthz, &args),
        Command::Readyz(args) => ask("readyz", AdminVerb::Readyz, &args),
        Command::BackendHealth { service, admin } => {
            let request = AdminRequest {
                verb: AdminVerb::BackendHealth.into(),
                service_name: service.to_string(),
                ..AdminRequest::default()
            };
            admin_commands::send("backend-health", request, &admin)
        }
        Command::ReleaseHandles { service, path, admin } => {
            let path = path.map(std::path::absolute).transpose().map_err(Failure::usage)?;
            let path = utf8(path.unwrap_or_default())?;
            let request = AdminRequest {
                service_name: service.to_string(),
                release_handles: Some(path),
                ..AdminRequest::default()
            };
            admin_commands::send("release-handles", request, &admin)
        }
        Command::Config(args) => match args.command {
            Some(ConfigCommand::Check(args)) => config::check::run(&args),
            None => ask("config", AdminVerb::Config, &args.admin),
        },
        Command::Diagnose { output, admin } => diagnose::command::run(output, &admin),
        Command::Metrics(args) => ask("metrics", AdminVerb::Metrics, &args),
        Command::InstallUnits(args) => units::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell, json } => {
            shell_help::completions(shell, json);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(args) => shell_help::man(&args).map(|()| ExitCode::SUCCESS),
        Command::Top(args) => top::run(&args),
        Command::Upgrade { binary, admin } => {
            let binary = match binary {
                Some(path) => std::path::absolute(path),
                None => std::env::current_exe(),
            };
            let binary = utf8(binary.map_err(Failure::usage)?)?;
            let request = AdminRequest { upgrade_to: Some(binary), ..AdminRequest::default() };
            admin_commands::send("upgrade", request, &admin)
        }
        Command::Shutdown { drain_ms, admin } => {
            let request = AdminRequest {
                verb: AdminVerb::Shutdown.into(),
                drain_deadline_ms: drain_ms.unwrap_or_default(),
                ..AdminRequest::default()
            };
            admin_commands::send("shutdown", request, &admin)
        }
    }
}

fn utf8(path: PathBuf) -> Result<String, Failure> {
    path.into_os_string().into_string().map_err(|path| {
        Failure::usage(format!("{} is not UTF-8, which the broker's messages are", path.display()))
    })
}
