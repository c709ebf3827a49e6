//! Tells the program which compiler it was built with, for `build_info`.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("--version").output().ok();
    let text = told.and_then(|told| String::from_utf8(told.stdout).ok());
    // `rustc 1.95.0 (59807616e 2026-04-14)`
    let version = text.as_deref().and_then(|text| text.split(' ').nth(1));
    println!(
        "cargo::rustc-env=LEGATION_RUSTC={}",
        version.unwrap_or("unknown")
    );
    println!("cargo::rerun-if-changed=build.rs");
}
