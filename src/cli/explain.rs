//! `legation explain`: what an error code means and what to do; needs no server and no files.

use clap::Args;
use serde::Serialize;

use super::error::{CliError, Done, Exit, exit_of};
use super::output::Out;
use super::table::{Cell, Style, Table};
use crate::config::nearest;
use crate::domain::code::Code;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A code, like E0407 or command_not_found; all are listed if none is given
    code: Option<String>,
}

/// A code as `docs/errors.md` has it.
#[derive(Debug, Serialize)]
struct Explained {
    number: &'static str,
    code: &'static str,
    meaning: &'static str,
    next: &'static str,
    retryable: bool,
    exit: u8,
}

impl From<Code> for Explained {
    fn from(code: Code) -> Self {
        Self {
            number: code.number(),
            code: code.as_str(),
            meaning: code.meaning(),
            next: code.next(),
            retryable: code.retryable(),
            exit: exit_of(code).code(),
        }
    }
}

pub(super) fn run(args: &ExplainArgs, mut out: Out) -> Done {
    let Some(asked) = &args.code else {
        let all: Vec<Explained> = Code::ALL.iter().copied().map(Explained::from).collect();
        out.list(&all, |all, _| table(all), |one| one.number.to_owned())?;
        return Ok(Exit::Ok);
    };
    let one = Explained::from(found(asked)?);
    out.one(&one, one.number, |out| {
        let mut facts = Table::default();
        let mut fact = |title: &str, cell: Cell| {
            facts.row(vec![Cell::styled(title, Style::Dim), cell]);
        };
        fact("code", Cell::styled(one.number, Style::Bold));
        fact("name", one.code.into());
        fact("meaning", one.meaning.into());
        fact("what to do", one.next.into());
        let retry = match one.retryable {
            true => "the same request may succeed later",
            false => "the same request fails again until something is changed",
        };
        fact("retry", retry.into());
        fact("exit", one.exit.to_string().into());
        out.table(&facts)
    })?;
    Ok(Exit::Ok)
}

fn found(asked: &str) -> Result<Code, CliError> {
    let word = asked.trim().to_ascii_lowercase();
    let number = word.trim_start_matches('e').trim_start_matches('0');
    let fits = |code: &&Code| {
        let own = code.number().trim_start_matches(['E', '0']);
        code.as_str() == word || (own == number && !number.is_empty())
    };
    if let Some(code) = Code::ALL.iter().find(fits) {
        return Ok(*code);
    }
    let words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let shown: String = asked.chars().take(64).collect();
    Err(CliError::Told {
        code: Code::NotFound,
        message: format!("`{shown}` is no error code"),
        next: match nearest::word(&words, &word) {
            Some(near) => format!("legation explain {near}"),
            None => "legation explain (lists all)".to_owned(),
        },
    })
}

fn table(all: &[Explained]) -> Table {
    let mut table = Table::new(&["CODE", "NAME", "MEANING"]);
    for one in all {
        table.row(vec![
            Cell::from(one.number),
            one.code.into(),
            one.meaning.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_by_its_number_and_by_its_name() {
        for code in Code::ALL {
            for asked in [
                code.number().to_owned(),
                code.number().to_lowercase(),
                code.number().trim_start_matches('E').to_owned(),
                code.as_str().to_owned(),
            ] {
                assert_eq!(found(&asked).unwrap(), *code, "{asked}");
            }
        }
        for asked in ["", "e", "E", "0", "E9999", "no such"] {
            assert!(found(asked).is_err(), "{asked}");
        }
        let near = found("comand_not_found").unwrap_err().render(false);
        assert!(
            near.contains("legation explain command_not_found"),
            "{near}"
        );
    }
}
