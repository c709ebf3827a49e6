//! The server's own log, on stderr: text for people on a terminal, JSON for everything else.
//! What isolates write to their stderr is kept by them and never goes here.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::error::CliError;
use super::output::colour_wanted;
use crate::config::server::{Format, Log};
use crate::domain::code::Code;

/// Overrides the configured level, in tracing's filter syntax.
const FILTER_VARIABLE: &str = "LEGATION_LOG";

/// Libraries that tell at `info` what only their authors want to know.
const QUIET: &str = "ractor=warn,sqlx=warn,hyper=warn,rustls=warn,h2=warn";

/// Starts logging for the rest of the process.
pub(super) fn start(log: &Log) -> Result<(), CliError> {
    let refused = |message: String| CliError::NotStarted {
        code: Code::ConfigInvalid,
        message,
        next: Some(format!(
            "unset {FILTER_VARIABLE}, or write it like info,legation=debug"
        )),
    };
    let wanted = std::env::var(FILTER_VARIABLE)
        .ok()
        .filter(|text| !text.is_empty());
    let filter = filter(wanted.as_deref(), log).map_err(refused)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = if tells_people(log) {
        let colour = io::stderr().is_terminal() && colour_wanted();
        builder
            .with_target(false)
            .with_ansi(colour)
            .finish()
            .try_init()
    } else {
        builder.json().flatten_event(true).finish().try_init()
    };
    started.map_err(|error| refused(error.to_string()))
}

/// Whether the log is text; else each of its lines is JSON.
pub(super) fn tells_people(log: &Log) -> bool {
    is_text(log.format, io::stderr().is_terminal())
}

fn filter(wanted: Option<&str>, log: &Log) -> Result<EnvFilter, String> {
    let own = format!("{},{QUIET}", log.level.as_str());
    let text = wanted.unwrap_or(&own);
    EnvFilter::try_new(text).map_err(|error| format!("the log filter `{text}` is wrong: {error}"))
}

const fn is_text(format: Format, terminal: bool) -> bool {
    match format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_text_and_collectors_json() {
        assert!(is_text(Format::Auto, true));
        assert!(!is_text(Format::Auto, false));
        assert!(is_text(Format::Text, false));
        assert!(!is_text(Format::Json, true));
    }

    #[test]
    fn the_filter_is_the_levels_unless_said_otherwise() {
        let log = Log::default();
        let own = filter(None, &log).unwrap().to_string();
        assert!(own.contains("ractor=warn") && own.contains("info"), "{own}");
        assert_eq!(filter(Some("debug"), &log).unwrap().to_string(), "debug");
        assert!(filter(Some("legation=nonsense"), &log).is_err());
    }
}
