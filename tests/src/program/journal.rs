//! What operations write down: what they have changed and what they have seen.
//!
//! Invariant: an entry's stamp is taken while whatever it tells of is locked, or cannot be changed
//! by another thread.

use std::collections::BTreeMap;
use std::fmt;

use sexton::GcReport;

use super::ledger::{Id, Number, Stamp};
use super::ops::Act;
use super::payload::{Any, Kind};
use super::place::Ground;

/// The number of a root, in the order of making.
pub(super) type RootNumber = u32;

/// An object, as it was seen: where, and which it says it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) address: usize,
    /// Objects without a size say nothing.
    pub(super) id: Option<Id>,
}

impl fmt::Debug for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "object {id}"),
            None => write!(f, "object at {:#x}", self.address),
        }
    }
}

impl<M: Ground> From<Any<'_, M>> for Sight {
    fn from(object: Any<'_, M>) -> Self {
        Sight { address: object.address(), id: object.id() }
    }
}

/// A field that holds one pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    /// Of a node or a bulky object; or what a branch holds for good.
    Left,
    /// Of a node.
    Next,
    /// Of a branch.
    Mutex,
}

/// Something that was done, and what was seen while it was.
#[derive(Debug)]
pub(super) enum Deed {
    Alloc {
        id: Id,
        kind: Kind,
        address: usize,
    },
    /// Found no room, beside that many bytes here and outside, if the heap has said so.
    Refused {
        id: Id,
        kind: Kind,
        used: Option<u64>,
        external: Option<u64>,
    },
    /// A keeper was made, which drops a root of the other object when it is dropped.
    Keep {
        keeper: Sight,
        object: Sight,
    },
    /// A slot's content was replaced.
    Place {
        slot: usize,
        was: Option<Sight>,
        now: Option<Sight>,
    },
    Link {
        from: Sight,
        field: Field,
        was: Option<Sight>,
        now: Option<Sight>,
    },
    Read {
        from: Sight,
        field: Field,
        found: Option<Sight>,
    },
    /// To the end of a branch's list.
    ListPush {
        branch: Sight,
        item: Sight,
    },
    ListRemove {
        branch: Sight,
        at: usize,
        was: Sight,
    },
    ListRead {
        branch: Sight,
        at: usize,
        found: Sight,
    },
    /// What a branch holds for good.
    Once {
        branch: Sight,
        seen: Sight,
    },
    Push {
        node: Sight,
    },
    Pop {
        node: Sight,
    },
    /// All nodes of the stack, from its top on. Each points to the next.
    TakeAll {
        nodes: Vec<Sight>,
    },
    Disband {
        members: usize,
    },
    /// A weak pointer to an object was put into a slot; whether that of another slot is to the same
    /// target.
    Downgrade {
        object: Sight,
        weak: usize,
        other: usize,
        same: bool,
    },
    /// The record of a weak pointer found no room.
    NoRecord {
        object: Sight,
    },
    DropWeak {
        weak: usize,
        was: bool,
    },
    CopyWeak {
        from: usize,
        to: usize,
    },
    Upgrade {
        weak: usize,
        found: Option<Sight>,
    },
    StoreWeak {
        node: Sight,
        weak: Option<usize>,
    },
    Register {
        object: Sight,
        number: Number,
        act: Act,
    },
    Root {
        root: RootNumber,
        object: Sight,
    },
    CloneRoot {
        root: RootNumber,
        of: RootNumber,
    },
    Fetch {
        root: RootNumber,
        found: Sight,
    },
    Unroot {
        root: RootNumber,
    },
    /// Made, to be dropped at whatever time.
    Island {
        root: RootNumber,
        object: Sight,
    },
    /// A root of an island is about to be dropped; has been.
    Sinking {
        root: RootNumber,
    },
    Sunk {
        root: RootNumber,
    },
    /// A cycle is asked for.
    Collect,
    /// A step was made, with which a cycle has ended or has not.
    Step {
        finished: bool,
    },
    /// The session of the only mutator is about to end: by a panic, or else whether a cycle is due.
    Close {
        due: Option<bool>,
    },
}

/// What one operation did at one moment.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    /// Who did it, and which step of the program it is.
    pub(super) by: (usize, usize),
    /// Cycles that its session has seen completed; `None` if it was none of a session.
    pub(super) cycle: Option<u64>,
    pub(super) deeds: Vec<Deed>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { by: (hand, step), cycle, deeds, .. } = self;
        match cycle {
            Some(cycle) => write!(f, "after cycle {cycle} ")?,
            None => write!(f, "outside ")?,
        }
        match *hand {
            usize::MAX => write!(f, "a cleanup: ")?,
            hand => write!(f, "mutator {hand}, step {step}: ")?,
        }
        f.debug_list().entries(deeds.iter().take(8)).finish()?;
        if deeds.len() > 8 { write!(f, " and {} more", deeds.len() - 8) } else { Ok(()) }
    }
}

/// What one thread has written down.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) entries: Vec<Entry>,
    /// The reports of cycles that it has come across.
    pub(super) reports: BTreeMap<u64, GcReport>,
    /// Who is writing.
    pub(super) by: (usize, usize),
    /// What is to be written down if it panics: something is being allocated, and may find no room.
    pub(super) asked: Option<Deed>,
}

impl Journal {
    pub(super) fn write(&mut self, stamp: Stamp, cycle: Option<u64>, deeds: Vec<Deed>) {
        self.entries.push(Entry { stamp, by: self.by, cycle, deeds });
    }

    /// How many cycles a report tells of.
    pub(super) fn note(&mut self, report: Option<GcReport>) -> u64 {
        let Some(report) = report else { return 0 };
        self.reports.insert(report.cycle, report);
        report.cycle
    }
}
