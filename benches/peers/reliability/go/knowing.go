package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"weak"
)

// stuck: what does the runtime tell of a cleanup that is stuck? The stacks of all goroutines, as a signal or
// an HTTP handler would list them. The argument is how many seconds to wait first: "for how long" shows
// after a minute.
func stuck(seconds int) {
	populate(1, stuckCleanup)
	runtime.GC()
	time.Sleep(time.Second)
	for range seconds {
		runtime.GC()
		time.Sleep(time.Second)
	}
	buffer := make([]byte, 1<<20)
	stacks := strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n")
	for _, stack := range stacks {
		if strings.Contains(stack, "stuckCleanup") {
			lines := strings.Split(stack, "\n")
			fmt.Printf("found among %d goroutines: %q; names the function: %v; names where it was registered: %v\n",
				len(stacks), lines[0], true, strings.Contains(stack, "main.populate"))
			return
		}
	}
	fmt.Printf("not found among %d goroutines\n", len(stacks))
}

func stuckCleanup(int) {
	select {}
}

type holder struct{ kept *object }

// keepsItself: a cleanup that can reach its own object. Which ways are refused, which leak silently?
func keepsItself(int) {
	attempt := func(name string, register func()) string {
		refused := "accepted"
		func() {
			defer func() {
				if reason := recover(); reason != nil {
					refused = "refused (panic)"
				}
			}()
			register()
		}()
		before := ran.Load()
		for range 5 {
			runtime.GC()
		}
		time.Sleep(200 * time.Millisecond)
		return fmt.Sprintf("%s: %s, ran %d", name, refused, ran.Load()-before)
	}
	results := []string{
		attempt("argument is the object", func() {
			o := new(object)
			runtime.AddCleanup(o, func(*object) { ran.Add(1) }, o)
		}),
		attempt("closure captures it", func() {
			o := new(object)
			runtime.AddCleanup(o, func(int) { o.data[0]++; ran.Add(1) }, 0)
		}),
		attempt("argument is a struct that holds it", func() {
			o := new(object)
			runtime.AddCleanup(o, func(holder) { ran.Add(1) }, holder{o})
		}),
		attempt("argument points to a struct that holds it", func() {
			o := new(object)
			runtime.AddCleanup(o, func(*holder) { ran.Add(1) }, &holder{o})
		}),
		attempt("closure captures a struct's pointer that holds it", func() {
			o := new(object)
			h := &holder{o}
			runtime.AddCleanup(o, func(int) { h.kept.data[0]++; ran.Add(1) }, 0)
		}),
	}
	fmt.Println(strings.Join(results, "; "))
}

// keepsChecked: the same leak under GODEBUG=checkfinalizers=1 (set by the caller).
func keepsChecked(int) {
	o := new(object)
	runtime.AddCleanup(o, func(*holder) { ran.Add(1) }, &holder{o})
	o = nil
	for range 3 {
		runtime.GC()
	}
	fmt.Printf("the process lived on with GODEBUG=%s\n", os.Getenv("GODEBUG"))
}

// stop: 1,000 cleanups, all stopped before their objects die.
func stop(int) {
	handles := make([]runtime.Cleanup, 0, 1000)
	objects := make([]*object, 0, 1000)
	for i := range 1000 {
		o := new(object)
		objects = append(objects, o)
		handles = append(handles, runtime.AddCleanup(o, func(int) { ran.Add(1) }, i))
	}
	for _, handle := range handles {
		handle.Stop()
	}
	runtime.KeepAlive(objects)
	objects = nil
	runtime.GC()
	fmt.Printf("stopped before death: %d of 1,000 ran; Stop returns nothing\n", settle())
}

// stopQueued: 1,000 cleanups are stopped when they are queued, but wait behind a slow one.
//
//go:noinline
func stopQueued(int) {
	var handles []runtime.Cleanup
	func() {
		for i := range 1001 {
			handles = append(handles, runtime.AddCleanup(new(object), func(int) {
				time.Sleep(time.Millisecond)
				ran.Add(1)
			}, i))
		}
	}()
	runtime.GC()
	before := ran.Load()
	for _, handle := range handles {
		handle.Stop()
	}
	fmt.Printf("1,001 queued, %d had run when all were stopped; %d ran in the end\n", before, settle())
}

// resurrect: the cleanup is not given the object, and a weak pointer to it is nil by then.
func resurrect(int) {
	var seen *object
	func() {
		o := new(object)
		w := weak.Make(o)
		runtime.AddCleanup(o, func(w weak.Pointer[object]) { seen = w.Value(); ran.Add(1) }, w)
	}()
	runtime.GC()
	settle()
	fmt.Printf("the cleanup ran %d time(s); through a weak pointer it saw nil: %v\n", ran.Load(), seen == nil)
}
