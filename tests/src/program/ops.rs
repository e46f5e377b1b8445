//! The language: what a program can do, and the one table from which random tests and the fuzzer
//! make it.
//!
//! Invariant: every operation means something in every state. Numbers that choose are taken modulo
//! what there is to choose from; where there is nothing, the operation has no effect and is not
//! counted. So any sequence of operations is a program, and a shrunk program is one, too.

use super::payload::Kind;

/// A program: where it runs, how its first heap is made, and its operations.
#[derive(Clone, Debug)]
pub struct Program {
    /// The pool that all its heaps share.
    pub pool: PoolKind,
    /// The first heap.
    pub setup: Setup,
    /// What is done to it.
    pub ops: Vec<Op>,
}

/// Who runs the cleanups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolKind {
    /// [`Op::RunPending`]: everything is determined, and is checked after every operation.
    Manual,
    /// As many workers at most; everything is checked whenever they have been waited for.
    Workers(usize),
}

/// How a heap is made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Its `max_bytes`.
    pub limit: Option<u64>,
    /// The `min_bytes` of automatic pacing; manual without.
    pub pace: Option<u64>,
    /// Collect and verify at the end of every session.
    pub zeal: bool,
    /// What its end means for its cleanups.
    pub on_drop: Policy,
    /// Whether its root panics when it is dropped.
    pub bomb: bool,
}

/// The choices of `OnDrop`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Every cleanup runs.
    RunAll,
    /// The queued ones run.
    RunQueued,
    /// None runs.
    Discard,
}

/// What a cleanup does when it runs, beside telling the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Panics.
    Panic,
    /// Nothing; but its captures panic when they are dropped.
    Bomb,
    /// Stops another cleanup.
    Stop,
    /// Runs another cleanup.
    RunNow,
    /// Asks for its own state, and tries to stop and to run itself.
    Itself,
    /// Sends for a successor on another object, which [`Op::Rearm`] registers.
    Rearm,
    /// Tries to run the pool's cleanups within itself.
    Nest,
    /// Gives other threads time to come to where it is.
    Linger,
    /// Attaches to the heap of its object and opens a session there, if several mutators may use
    /// it.
    Visit,
}

/// One step of a program.
#[expect(
    missing_docs,
    reason = "fields choose what they are named for: an object kept, a handle held"
)]
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Puts an object into the heap; it is garbage at once unless kept.
    Alloc { kind: Kind, keep: bool, fallible: bool },
    /// Several objects in one session, each linked to the one before if its type can; the last is
    /// kept.
    AllocMany { kind: Kind, count: u8, cleanups: bool },
    /// Twice as many objects in one session, garbage at once, each with a cleanup: more than a
    /// block holds.
    Burst { count: u8 },
    /// `try_alloc` until the heap is full, if it has a limit.
    Fill { kind: Kind },
    /// An object whose drop glue drops a root of another.
    AllocKeeper { object: u8, keep: bool },
    /// An object whose drop glue stops (or runs) a cleanup, in the middle of a sweep.
    AllocStopper { cleanup: u8, run: bool, keep: bool },
    /// Points one object to another.
    Link { from: u8, to: u8, field: u8 },
    /// Clears a field.
    Unlink { from: u8, field: u8 },
    /// Keeps what a field points to.
    Follow { from: u8, field: u8 },
    /// Keeps an object no longer.
    Forget { object: u8 },
    /// Keeps no object any longer.
    ForgetAll,
    /// Makes a root.
    Root { object: u8 },
    /// Makes a root of a root.
    CloneRoot { root: u8 },
    /// Drops a root.
    Unroot { root: u8 },
    /// Keeps the object of a root; if that is of another heap, panics.
    Fetch { root: u8 },
    /// Makes a weak pointer.
    Downgrade { object: u8 },
    /// Forgets a weak pointer.
    DropWeak { weak: u8 },
    /// Follows a weak pointer, and keeps what it leads to.
    Upgrade { weak: u8 },
    /// Puts a weak pointer into an object, or takes out what is there.
    StoreWeak { object: u8, weak: u8, clear: bool },
    /// Registers a cleanup.
    AddCleanup { object: u8, act: Act, target: u8, large: bool },
    /// Registers several cleanups for one object, in one session.
    AddMany { object: u8, count: u8 },
    /// Registers cleanups for one living object and stops them, many times over.
    Churn { object: u8, rounds: u8 },
    /// Stops a cleanup through its handle, perhaps while a session is open.
    Stop { cleanup: u8, in_session: bool },
    /// Runs one through its handle.
    RunNow { cleanup: u8, in_session: bool },
    /// Drops a handle.
    Detach { cleanup: u8 },
    /// Forgets a handle without dropping it.
    Leak { cleanup: u8 },
    /// Collects, and compares every object and pointer.
    Collect,
    /// Runs that many of the queued cleanups on this thread.
    RunPending { max: u8 },
    /// Waits for what is queued.
    Wait,
    /// Registers the successors that cleanups have sent for.
    Rearm,
    /// Allocates, links and registers a cleanup in a session that panics.
    Panic { object: u8 },
    /// Drops the heap and makes another one on the same pool.
    NewHeap { setup: Setup },
    /// Begins to make a heap whose root is never finished.
    FailToBuild,
    /// Ends the pool; the next heap gets another.
    Shutdown,
}

/// How an operation is made of three numbers.
pub type Make = fn(u8, u8, u8) -> Op;

/// Every operation, and how often it occurs. The weights add up to at most 256.
pub const OPS: &[(u8, Make)] = &[
    (24, |a, b, c| Op::Alloc { kind: Kind::pick(a), keep: b % 4 != 0, fallible: c % 2 == 0 }),
    (5, |a, b, c| Op::AllocMany { kind: Kind::pick(a), count: b % 40, cleanups: c % 2 == 0 }),
    (1, |count, _, _| Op::Burst { count }),
    (2, |a, _, _| Op::Fill { kind: Kind::pick(a) }),
    (3, |a, b, _| Op::AllocKeeper { object: a, keep: b % 2 == 0 }),
    (3, |a, b, c| Op::AllocStopper { cleanup: a, run: b % 2 == 0, keep: c % 2 == 0 }),
    (26, |from, to, field| Op::Link { from, to, field }),
    (10, |from, field, _| Op::Unlink { from, field }),
    (6, |from, field, _| Op::Follow { from, field }),
    (18, |object, _, _| Op::Forget { object }),
    (2, |_, _, _| Op::ForgetAll),
    (5, |object, _, _| Op::Root { object }),
    (2, |root, _, _| Op::CloneRoot { root }),
    (7, |root, _, _| Op::Unroot { root }),
    (3, |root, _, _| Op::Fetch { root }),
    (8, |object, _, _| Op::Downgrade { object }),
    (5, |weak, _, _| Op::DropWeak { weak }),
    (4, |weak, _, _| Op::Upgrade { weak }),
    (5, |object, weak, c| Op::StoreWeak { object, weak, clear: c % 4 == 0 }),
    (30, |object, b, target| Op::AddCleanup {
        object,
        act: Act::pick(b),
        target,
        large: b % 2 == 0,
    }),
    (4, |object, b, _| Op::AddMany { object, count: b % 16 }),
    (1, |object, b, _| Op::Churn { object, rounds: b }),
    (9, |cleanup, b, _| Op::Stop { cleanup, in_session: b % 2 == 0 }),
    (8, |cleanup, b, _| Op::RunNow { cleanup, in_session: b % 2 == 0 }),
    (9, |cleanup, _, _| Op::Detach { cleanup }),
    (2, |cleanup, _, _| Op::Leak { cleanup }),
    (16, |_, _, _| Op::Collect),
    (12, |max, _, _| Op::RunPending { max: max % 40 }),
    (4, |_, _, _| Op::Wait),
    (4, |_, _, _| Op::Rearm),
    (2, |object, _, _| Op::Panic { object }),
    (3, |a, b, c| Op::NewHeap { setup: Setup::pick(a, b, c) }),
    (1, |_, _, _| Op::FailToBuild),
    (1, |_, _, _| Op::Shutdown),
];

impl Program {
    /// The program that the bytes spell, in words of four: one for the pool and the first heap,
    /// then one for each operation.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
        Program::spelled(words.next().unwrap_or_default(), words)
    }

    /// The program that the words spell.
    pub fn spelled([pool, a, b, c]: [u8; 4], ops: impl IntoIterator<Item = [u8; 4]>) -> Self {
        Program {
            pool: PoolKind::pick(pool),
            setup: Setup::pick(a, b, c),
            ops: ops.into_iter().map(|[op, a, b, c]| row(OPS, op)(a, b, c)).collect(),
        }
    }
}

/// The row of the table that a byte chooses, each as often as it weighs.
pub(super) fn row<M: Copy>(table: &[(u8, M)], byte: u8) -> M {
    let total: usize = table.iter().map(|&(weight, _)| usize::from(weight)).sum();
    let mut at = usize::from(byte) * total / 256;
    for &(weight, make) in table {
        match at.checked_sub(usize::from(weight)) {
            Some(rest) => at = rest,
            None => return make,
        }
    }
    unreachable!("a byte times the total, by 256, is less than the total")
}

impl PoolKind {
    /// Mostly manual, where every mistake is found at once.
    fn pick(byte: u8) -> Self {
        match byte % 8 {
            6 => PoolKind::Workers(1),
            7 => PoolKind::Workers(2),
            _ => PoolKind::Manual,
        }
    }
}

impl Setup {
    /// Manual pacing, and no limit.
    pub const PLAIN: Setup =
        Setup { limit: None, pace: None, zeal: false, on_drop: Policy::RunAll, bomb: false };

    /// Mostly without a limit, collected when told to.
    fn pick(a: u8, b: u8, c: u8) -> Self {
        const LIMITS: [u64; 3] = [2 << 10, 20 << 10, 200 << 10];
        Setup {
            limit: LIMITS.get(usize::from(a % 8)).copied(),
            pace: (b % 4 == 3).then_some(64 << (b / 4 % 8)),
            zeal: c % 5 == 4,
            on_drop: [Policy::RunAll, Policy::RunQueued, Policy::Discard][usize::from(c / 5 % 3)],
            bomb: c / 15 % 8 == 7,
        }
    }
}

impl Act {
    fn pick(byte: u8) -> Self {
        match byte / 2 % 16 {
            1 => Act::Panic,
            2 => Act::Bomb,
            3 | 4 => Act::Stop,
            5 | 6 => Act::RunNow,
            7 => Act::Itself,
            8 | 9 => Act::Rearm,
            10 => Act::Nest,
            11 | 12 => Act::Linger,
            _ => Act::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::mem::{Discriminant, discriminant};

    #[test]
    fn the_first_byte_of_a_word_chooses_every_operation_about_as_often_as_it_weighs() {
        let total: usize = OPS.iter().map(|&(weight, _)| usize::from(weight)).sum();
        assert!(total <= 256, "the lightest rows would never be chosen");
        let mut chosen: HashMap<Discriminant<Op>, usize> = HashMap::new();
        for byte in 0..=255 {
            *chosen.entry(discriminant(&row(OPS, byte)(0, 0, 0))).or_default() += 1;
        }
        for &(weight, make) in OPS {
            let times = chosen[&discriminant(&make(0, 0, 0))];
            assert!((1..=2 * usize::from(weight)).contains(&times), "{:?}", make(0, 0, 0));
        }
    }

    #[test]
    fn any_bytes_are_a_program() {
        assert!(Program::decode(&[]).ops.is_empty());
        assert_eq!(Program::decode(&[255; 4 * 7 + 3]).ops.len(), 6);
    }
}
