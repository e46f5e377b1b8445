//! `GcStr`: a string that lies in the heap as one object, with its length.
//!
//! A span has slots of one size for one type. So each size class is a type of its own, and a string
//! is an object of the smallest that it fits into. The pointer is one word: the object says how
//! long the string is, and where.
//!
//! Invariant: an object of these types begins with a byte that tells it from the others, and holds
//! UTF-8 as long as it says. It never changes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::ops::Deref;
use std::ptr::NonNull;

use crate::object::gc::{Brand, Gc};
use crate::object::trace::{Branded, Trace, Tracer};
use crate::session::error::HeapFull;
use crate::session::mode::Mode;
use crate::session::mutation::Mutation;

/// The first byte of an object that is not a [`Short`].
const LONG: u8 = u8::MAX;
/// The length that a [`Boxed`] gives.
const BOXED: u32 = u32::MAX;
/// The most bytes of a [`Long`] object.
const MOST_INLINE: usize = 8192;

/// A string of less than [`LONG`] bytes.
#[repr(C)]
struct Short<const N: usize> {
    len: u8,
    bytes: [MaybeUninit<u8>; N],
}

/// What [`Long`] and [`Boxed`] begin with.
#[repr(C)]
struct Head {
    is_long: u8,
    len: u32,
}

/// A longer one, up to some kilobytes.
#[repr(C)]
struct Long<const N: usize> {
    head: Head,
    bytes: [MaybeUninit<u8>; N],
}

/// A string outside the heap, which is too long for a copy in it to be worth its slot.
#[repr(C)]
struct Boxed {
    head: Head,
    text: Box<str>,
}

macro_rules! text {
    ($(($($generics:tt)*) $ty:ty $(: |$text:ident| $bytes:expr)?;)*) => {$(
        // SAFETY: no brand occurs in the type: it owns no pointer and is its own family.
        unsafe impl<'gc, $($generics)*> Trace<'gc> for $ty {
            type Family = $ty;
            const NEEDS_TRACE: bool = false;

            #[inline]
            fn trace(&self, _: &mut Tracer<'_>) {}

            $(
                #[inline]
                fn external_bytes(&self) -> usize {
                    let $text = self;
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

text! {
    (const N: usize) Short<N>;
    (const N: usize) Long<N>;
    () Boxed: |boxed| boxed.text.len();
}

/// A pointer to a string in the heap.
///
/// One word, `Copy`, made by [`Mutation::alloc_str`]. The string is one object: its length, of one
/// byte for short ones, and its bytes. It never changes. It keeps the string alive, as a [`Gc`]
/// keeps its object.
///
/// It compares and hashes as the `str` that it leads to. So a map with `GcStr` keys is asked with
/// a `&str`. For identities there is [`ptr_eq`](Self::ptr_eq).
///
/// ```
/// # use std::collections::HashMap;
/// # use sexton_heap::{GcRefCell, GcStr, Mutation};
/// type Names<'gc> = GcRefCell<HashMap<GcStr<'gc>, u32>>;
///
/// fn number<'gc>(mc: &Mutation<'gc>, names: &Names<'gc>, name: &str) -> u32 {
///     if let Some(&number) = names.borrow().get(name) {
///         return number;
///     }
///     let mut names = names.borrow_mut(mc);
///     let number = names.len() as u32;
///     names.insert(mc.alloc_str(name), number);
///     number
/// }
/// ```
#[derive(Clone, Copy)]
pub struct GcStr<'gc> {
    object: NonNull<u8>,
    brand: Brand<'gc>,
}

impl<'gc> GcStr<'gc> {
    /// Lends the string for as long as the session lasts. O(1).
    #[inline]
    pub fn as_str(self) -> &'gc str {
        // SAFETY: by the file's invariant the object begins with a byte. It is live for all of 'gc.
        let first = unsafe { self.object.read() };
        let bytes = if first == LONG {
            self.long()
        } else {
            // SAFETY: it is a `Short`, so these bytes belong to it, and are initialised.
            unsafe { self.bytes_at(offset_of!(Short<0>, bytes), usize::from(first)) }
        };
        // SAFETY: by the file's invariant.
        unsafe { str::from_utf8_unchecked(bytes) }
    }

    /// Tells whether both point to the same object, and not only to equal strings.
    #[inline]
    pub fn ptr_eq(self, other: Self) -> bool {
        self.object == other.object
    }

    fn long(self) -> &'gc [u8] {
        // SAFETY: it is a `Long` or a `Boxed`, which begin with this, at a multiple of 8.
        let len = unsafe { self.object.cast::<Head>().as_ref() }.len;
        if len == BOXED {
            // SAFETY: only a `Boxed` says so.
            return unsafe { self.object.cast::<Boxed>().as_ref() }.text.as_bytes();
        }
        // SAFETY: it is a `Long`, so these bytes belong to it, and are initialised.
        unsafe { self.bytes_at(offset_of!(Long<0>, bytes), len as usize) }
    }

    /// # Safety
    ///
    /// That many bytes from there on belong to the object, and are initialised.
    #[inline]
    unsafe fn bytes_at(self, offset: usize, len: usize) -> &'gc [u8] {
        // SAFETY: by this function's contract.
        let first = unsafe { self.object.byte_add(offset) };
        // SAFETY: by this function's contract. The object is live for all of 'gc, and stays as is.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), len) }
    }
}

/// Allocates a string in an object of one class.
type Alloc<M> = for<'gc> fn(&Mutation<'gc, M>, &str) -> Result<GcStr<'gc>, HeapFull<()>>;

fn short<'gc, M: Mode, const N: usize>(
    mc: &Mutation<'gc, M>,
    text: &str,
) -> Result<GcStr<'gc>, HeapFull<()>> {
    let mut object = Short { len: text.len() as u8, bytes: [const { MaybeUninit::uninit() }; N] };
    object.bytes[..text.len()].write_copy_of_slice(text.as_bytes());
    pointer(mc.try_alloc_any(object))
}

fn long<'gc, M: Mode, const N: usize>(
    mc: &Mutation<'gc, M>,
    text: &str,
) -> Result<GcStr<'gc>, HeapFull<()>> {
    let head = Head { is_long: LONG, len: text.len() as u32 };
    let mut object = Long { head, bytes: [const { MaybeUninit::uninit() }; N] };
    object.bytes[..text.len()].write_copy_of_slice(text.as_bytes());
    pointer(mc.try_alloc_any(object))
}

fn boxed<'gc, M: Mode>(mc: &Mutation<'gc, M>, text: &str) -> Result<GcStr<'gc>, HeapFull<()>> {
    let head = Head { is_long: LONG, len: BOXED };
    pointer(mc.try_alloc_any(Boxed { head, text: text.into() }))
}

fn pointer<'gc, T>(object: Result<Gc<'gc, T>, HeapFull<T>>) -> Result<GcStr<'gc>, HeapFull<()>> {
    match object {
        Ok(gc) => Ok(GcStr { object: gc.as_address(), brand: PhantomData }),
        Err(HeapFull { reason, .. }) => Err(HeapFull { value: (), reason }),
    }
}

/// The classes of a mode.
struct Classes<M>(M);

impl<M: Mode> Classes<M> {
    /// Objects of up to 128 bytes in steps of 8, and of up to 256 in steps of 16.
    const SHORT: [Alloc<M>; 24] = {
        macro_rules! classes {
            ($($slot:literal)*) => { [$(short::<M, { $slot - 1 }>),*] };
        }
        classes! {
            8 16 24 32 40 48 56 64 72 80 88 96 104 112 120 128
            144 160 176 192 208 224 240 256
        }
    };

    /// Objects of up to 8 KiB: eight classes up to each power of two.
    const LONG: [Alloc<M>; 40] = {
        macro_rules! classes {
            ($($slot:literal)*) => { [$(long::<M, { $slot - size_of::<Head>() }>),*] };
        }
        classes! {
            288 320 352 384 416 448 480 512
            576 640 704 768 832 896 960 1024
            1152 1280 1408 1536 1664 1792 1920 2048
            2304 2560 2816 3072 3328 3584 3840 4096
            4608 5120 5632 6144 6656 7168 7680 8192
        }
    };

    #[inline]
    fn of(len: usize) -> Alloc<M> {
        if len < 128 {
            return Self::SHORT[len / 8];
        }
        if len < usize::from(LONG) {
            return Self::SHORT[16 + (len - 128) / 16];
        }
        if len > MOST_INLINE - size_of::<Head>() {
            return boxed::<M>;
        }
        // The last byte of the object, from 0.
        let last = len + size_of::<Head>() - 1;
        let power = last.ilog2();
        Self::LONG[(power as usize - 8) * 8 + (last >> (power - 3)) % 8]
    }
}

impl<'gc, M: Mode> Mutation<'gc, M> {
    /// Puts a string into the heap, as one object. O(length).
    ///
    /// It takes a byte more than the string, up to 254 bytes, and 8 bytes more if it is longer.
    /// That is rounded up to 8 bytes, from 128 bytes on to an eighth of the size. From 8 KiB on the
    /// bytes are outside the heap, and count there.
    ///
    /// ```
    /// # use sexton_heap::{GcStr, Mutation};
    /// fn greet<'gc>(mc: &Mutation<'gc>, name: &str) -> GcStr<'gc> {
    ///     mc.alloc_str(&format!("Hello, {name}!"))
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_str(&self, text: &str) -> GcStr<'gc> {
        match self.try_alloc_str(text) {
            Ok(text) => text,
            Err(full) => panic!("{}", full.reason),
        }
    }

    /// Puts a string into the heap, if there is room for it.
    ///
    /// # Errors
    ///
    /// As [`try_alloc`](Self::try_alloc).
    pub fn try_alloc_str(&self, text: &str) -> Result<GcStr<'gc>, HeapFull<()>> {
        Classes::<M>::of(text.len())(self, text)
    }
}

// SAFETY: it gives a `&str`, and no more; as for a `Gc` of what is `Sync`.
unsafe impl Send for GcStr<'_> {}
// SAFETY: as above.
unsafe impl Sync for GcStr<'_> {}

impl Deref for GcStr<'_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for GcStr<'_> {
    #[inline]
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// A `GcStr` compares and hashes as its `str` does.
impl Borrow<str> for GcStr<'_> {
    #[inline]
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for GcStr<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.object == other.object || **self == **other
    }
}

impl Eq for GcStr<'_> {}

impl PartialEq<str> for GcStr<'_> {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for GcStr<'_> {
    #[inline]
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl PartialOrd for GcStr<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for GcStr<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for GcStr<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for GcStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Display for GcStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

// SAFETY: the one pointer is reported; NEEDS_TRACE is true; dropping it does nothing; the family is
// the same pointer with its brand open.
unsafe impl<'gc> Trace<'gc> for GcStr<'gc> {
    type Family = GcStr<'static>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        tracer.visit_untyped(self.object);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for GcStr<'static> {
    type At<'gc> = GcStr<'gc>;
}
