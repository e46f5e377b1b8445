//! The expansion, from the type's declaration to the three implementations.
//!
//! Invariant: no `unsafe` token carries a span of the user's own code, so that a crate which forbids
//! `unsafe_code` can derive; what stands at a field's place in an error are only safe calls.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Data, DeriveInput, Field, Fields, Ident, Lifetime, Member, Path, Result};

use crate::params::{Form, Params};
use crate::{Errors, attr};

/// The implementations for the type, or everything that is wrong with it.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let mut errors = Errors::default();
    errors.check(attr::refuse_packed(&input.attrs));
    let krate = errors.check(attr::krate(&input.attrs));
    let params = errors.check(Params::new(&input.generics));
    let variants = errors.check(variants(input));
    errors.finish()?;

    match (krate, params, variants) {
        (Some(krate), Some(params), Some(variants)) => {
            Ok(implementations(&input.ident, &krate, &params, &variants))
        }
        _ => unreachable!("what is missing has left an error"),
    }
}

/// What a pattern of a `match` on the type looks like: a struct is one of these, an enum has many.
struct Shape<'a> {
    pattern: TokenStream,
    traced: Vec<(Member, &'a Field)>,
    leaves: Vec<&'a Field>,
}

fn variants(input: &DeriveInput) -> Result<Vec<Shape<'_>>> {
    let mut errors = Errors::default();
    let mut shapes = Vec::new();
    match &input.data {
        Data::Struct(data) => shapes.extend(errors.check(shape(quote!(Self), &data.fields))),
        Data::Enum(data) => {
            for variant in &data.variants {
                errors.check(attr::none_on_variant(&variant.attrs));
                let name = &variant.ident;
                shapes.extend(errors.check(shape(quote!(Self::#name), &variant.fields)));
            }
        }
        Data::Union(data) => errors.push(syn::Error::new(
            data.union_token.span,
            "`Trace` cannot be derived for a union: nothing says which of its fields to trace",
        )),
    }
    errors.finish()?;
    Ok(shapes)
}

fn shape(pattern: TokenStream, fields: &Fields) -> Result<Shape<'_>> {
    let mut errors = Errors::default();
    let mut shape = Shape { pattern, traced: Vec::new(), leaves: Vec::new() };
    for (member, field) in fields.members().zip(fields) {
        match errors.check(attr::is_leaf(&field.attrs)) {
            Some(true) => shape.leaves.push(field),
            _ => shape.traced.push((member, field)),
        }
    }
    errors.finish()?;
    Ok(shape)
}

fn implementations(
    name: &Ident,
    krate: &Path,
    params: &Params,
    shapes: &[Shape<'_>],
) -> TokenStream {
    let branded = branded(name, krate, params);
    let trace = trace(name, krate, params, shapes);
    let no_drop = no_drop(name, params);
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        const _: () = {
            #branded
            #trace
            #no_drop
        };
    }
}

/// `unsafe impl Branded for Node<'static>`.
fn branded(name: &Ident, krate: &Path, params: &Params) -> TokenStream {
    let brand = params.brand_or_made_up();
    let at = Form::At { krate, brand: &brand };
    let generics = params.declared(&quote!(#krate::Branded));
    let family = params.apply(name, Form::Family);
    let branded = params.apply(name, at);
    let predicates = params.predicates(name, Form::Family);
    let at_every_brand = params.predicates(name, at);
    quote_spanned! {Span::mixed_site()=>
        // SAFETY: the same type, with the brand and the traced parameters at 'gc.
        #[automatically_derived]
        unsafe impl<#(#generics),*> #krate::Branded for #family
        where
            #(#predicates,)*
            #(#at_every_brand,)*
        {
            type At<#brand> = #branded;
        }
    }
}

/// `unsafe impl<'gc> Trace<'gc> for Node<'gc>`.
fn trace(name: &Ident, krate: &Path, params: &Params, shapes: &[Shape<'_>]) -> TokenStream {
    let brand = params.brand_or_made_up();
    let family_of = Form::FamilyOf { krate, brand: &brand };
    let generics = params.declared(&quote!(#krate::Trace<#brand>));
    let this = params.apply(name, Form::Declared);
    let family = params.apply(name, family_of);
    let predicates = params.predicates(name, Form::Declared);
    let of_family = params.predicates(name, family_of);
    // That the predicates hold at every brand is asked by way of the family's implementation. To
    // write them out here as well would have the compiler take `T` at any brand for `T` at this one.
    let at_every_brand =
        (!of_family.is_empty()).then(|| quote!(#family: #krate::Branded<At<#brand> = #this>));
    let needs_trace = params.needs_trace(krate, &brand);

    let (tracer, arms) = arms(krate, &brand, shapes);
    let leaves = leaves(shapes);
    quote_spanned! {Span::mixed_site()=>
        // SAFETY: all fields are traced but those that are 'static, which hold no `Gc`; the type cannot
        // implement `Drop`; the family is the same type at 'static.
        #[automatically_derived]
        unsafe impl<#brand, #(#generics),*> #krate::Trace<#brand> for #this
        where
            #(#predicates,)*
            #(#of_family,)*
            #at_every_brand
        {
            type Family = #family;
            const NEEDS_TRACE: bool = #needs_trace;

            #[inline]
            fn trace(&self, #tracer: &mut #krate::Tracer<'_>) {
                #leaves
                #arms
            }
        }
    }
}

/// The `match` that traces every field, and the name of the tracer in it.
fn arms(krate: &Path, brand: &Lifetime, shapes: &[Shape<'_>]) -> (TokenStream, TokenStream) {
    let tracer = Ident::new("tracer", Span::mixed_site());
    let mut used = false;
    let arms: Vec<_> = shapes
        .iter()
        .map(|Shape { pattern, traced, .. }| {
            used |= !traced.is_empty();
            let members = traced.iter().map(|(member, _)| member);
            let names: Vec<_> = (0..traced.len())
                .map(|i| format_ident!("field{i}", span = Span::mixed_site()))
                .collect();
            let calls = traced.iter().zip(&names).map(|((_, field), name)| {
                let ty = &field.ty;
                // At the field's type, so that a type that is no payload is what an error points to.
                let span = at(ty);
                quote_spanned!(span=> <#ty as #krate::Trace<#brand>>::trace(#name, #tracer);)
            });
            quote_spanned!(Span::mixed_site()=> #pattern { #(#members: #names,)* .. } => { #(#calls)* })
        })
        .collect();
    let body = match (shapes, used) {
        ([], _) => quote_spanned!(Span::mixed_site()=> match *self {}),
        (_, false) => TokenStream::new(),
        _ => quote_spanned!(Span::mixed_site()=> match self { #(#arms)* }),
    };
    (if used { quote!(#tracer) } else { quote!(_) }, body)
}

/// The check that leaves are `'static`. It stands in a function that is generic over the brand, so a
/// type that names the brand fails it.
fn leaves(shapes: &[Shape<'_>]) -> TokenStream {
    let mut types = shapes.iter().flat_map(|shape| &shape.leaves).map(|field| &field.ty).peekable();
    if types.peek().is_none() {
        return TokenStream::new();
    }
    let check = Ident::new("a_leaf_must_be_static", Span::mixed_site());
    let checks = types.map(|ty| quote_spanned!(at(ty)=> #check::<#ty>();));
    quote_spanned! {Span::mixed_site()=>
        fn #check<L: ?Sized + 'static>() {}
        #(#checks)*
    }
}

/// A second implementation of a trait that every type with `Drop` has: the two conflict if this one
/// gets a `Drop`. The trait's name is what the user reads.
fn no_drop(name: &Ident, params: &Params) -> TokenStream {
    let brand = params.declared_brand().into_iter();
    let generics = params.declared(&quote!());
    let this = params.apply(name, Form::Declared);
    let predicates = params.predicates(name, Form::Declared);
    quote_spanned! {Span::mixed_site()=>
        trait MustNotImplementDropAsItDerivesTrace {}
        impl<D: ::core::ops::Drop> MustNotImplementDropAsItDerivesTrace for D {}
        #[automatically_derived]
        impl<#(#brand,)* #(#generics),*> MustNotImplementDropAsItDerivesTrace for #this
        where
            #(#predicates,)*
        {}
    }
}

/// The place of some of the user's tokens, without being a part of the user's code.
fn at(tokens: &impl syn::spanned::Spanned) -> Span {
    Span::mixed_site().located_at(tokens.span())
}
