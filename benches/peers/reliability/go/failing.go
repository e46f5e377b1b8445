package main

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// blocked: among 2,000 cleanups, the k-th that is run blocks for ever. How many others run, at once, after
// another collection, and after registrations that have nothing to do with them?
func blocked(k int) {
	var started atomic.Int64
	populate(2000, func(int) {
		if started.Add(1) == int64(k) {
			select {}
		}
		ran.Add(1)
	})
	runtime.GC()
	first := settle()
	runtime.GC()
	second := settle()
	runtime.AddCleanup(alive, func(int) {}, 0)
	third := settle()
	for range 100 {
		runtime.AddCleanup(alive, func(int) {}, 0)
		time.Sleep(time.Millisecond)
	}
	fourth := settle()
	fmt.Printf("GOMAXPROCS=%d, number %d to run blocks: %d of 1,999 others ran; after another collection %d; after a registration %d; after 100 more %d\n",
		runtime.GOMAXPROCS(0), k, first, second, third, fourth)
}

// panics: one of 2,000 cleanups panics. What comes of the process is for the caller to see.
func panics(int) {
	populate(2000, func(i int) {
		if i == 1000 {
			panic("a cleanup panicked")
		}
		ran.Add(1)
	})
	runtime.GC()
	fmt.Printf("the process lived on; %d of 1,999 others ran\n", settle())
}

// goexit: one of 2,000 cleanups ends its goroutine by runtime.Goexit (as testing.T's FailNow does).
func goexit(int) {
	populate(2000, func(i int) {
		if i == 1000 {
			runtime.Goexit()
		}
		ran.Add(1)
	})
	runtime.GC()
	first := settle()
	var later atomic.Int64
	populate(1000, func(int) { later.Add(1) })
	runtime.GC()
	second := settle()
	fmt.Printf("GOMAXPROCS=%d: %d of 1,999 others ran; after 1,000 more were registered and queued: %d of them, and %d of the others\n",
		runtime.GOMAXPROCS(0), first, later.Load(), second)
}

// threadsFail runs under a limit on the number of threads (see run.sh). Cleanups need no thread of their
// own to be made; goroutines that sit in a system call make the runtime ask for more threads.
func threadsFail(int) {
	populate(1000, func(int) { ran.Add(1) })
	runtime.GC()
	fmt.Printf("%d of 1,000 ran on %d threads; then threads ran out: ", settle(), threads())
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for range 50 {
		go syscall.Read(pipe[0], make([]byte, 1))
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("still alive, %d threads\n", threads())
}
