//! The language: what a program can do, and the one table from which random tests and the fuzzer
//! make it.
//!
//! Invariant: every operation means something in every state. Numbers that choose are taken modulo
//! what there is to choose from; where there is nothing, the operation has no effect and is not
//! counted. So any sequence of operations is a program, and a shrunk program is one, too.

use std::fmt;
use std::time::Duration;

use super::payload::Kind;

/// A program: where it runs, how its first heap is made, and its operations.
#[derive(Clone, Debug)]
pub struct Program {
    /// The pool that all its heaps share.
    pub pool: PoolKind,
    /// The first heap.
    pub setup: Setup,
    /// The mutators of a `Shared` heap; without, the heap is `Local`.
    pub crew: Option<Crew>,
    /// What is done.
    pub steps: Vec<Step>,
}

/// The threads of a program of several mutators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crew {
    /// Threads with a mutator.
    pub mutators: usize,
    /// The heap's `gc_threads`.
    pub gc_threads: usize,
    /// Whether the heap begins with enough objects that several threads mark it.
    pub herd: bool,
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
        match lull {
            0 => write!(f, "{hand}: {op:?}"),
            _ => write!(f, "{hand}, lull {lull}: {op:?}"),
        }
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
    /// Its `pause_budget`: how long a slice of an automatic cycle may take.
    pub pause: Option<Duration>,
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
    /// Forgets a handle without dropping it.
    Leak { cleanup: u8 },
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
    /// Gets on with a cycle for as many microseconds.
    Step { budget: u8 },
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
    /// An object whose drop glue drops a root of another.
    AllocKeeper { object: u8, slot: u8 },
    /// Registers the successors that cleanups have sent for.
    Rearm,
    /// Drops the heap and makes another one on the same pool.
    NewHeap { setup: Setup },
    /// Begins to make a heap whose root is never finished.
    FailToBuild,
    /// Ends the pool; the next heap gets another.
    Shutdown,
}

/// How an operation is made of three numbers.
pub type Make = fn(u8, u8, u8) -> Op;

/// Every operation, and how often it occurs in a program for one mutator, and for several. Those
/// that need a heap of their own, or other mutators, occur in one of them only. Each column adds up
/// to at most 256.
pub const OPS: &[([u8; 2], Make)] = &[
    ([24, 24], |a, slot, c| Op::Alloc {
        kind: Kind::pick(a),
        slot,
        keep: c % 4 != 0,
        fallible: c / 4 % 2 == 0,
    }),
    ([5, 5], |a, slot, c| Op::AllocMany {
        kind: Kind::pick(a),
        slot,
        count: c % 40,
        cleanups: c / 40 % 2 == 0,
    }),
    ([1, 1], |count, _, _| Op::Burst { count }),
    ([1, 1], |slot, b, c| Op::Crowd { slot, keep: b % 2 == 0, cleanups: c % 2 == 0 }),
    ([2, 3], |a, _, _| Op::Fill { kind: Kind::pick(a) }),
    ([3, 0], |object, slot, _| Op::AllocKeeper { object, slot }),
    ([3, 3], |cleanup, slot, c| Op::AllocStopper { cleanup, run: c % 2 == 0, slot }),
    ([24, 18], |from, to, field| Op::Link { from, to, field }),
    ([8, 7], |from, field, _| Op::Unlink { from, field }),
    ([8, 8], |from, field, slot| Op::Follow { from, field, slot }),
    ([1, 6], |one, other, _| Op::Exchange { one, other }),
    ([1, 6], |from, to, _| Op::Copy { from, to }),
    ([13, 14], |slot, _, _| Op::Clear { slot }),
    ([2, 2], |_, _, _| Op::ClearAll),
    ([3, 7], |_, _, _| Op::Push),
    ([2, 6], |slot, _, _| Op::Pop { slot }),
    ([1, 2], |slot, _, _| Op::TakeAll { slot }),
    ([4, 4], |member, object, _| Op::Graft { member, object }),
    ([0, 2], |a, _, _| Op::Disband { sure: a % 4 == 3 }),
    ([8, 9], |object, weak, other| Op::Downgrade { object, weak, other }),
    ([5, 3], |weak, _, _| Op::DropWeak { weak }),
    ([1, 2], |from, to, _| Op::CopyWeak { from, to }),
    ([4, 7], |weak, slot, _| Op::Upgrade { weak, slot }),
    ([5, 5], |object, weak, c| Op::StoreWeak { object, weak, clear: c % 4 == 0 }),
    ([18, 16], |object, b, target| Op::AddCleanup {
        object,
        act: Act::pick(b),
        target,
        large: b % 2 == 0,
    }),
    ([4, 3], |object, b, _| Op::AddMany { object, count: b % 16 }),
    ([1, 1], |object, b, _| Op::Churn { object, rounds: b }),
    ([9, 7], |cleanup, b, _| Op::Stop { cleanup, in_session: b % 2 == 0 }),
    ([8, 7], |cleanup, b, _| Op::RunNow { cleanup, in_session: b % 2 == 0 }),
    ([1, 3], |cleanup, _, _| Op::State { cleanup }),
    ([8, 3], |cleanup, _, _| Op::DropHandle { cleanup }),
    ([2, 1], |cleanup, _, _| Op::Leak { cleanup }),
    ([5, 4], |object, _, _| Op::Root { object }),
    ([2, 2], |root, _, _| Op::CloneRoot { root }),
    ([6, 4], |root, _, _| Op::Unroot { root }),
    ([3, 3], |root, slot, _| Op::Fetch { root, slot }),
    ([0, 4], |object, _, _| Op::Share { object }),
    ([0, 2], |root, _, _| Op::CloneShared { root }),
    ([0, 4], |root, _, _| Op::Unshare { root }),
    ([0, 3], |root, slot, _| Op::FetchShared { root, slot }),
    ([0, 3], |a, _, _| Op::Island { cleanup: a % 2 == 0 }),
    ([0, 3], |island, _, _| Op::Sink { island }),
    ([12, 7], |_, _, _| Op::Collect),
    ([12, 10], |a, _, _| Op::Step { budget: [0, 0, 5, 40][usize::from(a % 4)] }),
    ([1, 1], |_, _, _| Op::Verify),
    ([11, 8], |max, _, _| Op::RunPending { max: max % 40 }),
    ([4, 1], |_, _, _| Op::Wait),
    ([4, 0], |_, _, _| Op::Rearm),
    ([2, 3], |object, slot, _| Op::Panic { object, slot }),
    ([0, 2], |most, _, _| Op::Long { most }),
    ([0, 4], |_, _, _| Op::Detach),
    ([3, 0], |a, b, c| Op::NewHeap { setup: Setup::pick(a, b, c) }),
    ([1, 0], |_, _, _| Op::FailToBuild),
    ([1, 0], |_, _, _| Op::Shutdown),
];

/// A program's mode: the column of the table that it is made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutators {
    /// A `Local` heap.
    One = 0,
    /// A `Shared` heap.
    Several = 1,
}

impl Mutators {
    /// An operation of each kind.
    pub fn each_op(self) -> impl Iterator<Item = Op> {
        OPS.iter().filter(move |(weights, _)| weights[self as usize] > 0).map(|row| row.1(0, 0, 0))
    }

    /// The operation that the numbers spell: the first chooses the row of the table, each as often
    /// as it weighs.
    pub fn op(self, [op, a, b, c]: [u8; 4]) -> Op {
        let weight = |weights: &[u8; 2]| usize::from(weights[self as usize]);
        let total: usize = OPS.iter().map(|(weights, _)| weight(weights)).sum();
        let mut at = usize::from(op) * total / 256;
        for (weights, make) in OPS {
            match at.checked_sub(weight(weights)) {
                Some(rest) => at = rest,
                None => return make(a, b, c),
            }
        }
        unreachable!("a byte times the total, by 256, is less than the total")
    }
}

impl Program {
    /// The program for one mutator that the bytes spell, in words of four: one for the pool and the
    /// first heap, then one for each operation.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
        Program::spelled(words.next().unwrap_or_default(), words)
    }

    /// The program for one mutator that the words spell.
    pub fn spelled([pool, a, b, c]: [u8; 4], ops: impl IntoIterator<Item = [u8; 4]>) -> Self {
        let step = |word| Step { hand: 0, lull: 0, op: Mutators::One.op(word) };
        Program {
            // Mostly manual, where every mistake is found at once.
            pool: match pool % 8 {
                6 => PoolKind::Workers(1),
                7 => PoolKind::Workers(2),
                _ => PoolKind::Manual,
            },
            setup: Setup::pick(a, b, c),
            crew: None,
            steps: ops.into_iter().map(step).collect(),
        }
    }

    /// The program for several mutators that the words spell: the first says where it runs, each
    /// other one is a step.
    pub fn spelled_for_several(
        [pool, a, b, c, d]: [u8; 5],
        steps: impl IntoIterator<Item = [u8; 5]>,
    ) -> Self {
        let step = |[who, op, a, b, c]: [u8; 5]| Step {
            hand: who % 12,
            // Four in seven go straight ahead.
            lull: (who / 12).saturating_sub(11) % 16,
            op: Mutators::Several.op([op, a, b, c]),
        };
        Program {
            pool: [PoolKind::Manual, PoolKind::Workers(2), PoolKind::Manual, PoolKind::Workers(1)]
                [usize::from(pool % 4)],
            setup: Setup::pick(a, b, c),
            crew: Some(Crew {
                mutators: 2 + usize::from(d % 3),
                gc_threads: 1 + usize::from(d / 3 % 3),
                herd: d / 9 % 20 == 19,
            }),
            steps: steps.into_iter().map(step).collect(),
        }
    }
}

impl Setup {
    /// Manual pacing, and no limit.
    pub const PLAIN: Setup = Setup {
        limit: None,
        pace: None,
        pause: None,
        zeal: false,
        on_drop: Policy::RunAll,
        bomb: false,
    };

    /// Mostly without a limit; collected when told to, or now and then, or all the time.
    fn pick(a: u8, b: u8, c: u8) -> Self {
        const LIMITS: [u64; 4] = [2 << 10, 20 << 10, 200 << 10, 3 << 20];
        Setup {
            limit: LIMITS.get(usize::from(a % 9)).copied(),
            pace: (b % 4 == 3).then_some(64 << (b / 4 % 14)),
            // So short that each slice does one step.
            pause: (b / 56 % 5 >= 2).then_some(Duration::from_micros(1)),
            zeal: c % 6 == 5,
            on_drop: [Policy::RunAll, Policy::RunQueued, Policy::Discard][usize::from(c / 6 % 3)],
            bomb: c / 18 % 7 == 6,
        }
    }
}

impl Act {
    fn pick(byte: u8) -> Self {
        match byte / 2 % 16 {
            1 => Act::Panic,
            2 => Act::Bomb,
            3 => Act::Stop,
            4 | 5 => Act::RunNow,
            6 => Act::Itself,
            7 => Act::Nest,
            8 | 9 => Act::Linger,
            10 | 11 => Act::Visit,
            12 | 13 => Act::Rearm,
            _ => Act::Nothing,
        }
    }
}
