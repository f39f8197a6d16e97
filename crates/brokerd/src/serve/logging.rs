//! The log on standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::cli::LogFormat;
use crate::failure::Failure;

/// Sets the level, for all or by target: `debug`, `brokerd=debug,broker_transport=trace`.
const LEVEL: &str = "RUST_LOG";

/// Begins to log; `NO_COLOR` takes the colours out.
///
/// # Errors
/// `RUST_LOG` holds something else than levels.
pub(super) fn start(format: LogFormat) -> Result<(), Failure> {
    let levels = levels(std::env::var(LEVEL).ok().as_deref())?;
    let is_colourful =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(is_colourful);
    // It fails only where somebody logs already.
    let _ = match format {
        LogFormat::Text => registry().with(layer.with_target(false).with_filter(levels)).try_init(),
        LogFormat::Json => registry().with(layer.json().flatten_event(true).with_filter(levels)).try_init(),
    };
    Ok(())
}

/// Plain targets and levels rather than the full filter language: that one brings a regex engine along,
/// which is more code than the rest of the broker.
fn levels(text: Option<&str>) -> Result<Targets, Failure> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(Targets::new().with_default(LevelFilter::INFO)),
        Some(text) => text.parse().map_err(|error| {
            Failure::usage(format!("{LEVEL} {text:?}: {error}"))
                .next(format!("set {LEVEL} to a level such as debug, or to TARGET=LEVEL,..., or unset it"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_level_is_info_unless_the_variable_says_otherwise() {
        for unset in [None, Some("")] {
            let levels = levels(unset).unwrap();
            assert!(
                levels.would_enable("brokerd", &Level::INFO)
                    && !levels.would_enable("brokerd", &Level::DEBUG)
            );
        }
        let debug = levels(Some("debug")).unwrap();
        assert!(debug.would_enable("brokerd", &Level::DEBUG));
        let one = levels(Some("warn,broker_transport=trace")).unwrap();
        assert!(
            one.would_enable("broker_transport", &Level::TRACE) && !one.would_enable("brokerd", &Level::INFO)
        );
    }

    #[test]
    fn what_is_no_level_is_a_usage_error_that_names_it() {
        let failure = levels(Some("brokerd=loud")).unwrap_err().to_string();
        assert!(failure.contains("RUST_LOG") && failure.contains("brokerd=loud"), "{failure}");
    }
}
