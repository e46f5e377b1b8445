//! What took effect, and what a panic said.

use std::any::Any;
use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use super::ops::Op;

/// How many operations took effect, by their kind.
#[derive(Default)]
pub struct Tally {
    effective: HashMap<Discriminant<Op>, u64>,
}

impl Tally {
    /// An operation took effect.
    pub(super) fn count(&mut self, op: &Op) {
        *self.effective.entry(discriminant(op)).or_default() += 1;
    }

    /// Operations that took effect. Those that found nothing to act on are not counted.
    pub fn total(&self) -> u64 {
        self.effective.values().sum()
    }

    /// How many operations of the same kind as `op` took effect.
    pub fn of(&self, op: &Op) -> u64 {
        self.effective.get(&discriminant(op)).copied().unwrap_or_default()
    }

    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Tally) {
        for (&op, count) in &other.effective {
            *self.effective.entry(op).or_default() += count;
        }
    }
}

/// What a panic said.
pub(super) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}

/// Chooses among `len`; none if that is 0.
pub(super) fn modulo(at: u8, len: usize) -> Option<usize> {
    (len > 0).then(|| usize::from(at) % len)
}
