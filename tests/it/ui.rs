//! What must not compile, and what the compiler then says: one file in `ui/` per promise. What must
//! compile under the strictest lints is in `ui/pass/`.
//!
//! After a change of a message, `TRYBUILD=overwrite cargo test -p sexton-tests ui` writes the new ones;
//! read them: the error must still be the one that the file's first line promises.

#[test]
fn misuse_does_not_compile_and_strict_crates_do() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("ui/*.rs");
    cases.pass("ui/pass/*.rs");
}
