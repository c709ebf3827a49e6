//! Where output goes and in which form: data on stdout, talk on stderr.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::error::CliError;
use super::table::{Style, Table, printable};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// What the server said, for programs
    Json,
    /// More columns
    Wide,
    /// Names or ids, one on a line
    Name,
}

/// A command's stdout and stderr.
#[derive(Debug)]
pub(super) struct Out {
    format: Format,
    colour: bool,
    /// The terminal's columns; none if stdout is no terminal.
    columns: Option<usize>,
}

/// Whether the environment allows colour (see no-color.org).
pub(super) fn colour_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !set("NO_COLOR") && !dumb
}

impl Out {
    pub(super) fn new(format: Format, no_color: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let columns = size
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Self {
            format,
            colour: terminal && !no_color && colour_wanted(),
            columns: columns.filter(|_| terminal),
        }
    }

    /// Whether the wider table is wanted.
    pub(super) fn wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether stdout is a terminal.
    pub(super) fn on_terminal(&self) -> bool {
        self.columns.is_some()
    }

    /// Whether a question would reach a person.
    pub(super) fn can_ask() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks on stderr, reads the answer.
    pub(super) fn ask(&mut self, question: &str) -> Result<String, CliError> {
        let mut stderr = io::stderr().lock();
        let asked = stderr.write_all(printable(question).as_bytes());
        asked
            .and_then(|()| stderr.flush())
            .map_err(CliError::Output)?;
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(CliError::Output)?;
        Ok(answer.trim().to_owned())
    }

    /// Talk: a remark for people, never for programs.
    pub(super) fn say(&self, text: &str) {
        if self.format == Format::Json {
            return;
        }
        let text: String = text.lines().map(|line| printable(line) + "\n").collect();
        // Remarks are not worth failing for.
        _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Data as it is.
    pub(super) fn raw(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes);
        written
            .and_then(|()| stdout.flush())
            .map_err(CliError::Output)
    }

    /// One line of data that may come from anywhere.
    pub(super) fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.raw(&(printable(text) + "\n"))
    }

    /// A line in a style.
    pub(super) fn styled(&mut self, text: &str, style: Style) -> Result<(), CliError> {
        let painted = style.paint(&printable(text), self.colour);
        self.raw(&(painted + "\n"))
    }

    /// A table.
    pub(super) fn table(&mut self, table: &Table) -> Result<(), CliError> {
        let drawn = table.render(self.columns, self.colour);
        self.raw(&drawn)
    }

    fn json<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value).map_err(|e| CliError::Output(e.into()))?;
        self.raw(&(plain(&text) + "\n"))
    }

    /// A list in the wanted form.
    pub(super) fn list<T: Serialize>(
        &mut self,
        items: &[T],
        table: impl FnOnce(&[T], bool) -> Table,
        name: impl Fn(&T) -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(&items),
            Format::Name => items.iter().try_for_each(|item| self.line(&name(item))),
            Format::Table | Format::Wide => {
                let table = table(items, self.wide());
                self.table(&table)
            }
        }
    }

    /// One thing in the wanted form; `show` prints it for people. `name` may be several, one on a
    /// line.
    pub(super) fn one<T: Serialize>(
        &mut self,
        item: &T,
        name: &str,
        show: impl FnOnce(&mut Self) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(item),
            Format::Name => name.lines().try_for_each(|one| self.line(one)),
            Format::Table | Format::Wide => show(self),
        }
    }

    /// Whether JSON is wanted.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// One JSON value on one line, for what goes on.
    pub(super) fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| CliError::Output(e.into()))?;
        self.raw(&(plain(&text) + "\n"))
    }
}

/// JSON that a terminal shows as it is: what would move, hide or turn it is written as JSON's own escape, which means
/// the same. Below a space JSON has none of it.
pub(super) fn plain(json: &str) -> Cow<'_, str> {
    let acts = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !json.contains(acts) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match acts(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_acts_on_no_terminal_and_means_the_same() {
        let value = "a\u{7f}\u{9b}31m\u{202e}\u{2066}é\u{1b}日";
        let json = serde_json::to_string(value).unwrap();
        let shown = plain(&json);
        assert_eq!(shown, r#""a\u007f\u009b31m\u202e\u2066é\u001b日""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), value);
        assert!(matches!(plain("\"é\""), Cow::Borrowed(_)));
    }
}
