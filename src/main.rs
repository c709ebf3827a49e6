//! The one binary: the sandbox role hook first, then the command line.

fn main() {}
