/*
 * Many threads on one heap: S1 to S5.
 *
 * ../README.md says how they are had from Java.
 */

import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.function.BooleanSupplier;
import java.util.function.IntConsumer;
import java.util.function.IntToDoubleFunction;

final class Shared {
    static final int MOST_THREADS = 2;

    /** Has this many threads work at a time, each told its number, and returns the nanoseconds that took. */
    static long together(int threads, IntConsumer work) {
        List<Thread> all = new ArrayList<>();
        long start = System.nanoTime();
        for (int i = 0; i < threads; i++) {
            int number = i;
            Thread thread = new Thread(() -> work.accept(number));
            thread.setUncaughtExceptionHandler((of, error) -> Peer.exit(1, error.toString()));
            thread.start();
            all.add(thread);
        }
        try {
            for (Thread thread : all) {
                thread.join();
            }
        } catch (InterruptedException unexpected) {
            throw new IllegalStateException(unexpected);
        }
        return System.nanoTime() - start;
    }

    /** The first of n things that is a thread's; those before the first of the next thread are, too. */
    static int first(int n, int thread, int threads) {
        return (int) ((long) n * thread / threads);
    }

    /** The last of this many rounds, with each number of threads. */
    static double[] forThreads(int rounds, IntToDoubleFunction measure) {
        double[] values = new double[MOST_THREADS];
        for (int i = 0; i < MOST_THREADS; i++) {
            int threads = i + 1;
            values[i] = Peer.warm(rounds, () -> measure.applyAsDouble(threads));
        }
        return values;
    }

    static SplittableRandom seededFor(int thread) {
        return new SplittableRandom(0x5e37_0b5eL + thread);
    }

    // ---- S1: binary-trees, a program for each thread ----

    static double[] s1(int depth) {
        return forThreads(4, threads -> together(threads, thread -> Peer.binaryTrees(depth)) / 1e6 / threads);
    }

    // ---- S2: a map with weak values ----

    /** Finds values as long as another reference keeps them; `held` has some of these. */
    static final class WeakMap {
        final ConcurrentHashMap<Integer, WeakReference<Peer.Plain>> values = new ConcurrentHashMap<>();
        final AtomicReferenceArray<Peer.Plain> held;
        final AtomicLong cleaned = new AtomicLong();
        final Runnable cleanup = cleaned::incrementAndGet;

        WeakMap(int held) {
            this.held = new AtomicReferenceArray<>(held);
        }

        /** Whether the key has a value that lives; looks at it. */
        boolean find(int key) {
            WeakReference<Peer.Plain> reference = values.get(key);
            Peer.Plain value = reference == null ? null : reference.get();
            if (value != null && value.a != key) {
                Peer.exit(1, "S2: the value of key " + key + " is that of " + value.a);
            }
            return value != null;
        }

        void insert(int key, int slot) {
            Peer.Plain value = new Peer.Plain(key);
            Peer.CLEANER.register(value, cleanup);
            values.put(key, new WeakReference<>(value));
            held.set(slot, value);
        }

        /** Returns how many values it has inserted. */
        long operate(int operations, int keys, SplittableRandom random) {
            long inserted = 0;
            for (int i = 0; i < operations; i++) {
                int key = random.nextInt(keys);
                if (random.nextInt(10) > 0 && find(key)) {
                    continue;
                }
                insert(key, random.nextInt(held.length()));
                inserted++;
            }
            return inserted;
        }

        void clear() {
            values.clear();
            for (int i = 0; i < held.length(); i++) {
                held.set(i, null);
            }
        }
    }

    static double[] s2(int keys) {
        WeakMap map = new WeakMap(keys / 2);
        int operations = 4 * keys;
        return forThreads(3, threads -> {
            map.cleaned.set(0);
            AtomicLong inserted = new AtomicLong();
            long took = together(threads, thread -> {
                int some = first(operations, thread + 1, threads) - first(operations, thread, threads);
                inserted.addAndGet(map.operate(some, keys, seededFor(thread)));
            });
            map.clear();
            System.gc();
            long start = System.nanoTime();
            while (map.cleaned.get() != inserted.get()) {
                if (System.nanoTime() - start > TimeUnit.SECONDS.toNanos(120)) {
                    Peer.exit(1, "S2: of " + inserted + " cleanups, " + map.cleaned + " ran");
                }
                Thread.yield();
            }
            return Peer.per(took, operations);
        });
    }

    // ---- S3: allocation ----

    static double[] s3(int n) {
        return forThreads(12, threads -> Peer.per(together(threads, thread ->
                Peer.garbage(first(n, thread + 1, threads) - first(n, thread, threads))), n));
    }

    // ---- S4: cleanups ----

    static double[] s4(int n) {
        return forThreads(4, threads -> {
            AtomicIntegerArray ran = new AtomicIntegerArray(n);
            Peer.Ledger ledger = new Peer.Ledger(n);
            long start = System.nanoTime();
            together(threads, thread -> {
                int end = first(n, thread + 1, threads);
                for (int i = first(n, thread, threads); i < end; i++) {
                    int number = i;
                    Peer.CLEANER.register(new Peer.Plain(i), () -> {
                        ran.incrementAndGet(number);
                        ledger.done(number);
                    });
                }
            });
            System.gc();
            ledger.await();
            long took = System.nanoTime() - start;
            for (int i = 0; i < n; i++) {
                if (ran.get(i) != 1) {
                    Peer.exit(1, "S4: cleanup " + i + " has run " + ran.get(i) + " times");
                }
            }
            return Peer.per(took, n);
        });
    }

    // ---- S5: pauses ----

    /**
     * Makes n nodes, and returns those from which all are reached. A node links to what was in its place of the
     * table before, and to what is in another: both random, but what is displaced is never lost.
     */
    static Peer.Pair[] web(int n) {
        Peer.Pair[] heads = new Peer.Pair[Math.max(n / 16, 1)];
        SplittableRandom random = Peer.seeded();
        for (int i = 0; i < n; i++) {
            Peer.Pair one = new Peer.Pair(i);
            int place = random.nextInt(heads.length);
            one.left = heads[place];
            one.right = heads[random.nextInt(heads.length)];
            heads[place] = one;
        }
        return heads;
    }

    static long collections() {
        return ManagementFactory.getGarbageCollectorMXBeans().stream()
                .mapToLong(GarbageCollectorMXBean::getCollectionCount).sum();
    }

    static double[] s5(int n) throws Exception {
        final int collections = 10, least = 3, perChunk = 1 << 16, perChange = 1 << 10;
        final long enough = TimeUnit.SECONDS.toNanos(30);
        Peer.Pair[] heads = web(n);
        System.gc(); // so that nothing that lives is young, as later
        try (Peer.GcLog log = new Peer.GcLog(Peer.GcLog.PAUSES)) {
            AtomicLong made = new AtomicLong();
            long before = collections(), start = System.nanoTime();
            BooleanSupplier isOver = () -> {
                long ran = collections() - before;
                return ran >= collections && made.get() >= (long) collections * n
                        || ran >= least && System.nanoTime() - start > enough;
            };
            together(MOST_THREADS, thread -> {
                SplittableRandom random = seededFor(thread);
                while (!isOver.getAsBoolean()) {
                    for (int i = 0; i < perChunk; i += perChange) {
                        Peer.garbage(perChange);
                        Peer.Pair changed = heads[random.nextInt(heads.length)];
                        if (changed != null) {
                            changed.right = heads[random.nextInt(heads.length)];
                        }
                    }
                    made.addAndGet(perChunk);
                }
            });
            double[] pauses = log.pauses();
            if (pauses.length == 0) {
                Peer.exit(1, "S5: this virtual machine logs no pauses");
            }
            int rank = (int) Math.ceil(.99 * pauses.length);
            return new double[] {pauses[rank - 1], pauses[pauses.length - 1]};
        }
    }

    private Shared() {}
}
