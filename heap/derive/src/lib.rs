//! `#[derive(Trace)]`: how a type says where its `Gc` pointers are.
//!
//! Use it through the `sexton` crate, which exports it beside the trait of the same name.
//!
//! # What it makes
//!
//! ```ignore
//! #[derive(Trace)]
//! struct Pair<'gc, T> {
//!     first: T,
//!     second: Gc<'gc, T>,
//!     #[trace(leaf)]
//!     file: std::fs::File,
//! }
//! ```
//!
//! becomes, names shortened,
//!
//! ```ignore
//! // The same type at every brand: `T` stands for a family, which has a form for each.
//! unsafe impl<T: Branded> Branded for Pair<'static, T> {
//!     type At<'gc> = Pair<'gc, T::At<'gc>>;
//! }
//!
//! unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for Pair<'gc, T> {
//!     type Family = Pair<'static, T::Family>;
//!     const NEEDS_TRACE: bool = true;
//!     fn trace(&self, tracer: &mut Tracer<'_>) {
//!         tracer.derived::<Self>(); // asks that `Self` is not `Drop`
//!         for this in tracer.none::<Self>() { // no values, by `&mut`
//!             match this {
//!                 Self { first: _, second: _, file: field2 } => {
//!                     tracer.leaf(field2); // asks that it is 'static
//!                 }
//!             }
//!         }
//!         match self {
//!             Self { first: field0, second: field1, file: _ } => {
//!                 <_ as Trace<'gc>>::trace(field0, tracer);
//!                 <_ as Trace<'gc>>::trace(field1, tracer);
//!             }
//!         }
//!     }
//!     fn external_bytes(&self) -> usize {
//!         let mut bytes = 0_usize;
//!         match self {
//!             Self { first: field0, second: field1, file: _ } => {
//!                 bytes = bytes.saturating_add(<_ as Trace<'gc>>::external_bytes(field0));
//!                 bytes = bytes.saturating_add(<_ as Trace<'gc>>::external_bytes(field1));
//!             }
//!         }
//!         bytes
//!     }
//! }
//!
//! // Every type that is `Drop` has another implementation: the two conflict if `Pair` is.
//! impl<'gc, T> MustNotImplementDropAsItDerivesTrace for Pair<'gc, T> { type HasDrop = No; }
//! ```
//!
//! # Why it can be trusted
//!
//! What the user's crate defines may stand in for names that the expansion uses, and attribute
//! macros may change the type after it was derived. So safety rests on these:
//!
//! - **No type of a field stands in the expansion.** `_` is the type that the field has, found by
//!   the compiler from the value. A `&_` takes a `&Gc<T>` as it is, where a `&T` would take it by
//!   `Deref`. Lifetimes may differ by variance, which is nothing to the code that runs: a `Gc` is
//!   invariant.
//! - **The checks use no names.** `derived`, `none` and `leaf` are inherent methods of the tracer,
//!   whose type the signature of `Trace::trace` fixes. They are given `Self` and the fields.
//! - **A leaf is checked by `&mut`**, which is invariant. By `&`, the leaf `fn(&'gc u8)` would pass
//!   for a `fn(&'static u8)`.
//! - **The patterns name every field**, so one that was added later does not compile. No constant
//!   of the user's is taken for a binding: before each match stand functions with the names of its
//!   bindings (left out above).
//! - **`Family`, `At` and `NEEDS_TRACE` depend on the parameters alone**, by place. Where the type
//!   has others, the compiler refuses the implementations. A type without a brand is `'static` by
//!   `Branded`, whatever its fields are.
//!
//! # Parameters and attributes
//!
//! Their rules stand at the [macro](derive@Trace), where users of `sexton` find them. As for
//! `NEEDS_TRACE`, the fields do not matter: without a brand and a traced parameter the type is
//! `'static` and so holds no `Gc`. Asking the fields instead would ask a recursive type about
//! itself.

mod attr;
mod expand;
mod params;

use proc_macro::TokenStream;

/// Implements `Trace` and `Branded` for a struct or an enum, and keeps it from implementing `Drop`.
///
/// A field is traced unless it is marked `#[trace(leaf)]`, which asks that its type be `'static`.
///
/// ```ignore
/// #[derive(Trace)]
/// struct Pair<'gc, T> {
///     first: T,
///     second: Gc<'gc, T>,
///     #[trace(leaf)]
///     file: std::fs::File, // a foreign type that knows no `Trace`, and holds no `Gc`
/// }
/// ```
///
/// # Parameters
///
/// - A type has no lifetime parameter, or one: the **brand** of the session, whatever its name.
/// - A type parameter is traced: `T: Trace<'gc>`. One that is bounded by `'static` can hold no
///   `Gc`. It needs no `Trace`, and fields that hold it are leaves (`#[trace(leaf)]`, or inside a
///   `Leaf<T>`).
/// - Bounds and `where` clauses must hold for the type at every brand, so `T: Ord` on the type asks
///   the same of `T`'s family. Bounds on functions ask less; prefer them.
/// - `NEEDS_TRACE` is read off the parameters: true with a brand, else true if it is for one of the
///   traced type parameters.
///
/// # Attributes
///
/// - `#[trace(leaf)]` on a field: it is not traced and need not be `Trace`, but its type must be
///   `'static`, so it cannot hold a `Gc`. It may implement `Drop`.
/// - `#[trace(crate = path)]` on the type: where `Trace`, `Branded`, `Tracer` and `__private` are
///   found. The default is `::sexton`.
///
/// Unions, packed structs and types with two lifetimes are rejected.
#[proc_macro_derive(Trace, attributes(trace))]
pub fn derive_trace(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Gathers errors, so that a user sees all of them at once.
#[derive(Default)]
struct Errors(Option<syn::Error>);

impl Errors {
    fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }

    /// The value, or else its error kept and `None`.
    fn check<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    fn finish(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
