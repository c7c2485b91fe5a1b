//! Log lines of the process on standard error, and the level that `/log_level` shows and sets.

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::Config;

/// The names of levels, as Loki has them.
const LEVELS: [(&str, LevelFilter); 4] = [
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warn", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
];

type Level = reload::Handle<LevelFilter, Registry>;

/// The level of the process. `tracing` has one subscriber per process, so this is one, too.
static LEVEL: OnceLock<Level> = OnceLock::new();

/// Starts writing log lines as `server.log_level` and `server.log_format` say. The first call counts; later ones, and calls after
/// somebody else took over `tracing`, change nothing.
pub fn init(config: &Config) {
    let (level, handle) = reload::Layer::new(level_of(&config.server.log_level).unwrap_or(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines =
        if config.server.log_format == "json" { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    if tracing_subscriber::registry().with(level).with(lines).try_init().is_ok() {
        let _first = LEVEL.set(handle);
    }
}

/// The level in force.
pub(crate) fn level() -> &'static str {
    let now = LEVEL.get().and_then(|handle| handle.with_current(|level| *level).ok());
    let now = now.unwrap_or_else(LevelFilter::current);
    LEVELS.iter().find(|(_, level)| *level == now).map_or("info", |(name, _)| name)
}

/// Sets the level.
///
/// # Errors
/// Loki's text for a level there is not, or that this process writes its lines in another way.
pub(crate) fn set_level(name: &str) -> Result<(), String> {
    let level = level_of(name).ok_or_else(|| format!("unrecognized log level {name:?}"))?;
    let handle = LEVEL.get().ok_or("the log level of this process cannot be changed")?;
    handle.modify(|now| *now = level).map_err(|error| error.to_string())
}

fn level_of(name: &str) -> Option<LevelFilter> {
    LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
}
