//! Op programs for several mutators of one heap, on threads of their own.
//!
//! What each mutator does is written down in its *journal*: an entry for each operation, with a
//! stamp, what it has changed, and what it has seen. When all have ended the entries of all
//! journals, and the ledger's events, are put in the order of their stamps and replayed to the
//! oracle, which compares. That order is one in which a single thread could have done it all,
//! because:
//!
//! - an operation takes its stamp while it holds the locks of whatever it changes or compares, so
//!   operations that touch the same thing are in the order in which they touched it;
//! - a session is open when its stamp is taken, and a cycle runs while none is. Each entry says how
//!   many cycles its session has seen completed: so the oracle knows which entries lie between two
//!   cycles, and runs its own there.
//!
//! | module | what it holds |
//! |---|---|
//! | `ops` | the language, and the table that random tests make programs from |
//! | `payload` | the objects that programs put into heaps |
//! | `journal` | what operations write down |
//! | `session` | a session that holds locks until what was done under them is written down |
//! | `common` | what all threads share |
//! | `hand` | one mutator's thread: does its share of the operations |
//! | `replay` | the journals, replayed to the oracle |
//! | `run` | starts the hands, and compares what they have left |
//!
//! Threads run as they like, so a program that has failed need not fail again; it does, mostly, if
//! it is run often enough.

mod common;
mod hand;
mod journal;
mod ops;
mod payload;
mod replay;
mod run;
mod session;

pub use ops::{Make, OPS, Op, Program, Step};
pub use payload::Kind;
pub use run::run;
