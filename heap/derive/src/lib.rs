//! Under construction.

use proc_macro::TokenStream;

/// Under construction.
#[proc_macro_derive(Trace)]
pub fn derive_trace(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
