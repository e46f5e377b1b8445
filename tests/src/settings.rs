//! Settings of a test run, by environment variables.

/// A variable that is a number, if it is set.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// How often the load tests repeat: `SEXTON_ROUNDS`, which long runs set.
pub fn rounds() -> u64 {
    number("SEXTON_ROUNDS").unwrap_or(10)
}

/// Whether heaps are in zeal mode by default: built with `--cfg gc_zeal`, and not switched off by
/// `SEXTON_ZEAL=0`.
pub fn zeal() -> bool {
    cfg!(gc_zeal) && number("SEXTON_ZEAL") != Some(0)
}
