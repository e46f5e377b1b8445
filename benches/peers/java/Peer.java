/*
 * The Java peer: Sexton's kinds of work on HotSpot's heap, with cleanups by java.lang.ref.Cleaner.
 *
 *     java --list       the rows that it measures
 *     java --version    the virtual machine's
 *     java ROW SIZE     measures a row and those that belong to it, and prints "ROW VALUE" for each
 *
 * ../README.md says what each row means, how it is had from Java, and what is unfair about it. Shared.java has S1 to S5.
 */

import java.lang.management.ManagementFactory;
import java.lang.ref.Cleaner;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.IntFunction;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.management.ObjectName;

public final class Peer {
    static final class Plain {
        long a, b, c, d;

        Plain(long word) {
            a = b = c = d = word;
        }
    }

    static final class Pair {
        Pair left, right;
        long a, b;

        Pair(long word) {
            a = b = word;
        }
    }

    interface Measure {
        double[] of(int size) throws Exception;
    }

    /** Rows that are measured together, in the order of ids. */
    record Group(String ids, Measure measure) {
        List<String> rows() {
            return List.of(ids.split(" "));
        }
    }

    static final List<Group> GROUPS = List.of(
            new Group("W1", Peer::w1),
            new Group("W2r.50 W2r.90", n -> new double[] {refill(n, .5), refill(n, .9)}),
            new Group("W3.random", n -> graph(n, Peer::random)),
            new Group("W3.list", n -> graph(n, Peer::chain)),
            new Group("W3.shuffled", n -> graph(n, Peer::shuffled)),
            new Group("W3.tree", n -> graph(n, Peer::tree)),
            new Group("W4.register W4.run", Peer::w4),
            new Group("W5", Peer::w5),
            new Group("W6.p50 W6.p99", Peer::w6),
            new Group("W7.wall W7.rss", Peer::w7),
            new Group("GCBench.wall", n -> new double[] {millis(GcBench::run)}),
            new Group("W8.plain W8.stalls", Peer::w8),
            new Group("memory.object memory.object@rss", Peer::memoryObject),
            new Group("memory.size.20000 memory.size.20000@rss", n -> memorySize(20_000, n)),
            new Group("memory.size.33000 memory.size.33000@rss", n -> memorySize(33_000, n)),
            new Group("memory.size.65544 memory.size.65544@rss", n -> memorySize(65_544, n)),
            new Group("memory.external", n -> new double[] {memoryExternal(n)}),
            new Group("memory.cleanup memory.cleanup@rss", Peer::memoryCleanup),
            new Group("S1.1 S1.2", Shared::s1),
            new Group("S2.1 S2.2", Shared::s2),
            new Group("S3.1 S3.2", Shared::s3),
            new Group("S4.1 S4.2", Shared::s4),
            new Group("S5.p99 S5.max", Shared::s5));

    public static void main(String[] args) throws Exception {
        if (args.length == 1 && args[0].equals("--list")) {
            GROUPS.forEach(group -> System.out.println(group.ids));
        } else if (args.length == 1 && args[0].equals("--version")) {
            System.out.println(System.getProperty("java.vm.name") + " " + Runtime.version());
        } else if (args.length == 2) {
            measure(args[0], Integer.parseInt(args[1]));
        } else {
            exit(1, "valid is --list, --version, or a row and a size");
        }
        System.exit(0);
    }

    static void measure(String row, int size) throws Exception {
        Group group = GROUPS.stream().filter(some -> some.rows().contains(row)).findFirst().orElse(null);
        if (group == null) {
            exit(1, "row \"" + row + "\"; valid are those that --list prints");
        }
        double[] values = group.measure.of(size);
        for (int i = 0; i < values.length; i++) {
            System.out.printf(Locale.ROOT, "%s %.4f%n", group.rows().get(i), values[i]);
        }
    }

    static void exit(int status, String line) {
        System.err.println(line);
        System.exit(status);
    }

    static double per(long nanos, int n) {
        return (double) nanos / Math.max(n, 1);
    }

    /** The last of this many results. */
    static <T> T warm(int rounds, Supplier<T> measure) {
        T last = null;
        for (int i = 0; i < rounds; i++) {
            last = measure.get();
        }
        return last;
    }

    static long nanos(Runnable work) {
        long start = System.nanoTime();
        work.run();
        return System.nanoTime() - start;
    }

    /** The milliseconds of a program when the compiler has had its say. */
    static double millis(Runnable program) {
        return warm(4, () -> nanos(program) / 1e6);
    }

    static SplittableRandom seeded() {
        return new SplittableRandom(0x5e37_0b5eL);
    }

    // ---- W1 ----

    static Object sink;

    /**
     * Allocates n objects that no reference keeps. The store now and then is enough for the compiler to make
     * all of them, and spares the collectors' barrier, which a store of each would measure instead.
     */
    static void garbage(int n) {
        for (int i = 0; i < n; i++) {
            Plain object = new Plain(i);
            if ((i & 1023) == 0) {
                sink = object;
            }
        }
    }

    static double[] w1(int n) {
        return new double[] {per(warm(12, () -> nanos(() -> garbage(n))), n)};
    }

    // ---- W2r ----

    static Plain[] living;

    /** Makes n objects of which a share lives, and returns how many do not. */
    static int fill(int n, double live) {
        SplittableRandom random = seeded();
        if (living == null) {
            living = new Plain[n];
        }
        int kept = 0;
        for (int i = 0; i < n; i++) {
            Plain object = new Plain(i);
            if (random.nextDouble() < live) {
                living[kept++] = object;
            }
        }
        return n - kept;
    }

    static double refill(int n, double live) {
        return warm(6, () -> {
            int dead = fill(n, live);
            System.gc();
            double value = per(nanos(() -> garbage(dead)), dead);
            Arrays.fill(living, null);
            System.gc();
            return value;
        });
    }

    // ---- W3 ----

    /** What the virtual machine logs of its collections, from here on. */
    static final class GcLog implements AutoCloseable {
        static final String PHASES = "gc+phases=info", PAUSES = "gc=info";

        record Mark(long endNanos, double millis) {}

        private static final Pattern MARK =
                Pattern.compile("\\[([0-9]+)ns\\].*Phase 1: Mark live objects ([0-9.]+)ms");
        private static final Pattern PAUSE = Pattern.compile("Pause .* ([0-9.]+)ms$");
        private final Path file = Files.createTempFile("peer-java", ".log");

        GcLog(String what) throws Exception {
            // `timenanos` is the clock of System.nanoTime().
            command("output=file=" + file, "what=" + what, "decorators=timenanos");
        }

        private static void command(String... words) throws Exception {
            ManagementFactory.getPlatformMBeanServer().invoke(
                    new ObjectName("com.sun.management:type=DiagnosticCommand"), "vmLog",
                    new Object[] {words}, new String[] {String[].class.getName()});
        }

        /** The mark phases of full collections; of a log of PHASES. */
        List<Mark> marks() throws Exception {
            return matches(MARK).map(match ->
                    new Mark(Long.parseLong(match.group(1)), Double.parseDouble(match.group(2)))).toList();
        }

        /** The pauses in milliseconds, the shortest first; of a log of PAUSES. */
        double[] pauses() throws Exception {
            return matches(PAUSE).mapToDouble(match -> Double.parseDouble(match.group(1))).sorted().toArray();
        }

        private Stream<Matcher> matches(Pattern pattern) throws Exception {
            return Files.readAllLines(file).stream().map(pattern::matcher).filter(Matcher::find);
        }

        @Override
        public void close() throws Exception {
            command("disable");
            Files.deleteIfExists(file);
        }
    }

    static Pair root;

    static void chain(Pair[] all) {
        for (int i = 0; i + 1 < all.length; i++) {
            all[i].left = all[i + 1];
        }
    }

    static void shuffled(Pair[] all) {
        SplittableRandom random = seeded();
        for (int i = all.length - 1; i > 0; i--) {
            int j = random.nextInt(i + 1);
            Pair one = all[i];
            all[i] = all[j];
            all[j] = one;
        }
        chain(all);
    }

    /** A chain through all in random order, so that all are live, and a random edge more from each. */
    static void random(Pair[] all) {
        shuffled(all);
        SplittableRandom random = seeded();
        for (Pair one : all) {
            one.right = all[random.nextInt(all.length)];
        }
    }

    static void tree(Pair[] all) {
        for (int i = 0; i < all.length; i++) {
            all[i].left = 2 * i + 1 < all.length ? all[2 * i + 1] : null;
            all[i].right = 2 * i + 2 < all.length ? all[2 * i + 2] : null;
        }
    }

    /** Links n nodes, and reads how long the third mark of them took. */
    static double[] graph(int n, Consumer<Pair[]> link) throws Exception {
        build(n, link);
        System.gc();
        System.gc();
        try (GcLog log = new GcLog(GcLog.PHASES)) {
            System.gc();
            List<GcLog.Mark> marks = log.marks();
            if (marks.isEmpty()) {
                exit(1, "W3: this virtual machine logs no \"Phase 1: Mark live objects\" for System.gc()");
            }
            return new double[] {marks.get(marks.size() - 1).millis * 1e6 / n};
        } finally {
            root = null;
        }
    }

    static void build(int n, Consumer<Pair[]> link) {
        Pair[] all = new Pair[n];
        for (int i = 0; i < n; i++) {
            all[i] = new Pair(i);
        }
        System.gc(); // old and in the order of the array, whatever young collections there were before
        link.accept(all);
        root = all[0]; // in a shuffled array another one than before
    }

    // ---- W4, W5, W8: many cleanups ----

    /** Counts down what is left, and tells when that is nothing. */
    static final class Ledger {
        final AtomicInteger left;
        final CountDownLatch allRan = new CountDownLatch(1);

        Ledger(int n) {
            left = new AtomicInteger(n);
        }

        /** The end of a cleanup, which is given its number. */
        void done(int number) {
            if (left.decrementAndGet() == 0) {
                allRan.countDown();
            }
        }

        /** Collects, and waits until all have run. */
        void collect() {
            System.gc();
            await();
        }

        void await() {
            try {
                if (!allRan.await(120, TimeUnit.SECONDS)) {
                    exit(1, "after 120 s, " + left + " cleanups had not run");
                }
            } catch (InterruptedException unexpected) {
                throw new IllegalStateException(unexpected);
            }
        }
    }

    static final Cleaner CLEANER = Cleaner.create();

    /**
     * Makes n objects, and then gives each a cleanup, by the cleaners in turn. No reference keeps them.
     * Returns the nanoseconds that the cleanups took.
     */
    static long register(int n, Cleaner[] cleaners, IntFunction<Runnable> action) {
        Plain[] all = new Plain[n];
        for (int i = 0; i < n; i++) {
            all[i] = new Plain(i);
        }
        long start = System.nanoTime();
        int turn = 0;
        for (int i = 0; i < n; i++) {
            cleaners[turn].register(all[i], action.apply(i));
            turn = turn + 1 == cleaners.length ? 0 : turn + 1;
        }
        return System.nanoTime() - start;
    }

    static double[] w4(int n) {
        Cleaner[] one = {CLEANER};
        return warm(4, () -> {
            System.gc();
            Ledger ledger = new Ledger(n);
            long registered = register(n, one, i -> () -> ledger.done(i));
            return new double[] {per(registered, n), per(nanos(ledger::collect), n)};
        });
    }

    static int cleaned;

    static double[] w5(int n) {
        Plain object = new Plain(0);
        return new double[] {per(warm(6, () -> nanos(() -> {
            for (int i = 0; i < n; i++) {
                int word = i;
                CLEANER.register(object, () -> cleaned += word).clean();
            }
        })), n)};
    }

    static void spin() {
        long start = System.nanoTime();
        while (System.nanoTime() - start < 1000) {
            Thread.onSpinWait();
        }
    }

    static double[] w8(int n) {
        return new double[] {
            rounds(n, 2, ledger -> i -> () -> {
                spin();
                ledger.done(i);
            }),
            rounds(n, 4, ledger -> i -> () -> {
                if (i % 1000 == 0) {
                    sleep();
                } else {
                    spin();
                }
                ledger.done(i);
            })
        };
    }

    static void sleep() {
        try {
            Thread.sleep(1);
        } catch (InterruptedException unexpected) {
            throw new IllegalStateException(unexpected);
        }
    }

    static double rounds(int n, int workers, Function<Ledger, IntFunction<Runnable>> actions) {
        Cleaner[] cleaners = new Cleaner[workers];
        Arrays.setAll(cleaners, i -> Cleaner.create());
        return warm(3, () -> {
            System.gc();
            Ledger ledger = new Ledger(n);
            register(n, cleaners, actions.apply(ledger));
            return per(nanos(ledger::collect), n);
        });
    }

    // ---- W6 ----

    /** From the end of the mark phase to the start of the only cleanup there is. */
    static double[] w6(int n) throws Exception {
        final int unmeasured = 100;
        long[] started = new long[n + unmeasured];
        try (GcLog log = new GcLog(GcLog.PHASES)) {
            for (int i = 0; i < started.length; i++) {
                Ledger ledger = new Ledger(1);
                int round = i;
                CLEANER.register(new Plain(i), () -> {
                    started[round] = System.nanoTime();
                    ledger.done(round);
                });
                Thread.sleep(1); // so that the cleaner's thread is idle again
                System.gc();
                ledger.await();
            }
            List<GcLog.Mark> marks = log.marks();
            if (marks.size() != started.length) {
                exit(1, "W6: " + marks.size() + " marks were logged; expected were " + started.length);
            }
            double[] times = new double[n];
            for (int i = 0; i < n; i++) {
                times[i] = started[unmeasured + i] - marks.get(unmeasured + i).endNanos;
            }
            Arrays.sort(times);
            return new double[] {times[(int) (.5 * (n - 1))], times[(int) (.99 * (n - 1))]};
        }
    }

    // ---- W7: binary-trees, one thread ----

    static final class Tree {
        final Tree left, right;

        Tree(Tree left, Tree right) {
            this.left = left;
            this.right = right;
        }

        static Tree bottomUp(int depth) {
            return depth == 0 ? new Tree(null, null) : new Tree(bottomUp(depth - 1), bottomUp(depth - 1));
        }

        int check() {
            return left == null ? 1 : 1 + left.check() + right.check();
        }
    }

    static void expect(long nodes, int depth, int trees) {
        long want = trees * ((2L << depth) - 1);
        if (nodes != want) {
            exit(1, trees + " trees of depth " + depth + " have " + nodes + " nodes; expected were " + want);
        }
    }

    static void binaryTrees(int depth) {
        expect(Tree.bottomUp(depth + 1).check(), depth + 1, 1);
        Tree longLived = Tree.bottomUp(depth);
        for (int k = 4; k <= depth; k += 2) {
            int trees = 1 << (depth + 4 - k);
            long nodes = 0;
            for (int i = 0; i < trees; i++) {
                nodes += Tree.bottomUp(k).check();
            }
            expect(nodes, k, trees);
        }
        expect(longLived.check(), depth, 1);
    }

    static double[] w7(int depth) {
        return new double[] {millis(() -> binaryTrees(depth)), status("VmHWM") / 1e6};
    }

    // ---- GCBench, by Ellis, Kovac and Boehm ----

    static final class GcBench {
        static final int STRETCH = 18, LONG_LIVED = 16, ARRAY = 500_000, LEAST = 4, MOST = 16;

        static final class Node {
            Node left, right;
            int i, j;

            Node(Node left, Node right) {
                this.left = left;
                this.right = right;
            }

            Node() {}
        }

        /** Builds the tree from its root downwards. */
        static void populate(int depth, Node node) {
            if (depth <= 0) {
                return;
            }
            node.left = new Node();
            node.right = new Node();
            populate(depth - 1, node.left);
            populate(depth - 1, node.right);
        }

        /** Builds it from its leaves upwards. */
        static Node make(int depth) {
            return depth <= 0 ? new Node() : new Node(make(depth - 1), make(depth - 1));
        }

        static void run() {
            sink = make(STRETCH);
            sink = null;
            Node longLived = new Node();
            populate(LONG_LIVED, longLived);
            double[] array = new double[ARRAY];
            for (int i = 1; i < ARRAY / 2; i++) {
                array[i] = 1.0 / i;
            }
            for (int depth = LEAST; depth <= MOST; depth += 2) {
                int trees = 2 * ((2 << STRETCH) - 1) / ((2 << depth) - 1);
                for (int i = 0; i < trees; i++) {
                    Node top = new Node();
                    populate(depth, top);
                    sink = top;
                }
                sink = null;
                for (int i = 0; i < trees; i++) {
                    sink = make(depth);
                }
                sink = null;
            }
            if (longLived.left == null || array[1000] != 1.0 / 1000) {
                exit(1, "GCBench: the long-lived data are wrong");
            }
        }
    }

    // ---- Memory ----

    /** A line of the process's status, in bytes. */
    static double status(String key) {
        try (Stream<String> lines = Files.lines(Path.of("/proc/self/status"))) {
            String line = lines.filter(some -> some.startsWith(key + ":")).findFirst().orElseThrow();
            return Double.parseDouble(line.replaceAll("[^0-9]", "")) * 1024;
        } catch (java.io.IOException unreadable) {
            throw new java.io.UncheckedIOException(unreadable);
        }
    }

    /** What the heap holds after a collection, and what the process does. */
    static double[] held() {
        System.gc();
        System.gc();
        return new double[] {
            ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed(), status("VmRSS")
        };
    }

    static double[] growth(double[] before, int n) {
        double[] after = held();
        return new double[] {(after[0] - before[0]) / n, (after[1] - before[1]) / n};
    }

    static Object kept;

    static double[] memoryObject(int n) {
        Plain[] all = new Plain[n];
        kept = all;
        held(); // once for what looking at it leaves behind
        double[] before = held();
        for (int i = 0; i < n; i++) {
            all[i] = new Plain(i);
        }
        return growth(before, n);
    }

    /** An array of that many bytes, every page of it touched. */
    static byte[] ones(int size) {
        byte[] bytes = new byte[size];
        Arrays.fill(bytes, (byte) 1);
        return bytes;
    }

    /** How many percent more objects of a size take, as many as fill the memory of n plain ones. */
    static double[] memorySize(int size, int n) {
        byte[][] all = new byte[(int) (32L * n / size)][];
        kept = all;
        held(); // once for what looking at it leaves behind
        double[] before = held();
        for (int i = 0; i < all.length; i++) {
            all[i] = ones(size);
        }
        double[] share = growth(before, size * all.length);
        return new double[] {100 * (share[0] - 1), 100 * (share[1] - 1)};
    }

    /** By how much memory has grown at the peak, when arrays die at once. */
    static double memoryExternal(int n) {
        byte[] live = ones(64 << 10);
        double before = held()[1];
        for (int i = 0; i < n / 200; i++) {
            kept = ones(256 << 10);
        }
        kept = live;
        return (status("VmHWM") - before) / 1e6;
    }

    static double[] memoryCleanup(int n) {
        Plain[] all = new Plain[n];
        kept = all;
        for (int i = 0; i < n; i++) {
            all[i] = new Plain(i);
        }
        held(); // once for what looking at it leaves behind
        double[] before = held();
        for (int i = 0; i < n; i++) {
            int word = i;
            CLEANER.register(all[i], () -> cleaned += word);
        }
        return growth(before, n);
    }

    private Peer() {}
}
