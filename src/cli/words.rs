//! A command line that is wrong, told in the shape of all errors.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::Cli;
use super::error::CliError;
use super::output::Format;
use crate::domain::code::Code;

/// What clap says, as an error of ours; `None` for what is none: help, and the version.
pub(super) fn refused(stop: &clap::Error, words: &[OsString]) -> Option<CliError> {
    let message = match stop.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return None,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // The help itself says most to a person.
            return (format(words) == Format::Json).then(|| told("a command is missing", words));
        }
        _ => stop.render().to_string(),
    };
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    // How to ask for help is told in its own place.
    let message = message.split("\n\nFor more information").next();
    Some(told(message.unwrap_or_default(), words))
}

/// The form that was asked for, as far as a command line that is wrong says so.
pub(super) fn format(words: &[OsString]) -> Format {
    let mut words = words.iter().map(|word| word.to_string_lossy());
    let mut is_json = false;
    while let Some(word) = words.next().filter(|word| word != "--") {
        let value = match &*word {
            "-o" | "--output" => words.next().map(std::borrow::Cow::into_owned),
            word => ["--output=", "-o=", "-o"]
                .into_iter()
                .find_map(|option| word.strip_prefix(option))
                .map(str::to_owned),
        };
        if let Some(value) = value {
            is_json = value == "json";
        }
    }
    if is_json { Format::Json } else { Format::Table }
}

fn told(message: &str, words: &[OsString]) -> CliError {
    CliError::Told {
        code: Code::Usage,
        message: message.trim_end().to_owned(),
        next: format!("{} --help", command(words)),
    }
}

/// The command that was meant, as far as there is one of that name.
fn command(words: &[OsString]) -> String {
    let all = Cli::command();
    let (mut at, mut path) = (&all, "legation".to_owned());
    for word in words.iter().skip(1).map(|word| word.to_string_lossy()) {
        if let Some(inner) = at.find_subcommand(&*word) {
            path = format!("{path} {word}");
            at = inner;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        let words = std::iter::once("legation").chain(line.split_whitespace());
        words.map(OsString::from).collect()
    }

    fn told_of(line: &str) -> Option<String> {
        let words = words(line);
        let stop = Cli::try_parse_from(&words).unwrap_err();
        refused(&stop, &words).map(|error| error.render(false))
    }

    #[test]
    fn what_is_wrong_comes_with_its_code_and_what_to_do() {
        let told = told_of("isolat list").unwrap();
        assert!(told.starts_with("error[E0601]: unrecognized"), "{told}");
        assert!(told.contains("'isolate'"), "{told}");
        assert!(
            !told.contains("installer"),
            "hidden ones are nobody's: {told}"
        );
        assert!(told.contains("\ntry: legation --help\n"), "{told}");
        assert!(told.ends_with("docs: legation explain E0601\n"), "{told}");
        let told = told_of("mcp add x --pids 0 -- cat").unwrap();
        assert!(told.contains("--pids"), "{told}");
        assert!(told.contains("\ntry: legation mcp add --help\n"), "{told}");
        assert!(!told.contains("For more"), "{told}");
        for none in ["--help", "--version", "mcp --help", "mcp"] {
            assert_eq!(told_of(none), None, "{none}");
        }
        let missing = told_of("-o json mcp").unwrap();
        assert!(missing.contains("a command is missing"), "{missing}");
    }

    #[test]
    fn json_is_for_who_asked_for_it() {
        for json in [
            "-o json x",
            "x --output json",
            "--output=json",
            "-ojson",
            "x -o=json",
        ] {
            assert_eq!(format(&words(json)), Format::Json, "{json}");
        }
        for other in ["", "-o wide", "x -- -o json", "-o", "-o json -o name"] {
            assert_eq!(format(&words(other)), Format::Table, "{other}");
        }
    }
}
