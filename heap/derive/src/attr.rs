//! The attributes: `#[trace(..)]`, and `#[repr(packed)]`, which is refused.

use proc_macro2::TokenStream;
use quote::format_ident;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, LitStr, Path, Result, Token, parenthesized, token};

/// The path of the crate that `Trace` comes from: `#[trace(crate = ..)]` or `::sexton`.
pub(crate) fn krate(attrs: &[Attribute]) -> Result<Path> {
    let mut krate = None;
    for_each_argument(attrs, "a type takes `#[trace(crate = path)]`", |meta, problem| {
        if meta.path.is_ident("leaf") {
            return Err(meta.error("`leaf` goes on a field, not on the type"));
        }
        if !meta.path.is_ident("crate") {
            return Err(problem);
        }
        if krate.is_some() {
            return Err(meta.error("`crate` is given twice"));
        }
        let value = meta.value()?;
        let (path, span) = if value.peek(LitStr) {
            let text: LitStr = value.parse()?;
            (text.parse_with(Path::parse_mod_style), text.span())
        } else {
            (value.call(Path::parse_mod_style), value.span())
        };
        let problem = "expected a path, as in `crate = ::sexton`";
        krate = Some(path.map_err(|_| syn::Error::new(span, problem))?);
        Ok(())
    })?;
    Ok(krate.unwrap_or_else(|| {
        let mut path = Path::from(format_ident!("sexton", span = proc_macro2::Span::mixed_site()));
        path.leading_colon = Some(token::PathSep { spans: [proc_macro2::Span::mixed_site(); 2] });
        path
    }))
}

/// Whether the field is marked `#[trace(leaf)]`.
pub(crate) fn is_leaf(attrs: &[Attribute]) -> Result<bool> {
    let mut leaf = false;
    for_each_argument(attrs, "a field takes `#[trace(leaf)]`", |meta, problem| {
        if meta.path.is_ident("crate") {
            return Err(meta.error("`crate` goes on the type, not on a field"));
        }
        if !meta.path.is_ident("leaf") {
            return Err(problem);
        }
        leaf = true;
        Ok(())
    })?;
    Ok(leaf)
}

/// A variant takes no attribute of ours.
pub(crate) fn none_on_variant(attrs: &[Attribute]) -> Result<()> {
    let valid = "a variant takes none; its fields take `#[trace(leaf)]`";
    for_each_argument(attrs, valid, |_, problem| Err(problem))
}

/// Calls `each` with every argument of every `#[trace(..)]`, and with the error to return for one
/// that it does not know.
fn for_each_argument(
    attrs: &[Attribute],
    valid: &str,
    mut each: impl FnMut(ParseNestedMeta<'_>, syn::Error) -> Result<()>,
) -> Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("trace")) {
        let mut empty = true;
        if let syn::Meta::List(_) = attr.meta {
            attr.parse_nested_meta(|meta| {
                empty = false;
                let problem = meta.error(format_args!("unknown `trace` argument: {valid}"));
                each(meta, problem)
            })?;
        }
        if empty {
            let problem = format_args!("`trace` without an argument: {valid}");
            return Err(syn::Error::new_spanned(attr, problem));
        }
    }
    Ok(())
}

/// Tracing borrows the fields, which a packed type forbids.
pub(crate) fn refuse_packed(attrs: &[Attribute]) -> Result<()> {
    let mut packed = Ok(());
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("repr")) {
        // A malformed `repr` is the compiler's to report.
        let _ = attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("packed") {
                packed = Err(meta.error(
                    "`Trace` cannot be derived for a packed type: tracing takes references to its \
                     fields, which may be misaligned",
                ));
            }
            if meta.input.peek(token::Paren) {
                let content;
                parenthesized!(content in meta.input);
                content.parse::<TokenStream>()?;
            } else if meta.input.peek(Token![=]) {
                meta.value()?.parse::<syn::Lit>()?;
            }
            Ok(())
        });
    }
    packed
}
