//! The log on standard error.

use std::io::IsTerminal;

use broker_transport::service_manager;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, registry};

use super::settings::{Source, Sourced};
use crate::cli::LogFormat;
use crate::config;
use crate::config::keys::LEVEL_VARIABLE;
use crate::failure::Failure;
use crate::journal::Journal;

/// Changes the level of a log that is being written.
#[derive(Clone, Debug)]
pub(super) struct Level(Handle<Targets, Registry>);

impl Level {
    /// Writes at this level from now on. One that is none changes nothing.
    pub(super) fn set(&self, level: &Sourced<String>) {
        if let Ok(levels) = levels(level) {
            // It fails only where nobody logs.
            let _ = self.0.reload(levels);
        }
    }
}

/// Begins to log; `NO_COLOR` takes the colours out. The journal gets priorities in place of what it knows itself.
///
/// # Errors
/// The level holds something else than levels.
pub(super) fn start(format: LogFormat, level: &Sourced<String>) -> Result<Level, Failure> {
    let (levels, handle) = reload::Layer::new(levels(level)?);
    let is_colourful =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(is_colourful);
    // It fails only where somebody logs already.
    let _ = match format {
        LogFormat::Text if service_manager::logs_to_journal() => {
            let layer = fmt::layer().with_writer(Journal).with_ansi(false).without_time();
            registry().with(layer.with_target(false).with_level(false).with_filter(levels)).try_init()
        }
        LogFormat::Json if service_manager::logs_to_journal() => {
            let layer = fmt::layer().with_writer(Journal).with_ansi(false);
            registry().with(layer.json().flatten_event(true).with_filter(levels)).try_init()
        }
        LogFormat::Text => registry().with(layer.with_target(false).with_filter(levels)).try_init(),
        LogFormat::Json => registry().with(layer.json().flatten_event(true).with_filter(levels)).try_init(),
    };
    Ok(Level(handle))
}

/// Plain targets and levels rather than the full filter language: that one brings a regex engine along,
/// which is more code than the rest of the broker.
fn levels(level: &Sourced<String>) -> Result<Targets, Failure> {
    let text = &level.value;
    config::levels(text).map_err(|error| {
        // What the file says was looked at when it was read.
        let name = if let Source::Env(name) = level.source { name } else { LEVEL_VARIABLE };
        Failure::usage(format!("{name}: {error}"))
            .next(format!("set {name} to a level such as debug, or to TARGET=LEVEL,..., or unset it"))
    })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn of(text: &str) -> Result<Targets, Failure> {
        levels(&Sourced::new(text.to_owned(), Source::Env(LEVEL_VARIABLE)))
    }

    #[test]
    fn levels_hold_for_all_or_by_target() {
        let debug = of("debug").unwrap();
        assert!(debug.would_enable("brokerd", &Level::DEBUG));
        let one = of("warn,broker_transport=trace").unwrap();
        assert!(
            one.would_enable("broker_transport", &Level::TRACE) && !one.would_enable("brokerd", &Level::INFO)
        );
    }

    #[test]
    fn what_is_no_level_is_a_usage_error_that_names_it() {
        let failure = of("brokerd=loud").unwrap_err().to_string();
        assert!(failure.contains("RUST_LOG") && failure.contains("brokerd=loud"), "{failure}");
    }
}
