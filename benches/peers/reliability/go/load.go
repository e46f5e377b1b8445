package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
)

// storm: a million objects with a cleanup of 10 us each, allocated as fast as the program can. How far
// do the cleanups fall behind, and what does that cost?
func storm(n int) {
	if n == 0 {
		n = 1_000_000
	}
	before := memory("VmRSS")
	var peak, peakQueued int64
	start := time.Now()
	for i := range n {
		runtime.AddCleanup(new(object), func(int) { spin(10 * time.Microsecond); ran.Add(1) }, i)
		if i%1024 == 0 {
			peak = max(peak, int64(i)-ran.Load())
		}
		if i%16384 == 0 {
			queued, executed := queue()
			peakQueued = max(peakQueued, int64(queued)-int64(executed))
		}
	}
	peak = max(peak, int64(n)-ran.Load())
	allocated := time.Since(start)
	runtime.GC()
	queued, executed := queue()
	peakQueued = max(peakQueued, int64(queued)-int64(executed))
	within(60*time.Second, func() bool { return ran.Load() == int64(n) })
	fmt.Printf("%d allocated in %.1f s; peak registered but not run %d, of which queued %d; all run after %.1f s: %v; memory %d -> peak %d MiB\n",
		n, allocated.Seconds(), peak, peakQueued, time.Since(start).Seconds(), ran.Load() == int64(n), before, memory("VmHWM"))
}

func spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

// idle: how many cleanups run at once, with GOMAXPROCS as given, lowered and raised; and how many goroutines
// are kept for them after ten idle seconds? Only a crash lists goroutines that are the runtime's own and
// asleep, so a child counts the last.
func idle(int) {
	var now, most atomic.Int64
	load := func() int64 {
		most.Store(0)
		for range 5 {
			populate(400, func(int) {
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(10 * time.Microsecond)
				now.Add(-1)
				ran.Add(1)
			})
			runtime.GC()
		}
		settle()
		return most.Load()
	}
	if os.Getenv("CRASH") != "" {
		load()
		time.Sleep(10 * time.Second)
		panic("to list all goroutines")
	}
	procs := runtime.GOMAXPROCS(0)
	given := load()
	runtime.GOMAXPROCS(1)
	lowered := load()
	runtime.GOMAXPROCS(16)
	load() // makes the goroutines that are missing, at a registration
	raised := load()
	child := exec.Command(os.Args[0], "idle")
	child.Env = append(os.Environ(), "CRASH=1", "GOTRACEBACK=system")
	text, _ := child.CombinedOutput()
	kept := strings.Count(string(text), "created by runtime.(*cleanupQueue).createGs")
	fmt.Printf("at once: %d with GOMAXPROCS=%d, %d after GOMAXPROCS(1), %d after GOMAXPROCS(16); goroutines kept after 10 s idle: %d\n",
		given, procs, lowered, raised, kept)
}

// exit: main returns with 1,000 objects dropped, but no collection. Each cleanup would print a dot.
func exit(int) {
	populate(1000, func(int) { os.Stdout.WriteString(".") })
	fmt.Print("main returned with 1,000 cleanups not yet queued; dots printed by them: ")
}

// exitQueued: the same, with all of them queued and one of them running.
func exitQueued(int) {
	debug.SetGCPercent(-1)
	populate(1000, func(int) { time.Sleep(10 * time.Millisecond); os.Stdout.WriteString(".") })
	fmt.Print("main returned 105 ms after 1,000 cleanups of 10 ms were queued; dots printed by them: ")
	runtime.GC()
	time.Sleep(105 * time.Millisecond)
}
