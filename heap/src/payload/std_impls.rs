//! `Trace` for the types of the standard library.
//!
//! Invariant: `NEEDS_TRACE` is false only for a type in which the brand does not occur. A type has
//! the constant of its parameters, whether or not it stores a value of theirs. If it is false, the
//! type is the same in all sessions and owns no pointer. So is every type that its traits associate
//! with it.
//!
//! Deliberately missing: a `Gc` inside `RefCell`, `OnceCell`, `Mutex` and the like, which would
//! change pointers without a session in hand. They are here for `'static` contents only; for
//! pointers there are `GcCell`, `GcRefCell`, `GcMutex` and `GcAtomic`.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::cell::{LazyCell, OnceCell, RefCell};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::marker::{PhantomData, PhantomPinned};
use std::mem::needs_drop;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{self, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};
use std::path::{Path, PathBuf};
use std::rc::{self, Rc};
use std::sync::{self, Arc, LazyLock, Mutex, OnceLock, RwLock, atomic};
use std::thread::ThreadId;
use std::time::{Duration, Instant, SystemTime};

use crate::memory::look;
use crate::object::trace::{Branded, Trace, Tracer};
use crate::policy::external::{ExternalBytes, ExternalCharge, Quota};

/// `[parameters] Type;`: types in which no brand can occur. Those that tell what they own say it by
/// `Type: |value| bytes;`.
macro_rules! without_pointers {
    ($([$($generics:tt)*] $ty:ty $(: |$value:ident| $bytes:expr)?;)*) => {$(
        // SAFETY: the type is 'static for every choice of its parameters, so no session's brand
        // occurs in it: it owns no pointer, its `Drop` reads none, and it is its own family.
        unsafe impl<'gc, $($generics)*> Trace<'gc> for $ty {
            type Family = $ty;
            const NEEDS_TRACE: bool = false;

            #[inline]
            fn trace(&self, _: &mut Tracer<'_>) {}

            $(
                #[inline]
                fn external_bytes(&self) -> usize {
                    let $value = self;
                    $bytes
                }
            )?
        }

        // SAFETY: no brand occurs in the type, so it is the same at every one.
        unsafe impl<$($generics)*> Branded for $ty {
            type At<'gc> = $ty;
        }
    )*};
}

without_pointers! {
    // Numbers, text, paths.
    [] (); [] bool; [] char; [] f32; [] f64;
    [] i8; [] i16; [] i32; [] i64; [] i128; [] isize;
    [] u8; [] u16; [] u32; [] u64; [] u128; [] usize;
    [] num::NonZeroI8; [] num::NonZeroI16; [] num::NonZeroI32;
    [] num::NonZeroI64; [] num::NonZeroI128; [] num::NonZeroIsize;
    [] num::NonZeroU8; [] num::NonZeroU16; [] num::NonZeroU32;
    [] num::NonZeroU64; [] num::NonZeroU128; [] num::NonZeroUsize;
    [T: 'static] Wrapping<T>; [T: 'static] Saturating<T>;
    [] String: |text| text.capacity();
    [] Box<str>: |text| text.len();
    [] CString: |text| text.count_bytes() + 1;
    [] Box<CStr>: |text| text.count_bytes() + 1;
    [] OsString: |text| text.capacity();
    [] Box<OsStr>: |text| text.len();
    [] PathBuf: |path| path.capacity();
    [] Box<Path>: |path| path.as_os_str().len();

    // What is told apart, compared, measured.
    [] Infallible; [] Ordering; [] TypeId; [] ThreadId; [] PhantomPinned;
    [] Duration; [] Instant; [] SystemTime;
    [] IpAddr; [] Ipv4Addr; [] Ipv6Addr; [] SocketAddr; [] SocketAddrV4; [] SocketAddrV6;
    [] sexton_cleanup::Cleanup; [] ExternalBytes; [] ExternalCharge; [] Quota;
    [] RangeFull; [T: 'static] Range<T>; [T: 'static] RangeInclusive<T>; [T: 'static] RangeFrom<T>;
    [T: 'static] RangeTo<T>; [T: 'static] RangeToInclusive<T>;

    // References and shared ownership. Not every `&'static T`: the compiler would offer `&value` to
    // code that forgot to derive `Trace`. Others go into a leaf.
    [] &'static str; [] &'static CStr; [] &'static OsStr; [] &'static Path;
    [T: 'static] &'static [T];
    [T: ?Sized + ToOwned + 'static] Cow<'static, T>: |cow| match cow {
        Cow::Borrowed(_) => 0,
        Cow::Owned(value) => known_bytes(value),
    };
    [T: ?Sized + 'static] Rc<T>; [T: ?Sized + 'static] rc::Weak<T>;
    [T: ?Sized + 'static] Arc<T>; [T: ?Sized + 'static] sync::Weak<T>;

    // Interior mutability; `Cell` stands beside `GcCell`.
    [T: 'static] RefCell<T>: |cell| match cell.try_borrow() {
        _ if !needs_drop::<T>() => 0,
        Ok(value) => known_bytes(&*value),
        Err(_) => {
            look::is_blocked();
            0
        }
    };
    [T: 'static] OnceCell<T>: |cell| cell.get().map_or(0, known_bytes);
    [T: 'static, F: 'static] LazyCell<T, F>;
    [T: 'static] Mutex<T>; [T: 'static] RwLock<T>;
    [T: 'static] OnceLock<T>: |lock| lock.get().map_or(0, known_bytes);
    [T: 'static, F: 'static] LazyLock<T, F>;
    [] atomic::AtomicBool;
    [] atomic::AtomicI8; [] atomic::AtomicI16; [] atomic::AtomicI32; [] atomic::AtomicIsize;
    [] atomic::AtomicU8; [] atomic::AtomicU16; [] atomic::AtomicU32; [] atomic::AtomicUsize;
    [T: 'static] atomic::AtomicPtr<T>;

    // Functions that name no lifetime but 'static.
    [R: 'static] fn() -> R;
    [A: 'static, R: 'static] fn(A) -> R;
    [A: 'static, B: 'static, R: 'static] fn(A, B) -> R;
    [A: 'static, B: 'static, C: 'static, R: 'static] fn(A, B, C) -> R;
    [A: 'static, B: 'static, C: 'static, D: 'static, R: 'static] fn(A, B, C, D) -> R;
}

#[cfg(target_has_atomic = "64")]
without_pointers! { [] atomic::AtomicI64; [] atomic::AtomicU64; }

/// `Type<A, B>: |self, tracer| statement, bytes;`: types that own what their parameters say. The
/// parameters
/// after `;` are 'static and the same at every brand.
macro_rules! owning {
    ($(
        $name:ident<$($param:ident),+ $(; $fixed:ident)?>: |$this:ident, $tracer:ident| $trace:expr,
        $bytes:expr;
    )*) => {$(
        // SAFETY: every value of a parameter that `self` owns is traced; the standard library's
        // `Drop` of it drops those values and reads none; the family is the same type over the
        // families.
        unsafe impl<'gc, $($param: Trace<'gc>,)+ $($fixed: 'static)?> Trace<'gc>
            for $name<$($param,)+ $($fixed)?>
        {
            type Family = $name<$($param::Family,)+ $($fixed)?>;
            const NEEDS_TRACE: bool = $($param::NEEDS_TRACE)||+;

            #[inline]
            fn trace(&self, $tracer: &mut Tracer<'_>) {
                // A container of plain values is not walked.
                if Self::NEEDS_TRACE {
                    let $this = self;
                    $trace
                }
            }

            #[inline]
            fn external_bytes(&self) -> usize {
                if !needs_drop::<Self>() {
                    return 0;
                }
                let $this = self;
                $bytes
            }
        }

        // SAFETY: the same type over the parameters at 'gc.
        unsafe impl<$($param: Branded,)+ $($fixed: 'static)?> Branded
            for $name<$($param,)+ $($fixed)?>
        {
            type At<'gc> = $name<$($param::At<'gc>,)+ $($fixed)?>;
        }
    )*};
}

type Slice<T> = Box<[T]>;

owning! {
    Option<T>: |this, tracer| if let Some(value) = this {
        value.trace(tracer);
    }, this.as_ref().map_or(0, T::external_bytes);
    Box<T>: |this, tracer| (**this).trace(tracer),
        size_of::<T>().saturating_add(of_all::<T>(1, std::iter::once(&**this)));
    Reverse<T>: |this, tracer| this.0.trace(tracer), this.0.external_bytes();
    Slice<T>: |this, tracer| tracer.slice(this),
        room::<T>(this.len()).saturating_add(of_slice(this));
    Vec<T>: |this, tracer| tracer.slice(this),
        room::<T>(this.capacity()).saturating_add(of_slice(this));
    BinaryHeap<T>: |this, tracer| tracer.slice(this.as_slice()),
        room::<T>(this.capacity()).saturating_add(of_slice(this.as_slice()));
    VecDeque<T>: |this, tracer| {
        let (front, back) = this.as_slices();
        tracer.slice(front);
        tracer.slice(back);
    }, {
        let (front, back) = this.as_slices();
        let elements = of_slice(front).saturating_add(of_slice(back));
        room::<T>(this.capacity()).saturating_add(elements)
    };
    LinkedList<T>: |this, tracer| trace_all(this.iter(), tracer),
        room::<(T, [usize; 2])>(this.len()).saturating_add(of_all(this.len(), this.iter()));
    BTreeSet<T>: |this, tracer| trace_all(this.iter(), tracer),
        nodes::<T>(this.len()).saturating_add(of_all(this.len(), this.iter()));
    HashSet<T; S>: |this, tracer| trace_all(this.iter(), tracer),
        table::<T>(this.capacity()).saturating_add(of_all(this.len(), this.iter()));
    BTreeMap<K, V>: |this, tracer| trace_pairs(this.iter(), tracer),
        nodes::<(K, V)>(this.len()).saturating_add(of_pairs(this.len(), this.iter()));
    HashMap<K, V; S>: |this, tracer| trace_pairs(this.iter(), tracer),
        table::<(K, V)>(this.capacity()).saturating_add(of_pairs(this.len(), this.iter()));
    Bound<T>: |this, tracer| match this {
        Bound::Included(value) | Bound::Excluded(value) => value.trace(tracer),
        Bound::Unbounded => {}
    }, match this {
        Bound::Included(value) | Bound::Excluded(value) => value.external_bytes(),
        Bound::Unbounded => 0,
    };
    Result<T, E>: |this, tracer| match this {
        Ok(value) => value.trace(tracer),
        Err(error) => error.trace(tracer),
    }, match this {
        Ok(value) => value.external_bytes(),
        Err(error) => error.external_bytes(),
    };
    // It owns nothing, but its parameter may be a brand's; see the invariant above.
    PhantomData<T>: |_this, _tracer| {}, {
        let _ = _this;
        0
    };
}

/// Gives the bytes that a container has for a number of elements.
#[inline]
fn room<T>(elements: usize) -> usize {
    elements.saturating_mul(size_of::<T>())
}

/// Gives the bytes of a hash table with that capacity: a power of two of places, seven in eight of
/// which are for elements, and a byte for each.
#[inline]
fn table<T>(capacity: usize) -> usize {
    if capacity == 0 {
        return 0;
    }
    let places = capacity.saturating_mul(8) / 7;
    let places = places.max(4).checked_next_power_of_two().unwrap_or(usize::MAX);
    places.saturating_mul(size_of::<T>() + 1)
}

/// Estimates the bytes of a B-tree of `len` elements. Its nodes are three quarters full.
#[inline]
fn nodes<T>(len: usize) -> usize {
    let bytes = len.saturating_mul(size_of::<T>() + 4);
    bytes.saturating_add(bytes / 3)
}

/// Tells what the values of a slice own. Of many it looks at some, which lie evenly spread.
#[inline]
fn of_slice<'gc, T: Trace<'gc>>(values: &[T]) -> usize {
    let step = values.len().div_ceil(look::MOST_OF_ONE).max(1);
    of_all(values.len(), values.iter().step_by(step))
}

/// Tells what the values of a container of `len` own.
#[inline]
fn of_all<'a, 'gc, T: Trace<'gc> + 'a>(len: usize, values: impl Iterator<Item = &'a T>) -> usize {
    if needs_drop::<T>() { look::elements(len, values, T::external_bytes) } else { 0 }
}

/// Tells what the keys and values of a map of `len` own.
#[inline]
fn of_pairs<'a, 'gc, K: Trace<'gc> + 'a, V: Trace<'gc> + 'a>(
    len: usize,
    pairs: impl Iterator<Item = (&'a K, &'a V)>,
) -> usize {
    if !needs_drop::<K>() && !needs_drop::<V>() {
        return 0;
    }
    look::elements(len, pairs, |(key, value)| {
        key.external_bytes().saturating_add(value.external_bytes())
    })
}

/// Tells what a value of any type owns, if that is one of the common ones.
///
/// A [`Leaf`](crate::Leaf) holds types that do not implement `Trace`. There is no other way on
/// stable Rust to tell a `Leaf<Vec<u8>>` from one of them. The comparisons are constants.
#[inline]
pub(crate) fn known_bytes<T: 'static>(value: &T) -> usize {
    if !needs_drop::<T>() {
        return 0;
    }
    let any: &dyn Any = value;
    macro_rules! known {
        ($($ty:ty;)*) => {$(
            if TypeId::of::<T>() == TypeId::of::<$ty>()
                && let Some(value) = any.downcast_ref::<$ty>()
            {
                return value.external_bytes();
            }
        )*};
    }
    macro_rules! containers {
        ($($element:ty)*) => {$(
            known! {
                Vec<$element>; Box<[$element]>; VecDeque<$element>;
                RefCell<Vec<$element>>;
            }
        )*};
    }
    known! {
        String; Box<str>; CString; Box<CStr>; OsString; Box<OsStr>; PathBuf; Box<Path>;
        Option<String>; RefCell<String>; Option<Vec<u8>>; Option<Box<[u8]>>;
        Vec<Vec<u8>>; Vec<Box<[u8]>>;
        HashMap<String, String>; BTreeMap<String, String>;
        HashMap<String, Vec<u8>>; BTreeMap<String, Vec<u8>>;
        Cow<'static, str>; Cow<'static, [u8]>;
    }
    containers! {
        u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char String PathBuf
    }
    0
}

#[inline]
fn trace_all<'a, 'gc, T: Trace<'gc> + 'a>(
    values: impl ExactSizeIterator<Item = &'a T>,
    tracer: &mut Tracer<'_>,
) {
    tracer.spend(values.len());
    for value in values {
        value.trace(tracer);
    }
}

#[inline]
fn trace_pairs<'a, 'gc, K: Trace<'gc> + 'a, V: Trace<'gc> + 'a>(
    pairs: impl ExactSizeIterator<Item = (&'a K, &'a V)>,
    tracer: &mut Tracer<'_>,
) {
    tracer.spend(pairs.len());
    for (key, value) in pairs {
        key.trace(tracer);
        value.trace(tracer);
    }
}

// SAFETY: every item is traced; an array has no `Drop` of its own; the family is the array of as
// many families.
unsafe impl<'gc, T: Trace<'gc>, const N: usize> Trace<'gc> for [T; N] {
    type Family = [T::Family; N];
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if T::NEEDS_TRACE {
            tracer.slice(self);
        }
    }

    #[inline]
    fn external_bytes(&self) -> usize {
        of_slice(self)
    }
}

// SAFETY: the same type over the parameter at 'gc.
unsafe impl<F: Branded, const N: usize> Branded for [F; N] {
    type At<'gc> = [F::At<'gc>; N];
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => {$(
        // SAFETY: every part is traced; a tuple has no `Drop` of its own; the family is the tuple
        // of the families.
        unsafe impl<'gc, $($name: Trace<'gc>),+> Trace<'gc> for ($($name,)+) {
            type Family = ($($name::Family,)+);
            const NEEDS_TRACE: bool = $($name::NEEDS_TRACE)||+;

            #[inline]
            fn trace(&self, tracer: &mut Tracer<'_>) {
                #[expect(non_snake_case, reason = "the parts are named by their types")]
                let ($($name,)+) = self;
                $($name.trace(tracer);)+
            }

            #[inline]
            fn external_bytes(&self) -> usize {
                #[expect(non_snake_case, reason = "the parts are named by their types")]
                let ($($name,)+) = self;
                0_usize$(.saturating_add($name.external_bytes()))+
            }
        }

        // SAFETY: the same type over the parameters at 'gc.
        unsafe impl<$($name: Branded),+> Branded for ($($name,)+) {
            type At<'gc> = ($($name::At<'gc>,)+);
        }
    )*};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::mark_stack::{Marker, Pending};
    use crate::payload::cells::{GcMutex, GcRefCell, GcRwLock};

    /// Says that it needs no tracing, and does not expect any.
    #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Plain(u8);

    // SAFETY: no brand occurs in it.
    unsafe impl<'gc> Trace<'gc> for Plain {
        type Family = Plain;
        const NEEDS_TRACE: bool = false;

        fn trace(&self, _: &mut Tracer<'_>) {
            panic!("a plain value was visited");
        }
    }

    // SAFETY: no brand occurs in it.
    unsafe impl Branded for Plain {
        type At<'gc> = Plain;
    }

    /// A session that runs a slice of the mark may have what is in a cell borrowed.
    #[test]
    fn plain_values_in_cells_are_not_visited() {
        trace(GcRefCell::new(Plain(0)));
        trace(GcMutex::new(Plain(0)));
        trace(GcRwLock::new(Plain(0)));
    }

    fn trace<T: Trace<'static>>(value: T) {
        assert!(!T::NEEDS_TRACE);
        let pointers =
            Marker::audited(|marker| value.trace(&mut Tracer::new(marker, Pending::NONE)));
        assert_eq!(pointers, []);
    }

    #[test]
    fn containers_of_plain_values_are_not_walked() {
        fn plain<C: FromIterator<Plain>>() -> C {
            (0..3).map(Plain).collect()
        }
        fn plain_pairs<C: FromIterator<(Plain, Plain)>>() -> C {
            (0..3).map(|n| (Plain(n), Plain(n))).collect()
        }
        trace(Some(Plain(0)));
        trace(Ok::<_, Plain>(Plain(0)));
        trace(Box::new(Plain(0)));
        trace([Plain(0), Plain(1)]);
        trace(plain::<Box<[Plain]>>());
        trace(plain::<Vec<Plain>>());
        trace(plain::<VecDeque<Plain>>());
        trace(plain::<LinkedList<Plain>>());
        trace(plain::<BinaryHeap<Plain>>());
        trace(plain::<BTreeSet<Plain>>());
        trace(plain::<HashSet<Plain>>());
        trace(plain_pairs::<BTreeMap<Plain, Plain>>());
        trace(plain_pairs::<HashMap<Plain, Plain>>());
    }
}
