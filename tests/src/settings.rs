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

/// Whether heaps are in zeal mode by default: with `SEXTON_ZEAL=1`, as debug assertions are on.
pub fn zeal() -> bool {
    cfg!(debug_assertions) && number("SEXTON_ZEAL") == Some(1)
}
