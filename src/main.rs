//! The one binary: the sandbox role hook first, then the command line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any thread: as the spawner this never returns.
    sandbox::role();
    // Before the command line is described: of the demo's servers there are hundreds.
    if let Some(ended) = legation::demo::role() {
        return ended;
    }
    legation::cli::main(std::env::args_os())
}
