//! What must not compile, and what the compiler then says: one file in `ui/` per promise.
//!
//! No file in `ui/` compiles, so trybuild checks all of them by one call of cargo. One that does
//! would make it build them one by one, for minutes: what must compile is in `strict/`.
//!
//! After a change of a message, `TRYBUILD=overwrite cargo test -p sexton-tests ui` writes the new
//! ones; read them: the error must still be the one that the file's first line promises. Users read
//! of them in `docs/COMPILE-ERRORS.md`.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}

/// Each message of `docs/COMPILE-ERRORS.md` is one that a test of its row shows, and each test of a
/// row shows one of its messages.
#[test]
fn the_page_of_compile_errors_quotes_the_compiler() {
    let page = include_str!("../../docs/COMPILE-ERRORS.md");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(!rows.is_empty());
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [messages, _, _, tests] = cells[..] else { panic!("not four cells: {row}") };
        let messages: Vec<_> = messages.split('"').skip(1).step_by(2).collect();
        let shown: Vec<_> = tests.split('`').skip(1).step_by(2).map(shown_by).collect();
        for message in &messages {
            assert!(shown.iter().any(|shown| shows(shown, message)), "no test shows {message}");
        }
        for shown in &shown {
            let quoted = messages.iter().any(|message| shows(shown, message));
            assert!(quoted, "none of {messages:?} is in\n{shown}");
        }
    }
}

fn shown_by(test: &str) -> String {
    let path = format!("ui/{test}.stderr");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a line has the message, in which `..` stands for anything.
fn shows(shown: &str, message: &str) -> bool {
    shown.lines().any(|line| {
        let mut rest = Some(line);
        for part in message.split("..") {
            rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
        }
        rest.is_some()
    })
}
