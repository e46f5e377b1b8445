#!/usr/bin/env bash
# Breaks one step of a protocol at a time, in a copy of the sources, and sees that a model notices.
#
#   .ci/mutants.sh loom|shuttle|lock_step [mutant...]
#
# A mutant is a patch in cleanup/mutants, heap/mutants or runtime/mutants. Its head says what it
# breaks, and has a line for each model that is run with it:
#
#   fails: MODEL TEXT    it fails, and TEXT is in its first panic
#   holds: MODEL         it passes: nothing but the race is broken
#
# Without a model that holds, the first schedule of the one that fails has to pass.
#
# The models of loom and shuttle are in `src/tests` of the crate, in files that begin with these
# words. `lock_step` is a measurement, not a check: how soon real threads notice, on a machine with
# nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/.."

checker=$1
shift
case $checker in
    loom | shuttle) export RUSTFLAGS="--cfg $checker" ;;
    lock_step) export RUSTFLAGS= ;;
    *) echo "mutants: loom, shuttle or lock_step, not $checker" >&2 && exit 2 ;;
esac
# The same schedules in each run. A model of shuttle stops at the first that fails.
export SHUTTLE_RANDOM_SEED=0 CARGO_TERM_QUIET=true RUST_BACKTRACE=0
# Never the folder that the sources themselves are built in: cargo takes a copy for the same crate,
# and a mutant would be left there.
copy=target/$checker/copy
out=target/$checker/out
wrong=0 models=0 started=$SECONDS

wrong() {
    echo "WRONG: $patch: $1" >&2
    wrong=$((wrong + 1))
}

# Runs the model of the patch that is applied, and prints what it says to `out`.
run() {
    (cd "$copy" && timeout 600 cargo test --locked --target-dir ../build -p "$package" \
        --lib -- --exact --nocapture "tests::$1") >"$out" 2>&1
}

# Runs a model that has to fail, with the text.
fails() {
    local panic
    if run "$1"; then
        if [ "$checker" = lock_step ]; then
            echo "$name: not noticed"
        else
            wrong "$1 does not fail"
        fi
        return
    fi
    panic=$(first_panic)
    if [ -z "$2" ] || [[ $panic != *"$2"* ]]; then
        wrong "$1 fails in another way: $panic"
    elif [ "$checker" = lock_step ]; then
        echo "$name: $panic"
    elif ! grep -q '^holds: ' "$patch" && ! grep -q 'the first schedule passes' "$out"; then
        wrong "$1 fails in its first schedule: more than one step is broken"
    fi
}

# Runs a model that has to pass.
holds() {
    if ! run "$1" || ! grep -q '^test result: ok. 1 passed' "$out"; then
        wrong "$1 does not hold: $(first_panic)"
    fi
}

# Prints the message of the first panic, or the end of what there is.
first_panic() {
    local panic
    panic=$(awk '/^note: |panicked at/ { if (seen++) exit; next } seen' "$out")
    echo "${panic:-$(tail "$out")}"
}

.ci/copy.sh "$copy"
for patch in {cleanup,heap,runtime}/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    if ! git apply --directory="$copy" "$patch"; then
        wrong "does not apply; see CONTRIBUTING.md"
        continue
    fi
    package=$(sed -n 's/^name = "\(.*\)"/\1/p' "${patch%%/*}/Cargo.toml")
    grep -q '^fails: \(loom\|shuttle\)_' "$patch" || wrong "names no model that fails"
    while read -r verdict model text; do
        case $model in
            "${checker}_"* | "$checker::"*)
                models=$((models + 1))
                "${verdict%:}" "$model" "$text" ;;
        esac
    done < <(grep '^\(fails\|holds\): ' "$patch")
    git apply --reverse --directory="$copy" "$patch"
done
[ "$models" -gt 0 ] || { echo "mutants: no such mutant: $*" >&2 && exit 1; }
echo "mutants: $models models of $checker in $((SECONDS - started)) s, $wrong wrong"
[ "$wrong" -eq 0 ]
