//! What the derive traces is what a value holds, whatever the field's type means in the expansion:
//! a pointer in a field keeps its object. What must not compile is in `ui/derive_*`.
#![expect(dead_code, reason = "fields and names that only the expansion meets")]

use std::marker::PhantomData;

use sexton::{Branded, Gc, GcCell, Heap, Root, Trace, Weak};
use sexton_rewrite::becomes;

use crate::world::calm;

/// What the tests' pointers point to. A `Gc` of it dereferences to a leaf, a type without pointers.
type Object<'gc> = Gc<'gc, String>;

/// Puts an object into a value that only a dynamic root keeps: the object lives as long as the
/// root.
fn keeps_its_object<R: Branded>(make: impl for<'gc> FnOnce(Object<'gc>) -> R::At<'gc>) {
    let mut heap: Heap<GcCell<Option<Weak<'static, String>>>> = calm().build(|_| GcCell::new(None));
    let root: Root<R> = heap.mutate(|mc, weak| {
        let object = mc.alloc("object".into());
        weak.set(mc, Some(mc.downgrade(object)));
        mc.root(mc.alloc(make(object)))
    });
    let mut is_alive = move || {
        heap.collect();
        heap.verify().unwrap();
        heap.mutate(|mc, weak| weak.get().is_some_and(|weak| weak.upgrade(mc).is_some()))
    };
    assert!(is_alive(), "the pointer was not marked");
    drop(root);
    assert!(!is_alive(), "something else keeps the object");
}

/// A trait of the user's has the name of one that the expansion once had.
#[test]
fn a_type_by_a_name_of_the_expansion() {
    trait ALeafMustBeStatic<const F: usize> {
        type Leaf;
    }
    impl<'gc> ALeafMustBeStatic<0> for S<'gc> {
        type Leaf = Object<'gc>;
    }
    #[derive(Trace)]
    struct S<'gc> {
        #[trace(leaf)]
        first: String,
        second: <S<'gc> as ALeafMustBeStatic<0>>::Leaf,
        brand: PhantomData<Gc<'gc, u8>>,
    }
    keeps_its_object::<S<'static>>(|second| S { first: String::new(), second, brand: PhantomData });
}

#[test]
fn a_leaf_that_becomes_a_pointer_after_the_derive() {
    #[derive(Trace)]
    #[becomes(struct S<'gc> { field: Object<'gc> })]
    struct S<'gc> {
        field: String,
    }
    keeps_its_object::<S<'static>>(|field| S { field });
}

#[test]
fn a_variant_that_becomes_a_pointer_after_the_derive() {
    #[derive(Trace)]
    #[becomes(enum S<'gc> { None, Tuple(u8, Object<'gc>) })]
    enum S<'gc> {
        None,
        Tuple(u8, String),
    }
    keeps_its_object::<S<'static>>(|object| S::Tuple(0, object));
}

#[test]
fn a_parameter_that_becomes_a_pointer_to_it_after_the_derive() {
    #[derive(Trace)]
    #[becomes(struct S<'gc, T> { field: Gc<'gc, T> })]
    struct S<'gc, T> {
        field: T,
    }
    keeps_its_object::<S<'static, String>>(|field| S { field });
}

/// As `Gc` does, the type dereferences to what the derive saw.
#[test]
fn a_field_that_becomes_another_type_after_the_derive() {
    #[derive(Trace)]
    struct Holder<'gc>(u8, Object<'gc>);

    impl std::ops::Deref for Holder<'_> {
        type Target = u8;

        fn deref(&self) -> &u8 {
            &self.0
        }
    }

    #[derive(Trace)]
    #[becomes(struct S<'gc> { field: Holder<'gc> })]
    struct S<'gc> {
        field: u8,
    }
    keeps_its_object::<S<'static>>(|object| S { field: Holder(0, object) });
}

/// What a parameter is comes from its place, not from its name.
#[test]
fn parameters_that_change_places_after_the_derive() {
    #[derive(Trace)]
    #[becomes(struct S<B, A> { first: B, second: Vec<A> })]
    struct S<A, B> {
        first: A,
        second: Vec<B>,
    }
    keeps_its_object::<S<Object<'static>, u8>>(|first| S { first, second: vec![] });
    keeps_its_object::<S<u8, Object<'static>>>(|object| S { first: 0, second: vec![object] });
}

#[test]
fn a_type_that_was_changed_before_the_derive() {
    #[becomes(
        #[derive(Trace)]
        struct S<'gc> {
            #[trace(leaf)]
            leaf: String,
            field: Object<'gc>,
        }
    )]
    #[derive(Trace)]
    struct S<'gc> {
        #[trace(leaf)]
        field: String,
    }
    keeps_its_object::<S<'static>>(|field| S { leaf: String::new(), field });
}

/// A pattern takes the name of a constant for the constant, unless something nearer has the name.
#[test]
#[expect(non_upper_case_globals, non_camel_case_types, reason = "the names of the bindings")]
fn constants_with_the_names_of_the_bindings() {
    const __tracer: () = ();
    const field0: &() = &();
    static field1: u8 = 0;
    struct this;

    #[derive(Trace)]
    struct S<'gc> {
        unit: (),
        field: Object<'gc>,
        #[trace(leaf)]
        tracer: u8,
    }
    keeps_its_object::<S<'static>>(|field| S { unit: (), field, tracer: field1 });

    #[derive(Trace)]
    struct ByConstant<'gc, const field0: usize>([Object<'gc>; field0]);
    keeps_its_object::<ByConstant<'static, 2>>(|object| ByConstant([object; 2]));
}
