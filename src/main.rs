//! The one binary: the sandbox role hook first, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((word, rest)) if word == "demo-mcp" => legation::demo::run(rest),
        _ => ExitCode::from(2),
    }
}
