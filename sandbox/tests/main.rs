//! The sandbox against a real kernel. This one binary is the tests, the spawner they start, the
//! servers they confine and the gateway they kill; hence no harness. It speaks enough of the
//! harness's arguments for `cargo test <filter>` and for nextest.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, and print for a harness that is not there"
)]

mod attacks;
mod confinement;
mod endings;
mod hoards;
mod languages;
mod limits;
mod probe;
mod secrets;
mod shelf;
mod spawner;
mod subordinate;
mod walls;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test says why it cannot run here, or runs.
type Outcome = Result<(), String>;
type Test = (&'static str, fn() -> Outcome);

fn main() -> ExitCode {
    sandbox::role();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "probe") {
        return probe::run(&args[1..]);
    }
    let tests: Vec<Test> = [
        attacks::TESTS,
        confinement::TESTS,
        endings::TESTS,
        hoards::TESTS,
        languages::TESTS,
        limits::TESTS,
        secrets::TESTS,
        shelf::TESTS,
        spawner::TESTS,
        subordinate::TESTS,
        walls::TESTS,
    ]
    .concat();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        // Nothing is ignored, and nextest asks for the ignored ones apart.
        for (name, _) in tests.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                if has("--exact") {
                    name == filter.as_str()
                } else {
                    name.contains(filter.as_str())
                }
            })
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Err(reason)) => {
                skipped += 1;
                eprintln!("test {name} ... skipped: {reason}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}
