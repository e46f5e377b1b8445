//! Op programs against the oracle: 200,000 operations by default. See `hunt` for what can be set.
//!
//! `SEXTON_SEED=seed cargo test -p sexton-tests program:: -- --nocapture` shows one program and
//! runs it.
//!
//! Programs with a manual pool, three in four, do the same whenever they are run. The others have
//! workers, and may need more than one try.

use proptest::prelude::*;
use sexton_tests::program::{Mutators, Program};

use crate::hunt::{Language, hunt};

/// The most operations of a program.
const LENGTH: usize = 300;

struct OneMutator;

impl Language for OneMutator {
    const NAME: &'static str = "program";
    // Of the breaks in `docs/RELIABILITY.md`, those that show in a million show within 30,000.
    const OPS: u64 = 200_000;
    const TRIES: u32 = 1;
    const MUTATORS: Mutators = Mutators::One;

    /// As words: smaller numbers spell simpler operations.
    fn programs() -> impl Strategy<Value = Program> {
        let word = || any::<(u8, u8, u8, u8)>().prop_map(|(op, a, b, c)| [op, a, b, c]);
        (word(), prop::collection::vec(word(), 1..=LENGTH))
            .prop_map(|(first, ops)| Program::spelled(first, ops))
    }
}

#[test]
fn programs_agree_with_the_oracle() {
    hunt::<OneMutator>();
}
