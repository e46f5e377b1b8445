#!/usr/bin/env bash
# The tests and the examples under sanitizers: `.ci/sanitize.sh [address|thread]...`, without an
# argument under both. Words behind `--` name the only tests to run, for example `-- shared::`.
#
#   address  uses of freed memory; and when a program ends, what it has leaked
#   thread   data races
#
# A silent sanitizer may be a blind one. So each pass first runs the faults of `tests/planted`, and
# fails unless every one is reported as what it is.
#
# What they do not see, and who does:
# - Slots of dead objects: they lie in regions that the heap maps, not in memory from `malloc`. What
#   objects and cleanups own is from `malloc`, and is seen. Zeal mode (`.ci/zeal.sh`) overwrites the
#   slots.
# - Order that comes from fences, which the thread sanitizer does not model. Nothing here needs it.
#   Fences decide who is woken, whether a session opens, and whether a lock that a marker had is
#   tried again. Data go from thread to thread by acquire and release. Where crossbeam and `Arc`
#   would need it, they use other means when built for this sanitizer. The fences are loom's affair
#   (`.ci/loom.sh`).
# - The tests of what must not compile (`ui::`), which run no code of ours, and those of a process's
#   memory, which a sanitizer needs much of for itself.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "$*" >&2
    exit 1
}
command -v llvm-symbolizer >/dev/null ||
    fail "missing: llvm-symbolizer. Without it reports name no functions." \
        "Install, for example, the Debian package llvm."

# Sanitizers are unstable options, here of the stable compiler.
export RUSTC_BOOTSTRAP=1
# Enough for names and lines, those of inlined functions included.
export CARGO_PROFILE_DEV_DEBUG=limited
# The generated programs are slow when watched. `.ci/test.sh` runs more operations.
export SEXTON_OPS="${SEXTON_OPS:-50000}"
# Frames are larger when watched. A test that allocates an object of 512 KiB has five copies of it in
# one frame, more than the 2 MiB of a test's thread.
export RUST_MIN_STACK=8388608
export LSAN_OPTIONS="suppressions=$PWD/.ci/lsan.supp"
# Always built for a named target, so that derive macros, which run within the compiler, are not
# instrumented.
host=$(rustc -vV | sed -n "s/^host: //p")
# Dependencies, of which std is one here, have names and lines in a report, too.
dependencies=(--config 'profile.dev.package."*".debug="limited"')

run_cargo() {
    cargo "$1" --locked --target "$host" "${dependencies[@]}" "${options[@]}" "${@:2}"
}

planted() {
    run_cargo run --quiet -p sexton-tests --example planted -- "$1"
}

# The planted fault $1 must be reported in the words $2.
must_report() {
    local report
    ! report=$(planted "$1" 2>&1) || fail "not found: planted fault $1"
    grep -q "$2" <<<"$report" || fail "$report" $'\n'"not reported as $2: planted fault $1"
    echo "found: planted fault $1: $2"
}

suite() {
    run_cargo test -p sexton-cleanup -p sexton-heap -p sexton -p sexton-tests --lib --tests -- \
        --skip ui:: --skip limits::when_the_system --skip memory:: "$@" "${only[@]}"
    [ ${#only[@]} = 0 ] || return 0
    local example
    for example in runtime/examples/*.rs; do
        echo "example: $example"
        run_cargo run --quiet -p sexton --example "$(basename "$example" .rs)" >/dev/null
    done
}

address() {
    export RUSTFLAGS="-Zsanitizer=address"
    options=(--target-dir target/asan)
    must_report leak "LeakSanitizer: detected memory leaks"
    must_report leaked-heap "LeakSanitizer: detected memory leaks"
    must_report use-after-free "AddressSanitizer: heap-use-after-free"
    must_report use-after-sweep "AddressSanitizer: heap-use-after-free"
    must_report use-after-cleanup "AddressSanitizer: heap-use-after-free"
    suite
}

thread() {
    # The standard library is built, too: as delivered, its channels and locks are not watched, and
    # what they order looks unordered. Hence no suppressions: every report is to be looked into.
    [ -d "$(rustc --print sysroot)/lib/rustlib/src" ] || rustup component add rust-src
    export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    # Not a suppression: a thread that is not joined is no race. The global pool lives as long as
    # the process, and a worker of it that has retired by the end is not joined.
    export TSAN_OPTIONS="report_thread_leaks=0"
    options=(--target-dir target/tsan -Zbuild-std)
    must_report race "ThreadSanitizer: data race"
    must_report not-waited-for "ThreadSanitizer: data race"
    planted handed-over
    echo "silent, as it must be: planted twin handed-over"
    # This sanitizer ends a process that starts threads after a `fork` of several.
    suite --skip forks::
}

passes=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    passes+=("$1")
    shift
done
only=("${@:2}")
[ ${#passes[@]} -gt 0 ] || passes=(address thread)
for pass in "${passes[@]}"; do
    case $pass in
        address | thread)
            echo "== $pass sanitizer"
            start=$SECONDS
            "$pass"
            echo "== $pass sanitizer passed in $((SECONDS - start)) s"
            ;;
        *) fail "unknown sanitizer: $pass; known are address and thread" ;;
    esac
done
