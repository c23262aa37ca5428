//! Logs: text for a person at a terminal, JSON for everybody else, and never a secret.
//!
//! Other crates print what they can't read: kube logs the whole text of an answer that does not decode, which may be a Secret. So their level has a
//! ceiling that no flag can lift. Our own modules are free, because they print nothing they were not asked to.

use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::Program;
use crate::metrics::Metrics;

/// This crate, whose own modules may log at any level, as the program's may.
const ENGINE: &str = "operator_engine";

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise
    Auto,
    /// Lines for a person
    Text,
    /// One JSON object per line
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LogSettings {
    /// How log lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace; or a list such as info,operator_engine::apply=debug.
    /// Libraries stay at warn, because some print whole answers of the API server
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", default_value = "info", value_parser = directives)]
    pub log_level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { log_format: LogFormat::Auto, log_level: "info".to_owned() }
    }
}

/// A word alone would be taken for a target, so a mistyped level would silence everything.
fn parse(text: &str) -> Option<Targets> {
    // An empty RUST_LOG is one that was meant to be unset.
    let text = if text.is_empty() { "info" } else { text };
    let level_or_pair = |part: &str| part.contains('=') || LevelFilter::from_str(part).is_ok();
    text.split(',').all(level_or_pair).then(|| Targets::from_str(text).ok()).flatten()
}

fn directives(text: &str) -> Result<String, String> {
    match parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write error, warn, info, debug or trace, or a list such as info,target=debug".to_owned()),
    }
}

/// Logs can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level can't be read.
    #[error("log level {0:?}: write a level such as debug, or target=level,…")]
    Level(String),
    /// Somebody else set up logs before.
    #[error("logs are already set up")]
    Twice,
}

/// The most that each crate may say, whatever the user asks for.
///
/// | target | ceiling | why |
/// |---|---|---|
/// | our own | – | nothing is logged that was not chosen |
/// | `kube_client` | error | warn prints whole answers that don't decode, debug and trace print headers and statuses |
/// | `kube_client::client::builder` | off | one line for each request that failed, without saying which; our own lines say it, and once |
/// | `kube_runtime` | error | warn prints refusals by `Debug`, with whatever a proxy or a webhook put into them, once for each try; our own lines say it |
/// | others | warn | they may learn to |
fn ceiling(program: &Program) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("kube_client", LevelFilter::ERROR)
        .with_target("kube_client::client::builder", LevelFilter::OFF)
        .with_target("kube_runtime", LevelFilter::ERROR)
        .with_target(ENGINE, LevelFilter::TRACE)
        .with_target(program.target, LevelFilter::TRACE)
}

/// Sets up logs for the process, on standard error.
///
/// # Errors
/// The level can't be read, or logs were already set up.
pub fn init(settings: &LogSettings, program: &Program) -> Result<(), TelemetryError> {
    let format = match settings.log_format {
        LogFormat::Auto if io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    let dispatch = dispatch(&settings.log_level, format, program, io::stderr)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::Twice)
}

fn dispatch<W>(level: &str, format: LogFormat, program: &Program, writer: W) -> Result<Dispatch, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = parse(level).ok_or_else(|| TelemetryError::Level(level.to_owned()))?;
    let lines = lines(format, writer).with_filter(ceiling(program).and(wanted));
    Ok(Dispatch::new(Registry::default().with(lines)))
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
        LogFormat::Text | LogFormat::Auto => {
            let colours =
                io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            fmt::layer().compact().with_ansi(colours).with_writer(writer).boxed()
        }
    }
}

/// Makes panics a line in the log and a count. Their message is printed only if it is fixed text: one that was put together may hold anything.
pub fn install_panic_hook(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
        let thread = std::thread::current();
        tracing::error!(place, message, thread = thread.name().unwrap_or("unnamed"), "panic: this is a bug");
    }));
}

#[cfg(test)]
mod tests;
