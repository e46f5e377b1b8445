// Many threads on one heap: S1 to S5.
//
// ../README.md says how they are had from Go.
package main

import (
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// together has this many threads work at a time, each told its number, and returns how long that took.
func together(threads int, work func(thread int)) time.Duration {
	start := time.Now()
	var all sync.WaitGroup
	for thread := range threads {
		all.Add(1)
		go func() {
			defer all.Done()
			work(thread)
		}()
	}
	all.Wait()
	return time.Since(start)
}

// part is the share of a thread in n things: from first to before last.
func part(n, thread, threads int) (first, last int) {
	return n * thread / threads, n * (thread + 1) / threads
}

const mostThreads = 2

// forThreads measures with each number of threads, twice, and returns the second results.
func forThreads(measure func(threads int) float64) []float64 {
	var values []float64
	for threads := 1; threads <= mostThreads; threads++ {
		measure(threads)
		values = append(values, measure(threads))
	}
	return values
}

func seededFor(thread int) *rand.Rand { return rand.New(rand.NewPCG(0x5e37_0b5e, uint64(thread))) }

// ---- S1: binary-trees, a program for each thread ----

func s1(depth int) []float64 {
	return forThreads(func(threads int) float64 {
		took := together(threads, func(int) { binaryTrees(depth) })
		return float64(took.Nanoseconds()) / 1e6 / float64(threads)
	})
}

// ---- S2: a map with weak values ----

type shard struct {
	sync.Mutex
	values map[uint64]weak.Pointer[plain]
	_      [48]byte // to the end of the cache line
}

// weakMap finds values as long as another reference keeps them; held has some of these.
type weakMap struct {
	shards [64]shard
	held   []atomic.Pointer[plain]
}

func (m *weakMap) shard(key uint64) *shard { return &m.shards[key%uint64(len(m.shards))] }

// find tells whether the key has a value that lives, and looks at it.
func (m *weakMap) find(key uint64) bool {
	shard := m.shard(key)
	shard.Lock()
	pointer := shard.values[key]
	shard.Unlock()
	value := pointer.Value()
	if value != nil && value[0] != key {
		fail("S2: the value of key %d is that of %d", key, value[0])
	}
	return value != nil
}

func (m *weakMap) insert(key uint64, slot int) {
	value := &plain{key, key, key, key}
	runtime.AddCleanup(value, count, 1)
	pointer := weak.Make(value)
	shard := m.shard(key)
	shard.Lock()
	shard.values[key] = pointer
	shard.Unlock()
	m.held[slot].Store(value)
}

// operate returns how many values it has inserted.
func (m *weakMap) operate(operations, keys int, random *rand.Rand) (inserted int64) {
	for range operations {
		key := random.Uint64N(uint64(keys))
		if random.IntN(10) > 0 && m.find(key) {
			continue
		}
		m.insert(key, random.IntN(len(m.held)))
		inserted++
	}
	return inserted
}

func (m *weakMap) clear() {
	for i := range m.shards {
		clear(m.shards[i].values)
	}
	for i := range m.held {
		m.held[i].Store(nil)
	}
}

func s2(keys int) []float64 {
	m := &weakMap{held: make([]atomic.Pointer[plain], keys/2)}
	for i := range m.shards {
		m.shards[i].values = map[uint64]weak.Pointer[plain]{}
	}
	operations := 4 * keys
	return forThreads(func(threads int) float64 {
		counted.Store(0)
		var inserted atomic.Int64
		took := together(threads, func(thread int) {
			first, last := part(operations, thread, threads)
			inserted.Add(m.operate(last-first, keys, seededFor(thread)))
		})
		m.clear()
		runtime.GC()
		for start := time.Now(); counted.Load() != inserted.Load(); time.Sleep(time.Millisecond) {
			if time.Since(start) > patience {
				fail("S2: of %d cleanups, %d ran", inserted.Load(), counted.Load())
			}
		}
		return per(took, operations)
	})
}

// ---- S3: allocation ----

// sinks are where objects go that become garbage with the next one; each thread has its own cache lines.
var sinks [mostThreads]struct {
	object *plain
	_      [120]byte
}

func garbage(n, thread int) {
	for i := range n {
		word := uint64(i)
		sinks[thread].object = &plain{word, word, word, word}
	}
}

func s3(n int) []float64 {
	return forThreads(func(threads int) float64 {
		return per(together(threads, func(thread int) {
			first, last := part(n, thread, threads)
			garbage(last-first, thread)
		}), n)
	})
}

// ---- S4: cleanups ----

func s4(n int) []float64 {
	ran := make([]atomic.Uint32, n)
	cleanup := func(i int) {
		ran[i].Add(1)
		done()
	}
	round := uint32(0)
	return forThreads(func(threads int) float64 {
		left.Store(int64(n))
		start := time.Now()
		together(threads, func(thread int) {
			first, last := part(n, thread, threads)
			for i := first; i < last; i++ {
				runtime.AddCleanup(new(plain), cleanup, i)
			}
		})
		runtime.GC()
		wait()
		took := time.Since(start)
		round++
		for i := range ran {
			if times := ran[i].Load(); times != round {
				fail("S4: after %d rounds, cleanup %d has run %d times", round, i, times)
			}
		}
		return per(took, n)
	})
}

// ---- S5: pauses ----

// linked is a pair of which a link may change while others read it.
type linked struct {
	before *linked
	other  atomic.Pointer[linked]
	words  [2]uint64
}

// web makes n nodes, and returns those from which all are reached. A node links to what was in its place of the
// table before, and to what is in another: both random, but what is displaced is never lost.
func web(n int) []*linked {
	heads := make([]*linked, max(n/16, 1))
	random := seeded()
	for i := range n {
		word := uint64(i)
		place := random.IntN(len(heads))
		one := &linked{before: heads[place], words: [2]uint64{word, word}}
		one.other.Store(heads[random.IntN(len(heads))])
		heads[place] = one
	}
	return heads
}

// gcPauses are the pauses of the collector since the start of the program.
func gcPauses() *metrics.Float64Histogram {
	pauses := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(pauses)
	return pauses[0].Value.Float64Histogram()
}

func gcCycles() uint64 {
	cycles := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(cycles)
	return cycles[0].Value.Uint64()
}

// quantile is the time in milliseconds below which a share of what a histogram has counted since before lies.
func quantile(before, after *metrics.Float64Histogram, share float64) float64 {
	total := uint64(0)
	for i, n := range after.Counts {
		total += n - before.Counts[i]
	}
	rank := uint64(math.Ceil(share * float64(total)))
	for i, n := range after.Counts {
		if n -= before.Counts[i]; n < rank {
			rank -= n
		} else if end := after.Buckets[i+1]; n > 0 && !math.IsInf(end, 1) {
			return end * 1e3
		} else if n > 0 {
			return after.Buckets[i] * 1e3
		}
	}
	fail("S5: there was no pause")
	return 0
}

func s5(n int) []float64 {
	const (
		cycles      = 10
		leastCycles = 3
		enough      = 30 * time.Second
		perChunk    = 1 << 16
		perChange   = 1 << 10
	)
	percent := debug.SetGCPercent(-1)
	heads := web(n)
	debug.SetGCPercent(percent)

	before, firstCycle, start := gcPauses(), gcCycles(), time.Now()
	var made atomic.Int64
	isOver := func() bool {
		ran := gcCycles() - firstCycle
		return ran >= cycles && made.Load() >= int64(cycles*n) ||
			ran >= leastCycles && time.Since(start) > enough
	}
	together(mostThreads, func(thread int) {
		random := seededFor(thread)
		for ; !isOver(); made.Add(perChunk) {
			for range perChunk / perChange {
				garbage(perChange, thread)
				if changed := heads[random.IntN(len(heads))]; changed != nil {
					changed.other.Store(heads[random.IntN(len(heads))])
				}
			}
		}
	})
	after := gcPauses()
	runtime.KeepAlive(heads)
	return []float64{quantile(before, after, .99), quantile(before, after, 1)}
}
