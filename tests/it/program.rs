//! Op programs against the oracle: 200,000 operations by default. See `hunt` for what can be set.
//!
//! `SEXTON_SEED=seed cargo test -p sexton-tests program:: -- --nocapture` shows one program and
//! runs it.
//!
//! Programs with a manual pool, three in four, do the same whenever they are run. The others have
//! workers, and may need more than one try.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use proptest::prelude::*;
use sexton_tests::program::{Mutators, OPS, Op, Program};

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

#[test]
fn the_first_byte_of_a_word_chooses_every_operation_about_as_often_as_it_weighs() {
    for mutators in [Mutators::One, Mutators::Several] {
        let weight = |weights: &[u8; 2]| usize::from(weights[mutators as usize]);
        let total: usize = OPS.iter().map(|(weights, _)| weight(weights)).sum();
        assert!(total <= 256, "the lightest rows would never be chosen: {total}");
        let mut chosen: HashMap<Discriminant<Op>, usize> = HashMap::new();
        for byte in 0..=255 {
            *chosen.entry(discriminant(&mutators.op([byte, 0, 0, 0]))).or_default() += 1;
        }
        for (weights, make) in OPS {
            let op = make(0, 0, 0);
            let count = chosen.get(&discriminant(&op)).copied().unwrap_or_default();
            let least = weight(weights) * 256 / total;
            assert!((least..=least + 1).contains(&count), "{op:?} is chosen {count} times");
        }
    }
}

#[test]
fn any_words_are_a_program() {
    for byte in 0..=255 {
        let program = Program::spelled_for_several([byte; 5], [[byte; 5]]);
        let crew = program.crew.expect("it is for several");
        assert!((2..=4).contains(&crew.mutators) && (1..=3).contains(&crew.gc_threads));
    }
}

#[test]
fn any_bytes_are_a_program() {
    assert!(Program::decode(&[]).steps.is_empty());
    assert_eq!(Program::decode(&[255; 4 * 7 + 3]).steps.len(), 6);
}
