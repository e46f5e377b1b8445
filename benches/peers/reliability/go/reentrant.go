package main

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// registerWithin: each of 1,000 cleanups registers another one, on an object that dies at once.
func registerWithin(int) {
	populate(1000, func(int) {
		ran.Add(1)
		populate(1, func(int) { ran.Add(1) })
	})
	runtime.GC()
	first := settle()
	runtime.GC()
	fmt.Printf("%d ran, and after another collection %d of 2,000\n", first, settle())
}

// collectWithin: a cleanup triggers a full collection, and finds what it killed queued afterwards.
func collectWithin(int) {
	populate(1, func(int) {
		populate(100, func(int) { ran.Add(1) })
		runtime.GC()
		ran.Add(1)
	})
	runtime.GC()
	fmt.Printf("%d of 101 ran\n", settle())
}

// waitWithin: a cleanup waits until all others have run, as a cleanup that flushes might.
func waitWithin(int) {
	var others atomic.Int64
	var gaveUp atomic.Bool
	populate(100, func(i int) {
		if i == 50 {
			gaveUp.Store(!within(5*time.Second, func() bool { return others.Load() == 99 }))
		} else {
			others.Add(1)
		}
		ran.Add(1)
	})
	runtime.GC()
	time.Sleep(4 * time.Second)
	during := others.Load()
	within(10*time.Second, func() bool { return ran.Load() == 100 })
	fmt.Printf("GOMAXPROCS=%d: while it waited %d of 99 others ran; it had to give up after 5 s: %v\n",
		runtime.GOMAXPROCS(0), during, gaveUp.Load())
}

// wait: no call waits for cleanups; two counters of runtime/metrics can be polled. Are they exact?
func wait(int) {
	queued0, executed0 := queue()
	populate(1000, func(int) { time.Sleep(time.Millisecond); ran.Add(1) })
	runtime.GC()
	early := -1
	reached := within(10*time.Second, func() bool {
		queued, executed := queue()
		if early < 0 && executed > executed0 {
			early = int(ran.Load()) - int(executed-executed0)
		}
		return queued == executed && queued >= queued0+1000
	})
	queued, executed := queue()
	fmt.Printf("queued == executed reached in 10 s: %v (+%d, +%d for 1,000 registered, %d run); when executed first moved, %d had run that it did not count\n",
		reached, queued-queued0, executed-executed0, ran.Load(), early)
}

// waitRearming: a cleanup registers itself again and collects. Does polling for an empty queue end?
func waitRearming(int) {
	var arm func(int)
	var over atomic.Bool
	arm = func(int) {
		ran.Add(1)
		if !over.Load() {
			populate(1, arm)
			runtime.GC()
		}
	}
	populate(1, arm)
	runtime.GC()
	start := time.Now()
	reached := within(5*time.Second, func() bool {
		queued, executed := queue()
		return queued == executed
	})
	took := time.Since(start)
	over.Store(true)
	fmt.Printf("polling until queued == executed ended: %v, after %v; the cleanup had run %d times\n",
		reached, took.Round(time.Millisecond), ran.Load())
}
