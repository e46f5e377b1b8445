// What Go's cleanups (runtime.AddCleanup) do when something goes wrong: one situation a run,
//
//	reliability SITUATION [ARGUMENT]
//
// which prints one line. A watchdog ends every run, so nothing here hangs. A situation that kills the
// process does so: the caller looks at the exit status and at standard error.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// object is large enough, and has a pointer, so that it never shares a slot with others.
type object struct {
	link *object
	data [6]uint64
}

var ran atomic.Int64 // cleanups that have run

// An object that stays reachable, for registrations that have nothing to do with the others.
var alive = new(object)

var situations = map[string]func(arg int){
	"blocked":         blocked,
	"panic":           panics,
	"goexit":          goexit,
	"threads":         threadsFail,
	"register-within": registerWithin,
	"collect-within":  collectWithin,
	"wait-within":     waitWithin,
	"wait":            wait,
	"wait-rearming":   waitRearming,
	"storm":           storm,
	"idle":            idle,
	"exit":            exit,
	"exit-queued":     exitQueued,
	"stuck":           stuck,
	"keeps-itself":    keepsItself,
	"keeps-checked":   keepsChecked,
	"stop":            stop,
	"stop-queued":     stopQueued,
	"resurrect":       resurrect,
}

func main() {
	if len(os.Args) < 2 || situations[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: reliability SITUATION [ARGUMENT]")
		os.Exit(2)
	}
	arg := 0
	if len(os.Args) > 2 {
		arg, _ = strconv.Atoi(os.Args[2])
	}
	limit := 30 * time.Second
	if text := os.Getenv("LIMIT_S"); text != "" {
		seconds, _ := strconv.Atoi(text)
		limit = time.Duration(seconds) * time.Second
	}
	time.AfterFunc(limit, func() {
		fmt.Printf("the watchdog ended this run after %v; ran=%d\n", limit, ran.Load())
		os.Exit(3)
	})
	situations[os.Args[1]](arg)
}

// populate makes n objects with a cleanup each and drops them. A function of its own, never inlined,
// so that no slot of a caller's frame keeps one.
//
//go:noinline
func populate(n int, cleanup func(int)) {
	for i := range n {
		runtime.AddCleanup(new(object), cleanup, i)
	}
}

// settle waits until no cleanup has run for a second, ten seconds at most, and says how many ran.
func settle() int64 {
	last, since, start := ran.Load(), time.Now(), time.Now()
	for time.Since(since) < time.Second && time.Since(start) < 10*time.Second {
		time.Sleep(10 * time.Millisecond)
		if now := ran.Load(); now != last {
			last, since = now, time.Now()
		}
	}
	return last
}

// within waits for a condition, at most so long.
func within(limit time.Duration, condition func() bool) bool {
	for start := time.Now(); time.Since(start) < limit; time.Sleep(time.Millisecond) {
		if condition() {
			return true
		}
	}
	return condition()
}

// queue reads how many cleanups have been queued and executed, in the whole process.
func queue() (queued, executed uint64) {
	samples := []metrics.Sample{{Name: "/gc/cleanups/queued:cleanups"}, {Name: "/gc/cleanups/executed:cleanups"}}
	metrics.Read(samples)
	if samples[0].Value.Kind() != metrics.KindUint64 {
		return 0, 0 // an older Go, without these two
	}
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// memory is a line of /proc/self/status in MiB: VmRSS now, VmHWM at the peak.
func memory(key string) int {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key+":" {
			kib, _ := strconv.Atoi(fields[1])
			return kib / 1024
		}
	}
	return 0
}

// threads is the number of this process's threads.
func threads() int {
	entries, _ := os.ReadDir("/proc/self/task")
	return len(entries)
}
