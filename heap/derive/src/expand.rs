//! The expansion, from the type's declaration to the three implementations.
//!
//! Invariant: no `unsafe` token carries a span of the user's own code, so that a crate which
//! forbids `unsafe_code` can derive. Only safe calls stand at a field's place in an error.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, Ident, Lifetime, Member, Path, Result, Type};

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
    fields: Vec<ArmField<'a>>,
}

struct ArmField<'a> {
    member: Member,
    ty: &'a Type,
    leaf: bool,
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
    let mut arm = Arm { pattern, fields: Vec::new() };
    for (member, field) in fields.members().zip(fields) {
        let leaf = errors.check(attr::is_leaf(&field.attrs)).unwrap_or(false);
        arm.fields.push(ArmField { member, ty: &field.ty, leaf });
    }
    errors.finish()?;
    Ok(arm)
}

fn implementations(name: &Ident, krate: &Path, params: &Params, arms: &[Arm<'_>]) -> TokenStream {
    let branded = branded(name, krate, params);
    let trace = trace(name, krate, params, arms);
    let no_drop = no_drop(name, krate, params);
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
fn trace(name: &Ident, krate: &Path, params: &Params, arms: &[Arm<'_>]) -> TokenStream {
    let brand = params.brand_or_made_up();
    let family_of = Form::FamilyOf { krate, brand: &brand };
    let generics = params.declared(&quote!(#krate::Trace<#brand>));
    let this = params.apply(name, Form::Declared);
    let family = params.apply(name, family_of);
    let predicates = params.predicates(name, Form::Declared);
    let of_family = params.predicates(name, family_of);
    // That the predicates hold at every brand is asked by way of the family's implementation. To
    // write them out here as well would have the compiler take `T` at any brand for `T` at this
    // one.
    let at_every_brand =
        (!of_family.is_empty()).then(|| quote!(#family: #krate::Branded<At<#brand> = #this>));
    let needs_trace = params.needs_trace(krate, &brand);

    let body = body(krate, &brand, arms);
    let external_bytes = external_bytes(krate, &brand, arms);
    let tracer = tracer(Span::mixed_site());
    let shadow = shadow(&tracer);
    quote_spanned! {Span::mixed_site()=>
        #shadow
        // SAFETY: all fields are traced but those that are 'static, which hold no `Gc`; the type
        // cannot implement `Drop`; the family is the same type at 'static.
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

            #external_bytes
        }
    }
}

/// Traces every field but the leaves, which it asks to be `'static`.
///
/// No token of a field's type stands in it. In the expansion such a type may be another than in the
/// declaration. Names may be shadowed, and an attribute macro may change the type after the derive.
/// So the compiler infers each type from the field.
///
/// It calls inherent methods of the tracer, whose type the trait's signature fixes. So no name that
/// the user's crate defines can stand in for them. The patterns name every field and have no `..`,
/// so that a field which an attribute macro adds behind the derive's back does not compile.
fn body(krate: &Path, brand: &Lifetime, arms: &[Arm<'_>]) -> TokenStream {
    let here = Span::mixed_site();
    let most_fields = arms.iter().map(|arm| arm.fields.len()).max().unwrap_or(0);
    let shadows = (0..most_fields).map(|i| shadow(&field_name(i, here)));
    let tracer = tracer(here);
    let leaves = leaves(arms);
    let traced = match_arms(arms, |field, name, tracer| {
        let trace = quote_spanned!(name.span()=> <_ as #krate::Trace<#brand>>::trace);
        (!field.leaf).then(|| quote_spanned!(name.span()=> #trace(#name, #tracer);))
    });
    // A type without values has no arm to match a reference with.
    let value =
        if arms.is_empty() { quote_spanned!(here=> *self) } else { quote_spanned!(here=> self) };
    quote_spanned! {here=>
        #(#shadows)*
        #tracer.derived::<Self>();
        #leaves
        match #value { #traced }
    }
}

/// Sums up what the fields own outside the heap. Leaves are not asked: their types know nothing.
///
/// A type whose fields are all leaves has the trait's own function.
fn external_bytes(krate: &Path, brand: &Lifetime, arms: &[Arm<'_>]) -> Option<TokenStream> {
    arms.iter().flat_map(|arm| &arm.fields).find(|field| !field.leaf)?;
    let here = Span::mixed_site();
    let most_fields = arms.iter().map(|arm| arm.fields.len()).max().unwrap_or(0);
    let shadows = (0..most_fields).map(|i| shadow(&field_name(i, here)));
    let bytes = Ident::new("__bytes", here);
    let shadow = shadow(&bytes);
    let sums = match_arms(arms, |field, name, _| {
        let ask = quote_spanned!(name.span()=> <_ as #krate::Trace<#brand>>::external_bytes);
        let bytes = Ident::new("__bytes", name.span());
        (!field.leaf)
            .then(|| quote_spanned!(name.span()=> #bytes = #bytes.saturating_add(#ask(#name));))
    });
    Some(quote_spanned! {here=>
        #[inline]
        fn external_bytes(&self) -> usize {
            #(#shadows)*
            #shadow
            let mut #bytes = 0_usize;
            match self { #sums }
            #bytes
        }
    })
}

/// The check that leaves are `'static`. The implementation is generic over the brand, so a leaf
/// that names it fails.
///
/// Behind a `&` a leaf that is contravariant in the brand, `fn(&'gc u8)`, would pass for one of
/// `'static`. A `&mut` is invariant; so the check is a loop over no values, by `&mut`.
fn leaves(arms: &[Arm<'_>]) -> Option<TokenStream> {
    arms.iter().flat_map(|arm| &arm.fields).find(|field| field.leaf)?;
    let here = Span::mixed_site();
    let tracer = tracer(here);
    let this = Ident::new("this", here);
    let shadow = shadow(&this);
    let leaves = match_arms(arms, |field, name, tracer| {
        field.leaf.then(|| quote_spanned!(name.span()=> #tracer.leaf(#name);))
    });
    Some(quote_spanned! {here=>
        #shadow
        for #this in #tracer.none::<Self>() {
            match #this { #leaves }
        }
    })
}

/// One arm for each variant, which binds the fields for which `call` has something to do with the
/// tracer.
fn match_arms(
    arms: &[Arm<'_>],
    call: impl Fn(&ArmField<'_>, &Ident, &Ident) -> Option<TokenStream>,
) -> TokenStream {
    let here = Span::mixed_site();
    let arms = arms.iter().map(|Arm { pattern, fields }| {
        let mut bindings = Vec::new();
        let mut calls = Vec::new();
        for (i, field) in fields.iter().enumerate() {
            let member = &field.member;
            // At the field's type, so that a type that is no payload is what an error points to.
            let span = here.located_at(field.ty.span());
            let name = field_name(i, span);
            let call = call(field, &name, &tracer(span));
            let binding = if call.is_some() { quote!(#name) } else { quote_spanned!(here=> _) };
            bindings.push(quote_spanned!(here=> #member: #binding));
            calls.extend(call);
        }
        quote_spanned!(here=> #pattern { #(#bindings),* } => { #(#calls)* })
    });
    quote!(#(#arms)*)
}

fn field_name(index: usize, span: Span) -> Ident {
    format_ident!("field{index}", span = span)
}

/// The tracer's name. The user's bounds stand beside it, so it is one that they do not use.
fn tracer(span: Span) -> Ident {
    Ident::new("__tracer", span)
}

/// Keeps a constant, static or unit struct of the user's from being taken for the binding of this
/// name. A binding may have the name of a function, and this function is nearer.
fn shadow(name: &Ident) -> TokenStream {
    quote_spanned!(Span::mixed_site()=> fn #name() {})
}

/// A second implementation of a trait that every type with `Drop` has: the two conflict if this one
/// gets a `Drop`. The trait's name is what the user reads. `Tracer::derived` asks for the answer.
/// It asks no more of the parameters than the type does.
fn no_drop(name: &Ident, krate: &Path, params: &Params) -> TokenStream {
    let brand = params.declared_brand().into_iter();
    let generics = params.declared(&TokenStream::new());
    let this = params.apply(name, Form::Declared);
    let predicates = params.predicates(name, Form::Declared);
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        impl<#(#brand,)* #(#generics),*>
            #krate::__private::MustNotImplementDropAsItDerivesTrace for #this
        where
            #(#predicates,)*
        {
            type HasDrop = #krate::__private::No;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(input: TokenStream) -> String {
        text(derive(&syn::parse2(input).unwrap()).unwrap())
    }

    /// Without spaces: where tokens print some depends on how they were put together.
    fn text(tokens: TokenStream) -> String {
        tokens.to_string().replace(' ', "")
    }

    /// The example of the crate's page.
    #[test]
    fn a_struct_with_a_brand_a_parameter_and_a_leaf() {
        let expected = quote! {
            #[automatically_derived]
            const _: () = {
                #[automatically_derived]
                unsafe impl<T: ::sexton::Branded> ::sexton::Branded for Pair<'static, T>
                where
                {
                    type At<'gc> = Pair<'gc, <T as ::sexton::Branded>::At<'gc>>;
                }

                fn __tracer() {}
                #[automatically_derived]
                unsafe impl<'gc, T: ::sexton::Trace<'gc>> ::sexton::Trace<'gc> for Pair<'gc, T>
                where
                {
                    type Family = Pair<'static, <T as ::sexton::Trace<'gc>>::Family>;
                    const NEEDS_TRACE: bool = true;

                    #[inline]
                    fn trace(&self, __tracer: &mut ::sexton::Tracer<'_>) {
                        fn field0() {}
                        fn field1() {}
                        fn field2() {}
                        __tracer.derived::<Self>();
                        fn this() {}
                        for this in __tracer.none::<Self>() {
                            match this {
                                Self { first: _, second: _, file: field2 } => {
                                    __tracer.leaf(field2);
                                }
                            }
                        }
                        match self {
                            Self { first: field0, second: field1, file: _ } => {
                                <_ as ::sexton::Trace<'gc>>::trace(field0, __tracer);
                                <_ as ::sexton::Trace<'gc>>::trace(field1, __tracer);
                            }
                        }
                    }

                    #[inline]
                    fn external_bytes(&self) -> usize {
                        fn field0() {}
                        fn field1() {}
                        fn field2() {}
                        fn __bytes() {}
                        let mut __bytes = 0_usize;
                        match self {
                            Self { first: field0, second: field1, file: _ } => {
                                __bytes = __bytes
                                    .saturating_add(
                                        <_ as ::sexton::Trace<'gc>>::external_bytes(field0)
                                    );
                                __bytes = __bytes
                                    .saturating_add(
                                        <_ as ::sexton::Trace<'gc>>::external_bytes(field1)
                                    );
                            }
                        }
                        __bytes
                    }
                }

                #[automatically_derived]
                impl<'gc, T:> ::sexton::__private::MustNotImplementDropAsItDerivesTrace
                    for Pair<'gc, T>
                where
                {
                    type HasDrop = ::sexton::__private::No;
                }
            };
        };
        let input = quote! {
            struct Pair<'gc, T> {
                first: T,
                second: Gc<'gc, T>,
                #[trace(leaf)]
                file: std::fs::File,
            }
        };
        assert_eq!(expansion(input), text(expected));
    }

    /// Each bound stands for the type as declared, for its family, and for every brand.
    #[test]
    fn an_enum_without_a_brand_with_bounds() {
        let expected = quote! {
            #[automatically_derived]
            const _: () = {
                #[automatically_derived]
                unsafe impl<T: c::Branded, U, const N: usize> c::Branded for Tree<T, U, N>
                where
                    T: Ord,
                    U: 'static,
                    T: PartialEq<[U; N]>,
                    for<'__gc> <T as c::Branded>::At<'__gc>: Ord,
                    for<'__gc> <T as c::Branded>::At<'__gc>: PartialEq<[U; N]>,
                {
                    type At<'__gc> = Tree<<T as c::Branded>::At<'__gc>, U, N>;
                }

                fn __tracer() {}
                #[automatically_derived]
                unsafe impl<'__gc, T: c::Trace<'__gc>, U, const N: usize> c::Trace<'__gc>
                    for Tree<T, U, N>
                where
                    T: Ord,
                    U: 'static,
                    T: PartialEq<[U; N]>,
                    <T as c::Trace<'__gc>>::Family: Ord,
                    <T as c::Trace<'__gc>>::Family: PartialEq<[U; N]>,
                    Tree<<T as c::Trace<'__gc>>::Family, U, N>:
                        c::Branded<At<'__gc> = Tree<T, U, N>>
                {
                    type Family = Tree<<T as c::Trace<'__gc>>::Family, U, N>;
                    const NEEDS_TRACE: bool = <T as c::Trace<'__gc>>::NEEDS_TRACE;

                    #[inline]
                    fn trace(&self, __tracer: &mut c::Tracer<'_>) {
                        fn field0() {}
                        fn field1() {}
                        fn field2() {}
                        __tracer.derived::<Self>();
                        fn this() {}
                        for this in __tracer.none::<Self>() {
                            match this {
                                Self::Tip {} => {}
                                Self::Fork { 0: _, 1: field1, 2: _ } => {
                                    __tracer.leaf(field1);
                                }
                            }
                        }
                        match self {
                            Self::Tip {} => {}
                            Self::Fork { 0: field0, 1: _, 2: field2 } => {
                                <_ as c::Trace<'__gc>>::trace(field0, __tracer);
                                <_ as c::Trace<'__gc>>::trace(field2, __tracer);
                            }
                        }
                    }

                    #[inline]
                    fn external_bytes(&self) -> usize {
                        fn field0() {}
                        fn field1() {}
                        fn field2() {}
                        fn __bytes() {}
                        let mut __bytes = 0_usize;
                        match self {
                            Self::Tip {} => {}
                            Self::Fork { 0: field0, 1: _, 2: field2 } => {
                                __bytes = __bytes
                                    .saturating_add(<_ as c::Trace<'__gc>>::external_bytes(field0));
                                __bytes = __bytes
                                    .saturating_add(<_ as c::Trace<'__gc>>::external_bytes(field2));
                            }
                        }
                        __bytes
                    }
                }

                #[automatically_derived]
                impl<T:, U, const N: usize> c::__private::MustNotImplementDropAsItDerivesTrace
                    for Tree<T, U, N>
                where
                    T: Ord,
                    U: 'static,
                    T: PartialEq<[U; N]>,
                {
                    type HasDrop = c::__private::No;
                }
            };
        };
        let input = quote! {
            #[trace(crate = c)]
            enum Tree<T: Ord, U: 'static, const N: usize = 1> where T: PartialEq<[U; N]> {
                Tip,
                Fork(Box<Self>, #[trace(leaf)] U, T),
            }
        };
        assert_eq!(expansion(input), text(expected));
    }

    /// An attribute macro that runs after the derive may add fields; they must not go unseen.
    #[test]
    fn patterns_name_every_field() {
        for input in [
            quote!(
                enum Never {}
            ),
            quote!(
                struct Unit;
            ),
            quote!(
                struct L<'gc>(#[trace(leaf)] u8, Gc<'gc, u8>);
            ),
        ] {
            let expansion = expansion(input);
            assert!(expansion.contains("match"), "{expansion}");
            assert!(!expansion.contains(".."), "{expansion}");
        }
    }

    /// A type in the expansion may be another than the same tokens are in the declaration.
    #[test]
    fn no_type_of_a_field_is_in_the_expansion() {
        let expansion = expansion(quote! {
            enum E<'gc> {
                Traced(FieldType<'gc>),
                Leaf { #[trace(leaf)] leaf: FieldType<'gc> },
            }
        });
        assert!(!expansion.contains("FieldType"), "{expansion}");
    }

    #[test]
    fn without_a_brand_or_a_traced_parameter_nothing_needs_tracing() {
        for input in [
            quote!(
                enum Never {}
            ),
            quote!(
                struct L(#[trace(leaf)] u8);
            ),
        ] {
            let expansion = expansion(input);
            assert!(expansion.contains("NEEDS_TRACE:bool=false"), "{expansion}");
        }
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let input = quote! {
            #[repr(packed)]
            #[trace(skip)]
            struct Wrong<'a, 'b>(#[trace(skip)] u8, #[trace(leaf, again)] &'a u8, &'b u8);
        };
        let errors = derive(&syn::parse2(input).unwrap()).unwrap_err();
        assert_eq!(errors.into_iter().count(), 5);
    }
}
