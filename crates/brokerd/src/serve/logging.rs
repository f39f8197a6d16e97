//! The log on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::LogFormat;

/// Begins to log; `RUST_LOG` sets the level, `NO_COLOR` takes the colours out.
pub(super) fn start(format: LogFormat) {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let is_colourful =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_colourful);
    // It fails only where somebody logs already.
    let _ = match format {
        LogFormat::Text => logger.with_target(false).try_init(),
        LogFormat::Json => logger.json().flatten_event(true).try_init(),
    };
}
