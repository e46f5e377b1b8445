//! Tracing: every type that can hold a pointer keeps what it points to.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use sexton::{
    Branded, Gc, GcAtomic, GcCell, GcMutex, GcRefCell, Heap, Leaf, Mutation, Pacing, Trace, Weak,
};

use crate::world::{Token, calm};

/// What the tests' objects are: alive as long as its token.
type Item<'gc> = Gc<'gc, Leaf<u32>>;

/// Objects allocated beside those a root holds, which must go.
const GARBAGE: u64 = 7;

/// Builds a heap whose root `make` makes, collects, and returns the number of survivors.
fn survivors<R: Branded>(
    make: impl for<'gc> FnOnce(&Mutation<'gc>, &dyn Fn(u32) -> Item<'gc>) -> R::At<'gc>,
) -> u64 {
    let mut heap: Heap<R> = calm().build(|mc| {
        for n in 0..GARBAGE as u32 {
            mc.alloc(Leaf::new(n));
        }
        make(mc, &|n| mc.alloc(Leaf::new(n)))
    });
    let report = heap.collect();
    assert!(report.swept_objects >= GARBAGE, "garbage survived");
    heap.verify().unwrap();
    // Again, now that the survivors are all there is: a cycle changes nothing.
    assert_eq!(heap.collect().live_objects, report.live_objects);
    report.live_objects + report.live_weak_records
}

/// `name: root type => survivors, |mc, item| value`. Every call of `item` allocates one object; a
/// weak record is a survivor, too.
macro_rules! keeps {
    ($($name:ident: $ty:ty => $count:expr, |$mc:pat_param, $item:ident| $make:expr;)*) => {$(
        #[test]
        fn $name() {
            let count = survivors::<$ty>(|$mc, $item| $make);
            assert_eq!(count, $count, "survivors of a {}", stringify!($ty));
        }
    )*};
}

/// Ordered, equal and hashed by its number; what keeps the number company is an object.
#[derive(Trace)]
struct Key<'gc>(u32, Item<'gc>);

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

mod containers {
    use super::*;

    keeps! {
        a_pointer: Item<'static> => 1, |_, item| item(0);
        option: Option<Item<'static>> => 1, |_, item| Some(item(0));
        option_none: Option<Item<'static>> => 0, |_, _item| None;
        ok: Result<Item<'static>, u8> => 1, |_, item| Ok(item(0));
        err: Result<u8, Item<'static>> => 1, |_, item| Err(item(0));
        boxed: Box<Item<'static>> => 1, |_, item| Box::new(item(0));
        boxed_slice: Box<[Item<'static>]> => 5, |_, item| (0..5).map(item).collect();
        vec: Vec<Item<'static>> => 100, |_, item| (0..100).map(item).collect();
        // Pushed at both ends, so that the ring wraps around.
        vec_deque: VecDeque<Item<'static>> => 20, |_, item| {
            let mut deque = VecDeque::with_capacity(16);
            for n in 0..10 {
                deque.push_back(item(n));
                deque.push_front(item(n));
            }
            deque
        };
        linked_list: LinkedList<Item<'static>> => 5, |_, item| (0..5).map(item).collect();
        array: [Item<'static>; 3] => 3, |_, item| [item(0), item(1), item(2)];
        empty_array: [Item<'static>; 0] => 0, |_, _item| [];
        btree_map_keys: BTreeMap<Key<'static>, u8> => 50, |_, item| {
            (0..50).map(|n| (Key(n, item(n)), 0)).collect()
        };
        btree_map_values: BTreeMap<u32, Item<'static>> => 50, |_, item| {
            (0..50).map(|n| (n, item(n))).collect()
        };
        btree_map_both: BTreeMap<Key<'static>, Item<'static>> => 100, |_, item| {
            (0..50).map(|n| (Key(n, item(n)), item(n))).collect()
        };
        btree_set: BTreeSet<Key<'static>> => 50, |_, item| {
            (0..50).map(|n| Key(n, item(n))).collect()
        };
        hash_map_keys: HashMap<Key<'static>, u8> => 50, |_, item| {
            (0..50).map(|n| (Key(n, item(n)), 0)).collect()
        };
        hash_map_values: HashMap<u32, Item<'static>> => 50, |_, item| {
            (0..50).map(|n| (n, item(n))).collect()
        };
        hash_map_both: HashMap<Key<'static>, Item<'static>> => 100, |_, item| {
            (0..50).map(|n| (Key(n, item(n)), item(n))).collect()
        };
        hash_set: HashSet<Key<'static>> => 50, |_, item| (0..50).map(|n| Key(n, item(n))).collect();
        binary_heap: BinaryHeap<Key<'static>> => 50, |_, item| {
            (0..50).map(|n| Key(n, item(n))).collect()
        };
        reverse: BinaryHeap<Reverse<Key<'static>>> => 50, |_, item| {
            (0..50).map(|n| Reverse(Key(n, item(n)))).collect()
        };
        bounds: [Bound<Item<'static>>; 3] => 2, |_, item| {
            [Bound::Included(item(0)), Bound::Excluded(item(1)), Bound::Unbounded]
        };
        tuple_of_one: (Item<'static>,) => 1, |_, item| (item(0),);
        tuple_first: (Item<'static>, u8) => 1, |_, item| (item(0), 0);
        tuple_last: (u8, Item<'static>) => 1, |_, item| (0, item(0));
        tuple_of_twelve: (
            Item<'static>, Item<'static>, Item<'static>, Item<'static>,
            Item<'static>, Item<'static>, Item<'static>, Item<'static>,
            Item<'static>, Item<'static>, Item<'static>, Item<'static>,
        ) => 12, |_, item| (
            item(0), item(1), item(2), item(3), item(4), item(5),
            item(6), item(7), item(8), item(9), item(10), item(11),
        );
        phantom: PhantomData<Item<'static>> => 0, |_, _item| PhantomData;
        nested: Vec<Option<Box<(u8, [BTreeMap<u8, Item<'static>>; 2])>>> => 6, |_, item| {
            let map = |n| BTreeMap::from([(0, item(n)), (1, item(n))]);
            let (two, one) = ((0, [map(0), map(1)]), (1, [map(2), BTreeMap::new()]));
            vec![None, Some(Box::new(two)), Some(Box::new(one))]
        };

        gc_cell: GcCell<Option<Item<'static>>> => 1, |_, item| GcCell::new(Some(item(0)));
        gc_ref_cell: GcRefCell<Vec<Item<'static>>> => 3, |_, item| {
            GcRefCell::new((0..3).map(item).collect())
        };
        gc_mutex: GcMutex<Vec<Item<'static>>> => 3, |_, item| {
            GcMutex::new((0..3).map(item).collect())
        };
        gc_atomic: GcAtomic<'static, Leaf<u32>> => 1, |_, item| GcAtomic::new(Some(item(0)));
        // The record of a weak pointer stays, its target does not.
        weak: Weak<'static, Leaf<u32>> => 1, |mc, item| mc.downgrade(item(0));
        chain: Gc<'static, Option<Gc<'static, Vec<Item<'static>>>>> => 4, |mc, item| {
            mc.alloc(Some(mc.alloc(vec![item(0), item(1)])))
        };
    }

    /// Types that hold no pointer and live beside those that do.
    #[test]
    fn plain_types_are_payloads() {
        fn payload<R: Branded>() {}
        payload::<(u8, i128, f64, bool, char, usize, std::num::NonZeroU16)>();
        payload::<(String, Box<str>, &'static str, std::borrow::Cow<'static, str>)>();
        payload::<(std::path::PathBuf, std::ffi::OsString, std::ffi::CString)>();
        payload::<(std::time::Duration, std::time::Instant, std::net::IpAddr)>();
        payload::<(std::ops::Range<u32>, std::ops::RangeInclusive<u32>, std::ops::RangeFull)>();
        payload::<(Rc<Token>, Arc<[Token]>, std::rc::Weak<str>, std::sync::Weak<Token>)>();
        payload::<(Cell<u8>, RefCell<Vec<u8>>, Mutex<Token>, std::sync::OnceLock<u8>)>();
        payload::<(std::sync::atomic::AtomicUsize, fn(&'static str) -> usize, fn())>();
    }

    #[test]
    fn types_say_whether_they_need_tracing() {
        fn needs_trace<R: Branded>() -> bool {
            <R::At<'static> as Trace<'static>>::NEEDS_TRACE
        }
        assert!(!needs_trace::<Vec<u8>>());
        assert!(!needs_trace::<HashMap<String, Option<Box<[u64; 4]>>>>());
        assert!(!needs_trace::<(u8, Leaf<Token>, Result<(), String>)>());
        assert!(!needs_trace::<GcCell<Option<u8>>>());
        assert!(needs_trace::<HashMap<Item<'static>, u8>>());
        assert!(needs_trace::<HashMap<u8, Item<'static>>>());
        assert!(needs_trace::<(u8, u8, [Option<Weak<'static, u8>>; 4])>());
        // It stores nothing, but a trait may associate it with a type that does.
        assert!(needs_trace::<PhantomData<Item<'static>>>());
    }
}

mod derived {
    use super::*;

    #[derive(Trace)]
    struct Named<'gc> {
        first: Item<'gc>,
        plain: u64,
        #[trace(leaf)]
        leaf: Token,
        last: Vec<Item<'gc>>,
    }

    #[derive(Trace)]
    struct Tuple<'brand>(u8, Item<'brand>, #[trace(leaf)] (), Option<Item<'brand>>);

    #[derive(Trace, Clone, Copy)]
    struct Unit;

    #[derive(Trace)]
    struct RawNames<'gc> {
        r#type: Item<'gc>,
        r#match: Item<'gc>,
        // Named as the expansion might name its own variables.
        tracer: Item<'gc>,
        field0: Item<'gc>,
    }

    #[derive(Trace)]
    enum Shape<'gc> {
        Nothing,
        Tuple(Item<'gc>, u8, Item<'gc>),
        Named { one: Item<'gc>, other: Option<Item<'gc>> },
        Mixed(#[trace(leaf)] Token, Item<'gc>),
    }

    #[derive(Trace)]
    enum Never {}

    #[derive(Trace)]
    struct WithNever<'gc>(Item<'gc>, Option<Never>);

    /// Brandless: `T` alone brings pointers in.
    #[derive(Trace)]
    struct Pair<T, U = T> {
        one: T,
        other: Vec<U>,
    }

    #[derive(Trace)]
    struct Linked<'gc, T> {
        value: T,
        next: GcCell<Option<Gc<'gc, Linked<'gc, T>>>>,
    }

    #[derive(Trace)]
    struct Array<'gc, T, const N: usize, const M: usize = 2> {
        values: [T; N],
        pointers: [Item<'gc>; M],
    }

    /// A parameter that can hold no pointer needs no `Trace`.
    #[derive(Trace)]
    struct Shared<'gc, T: ?Sized + 'static> {
        #[trace(leaf)]
        shared: Rc<T>,
        leaf: Leaf<Vec<&'static str>>,
        pointer: Item<'gc>,
    }

    #[derive(Trace)]
    struct Map<'gc, K, V, S>
    where
        S: 'static,
    {
        map: HashMap<K, V, S>,
        pointer: Item<'gc>,
    }

    /// Bounds of all kinds; each must hold for the parameter's family and at every brand.
    #[derive(Trace)]
    struct Sorted<'gc, T: Ord + Clone>
    where
        Vec<T>: Clone,
        for<'a> &'a T: PartialEq<&'a T>,
        Gc<'gc, T>: Copy,
        Self: Sized,
    {
        values: BTreeSet<T>,
        object: Gc<'gc, T>,
    }

    #[derive(Trace)]
    struct Outlived<'gc, T: Trace<'gc> + 'gc>(Gc<'gc, T>);

    #[derive(Trace)]
    struct Items<I: Iterator<Item = u8>>
    where
        <I as Iterator>::Item: Copy,
    {
        iterator: Option<I>,
    }

    #[derive(Trace)]
    struct Countdown<'gc>(u8, Item<'gc>);

    impl Iterator for Countdown<'_> {
        type Item = u8;

        fn next(&mut self) -> Option<u8> {
            self.0 = self.0.checked_sub(1)?;
            Some(self.0)
        }
    }

    trait Kind<'gc> {
        type Value;
    }

    impl<'gc> Kind<'gc> for u8 {
        type Value = Vec<Item<'gc>>;
    }

    #[derive(Trace)]
    struct ByKind<'gc, K: Kind<'gc>>
    where
        <K as Kind<'gc>>::Value: Trace<'gc>,
    {
        kind: K,
        value: <K as Kind<'gc>>::Value,
        pointer: Item<'gc>,
    }

    /// Two types that own each other, without a `Gc` between them.
    #[derive(Trace)]
    enum Expression<'gc> {
        Constant(Item<'gc>),
        Sum(Box<Expression<'gc>>, Box<Expression<'gc>>),
        Block(Vec<Statement<'gc>>),
    }

    #[derive(Trace)]
    struct Statement<'gc> {
        value: Option<Box<Expression<'gc>>>,
        comment: String,
    }

    /// The same without a brand: one with a parameter, one without anything.
    #[derive(Trace)]
    enum Tree<T> {
        Tip,
        Fork(Box<Tree<T>>, T, Box<Self>),
    }

    #[derive(Trace)]
    enum Json {
        Number(f64),
        List(Vec<Json>),
    }

    #[derive(Trace)]
    #[trace(crate = sexton)]
    struct ByPath<'gc>(Item<'gc>);

    #[derive(Trace)]
    #[trace(crate = "::sexton")]
    struct ByText<'gc>(Item<'gc>);

    macro_rules! define {
        ($name:ident { $($field:ident: $ty:ty),* }) => {
            #[derive(Trace)]
            struct $name<'gc> { $($field: $ty,)* by_macro: Item<'gc> }
        };
    }
    define!(ByMacro { plain: Option<u8>, values: Vec<u8> });

    fn fork<'gc>(
        left: Tree<Item<'gc>>,
        item: Item<'gc>,
        right: Tree<Item<'gc>>,
    ) -> Tree<Item<'gc>> {
        Tree::Fork(Box::new(left), item, Box::new(right))
    }

    keeps! {
        named: Named<'static> => 4, |_, item| Named {
            first: item(0), plain: 1, leaf: Token::default(), last: (0..3).map(item).collect(),
        };
        tuple: Tuple<'static> => 2, |_, item| Tuple(0, item(0), (), Some(item(1)));
        unit: [Unit; 2] => 0, |_, _item| [Unit; 2];
        raw_names: RawNames<'static> => 4, |_, item| RawNames {
            r#type: item(0), r#match: item(1), tracer: item(2), field0: item(3),
        };
        variants: Vec<Shape<'static>> => 5, |_, item| vec![
            Shape::Nothing,
            Shape::Tuple(item(0), 0, item(1)),
            Shape::Named { one: item(2), other: Some(item(3)) },
            Shape::Mixed(Token::default(), item(4)),
        ];
        never: WithNever<'static> => 1, |_, item| WithNever(item(0), None);
        pair: Pair<u8, Item<'static>> => 2, |_, item| {
            Pair { one: 1, other: vec![item(0), item(1)] }
        };
        pair_first: Pair<Item<'static>, u8> => 1, |_, item| Pair { one: item(0), other: vec![0] };
        pair_by_default: Pair<Item<'static>> => 2, |_, item| {
            Pair { one: item(0), other: vec![item(1)] }
        };
        linked: Linked<'static, Pair<Item<'static>>> => 9, |mc, item| {
            let mut head = None;
            for n in 0..3 {
                let value = Pair { one: item(n), other: vec![item(n)] };
                let link = Linked { value, next: GcCell::new(head) };
                head = Some(mc.alloc(link));
            }
            // The root is a fourth link, outside of the heap, and shares an object with the first.
            let first = head.unwrap();
            let value = Pair { one: first.value.one, other: vec![] };
            Linked { value, next: GcCell::new(head) }
        };
        array: Array<'static, Item<'static>, 3> => 5, |_, item| Array {
            values: [item(0), item(1), item(2)], pointers: [item(3), item(4)],
        };
        shared: Shared<'static, str> => 1, |_, item| Shared {
            shared: "shared".into(), leaf: Leaf::new(vec![]), pointer: item(0),
        };
        map: Map<'static, Key<'static>, Item<'static>, std::hash::RandomState> => 11,
        |_, item| Map {
            map: (0..5).map(|n| (Key(n, item(n)), item(n))).collect(), pointer: item(5),
        };
        sorted: Sorted<'static, Leaf<u32>> => 1, |_, item| Sorted {
            values: BTreeSet::from([Leaf::new(1)]), object: item(0),
        };
        outlived: Outlived<'static, Leaf<u32>> => 1, |_, item| Outlived(item(0));
        items: Items<Countdown<'static>> => 1, |_, item| {
            let mut items = Items { iterator: Some(Countdown(1, item(0))) };
            assert_eq!(items.iterator.as_mut().unwrap().next(), Some(0));
            items
        };
        by_kind: ByKind<'static, u8> => 4, |_, item| ByKind {
            kind: 0, value: (0..3).map(item).collect(), pointer: item(3),
        };
        expression: Expression<'static> => 3, |_, item| {
            let constant = |n| Box::new(Expression::Constant(item(n)));
            let statement = Statement { value: Some(constant(0)), comment: String::new() };
            let block = Expression::Block(vec![statement]);
            Expression::Sum(Box::new(block), Box::new(Expression::Sum(constant(1), constant(2))))
        };
        tree: Tree<Item<'static>> => 3, |_, item| {
            let left = fork(Tree::Tip, item(0), Tree::Tip);
            let right = fork(Tree::Tip, item(1), Tree::Tip);
            fork(left, item(2), right)
        };
        by_path: ByPath<'static> => 1, |_, item| ByPath(item(0));
        by_text: ByText<'static> => 1, |_, item| ByText(item(0));
        by_macro: ByMacro<'static> => 1, |_, item| {
            ByMacro { plain: None, values: vec![], by_macro: item(0) }
        };
    }

    #[test]
    fn derived_types_say_whether_they_need_tracing() {
        fn needs_trace<R: Branded>() -> bool {
            <R::At<'static> as Trace<'static>>::NEEDS_TRACE
        }
        assert!(needs_trace::<Named<'static>>());
        assert!(needs_trace::<Expression<'static>>());
        assert!(needs_trace::<Pair<u8, Item<'static>>>());
        assert!(needs_trace::<Tree<Item<'static>>>());
        assert!(!needs_trace::<Tree<u8>>());
        assert!(!needs_trace::<Json>());
        assert!(!needs_trace::<Unit>());
        let json = Json::List(vec![Json::Number(1.0)]);
        assert!(matches!(json, Json::List(list) if matches!(list[0], Json::Number(1.0))));
    }

    #[test]
    fn a_leaf_is_dropped_with_its_object() {
        let token = Token::default();
        let mut heap: Heap<()> = calm().build(|_| ());
        heap.mutate(|mc, ()| {
            let first = mc.alloc(Leaf::new(0));
            mc.alloc(Named { first, plain: 0, leaf: token.clone(), last: vec![first] });
        });
        assert_eq!(token.drops(), 0);
        assert_eq!(heap.collect().swept_objects, 2);
        assert_eq!(token.drops(), 1);
    }

    #[test]
    fn generic_types_are_rooted_and_fetched() {
        let mut heap: Heap<()> = calm().build(|_| ());
        let root = heap.mutate(|mc, ()| {
            let value = Pair { one: mc.alloc(Leaf::new(1)), other: vec![2_u8] };
            let linked = mc.alloc(Linked { value, next: GcCell::new(None) });
            mc.root(mc.alloc(Outlived(linked)))
        });
        assert_eq!(heap.collect().live_objects, 3);
        heap.mutate(|mc, ()| {
            let linked = mc.fetch(&root).0;
            assert_eq!(**linked.value.one, 1);
            assert_eq!(linked.value.other, [2]);
            assert!(linked.next.get().is_none());
        });
        drop(root);
        assert_eq!(heap.collect().live_objects, 0);
    }

    #[test]
    fn values_come_through_a_collection_unchanged() {
        let mut heap: Heap<Vec<Shape<'static>>> =
            Heap::builder().pacing(Pacing::Manual).build(|mc| {
                let item = |n| mc.alloc(Leaf::new(n));
                vec![
                    Shape::Nothing,
                    Shape::Tuple(item(1), 2, item(3)),
                    Shape::Named { one: item(4), other: None },
                    Shape::Mixed(Token::default(), item(5)),
                ]
            });
        heap.collect();
        heap.mutate(|mc, shapes| {
            // Room that a collector which missed one would have given away.
            for _ in 0..1000 {
                mc.alloc(Leaf::new(u32::MAX));
            }
            let numbers: Vec<u32> = shapes
                .iter()
                .map(|shape| match shape {
                    Shape::Nothing => 0,
                    Shape::Tuple(one, two, three) => ***one * 100 + u32::from(*two) * 10 + ***three,
                    Shape::Named { one, other } => ***one + u32::from(other.is_some()),
                    Shape::Mixed(token, five) => ***five + token.drops() as u32,
                })
                .collect();
            assert_eq!(numbers, [0, 123, 4, 5]);
        });
    }
}
