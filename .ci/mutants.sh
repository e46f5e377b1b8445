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
#
# JOBS (default: 2; of `lock_step` always one) mutants are tried at a time, each job in a copy and a
# target folder of its own.
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
# Where the models of a job are built, what has been claimed, and what has come of it.
work=$PWD/target/$checker
started=$SECONDS

wrong() {
    echo "WRONG: $patch: $1" | tee -a "$work/wrong" >&2
}

# Runs the model of the patch that is applied, and prints what it says to `out`.
run() {
    echo "$1" >>"$work/models"
    (cd "$copy" && timeout 600 cargo test --locked --profile model --target-dir "$build" \
        -p "$package" --lib -- --exact --nocapture "tests::$1") >"$out" 2>&1
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

# Prints the package that the patch changes.
package() {
    sed -n 's/^name = "\(.*\)"/\1/p' "${patch%%/*}/Cargo.toml"
}

# Tries the patch in the copy.
try() {
    local name package verdict model text
    name=$(basename "$patch" .patch)
    if ! git apply --directory="$copy" "$patch"; then
        wrong "does not apply; see CONTRIBUTING.md"
        return
    fi
    package=$(package)
    while read -r verdict model text; do
        case $model in
            "${checker}_"* | "$checker::"*) "${verdict%:}" "$model" "$text" ;;
        esac
    done < <(grep '^\(fails\|holds\): ' "$patch")
    git apply --reverse --directory="$copy" "$patch"
}

# Tries what no other job has claimed.
job() {
    local patch copy=target/$checker/copy$1 build=$work/build$1 out=$work/out$1
    for patch in "${patches[@]}"; do
        if mkdir "$work/claimed/$(basename "$patch")" 2>/dev/null; then
            try
        fi
    done
}

rm -rf "$work"/{claimed,models,wrong}
mkdir -p "$work/claimed"
touch "$work"/{models,wrong}
patches=() packages=()
for patch in {cleanup,heap,runtime}/mutants/*.patch; do
    [ $# -eq 0 ] || [[ " $* " == *" $(basename "$patch" .patch) "* ]] || continue
    grep -q '^fails: \(loom\|shuttle\)_' "$patch" || wrong "names no model that fails"
    ! grep -q "^\(fails\|holds\): $checker[_:]" "$patch" || patches+=("$patch")
done
for patch in "${patches[@]}"; do
    packages+=(-p "$(package)")
done
[ ${#patches[@]} -gt 0 ] || { echo "mutants: no such mutant: $*" >&2 && exit 1; }

jobs=${JOBS:-2}
[ "$checker" != lock_step ] && [ ${#patches[@]} -gt 1 ] || jobs=1
# Never the folder that the sources themselves are built in: cargo takes a copy for the same crate,
# and a mutant would be left there.
.ci/copy.sh "target/$checker/copy"
if [ "$jobs" -gt 1 ]; then
    # Once for all of them.
    (cd "$work/copy" &&
        cargo test --locked --profile model --target-dir ../build "${packages[@]}" --lib --no-run)
fi
folders=("")
for ((n = 2; n <= jobs; n++)); do
    # With the times of the files: what is built for the one is so for the other.
    rm -rf "$work"/{copy,build}"$n"
    cp -a "$work/copy" "$work/copy$n"
    cp -a "$work/build" "$work/build$n"
    folders+=("$n")
done
running=()
for folder in "${folders[@]}"; do
    job "$folder" &
    running+=($!)
done
for pid in "${running[@]}"; do
    wait "$pid"
done
wrong=$(grep -c '^WRONG: ' "$work/wrong" || true)
echo "mutants: $(wc -l <"$work/models") models of $checker in $((SECONDS - started)) s, $wrong wrong"
[ "$wrong" -eq 0 ]
