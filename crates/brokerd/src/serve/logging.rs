//! The log on standard error.

use std::io::IsTerminal;

use broker_transport::service_manager;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, registry};

use crate::cli::LogFormat;
use crate::config;
use crate::journal::Journal;

/// Changes the level of a log that is being written.
#[derive(Clone, Debug)]
pub(super) struct Level(Handle<Targets, Registry>);

impl Level {
    /// Writes at this level from now on.
    pub(super) fn set(&self, level: &str) {
        // It fails only where nobody logs.
        let _ = self.0.reload(levels(level));
    }
}

/// Begins to log; `NO_COLOR` takes the colours out. The journal gets priorities in place of what it knows itself.
pub(super) fn start(format: LogFormat, level: &str) -> Level {
    let (levels, handle) = reload::Layer::new(levels(level));
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
    Level(handle)
}

/// Plain targets and levels rather than the full filter language: that one brings a regex engine along,
/// which is more code than the rest of the broker.
///
/// A level was looked at where it was read; it is no reason not to begin.
fn levels(level: &str) -> Targets {
    config::levels(level).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_hold_for_all_or_by_target() {
        let debug = levels("debug");
        assert!(debug.would_enable("brokerd", &Level::DEBUG));
        let one = levels("warn,broker_transport=trace");
        assert!(
            one.would_enable("broker_transport", &Level::TRACE) && !one.would_enable("brokerd", &Level::INFO)
        );
    }

    #[test]
    fn what_is_no_level_is_no_reason_not_to_log() {
        let info = levels("brokerd=loud");
        assert!(info.would_enable("brokerd", &Level::INFO) && !info.would_enable("brokerd", &Level::DEBUG));
    }
}
