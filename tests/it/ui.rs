//! What must not compile, and what the compiler then says: one file in `ui/` per promise.
//!
//! No file in `ui/` compiles, so trybuild checks all of them by one call of cargo. One that does
//! would make it build them one by one, for minutes: what must compile is in `strict/`.
//!
//! After a change of a message, `TRYBUILD=overwrite cargo test -p sexton-tests ui` writes the new ones;
//! read them: the error must still be the one that the file's first line promises.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}
