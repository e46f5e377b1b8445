//! Spans that a pass over the space has come to, and that a step has not done with.
//!
//! Spans are taken some at a time. So the space is not locked while something is done to one, and
//! sessions beside it can allocate.
//!
//! Invariant: a span of a pass is ahead of it, or is handed out once.

use std::collections::VecDeque;

use crate::collect::until::SPANS;
use crate::memory::space::Passed;
use crate::memory::span::SpanRef;
use crate::session::core::Core;
use crate::session::mode::Mode;

/// The spans taken, in the order of the pass.
#[derive(Default)]
pub(crate) struct Taken(VecDeque<Passed>);

impl Taken {
    /// Gives the next span of the pass.
    pub(crate) fn next<M: Mode>(&mut self, core: &Core<M>) -> Option<Passed> {
        let Taken(taken) = self;
        if taken.is_empty() {
            core.space().with(|space| {
                taken.extend(std::iter::from_fn(|| space.next_of_pass()).take(SPANS));
            });
        }
        taken.pop_front()
    }

    /// Lists them.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.0.iter().map(|passed| passed.span)
    }
}
