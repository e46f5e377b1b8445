//! The expansion, from the type's declaration to the three implementations.
//!
//! Invariant: no `unsafe` token carries a span of the user's own code, so that a crate which forbids
//! `unsafe_code` can derive; what stands at a field's place in an error are only safe calls.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
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

/// One arm of the `match` on the type: a struct has one of these, an enum has many.
struct Arm<'a> {
    pattern: TokenStream,
    traced: Vec<(Member, &'a Field)>,
    leaves: Vec<&'a Field>,
}

fn variants(input: &DeriveInput) -> Result<Vec<Arm<'_>>> {
    let mut errors = Errors::default();
    let mut arms = Vec::new();
    match &input.data {
        Data::Struct(data) => arms.extend(errors.check(arm(quote!(Self), &data.fields))),
        Data::Enum(data) => {
            for variant in &data.variants {
                errors.check(attr::none_on_variant(&variant.attrs));
                let name = &variant.ident;
                arms.extend(errors.check(arm(quote!(Self::#name), &variant.fields)));
            }
        }
        Data::Union(data) => errors.push(syn::Error::new(
            data.union_token.span,
            "`Trace` cannot be derived for a union: nothing says which of its fields to trace",
        )),
    }
    errors.finish()?;
    Ok(arms)
}

fn arm(pattern: TokenStream, fields: &Fields) -> Result<Arm<'_>> {
    let mut errors = Errors::default();
    let mut arm = Arm { pattern, traced: Vec::new(), leaves: Vec::new() };
    for (member, field) in fields.members().zip(fields) {
        match errors.check(attr::is_leaf(&field.attrs)) {
            Some(true) => arm.leaves.push(field),
            _ => arm.traced.push((member, field)),
        }
    }
    errors.finish()?;
    Ok(arm)
}

fn implementations(name: &Ident, krate: &Path, params: &Params, arms: &[Arm<'_>]) -> TokenStream {
    let branded = branded(name, krate, params);
    let trace = trace(name, krate, params, arms);
    let leaves = leaves(name, params, arms);
    let no_drop = no_drop(name, params);
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        const _: () = {
            #branded
            #trace
            #leaves
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
fn trace(name: &Ident, krate: &Path, params: &Params, arms: &[Arm<'_>]) -> TokenStream {
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

    let (tracer, body) = body(krate, &brand, arms);
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
                #body
            }
        }
    }
}

/// The `match` that traces every field, and the name of the tracer in it.
fn body(krate: &Path, brand: &Lifetime, arms: &[Arm<'_>]) -> (TokenStream, TokenStream) {
    let here = Span::mixed_site();
    let tracer = quote_spanned!(here=> tracer);
    let match_arms = arms.iter().map(|Arm { pattern, traced, .. }| {
        let members = traced.iter().map(|(member, _)| member);
        let names: Vec<_> =
            (0..traced.len()).map(|i| format_ident!("field{i}", span = here)).collect();
        let calls = traced.iter().zip(&names).map(|((_, field), name)| {
            let ty = &field.ty;
            // At the field's type, so that a type that is no payload is what an error points to.
            let span = here.located_at(ty.span());
            quote_spanned!(span=> <#ty as #krate::Trace<#brand>>::trace(#name, #tracer);)
        });
        quote_spanned!(here=> #pattern { #(#members: #names,)* .. } => { #(#calls)* })
    });
    if arms.iter().all(|arm| arm.traced.is_empty()) {
        return (quote!(_), TokenStream::new());
    }
    let body = quote_spanned!(here=> match self { #(#match_arms)* });
    (tracer, body)
}

/// The check that leaves are `'static`. The implementations are generic over the brand, so a type that
/// names the brand fails.
fn leaves(name: &Ident, params: &Params, arms: &[Arm<'_>]) -> TokenStream {
    let leaves: Vec<_> = arms.iter().flat_map(|arm| &arm.leaves).map(|field| &field.ty).collect();
    if leaves.is_empty() {
        return TokenStream::new();
    }
    let indices = 0..leaves.len();
    let Header { generics, this, predicates } = Header::new(name, params);
    quote_spanned! {Span::mixed_site()=>
        trait ALeafMustBeStatic<const FIELD: usize> {
            type Leaf: 'static;
        }
        #(
            #[automatically_derived]
            impl<#generics> ALeafMustBeStatic<#indices> for #this
            where
                #predicates
            {
                type Leaf = #leaves;
            }
        )*
    }
}

/// A second implementation of a trait that every type with `Drop` has: the two conflict if this one
/// gets a `Drop`. The trait's name is what the user reads.
fn no_drop(name: &Ident, params: &Params) -> TokenStream {
    let Header { generics, this, predicates } = Header::new(name, params);
    quote_spanned! {Span::mixed_site()=>
        trait MustNotImplementDropAsItDerivesTrace {}
        impl<D: ::core::ops::Drop> MustNotImplementDropAsItDerivesTrace for D {}
        #[automatically_derived]
        impl<#generics> MustNotImplementDropAsItDerivesTrace for #this
        where
            #predicates
        {}
    }
}

/// What an implementation of a trait of the expansion's own starts with; it asks no more of the
/// parameters than the type does.
struct Header {
    generics: TokenStream,
    this: TokenStream,
    predicates: TokenStream,
}

impl Header {
    fn new(name: &Ident, params: &Params) -> Self {
        let brand = params.declared_brand().into_iter();
        let generics = params.declared(&TokenStream::new());
        let predicates = params.predicates(name, Form::Declared);
        Header {
            generics: quote!(#(#brand,)* #(#generics),*),
            this: params.apply(name, Form::Declared),
            predicates: quote!(#(#predicates,)*),
        }
    }
}
