//! The objects of op programs: a type for each way in which a span, the marker or the sweep may
//! treat one.
//!
//! Invariant: pointers are kept in every building block that can hold one, and each is traced
//! through a field of its own.

use std::sync::Arc;

use sexton::{
    Cleanup, Gc, GcAtomic, GcCell, GcMutex, GcRefCell, Leaf, Local, Mode, Mutation, Payload, Root,
    Trace, Weak,
};

use super::any::any;
use super::ledger::{How, Id, Ledger, Number, Probe, attempt};
use super::oracle::ObjectKind;

/// What can be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Pointers, no drop glue.
    Node,
    /// Pointers and drop glue.
    Branch,
    /// Neither.
    Plain,
    /// Drop glue, no pointers.
    Token,
    /// Drop glue that panics.
    Bomb,
    /// No bytes.
    Zero,
    /// A few to a span.
    Large,
    /// Several spans' worth of memory each.
    Huge,
    /// Drop glue that drops a root.
    Keeper,
    /// Drop glue that ends a cleanup.
    Stopper,
}

impl Kind {
    /// A kind that needs no company.
    pub fn pick(byte: u8) -> Self {
        match byte % 32 {
            0..8 => Kind::Node,
            8..15 => Kind::Branch,
            15..20 => Kind::Plain,
            20..24 => Kind::Token,
            24..26 => Kind::Bomb,
            26..29 => Kind::Zero,
            29..31 => Kind::Large,
            _ => Kind::Huge,
        }
    }

    /// Fields that hold one pointer, not counting the list of a branch.
    pub(super) fn fields(self) -> usize {
        match self {
            Kind::Node | Kind::Branch => 2,
            Kind::Large | Kind::Huge => 1,
            _ => 0,
        }
    }
}

impl ObjectKind for Kind {
    const ROOT: Kind = Kind::Token;

    fn bytes(self) -> u64 {
        slot_bytes(match self {
            Kind::Node => size_of::<Node<'_>>(),
            Kind::Branch => size_of::<Branch<'_>>(),
            Kind::Plain => size_of::<Plain>(),
            Kind::Token | Kind::Bomb => size_of::<Leaf<Probe>>(),
            Kind::Zero => size_of::<Zero>(),
            Kind::Large => size_of::<Large<'_>>(),
            Kind::Huge => size_of::<Huge<'_>>(),
            Kind::Keeper => size_of::<Leaf<Keeper>>(),
            Kind::Stopper => size_of::<Leaf<Stopper>>(),
        })
    }

    fn has_drop_glue(self) -> bool {
        matches!(self, Kind::Branch | Kind::Token | Kind::Bomb | Kind::Keeper | Kind::Stopper)
    }

    fn explodes(self) -> bool {
        self == Kind::Bomb
    }
}

/// Bytes that an object of that size counts for, as the documentation of reports and limits has it.
pub(super) fn slot_bytes(size: usize) -> u64 {
    let slot = size.max(16).next_multiple_of(8) as u64;
    if slot > SPAN { slot.next_multiple_of(SPAN) } else { slot }
}

const SPAN: u64 = 64 << 10;

/// Bytes that a weak record counts for.
pub(super) const RECORD_BYTES: u64 = 16;

#[derive(Trace)]
pub(super) struct Node<'gc> {
    id: Id,
    left: GcCell<Option<Any<'gc>>>,
    right: GcCell<Option<Any<'gc>>>,
    weak: GcCell<Option<AnyWeak<'gc>>>,
}

#[derive(Trace)]
pub(super) struct Branch<'gc> {
    id: Id,
    list: GcRefCell<Vec<Any<'gc>>>,
    mutex: GcMutex<Option<Any<'gc>>>,
    atomic: GcAtomic<'gc, Branch<'gc>>,
    _probe: Leaf<Probe>,
}

#[derive(Trace)]
pub(super) struct Plain {
    pub(super) id: Id,
}

#[derive(Trace)]
pub(super) struct Zero;

/// Its ballast shows whether anybody wrote to the slot.
#[derive(Trace)]
pub(super) struct Bulk<'gc, const N: usize> {
    id: Id,
    ballast: [u8; N],
    next: GcCell<Option<Any<'gc>>>,
}

type Large<'gc> = Bulk<'gc, 9_000>;
type Huge<'gc> = Bulk<'gc, 70_000>;

pub(super) struct Keeper {
    pub(super) probe: Probe,
    pub(super) _root: AnyRoot,
}

pub(super) struct Stopper {
    pub(super) probe: Probe,
    pub(super) how: How,
    pub(super) number: Number,
    pub(super) handle: Arc<Cleanup>,
}

impl Drop for Stopper {
    fn drop(&mut self) {
        attempt(&self.probe.ledger, self.how, self.number, &self.handle);
    }
}

/// The root of a heap.
#[derive(Trace)]
pub(super) struct World<'gc> {
    pub(super) kept: GcRefCell<Vec<Any<'gc>>>,
    pub(super) weaks: GcRefCell<Vec<AnyWeak<'gc>>>,
    _probe: Leaf<Probe>,
}

impl World<'_> {
    pub(super) fn new(probe: Probe) -> Self {
        World { kept: GcRefCell::default(), weaks: GcRefCell::default(), _probe: Leaf::new(probe) }
    }
}

any! {
    Local;
    Node: Node<'gc>, Node<'static>;
    Branch: Branch<'gc>, Branch<'static>;
    Plain: Plain, Plain;
    Token: Leaf<Probe>, Leaf<Probe>;
    Zero: Zero, Zero;
    Large: Large<'gc>, Large<'static>;
    Huge: Huge<'gc>, Huge<'static>;
    Keeper: Leaf<Keeper>, Leaf<Keeper>;
    Stopper: Leaf<Stopper>, Leaf<Stopper>;
}

/// A heap's refusal, as it describes itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) requested: u64,
    pub(super) used: u64,
    pub(super) max: u64,
}

/// Puts a value into the heap, by `try_alloc` if it may fail.
pub(super) fn put<'gc, M: Mode, T: Trace<'gc> + Payload<M>>(
    mc: &Mutation<'gc, M>,
    value: T,
    fallible: bool,
) -> Result<Gc<'gc, T>, Refusal> {
    if !fallible {
        return Ok(mc.alloc(value));
    }
    mc.try_alloc(value).map_err(|full| Refusal {
        requested: full.requested_bytes(),
        used: full.used_bytes(),
        max: full.max_bytes(),
    })
}

/// An object of a kind that needs no company.
pub(super) fn alloc<'gc>(
    mc: &Mutation<'gc>,
    kind: Kind,
    id: Id,
    ledger: &Arc<Ledger>,
    fallible: bool,
) -> Result<Any<'gc>, Refusal> {
    let probe = |panics| Probe { id, ledger: ledger.clone(), panics };
    Ok(match kind {
        Kind::Node => Any::Node(put(mc, Node::new(id), fallible)?),
        Kind::Branch => Any::Branch(put(mc, Branch::new(id, probe(false)), fallible)?),
        Kind::Plain => Any::Plain(put(mc, Plain { id }, fallible)?),
        Kind::Token => Any::Token(put(mc, Leaf::new(probe(false)), fallible)?),
        Kind::Bomb => Any::Token(put(mc, Leaf::new(probe(true)), fallible)?),
        Kind::Zero => Any::Zero(put(mc, Zero, fallible)?),
        Kind::Large => Any::Large(put(mc, Bulk::new(id), fallible)?),
        Kind::Huge => Any::Huge(put(mc, Bulk::new(id), fallible)?),
        Kind::Keeper | Kind::Stopper => unreachable!("{kind:?} needs company"),
    })
}

impl Node<'_> {
    fn new(id: Id) -> Self {
        Node { id, left: GcCell::default(), right: GcCell::default(), weak: GcCell::default() }
    }
}

impl Branch<'_> {
    fn new(id: Id, probe: Probe) -> Self {
        Branch {
            id,
            list: GcRefCell::default(),
            mutex: GcMutex::default(),
            atomic: GcAtomic::default(),
            _probe: Leaf::new(probe),
        }
    }
}

impl<const N: usize> Bulk<'_, N> {
    fn new(id: Id) -> Self {
        Bulk { id, ballast: [id as u8; N], next: GcCell::default() }
    }

    fn intact_id(&self) -> Id {
        let probes = [0, N / 4, N / 2, 3 * N / 4, N - 1];
        assert!(
            probes.iter().all(|&at| self.ballast[at] == self.id as u8),
            "the slot of object {} was written to",
            self.id
        );
        self.id
    }
}

impl<'gc> Any<'gc> {
    /// The object's number, as it remembers it.
    pub(super) fn id(self) -> Option<Id> {
        match self {
            Any::Node(gc) => Some(gc.id),
            Any::Branch(gc) => Some(gc.id),
            Any::Plain(gc) => Some(gc.id),
            Any::Token(gc) => Some(gc.id),
            Any::Zero(_) => None,
            Any::Large(gc) => Some(gc.intact_id()),
            Any::Huge(gc) => Some(gc.intact_id()),
            Any::Keeper(gc) => Some(gc.probe.id),
            Any::Stopper(gc) => Some(gc.probe.id),
        }
    }

    /// The pointer in a field; see [`Kind::fields`].
    pub(super) fn field(self, mc: &Mutation<'gc>, field: usize) -> Option<Any<'gc>> {
        match (self, field) {
            (Any::Node(gc), 0) => gc.left.get(),
            (Any::Node(gc), _) => gc.right.get(),
            (Any::Branch(gc), 0) => *gc.mutex.lock(mc),
            (Any::Branch(gc), _) => gc.atomic.load().map(Any::Branch),
            (Any::Large(gc), _) => gc.next.get(),
            (Any::Huge(gc), _) => gc.next.get(),
            _ => None,
        }
    }

    /// Sets a field; the last one of a branch holds branches only.
    pub(super) fn set_field(self, mc: &Mutation<'gc>, field: usize, to: Option<Any<'gc>>) {
        match (self, field) {
            (Any::Node(gc), 0) => gc.left.set(mc, to),
            (Any::Node(gc), _) => gc.right.set(mc, to),
            (Any::Branch(gc), 0) => *gc.mutex.lock(mc) = to,
            (Any::Branch(gc), _) => match to {
                Some(Any::Branch(to)) => {
                    let old = gc.atomic.load();
                    let replaced = gc.atomic.compare_exchange(mc, old, Some(to));
                    assert!(replaced.is_ok(), "the field holds what it has just been said to hold");
                }
                Some(_) => unreachable!("the field holds branches only"),
                None => gc.atomic.store(mc, None),
            },
            (Any::Large(gc), _) => gc.next.set(mc, to),
            (Any::Huge(gc), _) => gc.next.set(mc, to),
            _ => unreachable!("an object without fields"),
        }
    }

    /// The list of a branch.
    pub(super) fn list(&self) -> Option<&GcRefCell<Vec<Any<'gc>>>> {
        match self {
            Any::Branch(gc) => Some(&gc.list),
            _ => None,
        }
    }

    /// The weak field of a node.
    pub(super) fn weak(&self) -> Option<&GcCell<Option<AnyWeak<'gc>>>> {
        match self {
            Any::Node(gc) => Some(&gc.weak),
            _ => None,
        }
    }
}
