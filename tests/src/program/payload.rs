//! The objects of op programs: a type for each way in which a span, the marker or the sweep may
//! treat one. The modes differ in the cells, and in whether an object may own a root.
//!
//! Invariant: pointers are kept in every building block that can hold one in the mode, and each is
//! traced through a field of its own.

use std::sync::Arc;

use sexton::{Cleanup, Gc, GcAtomic, GcMutex, GcOnce, GcRwLock, Leaf, Mutation, Payload, Trace};

pub(super) use super::any::{Any, AnyRoot, AnySharedRoot, AnyWeak};
use super::ledger::{How, Id, Ledger, Number, Probe, attempt};
use super::place::{Ground, Place};

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
    /// A span for each, pointers and drop glue.
    Wide,
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
            0..9 => Kind::Node,
            9..16 => Kind::Branch,
            16..20 => Kind::Plain,
            20..24 => Kind::Token,
            24..26 => Kind::Bomb,
            26..29 => Kind::Zero,
            29 => Kind::Large,
            30 => Kind::Wide,
            _ => Kind::Huge,
        }
    }

    /// Bytes that one counts for in a heap of the mode.
    pub(super) fn bytes<M: Ground>(self) -> u64 {
        slot_bytes(match self {
            Kind::Node => size_of::<Node<'_, M>>(),
            Kind::Branch => size_of::<Branch<'_, M>>(),
            Kind::Plain => size_of::<Plain>(),
            Kind::Token | Kind::Bomb => size_of::<Leaf<Probe>>(),
            Kind::Zero => size_of::<Zero>(),
            Kind::Large => size_of::<Large<'_, M>>(),
            Kind::Wide => size_of::<Wide<'_, M>>(),
            Kind::Huge => size_of::<Huge<'_, M>>(),
            Kind::Keeper => size_of::<Leaf<Keeper<M>>>(),
            Kind::Stopper => size_of::<Leaf<Stopper>>(),
        })
    }

    pub(super) fn has_drop_glue(self) -> bool {
        !matches!(self, Kind::Node | Kind::Plain | Kind::Zero | Kind::Large | Kind::Huge)
    }
}

/// Bytes that an object of that size counts for, as the documentation of reports and limits has it.
fn slot_bytes(size: usize) -> u64 {
    size.max(8).next_multiple_of(8) as u64
}

/// Bytes that a weak record counts for.
pub(super) const RECORD_BYTES: u64 = 8;

/// The pointers of a node that its cell holds.
#[derive(Trace)]
pub(super) struct Edges<'gc, M: Ground + 'static> {
    pub(super) left: Option<Any<'gc, M>>,
    pub(super) weak: Option<AnyWeak<'gc, M>>,
}

#[derive(Trace)]
pub(super) struct Node<'gc, M: Ground + 'static> {
    id: Id,
    pub(super) edges: M::Cell<'gc, Edges<'gc, M>>,
    /// Written with the lock of the edges held, but for what is on the stack.
    pub(super) next: GcAtomic<'gc, Node<'gc, M>>,
}

#[derive(Trace)]
pub(super) struct Branch<'gc, M: Ground + 'static> {
    id: Id,
    pub(super) list: M::RefCell<'gc, Vec<Any<'gc, M>>>,
    pub(super) mutex: GcMutex<Option<Any<'gc, M>>>,
    pub(super) once: GcOnce<Any<'gc, M>>,
    _probe: Leaf<Probe>,
}

#[derive(Trace)]
pub(super) struct Plain {
    id: Id,
}

#[derive(Trace)]
pub(super) struct Zero;

/// Its ballast shows whether anybody wrote to the slot.
#[derive(Trace)]
pub(super) struct Bulk<'gc, M: Ground + 'static, P: 'static, const N: usize> {
    id: Id,
    ballast: [u8; N],
    pub(super) edges: M::Cell<'gc, Edges<'gc, M>>,
    _probe: Leaf<P>,
}

pub(super) type Large<'gc, M> = Bulk<'gc, M, (), 9_000>;
pub(super) type Wide<'gc, M> = Bulk<'gc, M, Probe, 33_000>;
pub(super) type Huge<'gc, M> = Bulk<'gc, M, (), 70_000>;

pub(super) struct Keeper<M: Ground> {
    probe: Probe,
    _root: M::Keeps,
}

pub(super) struct Stopper {
    probe: Probe,
    how: How,
    number: Number,
    handle: Arc<Cleanup>,
}

impl Drop for Stopper {
    fn drop(&mut self) {
        attempt(&self.probe.ledger, self.how, self.number, &self.handle);
    }
}

/// Places in the root for pointers.
pub(super) const SLOTS: usize = 8;
/// Places in the root for weak pointers.
pub(super) const WEAKS: usize = 4;
/// As many objects as a herd has if a cycle is to mark for several slices.
pub(super) const FLOCK: usize = 600;
/// Objects that wait to be traced when the marker calls for help; the herd is as large.
pub(super) const HERD: usize = 40_000;

/// The root of a heap.
#[derive(Trace)]
pub(super) struct World<'gc, M: Ground + 'static> {
    pub(super) slots: [M::RefCell<'gc, Option<Any<'gc, M>>>; SLOTS],
    pub(super) weaks: [M::RefCell<'gc, Option<AnyWeak<'gc, M>>>; WEAKS],
    pub(super) stack: GcAtomic<'gc, Node<'gc, M>>,
    pub(super) herd: GcRwLock<Vec<Gc<'gc, Node<'gc, M>>>>,
    _probe: Leaf<Probe>,
}

/// What an object is made of.
pub(super) enum Seed<M: Ground> {
    /// Of a kind that needs no company.
    Alone(Kind),
    Keeper(M::Keeps),
    Stopper(How, Number, Arc<Cleanup>),
}

impl<M: Ground> Seed<M> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Seed::Alone(kind) => *kind,
            Seed::Keeper(_) => Kind::Keeper,
            Seed::Stopper(..) => Kind::Stopper,
        }
    }
}

/// A heap's refusal, as it describes itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) requested: u64,
    pub(super) used: u64,
    /// Of these, bytes outside the heap.
    pub(super) external: u64,
    pub(super) max: u64,
}

/// What [`Ground::alloc`] does.
pub(super) fn alloc<'gc, M: Ground>(
    mc: &Mutation<'gc, M>,
    seed: Seed<M>,
    id: Id,
    ledger: &Arc<Ledger>,
    fallible: bool,
) -> Result<Any<'gc, M>, Refusal>
where
    Plain: Payload<M>,
    Zero: Payload<M>,
    Leaf<Probe>: Payload<M>,
    Leaf<Stopper>: Payload<M>,
    Leaf<Keeper<M>>: Payload<M>,
    Node<'gc, M>: Payload<M>,
    Branch<'gc, M>: Payload<M>,
    Large<'gc, M>: Payload<M>,
    Wide<'gc, M>: Payload<M>,
    Huge<'gc, M>: Payload<M>,
{
    let probe = || Probe::new(id, ledger);
    Ok(match seed {
        Seed::Alone(Kind::Node) => Any::Node(put(mc, Node::new(id), fallible)?),
        Seed::Alone(Kind::Branch) => Any::Branch(put(mc, Branch::new(id, probe()), fallible)?),
        Seed::Alone(Kind::Plain) => Any::Plain(put(mc, Plain { id }, fallible)?),
        Seed::Alone(Kind::Token) => Any::Token(put(mc, Leaf::new(probe()), fallible)?),
        Seed::Alone(Kind::Bomb) => {
            let bomb = put(mc, Leaf::new(probe()), fallible)?;
            // Not before: what is refused is dropped in the session, or by its unwinding.
            bomb.arm();
            Any::Token(bomb)
        }
        Seed::Alone(Kind::Zero) => Any::Zero(put(mc, Zero, fallible)?),
        Seed::Alone(Kind::Large) => Any::Large(put(mc, Bulk::new(id, ()), fallible)?),
        Seed::Alone(Kind::Wide) => Any::Wide(put(mc, Bulk::new(id, probe()), fallible)?),
        Seed::Alone(Kind::Huge) => Any::Huge(put(mc, Bulk::new(id, ()), fallible)?),
        Seed::Alone(kind) => unreachable!("{kind:?} needs company"),
        Seed::Keeper(root) => {
            Any::Keeper(put(mc, Leaf::new(Keeper { probe: probe(), _root: root }), fallible)?)
        }
        Seed::Stopper(how, number, handle) => {
            let stopper = Stopper { probe: probe(), how, number, handle };
            Any::Stopper(put(mc, Leaf::new(stopper), fallible)?)
        }
    })
}

/// Puts a value into the heap, by `try_alloc` if it may fail.
fn put<'gc, M: Ground, T: Trace<'gc> + Payload<M>>(
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
        external: full.external_bytes(),
        max: full.max_bytes(),
    })
}

impl<M: Ground> Copy for Edges<'_, M> {}

impl<M: Ground> Clone for Edges<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Ground> Edges<'_, M> {
    const NONE: Self = Edges { left: None, weak: None };
}

impl<'gc, M: Ground> World<'gc, M> {
    pub(super) fn new(probe: Probe, herd: Vec<Gc<'gc, Node<'gc, M>>>) -> Self {
        World {
            slots: std::array::from_fn(|_| Place::new(None)),
            weaks: std::array::from_fn(|_| Place::new(None)),
            stack: GcAtomic::default(),
            herd: GcRwLock::new(herd),
            _probe: Leaf::new(probe),
        }
    }
}

impl<M: Ground> Node<'_, M> {
    pub(super) fn new(id: Id) -> Self {
        Node { id, edges: Place::new(Edges::NONE), next: GcAtomic::default() }
    }
}

impl<M: Ground> Branch<'_, M> {
    fn new(id: Id, probe: Probe) -> Self {
        Branch {
            id,
            list: Place::new(Vec::new()),
            mutex: GcMutex::default(),
            once: GcOnce::default(),
            _probe: Leaf::new(probe),
        }
    }
}

impl<M: Ground, P, const N: usize> Bulk<'_, M, P, N> {
    fn new(id: Id, probe: P) -> Self {
        let edges = Place::new(Edges::NONE);
        Bulk { id, ballast: [id as u8; N], edges, _probe: Leaf::new(probe) }
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

impl<'gc, M: Ground> Any<'gc, M> {
    /// The object's number, as it remembers it.
    pub(super) fn id(self) -> Option<Id> {
        match self {
            Any::Node(gc) => Some(gc.id),
            Any::Branch(gc) => Some(gc.id),
            Any::Plain(gc) => Some(gc.id),
            Any::Token(gc) => Some(gc.id),
            Any::Zero(_) => None,
            Any::Large(gc) => Some(gc.intact_id()),
            Any::Wide(gc) => Some(gc.intact_id()),
            Any::Huge(gc) => Some(gc.intact_id()),
            Any::Keeper(gc) => Some(gc.probe.id),
            Any::Stopper(gc) => Some(gc.probe.id),
        }
    }

    /// The edges of a node, or of a bulky object.
    pub(super) fn edges(self) -> Option<&'gc M::Cell<'gc, Edges<'gc, M>>> {
        match self {
            Any::Node(gc) => Some(&Gc::as_ref(gc).edges),
            Any::Large(gc) => Some(&Gc::as_ref(gc).edges),
            Any::Wide(gc) => Some(&Gc::as_ref(gc).edges),
            Any::Huge(gc) => Some(&Gc::as_ref(gc).edges),
            _ => None,
        }
    }

    pub(super) fn node(self) -> Option<Gc<'gc, Node<'gc, M>>> {
        match self {
            Any::Node(node) => Some(node),
            _ => None,
        }
    }

    pub(super) fn branch(self) -> Option<&'gc Branch<'gc, M>> {
        match self {
            Any::Branch(branch) => Some(Gc::as_ref(branch)),
            _ => None,
        }
    }
}
