//! Op programs: sequences of operations on heaps, run against the real thing and an oracle side by
//! side.
//!
//! | module | what it holds |
//! |---|---|
//! | `ops` | the language, and the table that random tests and the fuzzer make programs from |
//! | `payload` | the objects that programs put into heaps |
//! | `any` | pointers to objects of any type |
//! | `setup` | heaps and pools as a program's setup says |
//! | `cleanups` | cleanups that tell the ledger, and their handles |
//! | `ledger` | what cleanups and drop glue tell of themselves |
//! | `oracle` | what should be true, as a plain graph and plain counters |
//! | `run` | does each operation to both and compares |
//! | `tally` | counts operations that took effect |
//! | `shared` | the same for several mutators of one heap |
//!
//! Invariant: as long as heap and oracle agree, what a program does depends on the program alone if
//! its pool is manual, and on the order in which workers come to run otherwise.

mod any;
mod cleanups;
mod ledger;
mod ops;
mod oracle;
mod payload;
mod run;
mod setup;
pub mod shared;
mod tally;

pub use ops::{Act, Make, OPS, Op, Policy, PoolKind, Program, Setup};
pub use payload::Kind;
pub use run::run;
pub use tally::Tally;
