//! Tells the command by which compiler it was built, and with which versions of its peers, for the
//! record of a run.

use std::process::Command;

/// The crates that are peers.
const PEERS: [&str; 6] = ["bumpalo", "dumpster", "gc", "gc-arena", "mimalloc", "safe-gc"];

fn main() {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler).arg("--version").output();
    let version = version.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    println!("cargo::rustc-env=SEXTON_BENCH_RUSTC={}", version.unwrap_or_default());
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap_or_default();
    let versions = PEERS.iter().filter_map(|name| Some(format!("{name} {}", locked(&lock, name)?)));
    println!("cargo::rustc-env=SEXTON_BENCH_CRATES={}", versions.collect::<Vec<_>>().join(","));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../Cargo.lock");
}

/// The version of a crate in Cargo's lock file: the line behind its name.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}
