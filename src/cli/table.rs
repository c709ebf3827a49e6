//! A small table: columns as wide as their widest cell, two spaces between them, cut to the
//! terminal's width where there is a terminal.
//!
//! Cells come from servers and users we do not trust, so control characters (escape sequences
//! above all) are shown, never sent.

use std::fmt::Write as _;

/// How a cell looks on a terminal with colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    /// As it comes.
    #[default]
    Plain,
    /// Titles.
    Bold,
    /// What matters less.
    Dim,
    /// All is well.
    Good,
    /// Look here.
    Warn,
    /// Something is broken.
    Bad,
}

impl Style {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
        }
    }

    /// The text in this style, if colour is wanted.
    #[must_use]
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        match self.code().filter(|_| colour && !text.is_empty()) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }

    /// The style of a state's word.
    #[must_use]
    pub(super) fn of_state(state: &str) -> Self {
        match state {
            "ready" | "up" | "running" | "open" | "published" | "active" => Self::Good,
            "starting" | "backoff" | "draining" | "stopping" | "draft" => Self::Warn,
            "quarantined" | "stuck" | "suspended" | "failed" | "revoked" => Self::Bad,
            "idle" | "resting" | "stopped" | "archived" | "expired" => Self::Dim,
            _ => Self::Plain,
        }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style.
    #[must_use]
    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: printable(&text.into()),
            style,
        }
    }

    /// A state's word in its style.
    #[must_use]
    pub(super) fn state(state: &str) -> Self {
        Self::styled(state, Style::of_state(state))
    }

    /// A value, or `-` where there is none.
    #[must_use]
    pub(super) fn maybe(value: Option<impl ToString>) -> Self {
        value.map_or_else(
            || Self::styled("-", Style::Dim),
            |some| Self::from(some.to_string()),
        )
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// A table under its titles; the default one has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    titles: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these titles.
    #[must_use]
    pub(super) fn new(titles: &[&str]) -> Self {
        Self {
            titles: titles
                .iter()
                .map(|t| Cell::styled(*t, Style::Bold))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has as many cells as there are titles, if there are titles.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert!(self.titles.is_empty() || cells.len() == self.titles.len());
        self.rows.push(cells);
    }

    /// Draws it, a line break after each row. `limit` is the terminal's width.
    #[must_use]
    pub(super) fn render(&self, limit: Option<usize>, colour: bool) -> String {
        let titles = Some(&self.titles).filter(|titles| !titles.is_empty());
        let lines = || titles.into_iter().chain(&self.rows);
        let mut widths = vec![0; lines().map(Vec::len).max().unwrap_or(0)];
        for line in lines() {
            for (cell, max) in line.iter().zip(&mut widths) {
                *max = (*max).max(width(&cell.text));
            }
        }
        if let Some(limit) = limit {
            shrink(&mut widths, limit);
        }
        let mut out = String::new();
        for line in lines() {
            draw(line, &widths, colour, &mut out);
        }
        out
    }
}

const GAP: usize = 2;
const NARROWEST: usize = 6;

/// Takes from the widest column until all fit, but leaves each readable.
fn shrink(widths: &mut [usize], limit: usize) {
    loop {
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let Some(widest) = widths.iter_mut().max() else {
            return;
        };
        if total <= limit || *widest <= NARROWEST {
            return;
        }
        *widest -= 1;
    }
}

fn draw(line: &[Cell], widths: &[usize], colour: bool, out: &mut String) {
    let mut gap = 0;
    for (cell, max) in line.iter().zip(widths) {
        let text = cut(&cell.text, *max);
        if !text.is_empty() {
            let painted = cell.style.paint(&text, colour);
            // A String takes every write.
            _ = write!(out, "{:gap$}{painted}", "");
            gap = 0;
        }
        gap += max.saturating_sub(width(&text)) + GAP;
    }
    out.push('\n');
}

/// The text in at most `max` columns, with `…` where something is missing.
#[must_use]
pub(super) fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += columns(c);
        if used + 1 > max {
            break;
        }
        out.push(c);
    }
    if max > 0 {
        out.push('…');
    }
    out
}

/// The columns a text takes on a terminal.
#[must_use]
pub(super) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Columns of one character: none for marks that join the one before, two for wide East Asian
/// characters and emoji (the blocks of Unicode's `EastAsianWidth.txt`, roughly).
const fn columns(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// The text on one line with control and direction-changing characters made visible.
#[must_use]
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row(vec!["ada".into(), Cell::state("ready"), "".into()]);
        table.row(vec![
            "日本".into(),
            Cell::state("backoff"),
            "a long note here".into(),
        ]);
        table
    }

    #[test]
    fn aligned_without_trailing_blanks() {
        let expect = "NAME  STATE    NOTE\nada   ready\n日本  backoff  a long note here\n";
        assert_eq!(sample().render(None, false), expect);
    }

    #[test]
    fn cut_to_the_terminal() {
        for limit in [20, 26, 30, 80] {
            for line in sample().render(Some(limit), false).lines() {
                assert!(width(line) <= limit.max(22), "{limit}: {line}");
            }
        }
        assert!(sample().render(Some(26), false).contains("…\n"));
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn colour_only_where_wanted() {
        assert!(!sample().render(None, false).contains('\x1b'));
        assert!(sample().render(None, true).contains("\x1b[32mready\x1b[0m"));
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        let mut table = Table::new(&["LINE"]);
        table.row(vec!["\x1b[2Jgone\r\nnext\u{9b}31m\u{202e}abc\t.".into()]);
        let text = table.render(None, false);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains(['\x1b', '\r', '\u{9b}', '\u{202e}', '\t']));
    }
}
