//! A type's parameters, and the type at other brands: which parameter becomes what.
//!
//! A predicate of the type holds at one brand. The implementations also name the type at `'static`
//! and at every brand, so there it must hold too. [`Form`] says which is meant.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{
    AssocType, BoundLifetimes, GenericParam, Generics, Ident, Lifetime,
    ParenthesizedGenericArguments, Path, PredicateType, Result, ReturnType, Token, TraitBound,
    Type, TypeParamBound, TypePath, WherePredicate, parse_quote,
};

use crate::Errors;

/// The parameters of a type that derives `Trace`.
pub(crate) struct Params {
    brand: Option<Lifetime>,
    params: Vec<Param>,
    /// All bounds, inline ones included, one each.
    predicates: Vec<PredicateType>,
}

enum Param {
    /// May hold a `Gc`: `T: Trace<'gc>`, and another type at another brand.
    Traced(Ident),
    /// Bounded by `'static`: the same at every brand.
    Static {
        name: Ident,
        maybe_sized: bool,
    },
    Const {
        name: Ident,
        ty: Box<Type>,
    },
}

/// One of the brands that an implementation names its type at.
#[derive(Clone, Copy)]
pub(crate) enum Form<'a> {
    /// The type as declared; traced parameters are themselves.
    Declared,
    /// The family, seen from the `Trace` implementation.
    FamilyOf { krate: &'a Path, brand: &'a Lifetime },
    /// The family, seen from the `Branded` implementation: its traced parameters are families.
    Family,
    /// The type at the brand, seen from the `Branded` implementation.
    At { krate: &'a Path, brand: &'a Lifetime },
}

impl Form<'_> {
    fn brand(&self, declared: &Lifetime) -> Lifetime {
        match self {
            Form::Declared => declared.clone(),
            Form::FamilyOf { .. } | Form::Family => Lifetime::new("'static", declared.span()),
            Form::At { brand, .. } => Lifetime::clone(brand),
        }
    }

    fn traced(&self, name: &Ident) -> Type {
        match self {
            Form::Declared | Form::Family => parse_quote!(#name),
            Form::FamilyOf { krate, brand } => {
                parse_quote!(<#name as #krate::Trace<#brand>>::Family)
            }
            Form::At { krate, brand } => parse_quote!(<#name as #krate::Branded>::At<#brand>),
        }
    }
}

impl Params {
    pub(crate) fn new(generics: &Generics) -> Result<Self> {
        let mut errors = Errors::default();
        let mut brand = None;
        let mut params = Vec::new();
        let mut predicates = Vec::new();
        let mut maybe_sized = Vec::new();

        for param in &generics.params {
            match param {
                GenericParam::Lifetime(param) => {
                    if brand.is_some() {
                        errors.push(syn::Error::new_spanned(
                            &param.lifetime,
                            "a type that derives `Trace` has no lifetime parameter, or exactly \
                             one, the brand of its session, as in `Node<'gc>`; references in it \
                             must be `'static`",
                        ));
                    }
                    if !param.bounds.is_empty() {
                        errors.push(bounded_brand(&param.bounds));
                    }
                    brand.get_or_insert_with(|| param.lifetime.clone());
                }
                GenericParam::Type(param) => {
                    let name = param.ident.clone();
                    split(
                        &parse_quote!(#name),
                        None,
                        &param.bounds,
                        &mut predicates,
                        &mut maybe_sized,
                    );
                    params.push(Param::Traced(name));
                }
                GenericParam::Const(param) => {
                    let ty = Box::new(param.ty.clone());
                    params.push(Param::Const { name: param.ident.clone(), ty });
                }
            }
        }
        for predicate in generics.where_clause.iter().flat_map(|clause| &clause.predicates) {
            match predicate {
                WherePredicate::Type(PredicateType { lifetimes, bounded_ty, bounds, .. }) => {
                    let lifetimes = lifetimes.as_ref();
                    split(bounded_ty, lifetimes, bounds, &mut predicates, &mut maybe_sized);
                }
                predicate => errors.push(bounded_brand(predicate)),
            }
        }

        // The parameters that are bounded by 'static, now that all bounds are known.
        for param in &mut params {
            if let Param::Traced(name) = param
                && predicates.iter().any(|predicate| is_static_bound_of(name, predicate))
            {
                let maybe_sized = maybe_sized.iter().any(|ty| is_param(name, ty));
                *param = Param::Static { name: name.clone(), maybe_sized };
            }
        }

        let params = Params { brand, params, predicates };
        params.refuse_inexpressible(&mut errors);
        errors.finish()?;
        Ok(params)
    }

    /// The brand, or a name for the session's when the type has none.
    pub(crate) fn brand_or_made_up(&self) -> Lifetime {
        self.brand.clone().unwrap_or_else(|| Lifetime::new("'__gc", Span::mixed_site()))
    }

    /// Whether a value may hold a `Gc`, as an expression.
    pub(crate) fn needs_trace(&self, krate: &Path, brand: &Lifetime) -> TokenStream {
        if self.brand.is_some() {
            return quote!(true);
        }
        let needs: Vec<_> = self
            .traced()
            .map(|name| quote!(<#name as #krate::Trace<#brand>>::NEEDS_TRACE))
            .collect();
        if needs.is_empty() { quote!(false) } else { quote!(#(#needs)||*) }
    }

    /// The parameters to declare, without brand: `T: bound` for the traced ones, then the others.
    pub(crate) fn declared(&self, bound: &TokenStream) -> Vec<TokenStream> {
        self.params
            .iter()
            .map(|param| match param {
                Param::Traced(name) => quote!(#name: #bound),
                Param::Static { name, maybe_sized: true } => quote!(#name: ?Sized),
                Param::Static { name, maybe_sized: false } => quote!(#name),
                Param::Const { name, ty } => quote!(const #name: #ty),
            })
            .collect()
    }

    /// The declared brand, if any, as a list of parameters to declare.
    pub(crate) fn declared_brand(&self) -> Option<&Lifetime> {
        self.brand.as_ref()
    }

    /// The type in that form, from its name.
    pub(crate) fn apply(&self, name: &Ident, form: Form<'_>) -> TokenStream {
        let brand = self.brand.iter().map(|brand| form.brand(brand).into_token_stream());
        let params = self.params.iter().map(|param| match param {
            Param::Traced(name) => form.traced(name).into_token_stream(),
            Param::Static { name, .. } | Param::Const { name, .. } => name.into_token_stream(),
        });
        let args: Vec<_> = brand.chain(params).collect();
        if args.is_empty() { quote!(#name) } else { quote!(#name<#(#args),*>) }
    }

    /// The type's predicates in that form. Those that are the same in every form come with
    /// [`Form::Declared`] and [`Form::Family`] only, that is once for each implementation.
    pub(crate) fn predicates(&self, name: &Ident, form: Form<'_>) -> Vec<PredicateType> {
        let mut predicates = Vec::new();
        for predicate in &self.predicates {
            let mut predicate = predicate.clone();
            let mut substitute =
                Substitute { params: self, name: Some(name), form, changed: false };
            substitute.visit_predicate_type_mut(&mut predicate);
            match form {
                Form::Declared | Form::Family => {}
                _ if !substitute.changed => continue,
                Form::FamilyOf { .. } => {}
                Form::At { brand, .. } => quantify(&mut predicate, brand),
            }
            predicates.push(predicate);
        }
        predicates
    }

    fn traced(&self) -> impl Iterator<Item = &Ident> {
        self.params.iter().filter_map(|param| match param {
            Param::Traced(name) => Some(name),
            _ => None,
        })
    }

    /// Predicates that cannot be written for `T` at every brand.
    fn refuse_inexpressible(&self, errors: &mut Errors) {
        for predicate in &self.predicates {
            let mut shorthands = Shorthands { params: self, errors };
            shorthands.visit_predicate_type(predicate);

            let mut mentions = Mentions { params: self, brand: false, bindings: Vec::new() };
            mentions.visit_predicate_type(predicate);
            if !mentions.brand {
                for binding in mentions.bindings {
                    errors.push(syn::Error::new_spanned(
                        binding,
                        "a bound on a type that derives `Trace` cannot tie an associated type to \
                         a type parameter: put the bound on the functions that need it",
                    ));
                }
            }
        }
    }
}

/// Finds `T::Item`: it names no trait, so it has no equivalent for `T` at another brand.
struct Shorthands<'a> {
    params: &'a Params,
    errors: &'a mut Errors,
}

impl Visit<'_> for Shorthands<'_> {
    fn visit_type_path(&mut self, ty: &TypePath) {
        if let (None, Some(first), Some(second)) =
            (&ty.qself, ty.path.segments.first(), ty.path.segments.get(1))
        {
            let (first, second) = (&first.ident, &second.ident);
            if first == "Self" || self.params.traced().any(|name| name == first) {
                let message = format!(
                    "a bound on a type that derives `Trace` names the trait of an associated type: \
                     `<{first} as TheTrait>::{second}`"
                );
                self.errors.push(syn::Error::new_spanned(ty, message));
            }
        }
        visit::visit_type_path(self, ty);
    }
}

/// Finds what `Item = ..` and `-> ..` of a predicate say of traced parameters, and whether the rest
/// names the brand. If not, the language has no `for<'gc>` for it: a `'gc` within `T::At<'gc>`
/// alone does not count as named.
struct Mentions<'a> {
    params: &'a Params,
    brand: bool,
    bindings: Vec<Type>,
}

impl Mentions<'_> {
    fn binding(&mut self, ty: &Type) {
        let mut changed = ty.clone();
        let mut substitute =
            Substitute { params: self.params, name: None, form: Form::Declared, changed: false };
        substitute.visit_type_mut(&mut changed);
        if substitute.changed {
            self.bindings.push(ty.clone());
        }
    }
}

impl Visit<'_> for Mentions<'_> {
    fn visit_lifetime(&mut self, lifetime: &Lifetime) {
        self.brand |= self.params.brand.as_ref() == Some(lifetime);
    }

    fn visit_assoc_type(&mut self, binding: &AssocType) {
        self.binding(&binding.ty);
    }

    fn visit_parenthesized_generic_arguments(&mut self, args: &ParenthesizedGenericArguments) {
        args.inputs.iter().for_each(|input| self.visit_named_arg(input));
        if let ReturnType::Type(_, ty) = &args.output {
            self.binding(ty);
        }
    }
}

/// Cuts `for<..> ty: A + B` into one predicate for each bound, and `?Sized` out of them.
fn split(
    ty: &Type,
    lifetimes: Option<&BoundLifetimes>,
    bounds: &Punctuated<TypeParamBound, Token![+]>,
    predicates: &mut Vec<PredicateType>,
    maybe_sized: &mut Vec<Type>,
) {
    for bound in bounds {
        if let TypeParamBound::Trait(TraitBound { maybe: Some(_), .. }) = bound {
            maybe_sized.push(ty.clone());
            continue;
        }
        let mut predicate = PredicateType {
            attrs: Vec::new(),
            lifetimes: lifetimes.cloned(),
            bounded_ty: ty.clone(),
            colon_token: Token![:](Span::mixed_site()),
            bounds: [bound.clone()].into_iter().collect(),
        };
        // One `for<..>` for the whole, so that the brand can be quantified beside it: the language
        // does not nest them.
        if let Some(TypeParamBound::Trait(bound)) = predicate.bounds.first_mut()
            && let Some(inner) = bound.lifetimes.take()
        {
            match &mut predicate.lifetimes {
                Some(outer) => outer.lifetimes.extend(inner.lifetimes),
                none => *none = Some(inner),
            }
        }
        predicates.push(predicate);
    }
}

/// Makes `predicate` hold for every brand: `for<'gc> ..`.
fn quantify(predicate: &mut PredicateType, brand: &Lifetime) {
    let others = predicate.lifetimes.iter().flat_map(|bound| &bound.lifetimes);
    predicate.lifetimes = Some(parse_quote!(for<#brand #(, #others)*>));
}

fn bounded_brand(culprit: &dyn ToTokens) -> syn::Error {
    let message =
        "the brand of a type that derives `Trace` takes no bounds: it stands for any session";
    syn::Error::new_spanned(culprit, message)
}

fn is_param(name: &Ident, ty: &Type) -> bool {
    matches!(ty, Type::Path(ty) if ty.qself.is_none() && ty.path.is_ident(name))
}

fn is_static_bound_of(name: &Ident, predicate: &PredicateType) -> bool {
    is_param(name, &predicate.bounded_ty)
        && matches!(
            predicate.bounds.first(),
            Some(TypeParamBound::Lifetime(lifetime)) if lifetime.ident == "static"
        )
}

/// Rewrites a predicate into a form, and notes whether that changes anything.
struct Substitute<'a> {
    params: &'a Params,
    /// The type's own name, which stands behind `Self`.
    name: Option<&'a Ident>,
    form: Form<'a>,
    changed: bool,
}

impl VisitMut for Substitute<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        visit_mut::visit_type_mut(self, ty);
        if let Some(name) = self.params.traced().find(|name| is_param(name, ty)) {
            self.changed = true;
            *ty = self.form.traced(name);
        } else if matches!(ty, Type::Path(ty) if ty.qself.is_none() && ty.path.is_ident("Self")) {
            self.changed = true;
            if let Some(name) = self.name {
                let whole = self.params.apply(name, self.form);
                *ty = parse_quote!(#whole);
            }
        }
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if self.params.brand.as_ref() == Some(lifetime) {
            self.changed = true;
            *lifetime = self.form.brand(lifetime);
        }
    }
}
