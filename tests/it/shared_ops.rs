//! Op programs of several mutators against the oracle: 200,000 operations by default. See `hunt`
//! for what can be set.
//!
//! `SEXTON_SEED=seed cargo test -p sexton-tests shared_ops:: -- --nocapture` shows one program and
//! runs it, a hundred times if need be: threads run as they like.

use proptest::prelude::*;
use sexton_tests::program::{Mutators, Program};

use crate::hunt::{Language, hunt};

/// The most steps of a program.
const LENGTH: usize = 400;

struct ManyMutators;

impl Language for ManyMutators {
    const NAME: &'static str = "shared";
    const OPS: u64 = 200_000;
    const TRIES: u32 = 100;
    const MUTATORS: Mutators = Mutators::Several;

    /// As words: smaller numbers spell simpler operations.
    fn programs() -> impl Strategy<Value = Program> {
        let word = || {
            let numbers = any::<(u8, u8, u8, u8, u8)>();
            numbers.prop_map(|(who, op, a, b, c)| [who, op, a, b, c])
        };
        (word(), prop::collection::vec(word(), 1..=LENGTH))
            .prop_map(|(first, steps)| Program::spelled_for_several(first, steps))
    }
}

#[test]
fn programs_of_several_mutators_agree_with_the_oracle() {
    hunt::<ManyMutators>();
}
