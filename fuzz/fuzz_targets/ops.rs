//! Op programs whose bytes libFuzzer chooses: heap and oracle must agree after every operation.
//!
//! With `SEXTON_SHOW` set it prints each program before it runs it; so
//! `SEXTON_SHOW=1 cargo fuzz run ops fuzz/artifacts/ops/crash-..` shows what a crash is made of.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sexton_tests::program::{Program, run};

fuzz_target!(|data: &[u8]| {
    let program = Program::decode(data);
    if std::env::var_os("SEXTON_SHOW").is_some() {
        eprintln!("{program:#?}");
    }
    run(&program);
});
