//! `legation config …`: works without a server.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::client::Client;
use super::error::{CliError, Done, Exit};
use super::host;
use super::output::Out;
use super::{Global, socket};
use crate::api::admin::config::{Setting, settings};
use crate::config::{Config, ConfigError, Origins, Shown, Sources, render};

/// How many settings of a running server are told that are others than those shown.
const DIFFERENCES_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every value that a start with this configuration would use, where it came from, and the
    /// fixed bounds
    ///
    /// A server that runs may have been started with others: those that differ are told on stderr.
    Show {
        /// The configuration file [default: /etc/legation/legation.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Set a value, as SECTION.KEY=VALUE; may be repeated
        #[arg(long, value_parser = setting, value_name = "SECTION.KEY=VALUE")]
        set: Vec<(String, String)>,
    },
    /// Check a configuration and what it needs of this host; exit 0 right, 2 wrong, 1 unreadable
    Check {
        /// The configuration file [default: /etc/legation/legation.toml]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The same, as `serve` and `config show` take it
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
    },
}

/// For clap: `section.key=value`.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected SECTION.KEY=VALUE".to_owned()),
    }
}

pub(super) fn run(command: ConfigCommand, global: Global, mut out: Out) -> Done {
    let (file, mut flags) = match &command {
        ConfigCommand::Show { config, set } => (config.clone(), set.clone()),
        ConfigCommand::Check { file, config } => (file.clone().or(config.clone()), Vec::new()),
    };
    let folder = global.data_dir;
    flags.extend(folder.map(|folder| ("server.data_dir".to_owned(), folder.display().to_string())));
    let (config, origins) = load(&Sources::standard(file, flags))?;
    match command {
        ConfigCommand::Show { .. } => {
            let names: Vec<_> = Config::keys()
                .into_iter()
                .map(|key| format!("{}.{}", key.section, key.name))
                .collect();
            let shown = Shown::of(&config, &origins);
            out.one(&shown, &names.join("\n"), |out| {
                out.raw(&render(&config, &origins))
            })?;
            if !out.is_json() {
                of_the_server(&config, &origins, global.socket, &out);
            }
        }
        ConfigCommand::Check { .. } => {
            let found = host::look(&config, &origins);
            found.notes.iter().for_each(|note| out.say(note));
            if !found.wrong.is_empty() {
                return Err(CliError::Config {
                    text: ConfigError::Invalid(found.wrong).to_string(),
                    unreadable: false,
                });
            }
            out.say("the configuration is right");
            if out.is_json() {
                out.one(
                    &json!({"right": true, "notes": found.notes}),
                    "",
                    |_| Ok(()),
                )?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// Says what the server that runs was started with instead, if one answers.
fn of_the_server(config: &Config, origins: &Origins, named: Option<PathBuf>, out: &Out) {
    let Some(socket) = socket::of_config(named, config, out) else {
        return;
    };
    let shown = socket.display().to_string();
    let asked: Result<Vec<Setting>, _> = Client::new(socket).get_now("/v1/config");
    let theirs = match asked {
        Ok(theirs) => theirs,
        Err(CliError::Unreachable { .. }) => return,
        Err(error) => {
            out.say(&format!(
                "a server's socket is at {shown}, which was not asked: {error}"
            ));
            return;
        }
    };
    let ours = settings(config, origins);
    let value = |setting: &Setting| setting.value.clone().unwrap_or_else(|| "unset".to_owned());
    let other: Vec<&Setting> = theirs
        .iter()
        .filter(|their| {
            let our = ours.iter().find(|our| our.key == their.key);
            our.is_none_or(|our| our.value != their.value)
        })
        .collect();
    if other.is_empty() {
        return out.say(&format!(
            "the server at {shown} was started with the same values"
        ));
    }
    out.say(&format!(
        "the server at {shown} was started with other values:"
    ));
    for one in other.iter().take(DIFFERENCES_MAX) {
        out.say(&format!("  {} = {} ({})", one.key, value(one), one.origin));
    }
    if let Some(more) = other
        .len()
        .checked_sub(DIFFERENCES_MAX)
        .filter(|more| *more > 0)
    {
        out.say(&format!("  and {more} more"));
    }
}

/// Loads a configuration, with the whole reason if there is none.
pub(super) fn load(sources: &Sources) -> Result<(Config, Origins), CliError> {
    Config::load(sources).map_err(|error| {
        let unreadable = matches!(error, ConfigError::Read { .. });
        let cause = std::error::Error::source(&error);
        let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        CliError::Config { text, unreadable }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Done {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("legation.toml");
        std::fs::write(&file, text).unwrap();
        let command = ConfigCommand::Check {
            file: None,
            config: Some(file),
        };
        run(
            command,
            Global::default(),
            Out::new(super::super::output::Format::Table, true),
        )
    }

    #[test]
    fn right_is_zero_wrong_is_two_and_unreadable_is_one() {
        assert_eq!(check("[calls]\nin_flight_max = 4\n").unwrap(), Exit::Ok);
        for (wrong, word) in [
            ("[calls]\nin_flight_maxx = 4\n", "in_flight_max"),
            ("[calls]\nin_flight_max = 0\n", "in_flight_max"),
            ("[calls\n", "TOML"),
        ] {
            let error = check(wrong).unwrap_err();
            assert_eq!(error.exit().code(), 2, "{error}");
            assert!(error.render(false).contains(word), "{error}");
        }
        let command = ConfigCommand::Check {
            file: Some("/nonexistent/legation.toml".into()),
            config: None,
        };
        let out = Out::new(super::super::output::Format::Table, true);
        assert_eq!(
            run(command, Global::default(), out)
                .unwrap_err()
                .exit()
                .code(),
            1
        );
    }

    #[test]
    fn a_setting_has_a_section() {
        assert_eq!(setting("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(setting("a=b").is_err());
        assert!(setting("a.b").is_err());
    }
}
