//! The language: what a program of several mutators can do, and the one table from which random
//! tests make it.
//!
//! Invariant: as in the language for one mutator, every operation means something in every state,
//! so any words are a program. Numbers choose, modulo what there is to choose from, when the
//! operation is done: what that is depends on what the others have done.

use std::fmt;

use super::payload::Kind;
use crate::program::ops::{Act, Policy, PoolKind, Setup};

/// A program: where it runs, and what its mutators do.
#[derive(Clone, Debug)]
pub struct Program {
    /// Who runs the cleanups.
    pub pool: PoolKind,
    /// How the heap is made.
    pub setup: Setup,
    /// Threads with a mutator.
    pub mutators: usize,
    /// The heap's `gc_threads`.
    pub gc_threads: usize,
    /// Whether the heap begins with enough objects that several threads mark it.
    pub herd: bool,
    /// What is done, by all.
    pub steps: Vec<Step>,
}

/// One step of a program.
#[derive(Clone, Copy)]
pub struct Step {
    /// Which mutator does it, modulo their number.
    pub hand: u8,
    /// Where it lets others go first: bits.
    pub lull: u8,
    /// What it does.
    pub op: Op,
}

impl fmt::Debug for Step {
    /// On one line, however long the program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { hand, lull, op } = self;
        write!(f, "{hand}, lull {lull}: {op:?}")
    }
}

impl Step {
    /// Before the operation.
    pub(super) const BEFORE: u8 = 1;
    /// When the session has just been opened.
    pub(super) const OPENED: u8 = 2;
    /// While it holds locks.
    pub(super) const HOLDING: u8 = 4;
    /// Before the session is closed.
    pub(super) const CLOSING: u8 = 8;
}

/// What can be done.
#[expect(missing_docs, reason = "fields choose what they are named for")]
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Puts an object into the heap; it is garbage at once unless kept in a slot.
    Alloc { kind: Kind, slot: u8, keep: bool, fallible: bool },
    /// Several objects in one session, each linked to the one before if its type can; the last is
    /// kept.
    AllocMany { kind: Kind, slot: u8, count: u8, cleanups: bool },
    /// Twice as many objects in one session, garbage at once, each with a cleanup: more than a
    /// block holds.
    Burst { count: u8 },
    /// Enough spans in which sweep has something to do that it calls for help; few or all are
    /// garbage at once.
    Crowd { slot: u8, keep: bool, cleanups: bool },
    /// `try_alloc` until the heap is full, if it has a limit.
    Fill { kind: Kind },
    /// An object whose drop glue stops (or runs) a cleanup, in the middle of a sweep.
    AllocStopper { cleanup: u8, run: bool, slot: u8 },
    /// Points one object to another.
    Link { from: u8, to: u8, field: u8 },
    /// Clears a field.
    Unlink { from: u8, field: u8 },
    /// Keeps what a field points to.
    Follow { from: u8, field: u8, slot: u8 },
    /// Exchanges the contents of two slots.
    Exchange { one: u8, other: u8 },
    /// Puts the content of one slot into another one, too.
    Copy { from: u8, to: u8 },
    /// Empties a slot.
    Clear { slot: u8 },
    /// Empties all slots.
    ClearAll,
    /// Puts a new node onto a stack that knows no lock.
    Push,
    /// Takes one from there.
    Pop { slot: u8 },
    /// Takes all of them.
    TakeAll { slot: u8 },
    /// Points a member of the herd to an object.
    Graft { member: u8, object: u8 },
    /// Lets the herd die.
    Disband { sure: bool },
    /// Makes a weak pointer.
    Downgrade { object: u8, weak: u8, other: u8 },
    /// Forgets a weak pointer.
    DropWeak { weak: u8 },
    /// Puts a weak pointer elsewhere, too.
    CopyWeak { from: u8, to: u8 },
    /// Follows a weak pointer, and keeps what it leads to.
    Upgrade { weak: u8, slot: u8 },
    /// Puts a weak pointer into an object, or takes out what is there.
    StoreWeak { object: u8, weak: u8, clear: bool },
    /// Registers a cleanup.
    AddCleanup { object: u8, act: Act, target: u8, large: bool },
    /// Registers several cleanups for one object, in one session.
    AddMany { object: u8, count: u8 },
    /// Registers cleanups for one living object and stops them, many times over.
    Churn { object: u8, rounds: u8 },
    /// Stops a cleanup of any thread through its handle, perhaps while a session is open.
    Stop { cleanup: u8, in_session: bool },
    /// Runs one through its handle.
    RunNow { cleanup: u8, in_session: bool },
    /// Asks for its state.
    State { cleanup: u8 },
    /// Drops a handle.
    DropHandle { cleanup: u8 },
    /// Makes a root of this mutator's own.
    Root { object: u8 },
    /// Makes a root of such a root.
    CloneRoot { root: u8 },
    /// Drops one.
    Unroot { root: u8 },
    /// Keeps its object.
    Fetch { root: u8, slot: u8 },
    /// Makes a root for all mutators.
    Share { object: u8 },
    /// Makes a root of such a root.
    CloneShared { root: u8 },
    /// Drops one.
    Unshare { root: u8 },
    /// Keeps its object.
    FetchShared { root: u8, slot: u8 },
    /// Makes an object that nothing but a shared root keeps.
    Island { cleanup: bool },
    /// Drops such a root, outside of any session: while a thread marks, if it so happens.
    Sink { island: u8 },
    /// Collects.
    Collect,
    /// Verifies.
    Verify,
    /// Runs that many of the queued cleanups on this thread.
    RunPending { max: u8 },
    /// Waits for what is queued.
    Wait,
    /// Allocates, links and registers a cleanup in a session that panics.
    Panic { object: u8, slot: u8 },
    /// Allocates until a thread wants to collect, or for long.
    Long { most: u8 },
    /// Detaches; the next operation attaches again.
    Detach,
}

/// How an operation is made of three numbers.
pub type Make = fn(u8, u8, u8) -> Op;

/// Every operation, and how often it occurs. The weights add up to at most 256.
pub const OPS: &[(u8, Make)] = &[
    (24, |a, slot, c| Op::Alloc {
        kind: Kind::pick(a),
        slot,
        keep: c % 4 != 0,
        fallible: c / 4 % 2 == 0,
    }),
    (5, |a, slot, c| Op::AllocMany {
        kind: Kind::pick(a),
        slot,
        count: c % 40,
        cleanups: c / 40 % 2 == 0,
    }),
    (1, |count, _, _| Op::Burst { count }),
    (1, |slot, b, c| Op::Crowd { slot, keep: b % 2 == 0, cleanups: c % 2 == 0 }),
    (3, |a, _, _| Op::Fill { kind: Kind::pick(a) }),
    (3, |cleanup, slot, c| Op::AllocStopper { cleanup, run: c % 2 == 0, slot }),
    (20, |from, to, field| Op::Link { from, to, field }),
    (7, |from, field, _| Op::Unlink { from, field }),
    (8, |from, field, slot| Op::Follow { from, field, slot }),
    (6, |one, other, _| Op::Exchange { one, other }),
    (6, |from, to, _| Op::Copy { from, to }),
    (14, |slot, _, _| Op::Clear { slot }),
    (2, |_, _, _| Op::ClearAll),
    (7, |_, _, _| Op::Push),
    (6, |slot, _, _| Op::Pop { slot }),
    (2, |slot, _, _| Op::TakeAll { slot }),
    (4, |member, object, _| Op::Graft { member, object }),
    (2, |a, _, _| Op::Disband { sure: a % 4 == 3 }),
    (9, |object, weak, other| Op::Downgrade { object, weak, other }),
    (3, |weak, _, _| Op::DropWeak { weak }),
    (2, |from, to, _| Op::CopyWeak { from, to }),
    (7, |weak, slot, _| Op::Upgrade { weak, slot }),
    (5, |object, weak, c| Op::StoreWeak { object, weak, clear: c % 4 == 0 }),
    (20, |object, b, target| Op::AddCleanup {
        object,
        act: pick_act(b),
        target,
        large: b % 2 == 0,
    }),
    (3, |object, b, _| Op::AddMany { object, count: b % 16 }),
    (1, |object, b, _| Op::Churn { object, rounds: b }),
    (7, |cleanup, b, _| Op::Stop { cleanup, in_session: b % 2 == 0 }),
    (7, |cleanup, b, _| Op::RunNow { cleanup, in_session: b % 2 == 0 }),
    (3, |cleanup, _, _| Op::State { cleanup }),
    (4, |cleanup, _, _| Op::DropHandle { cleanup }),
    (4, |object, _, _| Op::Root { object }),
    (2, |root, _, _| Op::CloneRoot { root }),
    (4, |root, _, _| Op::Unroot { root }),
    (3, |root, slot, _| Op::Fetch { root, slot }),
    (4, |object, _, _| Op::Share { object }),
    (2, |root, _, _| Op::CloneShared { root }),
    (4, |root, _, _| Op::Unshare { root }),
    (3, |root, slot, _| Op::FetchShared { root, slot }),
    (3, |a, _, _| Op::Island { cleanup: a % 2 == 0 }),
    (3, |island, _, _| Op::Sink { island }),
    (9, |_, _, _| Op::Collect),
    (1, |_, _, _| Op::Verify),
    (8, |max, _, _| Op::RunPending { max: max % 40 }),
    (1, |_, _, _| Op::Wait),
    (3, |object, slot, _| Op::Panic { object, slot }),
    (2, |most, _, _| Op::Long { most }),
    (4, |_, _, _| Op::Detach),
];

impl Program {
    /// The program that the words spell: the first says where it runs, each other one is a step.
    pub fn spelled([pool, a, b, c, d]: [u8; 5], steps: impl IntoIterator<Item = [u8; 5]>) -> Self {
        Program {
            pool: [PoolKind::Manual, PoolKind::Workers(2), PoolKind::Manual, PoolKind::Workers(1)]
                [usize::from(pool % 4)],
            setup: pick_setup(a, b, c),
            mutators: 2 + usize::from(d % 3),
            gc_threads: 1 + usize::from(d / 3 % 3),
            herd: d / 9 % 20 == 19,
            steps: steps
                .into_iter()
                .map(|[who, op, a, b, c]| Step {
                    hand: who % 12,
                    // Four in seven go straight ahead.
                    lull: (who / 12).saturating_sub(11) % 16,
                    op: crate::program::ops::row(OPS, op)(a, b, c),
                })
                .collect(),
        }
    }
}

/// Mostly without a limit; collected when told to, or now and then, or all the time.
fn pick_setup(a: u8, b: u8, c: u8) -> Setup {
    const LIMITS: [u64; 3] = [20 << 10, 200 << 10, 3 << 20];
    Setup {
        limit: LIMITS.get(usize::from(a % 8)).copied(),
        pace: (b % 3 == 2).then_some(1 << (8 + b / 3 % 12)),
        zeal: c % 7 == 6,
        on_drop: [Policy::RunAll, Policy::RunQueued, Policy::Discard][usize::from(c / 7 % 3)],
        bomb: c / 21 % 6 == 5,
    }
}

fn pick_act(byte: u8) -> Act {
    match byte / 2 % 16 {
        1 => Act::Panic,
        2 => Act::Bomb,
        3 => Act::Stop,
        4 | 5 => Act::RunNow,
        6 => Act::Itself,
        7 => Act::Nest,
        8 | 9 => Act::Linger,
        10 | 11 => Act::Visit,
        _ => Act::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lightest_operation_is_chosen_too() {
        let total: usize = OPS.iter().map(|&(weight, _)| usize::from(weight)).sum();
        assert!(total <= 256, "{total}");
    }

    #[test]
    fn any_words_are_a_program() {
        for byte in 0..=255 {
            let program = Program::spelled([byte; 5], [[byte; 5]]);
            assert!((2..=4).contains(&program.mutators) && (1..=3).contains(&program.gc_threads));
        }
    }
}
