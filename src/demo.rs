//! The bundled demo MCP: a real, small stdio server behind `legation demo-mcp`.
//!
//! It is what `serve --dev` publishes and what the tests and benches drive. It speaks the legacy
//! handshake (2024-11-05 to 2025-11-25), uses blocking standard I/O and one small thread per slow
//! call, and knows nothing of the rest of the house: no runtime, no configuration.
//!
//! * `server`: the loop, the handshake, calls and their cancellation.
//! * `tools`: the table of tools and what each does.
//! * `wire`: JSON-RPC lines in and out.
//! * `echo`: `--echo`, the least a server can do, for measuring hops.
//! * `misbehave`: `--misbehave MODE`, the hostile servers of the bad-input tests.

mod echo;
mod misbehave;
mod server;
mod tools;
mod wire;

use std::io::{Write, stderr};
use std::process::ExitCode;

use misbehave::Quirk;

/// Exit code of a wrong command line, as the rest of the CLI has it.
const USAGE: u8 = 2;
/// The first word of its command lines.
pub(crate) const SUBCOMMAND: &str = "demo-mcp";

/// Runs the demo server if that is all this process was started for, without a look at any other
/// command: what it maps is what the kernel has to take down at its end. `None` if it was not.
#[must_use]
pub fn role() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != SUBCOMMAND {
        return None;
    }
    let args: Vec<String> = words
        .map(|word| word.into_string().ok())
        .collect::<Option<_>>()?;
    Some(run(&args))
}

/// Runs the demo server on this process's stdin and stdout until stdin ends.
///
/// `args` are the words after `demo-mcp`: none, `--echo`, or `--misbehave MODE[=VALUE]`.
#[must_use]
pub fn run(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => server::serve(Quirk::none()),
        ["--echo"] => echo::serve(),
        ["--misbehave", mode] => match Quirk::parse(mode) {
            Ok(quirk) => server::serve(quirk),
            Err(why) => usage(&why),
        },
        _ => usage("expected nothing, --echo or --misbehave MODE[=VALUE]"),
    }
}

fn usage(why: &str) -> ExitCode {
    let _ = writeln!(stderr(), "demo-mcp: {why}");
    ExitCode::from(USAGE)
}
