//! Tests that look inside: faults, and the loom models.

#[cfg(not(loom))]
pub(crate) mod fault;
