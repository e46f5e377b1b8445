// The Go peer: Sexton's kinds of work on Go's heap, with cleanups by runtime.AddCleanup.
//
//	go --list       the rows that it measures
//	go --version    Go's
//	go ROW SIZE     measures a row and those that belong to it, and prints "ROW VALUE" for each
//
// ../README.md says what each row means, how it is had from Go, and what is unfair about it.
// shared.go has S1 to S5.
package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// plain has no pointers, pair has two; both are of 32 bytes.
type plain [4]uint64

type pair struct {
	left, right *pair
	words       [2]uint64
}

// A group of rows that are measured together, in the order of ids.
type group struct {
	ids     string
	measure func(size int) []float64
}

// each measures the rows of a group one after the other.
func each(rows ...func(n int) float64) func(int) []float64 {
	return func(n int) (values []float64) {
		for _, row := range rows {
			values = append(values, row(n))
		}
		return values
	}
}

// on sets GOMAXPROCS first.
func on(threads int, measure func(int) []float64) func(int) []float64 {
	return func(n int) []float64 {
		runtime.GOMAXPROCS(threads)
		return measure(n)
	}
}

var groups = []group{
	{"W1", warm(w1)},
	{"W2.0 W2.10 W2.50 W2.90", each(sweep(0, 0), sweep(.1, 0), sweep(.5, 0), sweep(.9, 0))},
	{"W2c.0 W2c.50", each(sweep(0, .1), sweep(.5, .1))},
	{"W2r.50 W2r.90", each(refill(.5), refill(.9))},
	{"W3.random", each(graph(random))},
	{"W3.list", each(graph(chain))},
	{"W3.shuffled", each(graph(shuffled))},
	{"W3.tree", each(graph(heap))},
	{"W3.random@1", on(1, each(graph(random)))},
	{"W3.list@1", on(1, each(graph(chain)))},
	{"W3.shuffled@1", on(1, each(graph(shuffled)))},
	{"W3.tree@1", on(1, each(graph(heap)))},
	{"W4.register W4.run", warm(w4)},
	{"W5", warm(w5)},
	{"W6.p50 W6.p99", w6},
	{"W7.wall W7.rss", w7},
	{"GCBench.wall", warm(gcbench)},
	{"W8.plain W8.stalls", each(w8(busy), w8(stalls))},
	{"W8.plain@8", on(8, each(w8(busy)))},
	{"W8.stalls@16", on(16, each(w8(stalls)))},
	{"W8.stalls@handoff", each(w8(stallsHandedOff))},
	{"memory.object", each(memoryObject)},
	{"memory.size.20000", each(memorySize(20_000))},
	{"memory.size.33000", each(memorySize(33_000))},
	{"memory.size.65544", each(memorySize(65_544))},
	{"memory.external", each(memoryExternal)},
	{"memory.cleanup", each(memoryCleanup)},
	{"S1.1 S1.2", s1},
	{"S2.1 S2.2", s2},
	{"S3.1 S3.2", s3},
	{"S4.1 S4.2", s4},
	{"S5.p99 S5.max", s5},
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "--list":
		for _, g := range groups {
			fmt.Println(g.ids)
		}
	case len(os.Args) == 2 && os.Args[1] == "--version":
		fmt.Println(runtime.Version())
	case len(os.Args) == 3:
		measure(os.Args[1], os.Args[2])
	default:
		fail("valid is --list, --version, or a row and a size")
	}
}

func measure(row, size string) {
	n, err := strconv.Atoi(size)
	for _, g := range groups {
		if ids := strings.Fields(g.ids); err == nil && slices.Contains(ids, row) {
			for i, value := range g.measure(n) {
				fmt.Printf("%s %.4f\n", ids[i], value)
			}
			return
		}
	}
	fail("row %q, size %q; valid is a row that --list prints, and a number", row, size)
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// warm measures twice and returns the second result.
func warm(measure func(int) []float64) func(int) []float64 {
	return func(n int) []float64 {
		measure(n)
		return measure(n)
	}
}

func per(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / float64(max(n, 1)) }

// collect is one whole cycle, and how long its parts took: until marking had ended, and the sweep.
func collect() (mark, sweep time.Duration) {
	var stats debug.GCStats
	start := time.Now()
	runtime.GC()
	end := time.Now()
	debug.ReadGCStats(&stats)
	// Wall-clock times, as the runtime keeps no other for the end of a pause.
	marked := stats.PauseEnd[0].UnixNano()
	return time.Duration(marked - start.UnixNano()), time.Duration(end.UnixNano() - marked)
}

func seeded() *rand.Rand { return rand.New(rand.NewPCG(0x5e37_0b5e, 1)) }

// ---- W1 ----

var sink *plain // where objects go that become garbage with the next one

func w1(n int) []float64 {
	runtime.GC()
	start := time.Now()
	for i := range n {
		word := uint64(i)
		sink = &plain{word, word, word, word}
	}
	return []float64{per(time.Since(start), n)}
}

// ---- W2, W2r: flat heaps ----

var living []*plain

// fill allocates n objects of which a share lives, and a share carries a cleanup. It returns how many live.
func fill(n int, live, withCleanup float64) int {
	random := seeded()
	living = living[:0]
	for i := range n {
		word := uint64(i)
		object := &plain{word, word, word, word}
		if random.Float64() < live {
			living = append(living, object)
		} else {
			sink = object
		}
		if withCleanup > 0 && random.Float64() < withCleanup {
			runtime.AddCleanup(object, count, 1)
		}
	}
	sink = nil
	return len(living)
}

var counted atomic.Int64

func count(n int) { counted.Add(int64(n)) }

// flat calls measure with heaps of that shape, twice, and returns the second result.
func flat(n int, live, withCleanup float64, measure func(dead int) float64) float64 {
	debug.SetGCPercent(-1)
	if living == nil {
		living = make([]*plain, 0, n)
	}
	value := 0.0
	for range 2 {
		dead := n - fill(n, live, withCleanup)
		value = measure(dead)
		clear(living)
		runtime.GC()
	}
	return value
}

func sweep(live, withCleanup float64) func(int) float64 {
	return func(n int) float64 {
		return flat(n, live, withCleanup, func(int) float64 {
			_, swept := collect()
			return per(swept, n)
		})
	}
}

func refill(live float64) func(int) float64 {
	return func(n int) float64 {
		return flat(n, live, 0, func(dead int) float64 { return w1(dead)[0] })
	}
}

// ---- W3 ----

var root *pair

func chain(all []*pair) {
	for i := range len(all) - 1 {
		all[i].left = all[i+1]
	}
}

func shuffled(all []*pair) {
	seeded().Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	chain(all)
}

// random is a chain through all in random order, so that all are live, and a random edge more from each.
func random(all []*pair) {
	shuffled(all)
	random := seeded()
	for _, one := range all {
		one.right = all[random.IntN(len(all))]
	}
}

// heap is a complete binary tree, the parents allocated before their children.
func heap(all []*pair) {
	for i, one := range all {
		if child := 2*i + 1; child < len(all) {
			one.left = all[child]
		}
		if child := 2*i + 2; child < len(all) {
			one.right = all[child]
		}
	}
}

// graph links n nodes, and measures the third mark of them.
func graph(link func([]*pair)) func(int) float64 {
	return func(n int) float64 {
		debug.SetGCPercent(-1)
		build(n, link)
		collect()
		collect()
		marked, _ := collect()
		root = nil
		return per(marked, n)
	}
}

// build is a function of its own so that the list of all nodes is dead when it has returned.
//
//go:noinline
func build(n int, link func([]*pair)) {
	all := make([]*pair, n)
	for i := range all {
		word := uint64(i)
		all[i] = &pair{words: [2]uint64{word, word}}
	}
	link(all)
	root = all[0] // in a shuffled array another one than before
}

// ---- W4, W8: many cleanups ----

const patience = 120 * time.Second

// ran counts the cleanups of the round; the one that makes it zero tells allRan.
var (
	left   atomic.Int64
	allRan = make(chan struct{}, 1)
)

func done() {
	if left.Add(-1) == 0 {
		allRan <- struct{}{}
	}
}

func wait() {
	select {
	case <-allRan:
	case <-time.After(patience):
		fail("after %v, %d cleanups had not run", patience, left.Load())
	}
}

// register makes n objects, and then gives each its cleanup; the objects are dead when it has returned.
//
//go:noinline
func register(n int, cleanup func(int)) time.Duration {
	all := make([]*plain, n)
	for i := range all {
		all[i] = new(plain)
	}
	left.Store(int64(n))
	start := time.Now()
	for i, one := range all {
		runtime.AddCleanup(one, cleanup, i)
	}
	return time.Since(start)
}

func w4(n int) []float64 {
	debug.SetGCPercent(-1)
	runtime.GC()
	registered := register(n, func(i int) { done() })
	start := time.Now()
	runtime.GC()
	wait()
	return []float64{per(registered, n), per(time.Since(start), n)}
}

func w5(n int) []float64 {
	object := new(plain)
	start := time.Now()
	for i := range n {
		handle := runtime.AddCleanup(object, count, i)
		handle.Stop()
	}
	took := time.Since(start)
	runtime.KeepAlive(object)
	return []float64{per(took, n)}
}

func spin() {
	for start := time.Now(); time.Since(start) < time.Microsecond; {
	}
}

func busy(int) {
	spin()
	done()
}

func stalls(i int) {
	if i%1000 == 0 {
		time.Sleep(time.Millisecond)
	} else {
		spin()
	}
	done()
}

func stallsHandedOff(i int) {
	if i%1000 == 0 {
		go func() {
			time.Sleep(time.Millisecond)
			done()
		}()
		return
	}
	spin()
	done()
}

func w8(cleanup func(int)) func(int) float64 {
	return func(n int) float64 { return drained(n, cleanup) }
}

func drained(n int, cleanup func(int)) float64 {
	debug.SetGCPercent(-1)
	// The runtime makes goroutines for cleanups only when one is registered while others wait. A program
	// that goes on registering, as most do, gets them soon; this one does so in its first round only.
	register(n, cleanup)
	runtime.GC()
	alive := new(plain)
	for left.Load() > int64(n/2) {
		handle := runtime.AddCleanup(alive, count, 0)
		handle.Stop()
		time.Sleep(time.Millisecond)
	}
	runtime.KeepAlive(alive)
	wait()
	runtime.GC()

	register(n, cleanup)
	start := time.Now()
	runtime.GC()
	wait()
	return per(time.Since(start), n)
}

// ---- W6 ----

// w6 is from the end of marking, with the world still stopped, to the start of the only cleanup there is.
func w6(n int) []float64 {
	debug.SetGCPercent(-1)
	const unmeasured = 20
	var times []float64
	var stats debug.GCStats
	started := make(chan time.Time, 1)
	for i := range n + unmeasured {
		alone(started)
		time.Sleep(time.Millisecond) // so that the goroutine for cleanups is idle again
		runtime.GC()
		at := <-started
		debug.ReadGCStats(&stats)
		if i >= unmeasured {
			times = append(times, float64(at.UnixNano()-stats.PauseEnd[0].UnixNano()))
		}
	}
	slices.Sort(times)
	quantile := func(share float64) float64 { return times[int(share*float64(n-1))] }
	return []float64{quantile(.5), quantile(.99)}
}

//go:noinline
func alone(started chan time.Time) {
	runtime.AddCleanup(new(plain), func(int) { started <- time.Now() }, 0)
}

// ---- W7: binary-trees, one goroutine ----

type tree struct{ left, right *tree }

func bottomUp(depth int) *tree {
	if depth == 0 {
		return &tree{}
	}
	return &tree{bottomUp(depth - 1), bottomUp(depth - 1)}
}

func (t *tree) check() int {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.check() + t.right.check()
}

func expect(nodes, depth, trees int) {
	if want := trees * (1<<(depth+1) - 1); nodes != want {
		fail("%d trees of depth %d have %d nodes; expected were %d", trees, depth, nodes, want)
	}
}

func binaryTrees(depth int) {
	expect(bottomUp(depth+1).check(), depth+1, 1)
	long := bottomUp(depth)
	for k := 4; k <= depth; k += 2 {
		trees := 1 << (depth + 4 - k)
		nodes := 0
		for range trees {
			nodes += bottomUp(k).check()
		}
		expect(nodes, k, trees)
	}
	expect(long.check(), depth, 1)
}

func millis(program func()) float64 {
	start := time.Now()
	program()
	return float64(time.Since(start).Nanoseconds()) / 1e6
}

func w7(depth int) []float64 {
	wall := warm(func(depth int) []float64 { return []float64{millis(func() { binaryTrees(depth) })} })
	return []float64{wall(depth)[0], float64(status("VmHWM")) / 1e6}
}

// ---- GCBench, by Ellis, Kovac and Boehm ----

type node struct {
	left, right *node
	i, j        int32
}

const (
	stretchDepth   = 18
	longLivedDepth = 16
	arraySize      = 500_000
	minTreeDepth   = 4
	maxTreeDepth   = 16
)

// populate builds the tree from its root downwards.
func populate(depth int, n *node) {
	if depth <= 0 {
		return
	}
	n.left, n.right = new(node), new(node)
	populate(depth-1, n.left)
	populate(depth-1, n.right)
}

// makeTree builds it from its leaves upwards.
func makeTree(depth int) *node {
	if depth <= 0 {
		return new(node)
	}
	return &node{left: makeTree(depth - 1), right: makeTree(depth - 1)}
}

var made *node // so that the compiler cannot leave out a tree

func gcbench(int) []float64 { return []float64{millis(gcBench)} }

func gcBench() {
	made = makeTree(stretchDepth)
	made = nil
	longLived := new(node)
	populate(longLivedDepth, longLived)
	array := make([]float64, arraySize)
	for i := 1; i < arraySize/2; i++ {
		array[i] = 1 / float64(i)
	}
	for depth := minTreeDepth; depth <= maxTreeDepth; depth += 2 {
		trees := 2 * (1<<(stretchDepth+1) - 1) / (1<<(depth+1) - 1)
		for range trees {
			top := new(node)
			populate(depth, top)
			made = top
		}
		made = nil
		for range trees {
			made = makeTree(depth)
		}
		made = nil
	}
	if longLived.left == nil || array[1000] != 1.0/1000 {
		fail("GCBench: the long-lived data are wrong")
	}
}

// ---- Memory ----

// status is a line of the process's status, in bytes.
func status(key string) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fail("memory: %v", err)
	}
	_, rest, _ := bytes.Cut(text, []byte("\n"+key+":"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(string(line)), " kB"))
	if err != nil {
		fail("memory: no %s in /proc/self/status", key)
	}
	return kib * 1024
}

// resident is what the process holds after a collection that has given back all it can.
func resident() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	return float64(status("VmRSS"))
}

// holder is memory for n pointers, every page of it touched.
func holder(n int) []*plain {
	all := make([]*plain, n)
	some := new(plain)
	for i := range all {
		all[i] = some
	}
	return all
}

func memoryObject(n int) float64 {
	all := holder(n)
	before := resident()
	for i := range all {
		all[i] = new(plain)
		all[i][0] = 1
	}
	value := (resident() - before) / float64(n)
	runtime.KeepAlive(all)
	return value
}

func memoryCleanup(n int) float64 {
	all := holder(n)
	for i := range all {
		all[i] = new(plain)
	}
	before := resident()
	for i, one := range all {
		runtime.AddCleanup(one, count, i)
	}
	value := (resident() - before) / float64(n)
	runtime.KeepAlive(all)
	return value
}

// ones is a slice of that many bytes, every page of it touched.
func ones(size int) []byte {
	return bytes.Repeat([]byte{1}, size)
}

// memorySize makes objects of a size, as many as fill the memory of n plain ones, and tells how
// many percent more they take.
func memorySize(size int) func(int) float64 {
	return func(n int) float64 {
		all := make([][]byte, 32*n/size)
		before := resident()
		for i := range all {
			all[i] = ones(size)
		}
		value := 100 * ((resident()-before)/float64(size*len(all)) - 1)
		runtime.KeepAlive(all)
		return value
	}
}

// memoryExternal makes slices that die at once, and tells by how much memory has grown at the peak.
func memoryExternal(n int) float64 {
	live := ones(64 << 10)
	before := resident()
	for i := 0; i < n/200; i++ {
		runtime.KeepAlive(ones(256 << 10))
	}
	value := (float64(status("VmHWM")) - before) / 1e6
	runtime.KeepAlive(live)
	return value
}
