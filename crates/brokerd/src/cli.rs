//! The command line, as clap reads it. What each command does is in the modules named after them.

use std::path::PathBuf;

use crate::manifests::ManifestCommand;
use crate::top::TopArgs;
use broker_protocol::{BrokerInstance, ServiceName, Version};
use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::backend_arg::BackendArg;
use crate::config::{CONFIG_VARIABLE, keys};

/// The command line in this environment, where an empty variable says nothing: clients take it for unset, too.
pub(crate) fn command() -> clap::Command {
    without_empty_variables(Cli::command())
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let heed = |arg: Arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(Resettable::<clap::builder::OsStr>::Reset),
        Some(_) | None => arg,
    };
    command.mut_args(heed).mut_subcommands(without_empty_variables)
}

/// Finds, starts and checks the right backend for every client, once for all tools.
#[derive(Debug, Parser)]
#[command(name = "brokerd", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 ok, 1 refused or unhealthy, 2 usage, 3 already running.\n\
Try `brokerd demo` first: it shows a whole round in a private directory and leaves nothing behind.\n\
Something does not work? `brokerd doctor` says what, and how to mend it.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a broker in the foreground until SIGTERM, ctrl-c or `brokerd shutdown`
    Serve(ServeArgs),
    /// Say Hello to a broker, as a client would, and print the answer
    Hello(HelloArgs),
    /// Write, show and check service definitions
    #[command(subcommand)]
    Service(ServiceCommand),
    /// List, show, verify and prune the manifests of running backends
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Show a whole round on this machine: start, Hello, refusal, shutdown
    Demo {
        /// Print JSON once it is over
        #[arg(long)]
        json: bool,
    },
    /// The backend of the demo
    #[command(hide = true)]
    DemoBackend,
    /// Who the broker is, and its backends
    Status(AdminArgs),
    /// Look for what keeps brokers, clients and backends from working here, and say how to mend it; changes
    /// nothing, and needs no broker. Exit code 1 when something fails
    Doctor(DoctorArgs),
    /// Everything the broker knows: status, configuration, budgets, recent events (JSON)
    Dump(AdminArgs),
    /// Every broker of this user, found on disk and asked (JSON)
    ListInstances(AdminArgs),
    /// Whether the broker is alive
    Healthz(AdminArgs),
    /// Whether the broker accepts Hellos; exit code 1 when it does not
    Readyz(AdminArgs),
    /// The backends of one service (JSON)
    BackendHealth {
        /// The service
        service: ServiceName,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Have the backends of a service close the files that they hold open, so that these can be replaced
    ReleaseHandles {
        /// The service
        service: ServiceName,
        /// Only what lies below this path
        #[arg(long, value_name = "PATH")]
        path: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// The effective configuration, and where each value comes from (JSON); or check a file
    Config(ConfigArgs),
    /// Write an archive with all of this and a report, secrets left out, to be looked at elsewhere
    Diagnose {
        /// The archive; nothing is overwritten [default: a name with the time in it, here]
        #[arg(long, value_name = "PATH")]
        output: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// OpenMetrics text
    Metrics(AdminArgs),
    /// Watch a broker in the terminal: rates, latencies, backends, refusals, events
    Top(TopArgs),
    /// Have the broker go on as another program, without losing a connection or a backend
    Upgrade {
        /// The program [default: this one]
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Have systemd (on macOS launchd) run a broker for this user: write its units, and say how to start them
    InstallUnits(InstallUnitsArgs),
    /// Print what a shell needs to complete this command line
    Completions {
        /// The shell
        shell: clap_complete::Shell,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the manual page, or write the pages of all commands
    Man(ManArgs),
    /// Drain the broker and end it
    Shutdown {
        /// How long the drain may take, in milliseconds [default: the broker's own]
        #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
        drain_ms: Option<u64>,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ConfigCommand>,
    /// What holds in the broker that runs, and where each value comes from; what is shown without this, too
    #[arg(long)]
    pub(crate) effective: bool,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file; exit code 1 when it would not be taken, 2 when it cannot be read
    Check(ConfigCheckArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    /// The file [default: the one that `serve` reads where it is not told another]
    #[arg(env = CONFIG_VARIABLE)]
    pub(crate) file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which broker is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct AdminArgs {
    /// The broker: shared, svc:NAME or inst:NAME
    #[arg(long, default_value = "shared", value_name = "INSTANCE")]
    pub(crate) instance: BrokerInstance,
    /// Its socket, where it does not listen at the instance's usual place
    #[arg(long, value_name = "PATH", conflicts_with = "instance")]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl AdminArgs {
    /// The options that name the same broker to another command.
    pub(crate) fn broker(&self) -> String {
        match &self.socket {
            Some(socket) => format!("--socket {}", socket.display()),
            None => format!("--instance {}", self.instance),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The broker: shared, svc:NAME or inst:NAME
    #[arg(long, default_value = "shared", value_name = "INSTANCE")]
    pub(crate) instance: BrokerInstance,
    /// Its socket, where it does not listen at the instance's usual place
    #[arg(long, value_name = "PATH", conflicts_with = "instance")]
    pub(crate) socket: Option<PathBuf>,
    /// Where the service definitions are, if not where the environment says
    #[arg(long, value_name = "DIR")]
    pub(crate) service_dir: Option<PathBuf>,
    /// Where the lifecycle events go, if not where the environment says
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InstallUnitsArgs {
    /// Which broker to run: shared, svc:NAME or inst:NAME
    #[arg(long, default_value = "shared", value_name = "INSTANCE")]
    pub(crate) instance: BrokerInstance,
    /// Have systemd listen, and start the broker when the first client comes
    #[arg(long)]
    pub(crate) socket_activation: bool,
    /// Leave the backends running when the broker is stopped or started anew
    #[arg(long)]
    pub(crate) keep_backends: bool,
    /// Serve with `--sandbox`
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// Print the files, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace files that say something else
    #[arg(long)]
    pub(crate) force: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ManArgs {
    /// Write one page for each command into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HelloArgs {
    /// The service to ask for
    pub(crate) service: ServiceName,
    /// The version to ask for
    pub(crate) version: Version,
    /// The broker's socket [default: that of the broker which the service's definition names]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print the whole answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl LogFormat {
    /// As it is written.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file, in which every option below can be set too; options and variables
    /// outweigh it [default: brokerd.toml beside the directory of service definitions, if it is there]
    #[arg(long, value_name = "FILE", env = CONFIG_VARIABLE)]
    pub(crate) config: Option<PathBuf>,
    /// Which broker to be: shared, svc:NAME or inst:NAME
    #[arg(long, default_value = "shared", value_name = "INSTANCE")]
    pub(crate) instance: BrokerInstance,
    /// Listen here instead of at the instance's usual place, and serve every trust domain
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Where the service definitions are
    #[arg(long, value_name = "DIR", env = keys::SERVICE_DIR.env())]
    pub(crate) service_dir: Option<PathBuf>,
    /// Where the lifecycle events go
    #[arg(long, value_name = "DIR", env = keys::STATE_DIR.env())]
    pub(crate) state_dir: Option<PathBuf>,
    /// A backend that runs already; may be given more than once
    #[arg(long = "backend", value_name = "service=S,version=V,endpoint=P[,handoff=P]")]
    pub(crate) backends: Vec<BackendArg>,
    /// Log format on standard error; RUST_LOG sets the level
    #[arg(
        long,
        value_enum,
        default_value = keys::LOG_FORMAT.default,
        value_name = "FORMAT",
        env = keys::LOG_FORMAT.key.env()
    )]
    pub(crate) log: LogFormat,
    /// Leave the backends running when the broker ends, however it ends
    #[arg(
        long,
        value_name = "true|false",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        hide_default_value = true,
        env = keys::KEEP_BACKENDS.env()
    )]
    pub(crate) keep_backends: bool,
    /// Give up what a broker does not need: writing elsewhere than to its own directories, executing
    /// programs, network sockets and more. Linux only; backends are not affected
    #[arg(
        long,
        value_name = "true|false",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        hide_default_value = true,
        env = keys::SANDBOX.env()
    )]
    pub(crate) sandbox: bool,
    /// Print as JSON where it listens, once it does; the log has `--log json`
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Say whether this program would take over what a broker hands over in this form, and end
    #[arg(long, hide = true, value_name = "FORM")]
    pub(crate) takeover_trial: Option<u32>,
    /// Take over from the broker that this process was before; added by `brokerd upgrade`
    #[arg(long, hide = true, value_name = "NUMBER")]
    pub(crate) takeover: Option<i32>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// How long a connection may take to send its first frame, in milliseconds
    #[arg(
        long,
        value_name = "MS",
        default_value_t = keys::HELLO_TIMEOUT_MS.default(),
        env = keys::HELLO_TIMEOUT_MS.key.env(),
        value_parser = keys::HELLO_TIMEOUT_MS.parser::<u64>()
    )]
    pub(crate) hello_timeout_ms: u64,
    /// Open connections; one peer gets at most half of them
    #[arg(
        long,
        value_name = "N",
        default_value_t = keys::MAX_CONNECTIONS_OPEN.default(),
        env = keys::MAX_CONNECTIONS_OPEN.key.env(),
        value_parser = keys::MAX_CONNECTIONS_OPEN.parser::<u32>()
    )]
    pub(crate) max_connections: u32,
    /// Hellos that a peer may send at once
    #[arg(
        long,
        value_name = "N",
        default_value_t = keys::HELLO_BURST.default(),
        env = keys::HELLO_BURST.key.env(),
        value_parser = keys::HELLO_BURST.parser::<u32>()
    )]
    pub(crate) hello_burst: u32,
    /// Hellos per second that a peer may send in the long run
    #[arg(
        long,
        value_name = "N",
        default_value_t = keys::HELLO_REFILL.default(),
        env = keys::HELLO_REFILL.key.env(),
        value_parser = keys::HELLO_REFILL.parser::<u32>()
    )]
    pub(crate) hello_refill: u32,
    /// How long a drain may take, in milliseconds
    #[arg(
        long,
        value_name = "MS",
        default_value_t = keys::DRAIN_MS.default(),
        env = keys::DRAIN_MS.key.env(),
        value_parser = keys::DRAIN_MS.parser::<u64>()
    )]
    pub(crate) drain_ms: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Write a definition; replaces one that is there
    Add(ServiceAddArgs),
    /// List the services that are defined
    List(ServiceDirArgs),
    /// Print one definition
    Show(ServiceNameArgs),
    /// Check one definition, or all of them, by every rule; exit code 1 when one breaks a rule
    Validate {
        /// The service [default: all]
        service: Option<ServiceName>,
        #[command(flatten)]
        dir: ServiceDirArgs,
    },
    /// Delete a definition
    Remove(ServiceNameArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceDirArgs {
    /// Where the service definitions are
    #[arg(long, value_name = "DIR", env = "RUNNING_PROCESS_SERVICE_DEF_DIR")]
    pub(crate) service_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceNameArgs {
    /// The service
    pub(crate) service: ServiceName,
    #[command(flatten)]
    pub(crate) dir: ServiceDirArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceAddArgs {
    /// The service
    pub(crate) service: ServiceName,
    /// The backend's executable
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: PathBuf,
    /// Which broker serves it: private, shared or instance:NAME
    #[arg(long, value_name = "ISOLATION", default_value = "private")]
    pub(crate) isolation: Isolation,
    /// Directory of side-by-side versions: DIR/VERSION/NAME-OF-THE-BINARY is preferred where it exists
    #[arg(long, value_name = "DIR")]
    pub(crate) version_dir: Option<PathBuf>,
    /// Lowest version that may be asked for
    #[arg(long, value_name = "VERSION")]
    pub(crate) min_version: Option<Version>,
    /// A version that may be asked for; may be given more than once; none means all
    #[arg(long = "allow-version", value_name = "VERSION")]
    pub(crate) allow_versions: Vec<Version>,
    /// A setting, such as idle.timeout_secs=600; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) dir: ServiceDirArgs,
}

/// `--isolation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    Private,
    Shared,
    Instance(broker_protocol::InstanceName),
}

impl std::str::FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("instance:")) {
            ("private", _) => Ok(Self::Private),
            ("shared", _) => Ok(Self::Shared),
            (_, Some(name)) => {
                name.parse().map(Self::Instance).map_err(|error| format!("instance name: {error}"))
            }
            (_, None) => Err("expected private, shared or instance:NAME".to_owned()),
        }
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn isolation_has_three_forms() {
        assert_eq!("private".parse(), Ok(Isolation::Private));
        assert_eq!("shared".parse(), Ok(Isolation::Shared));
        assert!(matches!("instance:ci".parse(), Ok(Isolation::Instance(_))));
        assert!("instance:".parse::<Isolation>().is_err());
        assert!("explicit".parse::<Isolation>().is_err());
    }
}
