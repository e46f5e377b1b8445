//! Op programs: sequences of operations on heaps, run against the real thing and an oracle side by
//! side.
//!
//! One language serves both modes, and each operation is done in one way. It writes its effects
//! into a journal, which is replayed to the oracle; and the oracle compares. The modes differ in
//! when that is: after each operation, or when all threads have ended.
//!
//! | module | what it holds |
//! |---|---|
//! | `ops` | the language, and the table that random tests and the fuzzer make programs from |
//! | `place` | what differs between the modes: cells, and what may be allocated |
//! | `payload` | the objects that programs put into heaps |
//! | `any` | pointers to objects of any type |
//! | `setup` | heaps and pools as a program's setup says |
//! | `cleanups` | cleanups that tell the ledger, and their handles |
//! | `ledger` | what cleanups and drop glue tell of themselves |
//! | `journal` | what operations write down |
//! | `common` | what all threads of a program share |
//! | `session` | a session that holds locks until what was done under them is written down |
//! | `hand` | does the operations |
//! | `oracle` | what should be true, as a plain graph and plain counters |
//! | `replay` | what was written down, done to the oracle, and compared |
//! | `local` | runs a program for one mutator, and the operations that end a heap |
//! | `shared` | runs one for several mutators, and the operations that threads share |
//! | `tally` | counts operations that took effect |
//!
//! Invariant: as long as heap and oracle agree, what a program for one mutator does depends on the
//! program alone if its pool is manual, and on the order in which workers come to run otherwise.

mod any;
mod cleanups;
mod common;
mod hand;
mod journal;
mod ledger;
mod local;
mod ops;
mod oracle;
mod payload;
mod place;
mod replay;
mod session;
mod setup;
mod shared;
mod tally;

pub use ops::{Act, Crew, Make, Mutators, OPS, Op, Policy, PoolKind, Program, Setup, Step};
pub use payload::Kind;
pub use tally::Tally;

/// Runs a program.
///
/// # Panics
///
/// If heap and oracle disagree. The message says in what, and after which operation, or what was
/// done last.
pub fn run(program: &Program) -> Tally {
    match program.crew {
        None => local::run(program),
        Some(crew) => shared::run(program, crew),
    }
}
