//! `Trace` for the types of the standard library.

use crate::trace::{Branded, Trace, Tracer};

// SAFETY: reports what the value owns; no `Drop` reads a pointer.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for Option<T> {
    type Family = Option<T::Family>;
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Some(value) = self {
            value.trace(tracer);
        }
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for Option<F> {
    type At<'gc> = Option<F::At<'gc>>;
}
