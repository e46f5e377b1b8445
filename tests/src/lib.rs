//! What the tests of this package share with the fuzz target: op programs and the oracle they run
//! against.
//!
//! The tests are in `it/`, and what must not compile in `ui/`.

#![forbid(unsafe_code)]

pub mod program;
pub mod quiet;
pub mod settings;
