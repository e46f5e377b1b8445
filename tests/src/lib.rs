//! What the tests of this package share with the fuzz target: op programs and the oracle they run
//! against.
//!
//! The tests are in `it/`, and what must not compile in `ui/`.

#![forbid(unsafe_code)]

pub mod program;
pub mod quiet;
pub mod settings;

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The guide's programs, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../docs/GUIDE.md")]
struct Guide;
