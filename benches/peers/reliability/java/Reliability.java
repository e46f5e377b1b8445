import java.io.IOException;
import java.lang.ref.Cleaner;
import java.lang.ref.PhantomReference;
import java.lang.ref.ReferenceQueue;
import java.lang.ref.WeakReference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.IntConsumer;

/**
 * What Java's cleaners (java.lang.ref.Cleaner) do when something goes wrong: one situation a run,
 * {@code java Reliability SITUATION [ARGUMENT]}, which prints one line. A watchdog ends every run, so
 * nothing here hangs.
 */
public final class Reliability {
    static final AtomicInteger ran = new AtomicInteger(); // cleanups that have run

    public static void main(String[] args) throws Exception {
        String situation = args.length > 0 ? args[0] : "";
        int argument = args.length > 1 ? Integer.parseInt(args[1]) : 0;
        watchdog(Integer.parseInt(System.getenv().getOrDefault("LIMIT_S", "30")));
        switch (situation) {
            case "blocked": blocked(argument); break;
            case "throws": throwing(); break;
            case "thread-dies": threadDies(); break;
            case "threads": threadsFail(); break;
            case "register-within": registerWithin(); break;
            case "collect-within": collectWithin(); break;
            case "wait-within": waitWithin(); break;
            case "rearming": rearming(); break;
            case "storm": storm(argument == 0 ? 1_000_000 : argument); break;
            case "idle": idle(); break;
            case "exit": exit(); break;
            case "exit-queued": exitQueued(); break;
            case "own-thread": ownThread(); break;
            case "virtual": virtual(); break;
            case "stuck": stuck(); break;
            case "keeps-itself": keepsItself(); break;
            case "early": early(); break;
            case "early-queued": earlyQueued(); break;
            case "race": race(); break;
            case "resurrect": resurrect(); break;
            default:
                System.err.println("usage: Reliability SITUATION [ARGUMENT]");
                System.exit(2);
        }
    }

    // ---- Something goes wrong in a cleanup ----

    /** Among 2,000 cleanups of one cleaner, the k-th that is run blocks for ever. */
    static void blocked(int k) {
        Cleaner cleaner = Cleaner.create();
        AtomicInteger started = new AtomicInteger();
        populate(cleaner, 2000, i -> {
            if (started.incrementAndGet() == k) sleep(3_600_000);
            ran.incrementAndGet();
        });
        collect();
        int first = settle();
        collect();
        int second = settle();
        Object alive = new Object();
        for (int i = 0; i < 100; i++) cleaner.register(alive, () -> {});
        int third = settle();
        AtomicInteger others = new AtomicInteger();
        Cleaner another = Cleaner.create();
        populate(another, 100, i -> others.incrementAndGet());
        collect();
        settle();
        say("number %d to run blocks: %d of 1,999 others ran; after another collection %d; after 100 registrations %d; "
                + "of 100 of another cleaner %d ran", k, first, second, third, others.get());
        keep(cleaner, another, alive);
    }

    /** Cleanups throw all kinds of things, and the handler of uncaught exceptions throws, too. */
    static void throwing() {
        AtomicInteger handled = new AtomicInteger();
        Thread.setDefaultUncaughtExceptionHandler((thread, thrown) -> {
            handled.incrementAndGet();
            throw new IllegalStateException("the handler failed");
        });
        Cleaner cleaner = Cleaner.create();
        populate(cleaner, 2000, i -> {
            switch (i) {
                case 200: throw new RuntimeException("a cleanup threw");
                case 600: throw new OutOfMemoryError("thrown by a cleanup");
                case 1000: recurse(0); break;
                case 1400: throw new ThreadDeath();
                default: ran.incrementAndGet();
            }
        });
        collect();
        say("4 of 2,000 threw: %d of 1,996 others ran; the handler of uncaught exceptions was called %d times; "
                + "the process lives", settle(), handled.get());
        keep(cleaner);
    }

    static int recurse(int depth) {
        return recurse(depth + 1) + 1;
    }

    /** The cleaner's thread is interrupted, and stopped from outside where the version can. */
    @SuppressWarnings({"deprecation", "removal"})
    static void threadDies() {
        Thread[] made = new Thread[1];
        Cleaner cleaner = Cleaner.create(body -> made[0] = daemon(body));
        made[0].interrupt();
        populate(cleaner, 1000, i -> ran.incrementAndGet());
        collect();
        int interrupted = settle();
        String stopped;
        try {
            made[0].stop();
            stopped = "accepted";
        } catch (UnsupportedOperationException refused) {
            stopped = "refused";
        }
        sleep(200);
        populate(cleaner, 1000, i -> ran.incrementAndGet());
        collect();
        say("interrupted: %d of 1,000 ran; Thread.stop() %s: the thread lives: %b, %d of 1,000 more ran",
                interrupted, stopped, made[0].isAlive(), settle() - interrupted);
        keep(cleaner);
    }

    /** Runs under a limit on the number of threads (see run.sh): makes cleaners until it fails. */
    static void threadsFail() {
        List<Cleaner> cleaners = new ArrayList<>();
        String failure = "none";
        try {
            while (cleaners.size() < 1000) cleaners.add(Cleaner.create());
        } catch (Throwable thrown) {
            failure = thrown.toString();
        }
        if (!cleaners.isEmpty()) populate(cleaners.get(0), 1000, i -> ran.incrementAndGet());
        collect();
        say("making cleaner number %d threw %s; the process lives; the first cleaner ran %d of 1,000",
                cleaners.size() + 1, failure, settle());
        keep(cleaners);
    }

    // ---- Re-entrancy and waiting ----

    static void registerWithin() {
        Cleaner cleaner = Cleaner.create();
        populate(cleaner, 1000, i -> {
            ran.incrementAndGet();
            populate(cleaner, 1, j -> ran.incrementAndGet());
        });
        collect();
        int first = settle();
        collect();
        say("%d ran, and after another collection %d of 2,000", first, settle());
        keep(cleaner);
    }

    static void collectWithin() {
        Cleaner cleaner = Cleaner.create();
        populate(cleaner, 1, i -> {
            populate(cleaner, 100, j -> ran.incrementAndGet());
            System.gc();
            ran.incrementAndGet();
        });
        collect();
        say("%d of 101 ran", settle());
        keep(cleaner);
    }

    /** A cleanup waits, five seconds at most, until all others of its cleaner have run. */
    static void waitWithin() throws InterruptedException {
        Cleaner cleaner = Cleaner.create();
        CountDownLatch others = new CountDownLatch(99);
        AtomicBoolean gaveUp = new AtomicBoolean();
        populate(cleaner, 100, i -> {
            if (i == 50) {
                try {
                    gaveUp.set(!others.await(5, TimeUnit.SECONDS));
                } catch (InterruptedException interrupted) {
                    gaveUp.set(true);
                }
            } else {
                others.countDown();
            }
            ran.incrementAndGet();
        });
        collect();
        Thread.sleep(4000);
        long during = 99 - others.getCount();
        within(10, () -> ran.get() == 100);
        say("while it waited %d of 99 others ran; it had to give up after 5 s: %b", during, gaveUp.get());
        keep(cleaner);
    }

    /** A cleanup registers itself again and collects. There is no call that waits for it or counts it. */
    static void rearming() {
        Cleaner cleaner = Cleaner.create();
        AtomicBoolean over = new AtomicBoolean();
        IntConsumer[] arm = new IntConsumer[1];
        arm[0] = i -> {
            ran.incrementAndGet();
            if (!over.get()) {
                populate(cleaner, 1, arm[0]);
                System.gc();
            }
        };
        populate(cleaner, 1, arm[0]);
        collect();
        sleep(3000);
        over.set(true);
        say("it ran %d times in 3 s; no call waits for cleanups or counts them", ran.get());
        keep(cleaner);
    }

    // ---- Load and lifecycle ----

    /** Objects with a cleanup of 10 us each, allocated as fast as the program can. */
    static void storm(int n) {
        Cleaner cleaner = Cleaner.create();
        int before = memory("VmRSS");
        long start = System.nanoTime();
        int peak = 0;
        int made = 0;
        String failure = "";
        try {
            for (; made < n; made++) {
                cleaner.register(new long[8], () -> {
                    long until = System.nanoTime() + 10_000;
                    while (System.nanoTime() < until) Thread.onSpinWait();
                    ran.incrementAndGet();
                });
                if (made % 1024 == 0) peak = Math.max(peak, made - ran.get());
            }
        } catch (OutOfMemoryError error) {
            failure = "; the registering thread got an OutOfMemoryError after " + made;
        }
        peak = Math.max(peak, made - ran.get());
        double allocated = (System.nanoTime() - start) / 1e9;
        int count = made;
        System.gc();
        boolean all = within(60, () -> ran.get() == count);
        say("%d allocated in %.1f s; peak registered but not run %d; all run after %.1f s: %b; memory %d -> peak %d MiB%s",
                made, allocated, peak, (System.nanoTime() - start) / 1e9, all, before, memory("VmHWM"), failure);
        keep(cleaner);
    }

    /** Does an idle cleaner's thread end? And when nobody reaches the cleaner any more? */
    static void idle() {
        Cleaner[] cleaners = new Cleaner[4];
        for (int i = 0; i < 4; i++) {
            cleaners[i] = Cleaner.create();
            populate(cleaners[i], 1000, j -> ran.incrementAndGet());
        }
        collect();
        settle();
        int loaded = cleanerThreads();
        sleep(10_000);
        int idle = cleanerThreads();
        keep((Object[]) cleaners);
        for (int i = 1; i < 4; i++) cleaners[i] = null;
        collect();
        sleep(1000);
        say("4 cleaners: %d threads after a load, %d after 10 s idle; %d after 3 of them became unreachable",
                loaded, idle, cleanerThreads());
        keep(cleaners[0]);
    }

    /** How many live threads have the name that Cleaner.create() gives. */
    static int cleanerThreads() {
        int count = 0;
        for (Thread thread : Thread.getAllStackTraces().keySet()) {
            if (thread.getName().startsWith("Cleaner-")) count++;
        }
        return count;
    }

    static void exit() {
        Cleaner cleaner = Cleaner.create();
        populate(cleaner, 1000, i -> System.out.print("."));
        System.out.print("main returned with 1,000 cleanups not yet queued; dots printed by them: ");
        keep(cleaner);
    }

    static void exitQueued() {
        Cleaner cleaner = Cleaner.create();
        populate(cleaner, 1000, i -> {
            sleep(10);
            System.out.print(".");
        });
        System.out.print("main returned 105 ms after 1,000 cleanups of 10 ms were queued; dots printed by them: ");
        System.gc();
        sleep(105);
        keep(cleaner);
    }

    /** Phantom references that a program's own loop polls: the thread is the program's. */
    static void ownThread() {
        ReferenceQueue<Object> queue = new ReferenceQueue<>();
        Set<Object> records = new HashSet<>();
        for (int i = 0; i < 1000; i++) records.add(new PhantomReference<Object>(new long[8], queue));
        collect();
        int count = 0;
        long until = System.nanoTime() + 5_000_000_000L;
        while (count < 1000 && System.nanoTime() < until) {
            Object record = queue.poll();
            if (record == null) sleep(1);
            else if (records.remove(record)) count++;
        }
        say("a loop of its own polled %d of 1,000 from a ReferenceQueue (no Cleaner); it keeps the records itself", count);
    }

    /** A cleaner whose thread factory makes virtual threads, in versions that have them. */
    static void virtual() {
        ThreadFactory factory;
        try {
            Object builder = Thread.class.getMethod("ofVirtual").invoke(null);
            factory = (ThreadFactory) Class.forName("java.lang.Thread$Builder").getMethod("factory").invoke(builder);
        } catch (ReflectiveOperationException missing) {
            say("no virtual threads in this version");
            return;
        }
        Cleaner cleaner = Cleaner.create(factory);
        populate(cleaner, 1000, i -> ran.incrementAndGet());
        collect();
        say("a cleaner on a virtual thread ran %d of 1,000", settle());
        keep(cleaner);
    }

    // ---- Knowing and deciding ----

    /** What do the stacks of all threads, as jstack lists them, tell of a cleanup that is stuck? */
    static void stuck() {
        Cleaner cleaner = Cleaner.create();
        populate(cleaner, 1, i -> stuckCleanup());
        collect();
        sleep(1000);
        for (Map.Entry<Thread, StackTraceElement[]> entry : Thread.getAllStackTraces().entrySet()) {
            boolean cleanup = false;
            boolean site = false;
            for (StackTraceElement frame : entry.getValue()) {
                cleanup |= frame.getMethodName().equals("stuckCleanup");
                site |= frame.getMethodName().equals("populate");
            }
            if (cleanup) {
                say("found on thread \"%s\" (%s): names the function: true; names where it was registered: %b; "
                        + "since when: not told", entry.getKey().getName(), entry.getKey().getState(), site);
            }
        }
        keep(cleaner);
    }

    static void stuckCleanup() {
        sleep(3_600_000);
    }

    static void keepsItself() {
        Cleaner cleaner = Cleaner.create();
        registerCapturing(cleaner);
        for (int i = 0; i < 5; i++) collect();
        say("the cleanup captures its object: accepted, no word; after 5 collections it ran %d times", settle());
        keep(cleaner);
    }

    static void registerCapturing(Cleaner cleaner) {
        long[] object = new long[8];
        cleaner.register(object, () -> ran.addAndGet((int) object[0] + 1));
    }

    /** clean() runs a cleanup early, on the thread that calls it, and never twice. */
    static void early() {
        Cleaner cleaner = Cleaner.create();
        AtomicInteger onCaller = new AtomicInteger();
        Thread caller = Thread.currentThread();
        List<Cleaner.Cleanable> handles = handles(cleaner, 1000, i -> {
            if (Thread.currentThread() == caller) onCaller.incrementAndGet();
            ran.incrementAndGet();
        });
        for (Cleaner.Cleanable handle : handles) handle.clean();
        for (Cleaner.Cleanable handle : handles) handle.clean();
        collect();
        say("clean() twice each, then a collection: %d runs of 1,000, %d on the caller's thread; there is no call to "
                + "cancel without running, and clean() returns nothing", settle(), onCaller.get());
        keep(cleaner);
    }

    /** clean() on cleanups that are queued, but wait behind one that is stuck. */
    static void earlyQueued() {
        Cleaner cleaner = Cleaner.create();
        CountDownLatch stuck = new CountDownLatch(1);
        populate(cleaner, 1, i -> {
            stuck.countDown();
            sleep(3_600_000);
        });
        collect();
        await(stuck);
        List<Cleaner.Cleanable> handles = handles(cleaner, 1000, i -> ran.incrementAndGet());
        collect();
        int before = settle();
        for (Cleaner.Cleanable handle : handles) handle.clean();
        say("1,000 queued behind a stuck one, %d run; after clean() on each of them %d", before, ran.get());
        keep(cleaner);
    }

    /** 200,000 times: clean() against the cleaner's own thread. */
    static void race() {
        Cleaner cleaner = Cleaner.create();
        int[] runs = new int[200_000]; // each entry is written by its cleanup only
        AtomicInteger onCaller = new AtomicInteger();
        Thread caller = Thread.currentThread();
        List<Cleaner.Cleanable> handles = handles(cleaner, runs.length, i -> {
            runs[i]++;
            if (Thread.currentThread() == caller) onCaller.incrementAndGet();
            ran.incrementAndGet();
        });
        Thread collector = new Thread(System::gc);
        collector.start();
        for (Cleaner.Cleanable handle : handles) handle.clean();
        within(10, () -> ran.get() >= runs.length);
        settle();
        int once = 0;
        for (int count : runs) if (count == 1) once++;
        say("clean() raced the cleaner for 200,000: %d ran exactly once, %d of them by clean()", once,
                onCaller.get());
        keep(cleaner);
    }

    static void resurrect() {
        Cleaner cleaner = Cleaner.create();
        AtomicBoolean seen = new AtomicBoolean();
        registerWeak(cleaner, seen);
        collect();
        say("the cleanup ran %d time(s); through a weak reference it saw the object: %b", settle(), seen.get());
        keep(cleaner);
    }

    static void registerWeak(Cleaner cleaner, AtomicBoolean seen) {
        long[] object = new long[8];
        WeakReference<Object> weak = new WeakReference<>(object);
        cleaner.register(object, () -> {
            seen.set(weak.get() != null);
            ran.incrementAndGet();
        });
    }

    // ---- Helpers ----

    /** Makes n objects with a cleanup each, and drops them. */
    static void populate(Cleaner cleaner, int n, IntConsumer cleanup) {
        handles(cleaner, n, cleanup);
    }

    static List<Cleaner.Cleanable> handles(Cleaner cleaner, int n, IntConsumer cleanup) {
        List<Cleaner.Cleanable> handles = new ArrayList<>(n);
        for (int i = 0; i < n; i++) {
            int number = i;
            handles.add(cleaner.register(new long[8], () -> cleanup.accept(number)));
        }
        return handles;
    }

    static void collect() {
        System.gc();
        sleep(100); // references reach their queues on another thread
        System.gc();
    }

    /** Waits until no cleanup has run for a second, ten seconds at most; says how many have run. */
    static int settle() {
        int last = ran.get();
        long start = System.nanoTime();
        long since = start;
        while (System.nanoTime() - since < 1_000_000_000L && System.nanoTime() - start < 10_000_000_000L) {
            sleep(10);
            int now = ran.get();
            if (now != last) {
                last = now;
                since = System.nanoTime();
            }
        }
        return last;
    }

    static boolean within(int seconds, BooleanSupplier condition) {
        long until = System.nanoTime() + seconds * 1_000_000_000L;
        while (!condition.getAsBoolean() && System.nanoTime() < until) sleep(1);
        return condition.getAsBoolean();
    }

    static void sleep(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    static void await(CountDownLatch latch) {
        try {
            latch.await(10, TimeUnit.SECONDS);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    static void watchdog(int seconds) {
        daemon(() -> {
            sleep(seconds * 1000L);
            say("the watchdog ended this run after %d s; ran=%d", seconds, ran.get());
            Runtime.getRuntime().halt(3);
        }).start();
    }

    static Thread daemon(Runnable body) {
        Thread thread = new Thread(body);
        thread.setDaemon(true);
        return thread;
    }

    /** A line of /proc/self/status in MiB: VmRSS now, VmHWM at the peak. */
    static int memory(String key) {
        try {
            for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
                if (line.startsWith(key + ":")) return Integer.parseInt(line.replaceAll("\\D+", "")) / 1024;
            }
        } catch (IOException noProc) {
            return 0;
        }
        return 0;
    }

    /** Keeps what it is given reachable up to here. */
    static void keep(Object... objects) {
        for (Object object : objects) java.lang.ref.Reference.reachabilityFence(object);
    }

    static void say(String format, Object... arguments) {
        System.out.println(String.format(format, arguments));
    }
}
