//! One program that is run: what it says goes to our stderr, and its last words are kept.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::process::{Command, Stdio};
use std::thread;

use super::Failure;

/// Lines of its last words.
const LINES_KEPT: usize = 12;
/// Bytes of a line that are kept.
const LINE_BYTES_MAX: u64 = 4096;

/// Runs it with `input` on its stdin until it ends.
///
/// # Errors
/// It could not be started, or ended otherwise than well: with its last words.
pub(super) fn run(step: &str, command: &mut Command, input: &str) -> Result<(), Failure> {
    let _ = writeln!(stderr(), "legation: {step}");
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| {
        let program = command.get_program().display();
        Failure::io(&format!("{step}: cannot run {program}"), &error)
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read it says so by its end.
        let _ = stdin.write_all(input.as_bytes());
    }
    let out = child
        .stdout
        .take()
        .map(|out| thread::spawn(move || words(out)));
    let said = child.stderr.take().map(words).unwrap_or_default();
    let printed = out.and_then(|out| out.join().ok()).unwrap_or_default();
    let status = child.wait().map_err(|error| Failure::io(step, &error))?;
    if status.success() {
        return Ok(());
    }
    let mut last: Vec<String> = if said.is_empty() { printed } else { said }.into();
    last.retain(|line| !line.trim().is_empty());
    Err(Failure::new(format!(
        "{step}: {status}: {}",
        last.join("; ")
    )))
}

/// Passes its lines on and keeps the last ones, but for those about single downloads.
fn words(from: impl Read) -> VecDeque<String> {
    let mut kept = VecDeque::new();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        // What is longer comes in pieces.
        match (&mut from)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return kept,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let _ = writeln!(stderr(), "{text}");
        // The log is gone with the installer's home.
        let is_word = !text.starts_with("npm http") && !text.contains("complete log of this run");
        if is_word {
            if kept.len() == LINES_KEPT {
                kept.pop_front();
            }
            kept.push_back(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<(), Failure> {
        run(
            "trying",
            Command::new("/bin/sh").args(["-c", script]),
            "in\n",
        )
    }

    #[test]
    fn an_end_that_is_not_well_has_its_last_words() {
        assert_eq!(sh("read x && test $x = in"), Ok(()));
        let text = sh("echo npm http fetch >&2; echo npm error no such thing >&2;\
             echo npm error A complete log of this run is at x >&2; exit 3")
        .unwrap_err()
        .to_string();
        assert_eq!(text, "trying: exit status: 3: npm error no such thing");
        let text = sh("echo told on stdout; exit 1").unwrap_err().to_string();
        assert!(text.ends_with("told on stdout"), "{text}");
        let gone = run("trying", &mut Command::new("/nonexistent/npm"), "").unwrap_err();
        assert!(
            gone.to_string().contains("cannot run /nonexistent/npm"),
            "{gone}"
        );
    }
}
