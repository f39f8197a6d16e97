//! From the command line, the environment and the configuration file to settings, in this order of weight.
//!
//! What was started with stays as it was, so the file can be read again at any time. Invariant: a value comes from
//! the first of them that has one, and says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker_transport::endpoint;
use clap::ValueEnum;
use clap::parser::ValueSource;

use super::settings::{Settings, Source, Sourced};
use crate::backend_arg::BackendArg;
use crate::cli::{LogFormat, ServeArgs};
use crate::config::keys::{self, Key, Number};
use crate::config::{CONFIG_VARIABLE, File, Location, NotRead, Values, levels_for_us};
use crate::failure::Failure;

/// The level of the log where nobody sets one.
const DEFAULT_LEVEL: &str = "info";

/// What a broker was started with.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    args: ServeArgs,
    matches: clap::ArgMatches,
    /// `RUST_LOG`, where it holds something.
    level: Option<String>,
    not_levels: Vec<String>,
    location: Location,
}

/// Why there are no settings.
#[derive(Debug)]
pub(super) enum Unresolved {
    File(NotRead),
    Other(Failure),
}

impl From<Failure> for Unresolved {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<Unresolved> for Failure {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::File(not_read) => not_read.into_failure(),
            Unresolved::Other(failure) => failure,
        }
    }
}

impl Unresolved {
    /// What is wrong, each on a line of its own.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::File(not_read) => not_read.lines(),
            Self::Other(failure) => vec![failure.to_string()],
        }
    }
}

impl Resolver {
    /// With these arguments, and the environment as it is now.
    ///
    /// # Errors
    /// The path of the configuration file cannot be told.
    pub(super) fn new(args: ServeArgs, matches: clap::ArgMatches) -> Result<Self, Failure> {
        let location = Location::new(args.config.as_deref())?;
        let variable = std::env::var(keys::LEVEL_VARIABLE).unwrap_or_default();
        let (level, others) = levels_for_us(&variable);
        let not_levels = others.into_iter().map(str::to_owned).collect();
        let level = Some(level).filter(|text| !text.is_empty());
        Ok(Self { args, matches, level, not_levels, location })
    }

    /// What `RUST_LOG` holds that is no level: it may be another program's.
    pub(super) fn not_levels(&self) -> &[String] {
        &self.not_levels
    }

    /// Reads the file, and works out everything.
    ///
    /// # Errors
    /// What is wrong with the file, or a place that cannot be derived from the environment.
    pub(super) fn resolve(&self) -> Result<Settings, Unresolved> {
        let file = self.location.read().map_err(Unresolved::File)?;
        Ok(self.resolve_with(&file)?)
    }

    /// The same with what the file said before; `None` where there was none.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub(super) fn resolve_as_before(&self, text: Option<&str>) -> Result<Settings, Unresolved> {
        let file = match text {
            Some(text) => self.location.file_of(text.into()).map_err(Unresolved::File)?,
            None => File::default(),
        };
        Ok(self.resolve_with(&file)?)
    }

    fn resolve_with(&self, file: &File) -> Result<Settings, Failure> {
        let args = &self.args;
        let layers = Layers { matches: &self.matches, values: &file.values, path: file.path.as_ref() };
        let instance = match file.values.text(&keys::INSTANCE) {
            Some(text) => Some(text.parse().map_err(Failure::usage)?),
            None => None,
        };
        let instance = layers.pick(&keys::INSTANCE, args.instance.clone(), instance);
        let chosen = layers.path(&keys::SOCKET, args.socket.as_ref());
        let serves_every_domain = chosen.is_some();
        let socket = match chosen {
            Some(Sourced { value, source }) => {
                let path = endpoint::absolute(&value).map_err(|error| not_absolute(&value, &error))?;
                Sourced::new(path, source)
            }
            None => Sourced::new(
                endpoint::broker_endpoint(&instance.value).map_err(Failure::usage)?,
                Source::Default,
            ),
        };
        let service_dir = match layers.path(&keys::SERVICE_DIR, args.service_dir.as_ref()) {
            Some(chosen) => absolute(chosen)?,
            None => absolute(Sourced::new(
                crate::service::definition_dir(None)?.path().to_path_buf(),
                Source::Default,
            ))?,
        };
        let state_dir = match layers.path(&keys::STATE_DIR, args.state_dir.as_ref()) {
            Some(chosen) => absolute(chosen)?,
            None => {
                let derived = endpoint::state_dir().map_err(|error| {
                    Failure::usage(error).next("pass --state-dir DIR, or set that variable")
                })?;
                Sourced::new(derived, Source::Default)
            }
        };
        let log = file.values.text(&keys::LOG_FORMAT.key);
        let log = log.and_then(|word| LogFormat::from_str(word, false).ok());
        let millis = |number: &Number, given: u64| layers.number(number, given).map(Duration::from_millis);
        Ok(Settings {
            config_file: self.config_file(file),
            config_text: file.path.is_some().then(|| Arc::clone(&file.text)),
            instance,
            socket,
            service_dir,
            state_dir,
            manifest_dir: Sourced::new(endpoint::manifest_dir().map_err(Failure::usage)?, Source::Default),
            log: layers.pick(&keys::LOG_FORMAT.key, args.log, log),
            log_level: self.log_level(&layers),
            keep_backends: layers.switch(&keys::KEEP_BACKENDS, args.keep_backends),
            sandbox: layers.switch(&keys::SANDBOX, args.sandbox),
            hello_timeout: millis(&keys::HELLO_TIMEOUT_MS, args.limits.hello_timeout_ms),
            max_connections: layers.number(&keys::MAX_CONNECTIONS_OPEN, args.limits.max_connections),
            hello_burst: layers.number(&keys::HELLO_BURST, args.limits.hello_burst),
            hello_refill: layers.number(&keys::HELLO_REFILL, args.limits.hello_refill),
            drain: millis(&keys::DRAIN_MS, args.limits.drain_ms),
            backends: self.backends(&layers),
            serves_every_domain,
        })
    }

    fn config_file(&self, file: &File) -> Sourced<Option<PathBuf>> {
        let source = match self.matches.value_source("config") {
            Some(ValueSource::CommandLine) => Source::Flag("--config"),
            Some(ValueSource::EnvVariable) => Source::Env(CONFIG_VARIABLE),
            _ => Source::Default,
        };
        Sourced::new(file.path.as_deref().map(Path::to_path_buf), source)
    }

    fn log_level(&self, layers: &Layers<'_>) -> Sourced<String> {
        match (&self.level, layers.values.text(&keys::LOG_LEVEL)) {
            (Some(level), _) => Sourced::new(level.clone(), Source::Env(keys::LEVEL_VARIABLE)),
            (None, Some(level)) => Sourced::new(level.to_owned(), layers.file()),
            (None, None) => Sourced::new(DEFAULT_LEVEL.to_owned(), Source::Default),
        }
    }

    /// Those of both, where the command line outweighs the file about the same service and version.
    fn backends(&self, layers: &Layers<'_>) -> Vec<Sourced<BackendArg>> {
        let given = &self.args.backends;
        let is_free = |named: &&BackendArg| !given.iter().any(|given| given.is_of_the_same(named));
        let in_file = layers.values.backends.iter().filter(is_free);
        let given = given.iter().map(|given| Sourced::new(given.clone(), Source::Flag("--backend")));
        given.chain(in_file.map(|named| Sourced::new(named.clone(), layers.file()))).collect()
    }
}

/// Everything that can say something about a value.
struct Layers<'a> {
    matches: &'a clap::ArgMatches,
    values: &'a Values,
    path: Option<&'a Arc<Path>>,
}

impl Layers<'_> {
    /// Who has said something that outweighs the file.
    fn outweighs(&self, key: &Key) -> Option<Source> {
        match self.matches.value_source(&key.id()?) {
            Some(ValueSource::CommandLine) => key.flag.map(Source::Flag),
            Some(ValueSource::EnvVariable) => key.variable.map(Source::Env),
            _ => None,
        }
    }

    fn file(&self) -> Source {
        self.path.map_or(Source::Default, |path| Source::File(Arc::clone(path)))
    }

    /// `given` is what the command line makes of flag, variable and default.
    fn pick<T>(&self, key: &Key, given: T, in_file: Option<T>) -> Sourced<T> {
        match (self.outweighs(key), in_file) {
            (Some(source), _) => Sourced::new(given, source),
            (None, Some(value)) => Sourced::new(value, self.file()),
            (None, None) => Sourced::new(given, Source::Default),
        }
    }

    fn switch(&self, key: &Key, given: bool) -> Sourced<bool> {
        self.pick(key, given, self.values.switch(key))
    }

    fn number<T: TryFrom<u64>>(&self, number: &Number, given: T) -> Sourced<T> {
        let in_file = self.values.number(number).and_then(|value| T::try_from(value).ok());
        self.pick(&number.key, given, in_file)
    }

    fn path(&self, key: &Key, given: Option<&PathBuf>) -> Option<Sourced<PathBuf>> {
        let in_file = self.values.text(key).map(PathBuf::from);
        match (self.outweighs(key), in_file) {
            (Some(source), _) => given.map(|path| Sourced::new(path.clone(), source)),
            (None, in_file) => in_file.map(|path| Sourced::new(path, self.file())),
        }
    }
}

fn absolute(path: Sourced<PathBuf>) -> Result<Sourced<PathBuf>, Failure> {
    let absolute = std::path::absolute(&path.value).map_err(|error| not_absolute(&path.value, &error))?;
    Ok(Sourced::new(absolute, path.source))
}

fn not_absolute(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
}
