#!/usr/bin/env bash
# The Promela models of the protocols (cleanup/model), and the mutants in which Spin must find a
# violation. Names of checks as arguments: runs only those, and prints the steps that lead to the
# violation of each. JOBS (default: 2) run at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

for tool in spin cc; do
    command -v "$tool" >/dev/null || {
        echo "model: skipped, $tool is not installed. On Debian: apt-get install spin gcc"
        exit 0
    }
done

models=$PWD/cleanup/model
out=$PWD/target/model

# What Spin found in pan's output, as one word of the table in cleanup/model/README.md.
property() {
    case $(grep -m 1 '^pan:[0-9]*: ' "$1") in
        '') if grep -q 'errors: 0' "$1" &&
            ! grep -qi 'not completed\|too small\|memory *limit\|out of memory' "$1"
            then echo holds
            else echo incomplete
            fi ;;
        *'acceptance cycle'*) echo cycle ;;
        *'invalid end state'*) echo stuck ;;
        *'busy==0'*) echo stranded ;;
        *'q_len(list)'*) echo claim ;;
        *'promised['*) echo promise ;;
        *'ran['*) echo once ;;
        *'workers==0'*) echo left ;;
        *'asleep=='* | *'workers=='*) echo exact ;;
        *'workers<='*) echo bound ;;
        *'sleeping&'*) echo listed ;;
        *) echo unknown ;;
    esac
}

# Runs one check in a folder of its own. Leaves there pan's output, the trail if there is one, and
# the line to print; a line that begins with WRONG if the outcome is not the one expected.
check() {
    local name=$1 expected=$2 model=$3 search=$4 switches=$5
    local start=$EPOCHREALTIME dir=$out/$name found=broken states
    local cc=(cc -w -DMEMLIM=800) pan=(./pan -m20000 -w22)
    case $search:$expected in
        large:*) cc+=(-O1 -DSAFETY) ;;
        safety:holds | safety:harmless) cc+=(-O0 -DSAFETY) ;;
        # Breadth first, for the shortest counterexample.
        safety:*) cc+=(-O0 -DSAFETY -DBFS) ;;
        *:holds) cc+=(-O0 -DNFAIR=3) pan+=(-a -f -N "$search") switches+=" -DLIVENESS" ;;
        # Not stopped by the violation of safety that comes before.
        *) cc+=(-O0 -DNFAIR=3) pan+=(-A -E -a -f -N "$search") switches+=" -DLIVENESS" ;;
    esac
    rm -rf "$dir"
    mkdir -p "$dir"
    cd "$dir"
    # shellcheck disable=SC2086 # switches are words
    if spin "-Pcc -E -x c" -a $switches "$models/$model.pml" >out 2>&1 &&
        "${cc[@]}" -o pan pan.c >>out 2>&1; then
        "${pan[@]}" >>out 2>&1 || true
        found=$(property out)
    fi
    rm -f pan pan.[a-z]
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)
    local outcome=$found
    case $expected in
        harmless) [ "$found" != holds ] || outcome=harmless ;;
        fails:*) [ "$found" != "${expected#*:}" ] || outcome=$expected ;;
    esac
    local right=ok
    [ "$outcome" = "$expected" ] || right="WRONG: expected $expected, see target/model/$name/out;"
    printf '%s %-34s %-15s %10.0f states %6.1f s\n' "$right" "$name" "$outcome" "${states:-0}" \
        "$(awk "BEGIN { print $EPOCHREALTIME - $start }")" >line
}

# The steps of a counterexample: the process, the four numbers after the step, and the line of the
# model.
steps() {
    local name=$1 model=$2 switches=$3
    [ -e "$out/$name/$model.pml.trail" ] || return 0
    echo "--- $name: process, then length, asleep, workers and the list of sleepers," \
        "then line and step"
    # shellcheck disable=SC2086 # switches are words
    (cd "$out/$name" &&
        spin "-Pcc -E -x c" -p -g -k "$model.pml.trail" $switches "$models/$model.pml") 2>&1 |
        awk -v source="$models/$model.pml" '
        BEGIN {
            while ((getline text < source) > 0) {
                line[++lines] = text
                if (split(text, word, /[ ;]+/) > 3 && word[1] == "byte" && word[3] == "=")
                    value[word[2]] = word[4]
            }
        }
        function flush() {
            if (shown != "") printf "%-14s %2d %2d %2d %2d  %s\n", who,
                value["length"], value["asleep"], value["workers"], value["sleeping"], shown
            shown = ""
        }
        /^ *[0-9]+:\tproc +[0-9]/ {
            flush()
            if ($0 ~ /\[(\.\(goto\)|goto .*|break|DO|IF|else|\(1\))\]$/) next
            match($0, /pml:[0-9]+/); at = substr($0, RSTART + 4, RLENGTH - 4)
            who = $4; gsub(/[(:0-9)]/, "", who); who = $3 " " who
            text = line[at]; sub(/^ +/, "", text)
            key = $1 " " at
            if (key != last) shown = sprintf("%4d  %s", at, text)
            last = key
            next
        }
        /^#processes/ { flush(); print "--- where they are then:" }
        /^\t\t[a-z]+ = / { value[$1] = $3 }
        END { flush() }'
    grep '^pan:1:' "$out/$name/out"
}

jobs=${JOBS:-2}
started=$SECONDS
names=()
wrong=0 total=0 printed=0

print_finished() {
    while [ "$printed" -lt "${#names[@]}" ] && [ -s "$out/${names[printed]}/line" ]; do
        local text
        text=$(cat "$out/${names[printed]}/line")
        case $text in WRONG*) wrong=$((wrong + 1)) ;; esac
        echo "${text#ok }"
        printed=$((printed + 1))
    done
}

selected() {
    [ $# -gt 1 ] || return 0
    local name=$1
    shift
    [[ " $* " == *" $name "* ]]
}

while read -r name expected model search switches; do
    case $name in '' | '#'*) continue ;; esac
    selected "$name" "$@" || continue
    rm -rf "${out:?}/$name"
    names+=("$name")
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n || true
        print_finished
    done
    (check "$name" "$expected" "$model" "$search" "$switches") &
done <"$models/checks"
wait
print_finished

total=${#names[@]}
if [ "$total" -eq 0 ]; then
    echo "model: no such check in cleanup/model/checks: $*" >&2
    exit 1
fi
if [ "$printed" -lt "$total" ]; then
    echo "model: only $printed of $total checks came to an end" >&2
    exit 1
fi
if [ $# -gt 0 ]; then
    while read -r name _ model search switches; do
        case $name in '' | '#'*) continue ;; esac
        selected "$name" "$@" || continue
        [ "$search" = safety ] || [ "$search" = large ] || switches+=" -DLIVENESS"
        steps "$name" "$model" "$switches"
    done <"$models/checks"
fi
echo "model: $total checks in $((SECONDS - started)) s, $wrong with another outcome than expected"
[ "$wrong" -eq 0 ]
