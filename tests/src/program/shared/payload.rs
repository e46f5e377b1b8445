//! The objects of programs for several mutators: like those for one, of building blocks that are
//! `Sync`.
//!
//! Invariant: pointers are kept in every building block that can hold one and that threads can
//! share, and each is traced through a field of its own.

use std::sync::Arc;

use sexton::{
    Cleanup, Gc, GcAtomic, GcMutex, GcOnce, GcRwLock, Leaf, Mutation, Root, Shared, SharedRoot,
    Trace, Weak,
};

use super::common::SharedHeap;
use crate::program::any::any;
use crate::program::ledger::{Id, Ledger, Probe};
use crate::program::oracle::ObjectKind;
use crate::program::payload::slot_bytes;
pub(super) use crate::program::payload::{Plain, Refusal, Stopper, Zero, put};

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
    /// A span for each, pointers and drop glue.
    Large,
    /// Drop glue that ends a cleanup.
    Stopper,
}

impl Kind {
    /// A kind that needs no company.
    pub(super) fn pick(byte: u8) -> Self {
        match byte % 32 {
            0..10 => Kind::Node,
            10..18 => Kind::Branch,
            18..21 => Kind::Plain,
            21..25 => Kind::Token,
            25..27 => Kind::Bomb,
            27..30 => Kind::Zero,
            _ => Kind::Large,
        }
    }

    /// One that does the same, and may be dropped within a session, or by its unwinding.
    pub(super) fn without_bomb(self) -> Self {
        if self == Kind::Bomb { Kind::Token } else { self }
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
            Kind::Stopper => size_of::<Leaf<Stopper>>(),
        })
    }

    fn has_drop_glue(self) -> bool {
        !matches!(self, Kind::Node | Kind::Plain | Kind::Zero)
    }

    fn explodes(self) -> bool {
        self == Kind::Bomb
    }
}

/// The pointers of a node that its lock guards.
#[derive(Trace, Default)]
pub(super) struct Edges<'gc> {
    pub(super) left: Option<Any<'gc>>,
    pub(super) weak: Option<AnyWeak<'gc>>,
}

#[derive(Trace)]
pub(super) struct Node<'gc> {
    id: Id,
    pub(super) edges: GcMutex<Edges<'gc>>,
    /// Written with the lock of the edges held, but for what is on the stack.
    pub(super) next: GcAtomic<'gc, Node<'gc>>,
}

#[derive(Trace)]
pub(super) struct Branch<'gc> {
    id: Id,
    pub(super) list: GcRwLock<Vec<Any<'gc>>>,
    pub(super) once: GcOnce<Any<'gc>>,
    _probe: Leaf<Probe>,
}

/// Its ballast shows whether anybody wrote to the slot.
#[derive(Trace)]
pub(super) struct Large<'gc> {
    id: Id,
    ballast: [u8; 33_000],
    pub(super) edges: GcMutex<Edges<'gc>>,
    _probe: Leaf<Probe>,
}

/// Places in the root for pointers.
pub(super) const SLOTS: usize = 6;
/// Places in the root for weak pointers.
pub(super) const WEAKS: usize = 4;
/// Objects that wait to be traced when the marker calls for help; the herd is as large.
pub(super) const HERD: usize = 40_000;

/// The root of a heap.
#[derive(Trace)]
pub(super) struct World<'gc> {
    pub(super) slots: [GcMutex<Option<Any<'gc>>>; SLOTS],
    pub(super) weaks: [GcRwLock<Option<AnyWeak<'gc>>>; WEAKS],
    pub(super) stack: GcAtomic<'gc, Node<'gc>>,
    pub(super) herd: GcRwLock<Vec<Gc<'gc, Node<'gc>>>>,
    _probe: Leaf<Probe>,
}

impl<'gc> World<'gc> {
    pub(super) fn new(probe: Probe, herd: Vec<Gc<'gc, Node<'gc>>>) -> Self {
        World {
            slots: Default::default(),
            weaks: Default::default(),
            stack: GcAtomic::default(),
            herd: GcRwLock::new(herd),
            _probe: Leaf::new(probe),
        }
    }
}

any! {
    Shared;
    Node: Node<'gc>, Node<'static>;
    Branch: Branch<'gc>, Branch<'static>;
    Plain: Plain, Plain;
    Token: Leaf<Probe>, Leaf<Probe>;
    Zero: Zero, Zero;
    Large: Large<'gc>, Large<'static>;
    Stopper: Leaf<Stopper>, Leaf<Stopper>;
}

macro_rules! any_shared_root {
    ($($name:ident: $family:ty;)*) => {
        /// A root of an object of any type, for all mutators.
        #[derive(Clone)]
        pub(super) enum AnySharedRoot<'h> {
            $($name(SharedRoot<'h, $family>),)*
        }

        impl<'gc> Any<'gc> {
            pub(super) fn share<'h>(
                self,
                mc: &Mutation<'gc, Shared>,
                heap: &'h SharedHeap,
            ) -> AnySharedRoot<'h> {
                match self {
                    $(Any::$name(gc) => AnySharedRoot::$name(heap.share(&mc.root(gc))),)*
                }
            }
        }

        impl AnySharedRoot<'_> {
            pub(super) fn fetch<'gc>(&self, mc: &Mutation<'gc, Shared>) -> Any<'gc> {
                match self {
                    $(AnySharedRoot::$name(root) => Any::$name(mc.fetch_shared(root)),)*
                }
            }
        }
    };
}

any_shared_root! {
    Node: Node<'static>;
    Branch: Branch<'static>;
    Plain: Plain;
    Token: Leaf<Probe>;
    Zero: Zero;
    Large: Large<'static>;
    Stopper: Leaf<Stopper>;
}

/// An object of a kind that needs no company.
pub(super) fn alloc<'gc>(
    mc: &Mutation<'gc, Shared>,
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
        Kind::Large => Any::Large(put(mc, Large::new(id, probe(false)), fallible)?),
        Kind::Stopper => unreachable!("{kind:?} needs company"),
    })
}

impl Node<'_> {
    pub(super) fn new(id: Id) -> Self {
        Node { id, edges: GcMutex::default(), next: GcAtomic::default() }
    }
}

impl Branch<'_> {
    fn new(id: Id, probe: Probe) -> Self {
        Branch { id, list: GcRwLock::default(), once: GcOnce::default(), _probe: Leaf::new(probe) }
    }
}

impl Large<'_> {
    fn new(id: Id, probe: Probe) -> Self {
        let ballast = [id as u8; 33_000];
        Large { id, ballast, edges: GcMutex::default(), _probe: Leaf::new(probe) }
    }

    fn intact_id(&self) -> Id {
        assert!(
            self.ballast.iter().step_by(3_300).all(|&byte| byte == self.id as u8),
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
            Any::Stopper(gc) => Some(gc.probe.id),
        }
    }

    /// The edges of a node, or of a large object.
    pub(super) fn edges(self) -> Option<&'gc GcMutex<Edges<'gc>>> {
        match self {
            Any::Node(gc) => Some(&Gc::as_ref(gc).edges),
            Any::Large(gc) => Some(&Gc::as_ref(gc).edges),
            _ => None,
        }
    }

    pub(super) fn node(self) -> Option<Gc<'gc, Node<'gc>>> {
        match self {
            Any::Node(node) => Some(node),
            _ => None,
        }
    }

    pub(super) fn branch(self) -> Option<&'gc Branch<'gc>> {
        match self {
            Any::Branch(branch) => Some(Gc::as_ref(branch)),
            _ => None,
        }
    }
}
