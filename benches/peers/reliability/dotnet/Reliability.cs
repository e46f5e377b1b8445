// What .NET's finalizers do when something goes wrong: one situation a run,
//
//     dotnet Reliability.dll SITUATION [ARGUMENT]
//
// which prints one line. A watchdog ends every run, so nothing here hangs. A situation that kills the process
// does so: the caller looks at the exit status and at standard error. Written for an old C# compiler, so that
// the runtime alone is enough to run it.
using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

// An object with a finalizer that does what the situation says.
class Finalizable {
    readonly Action<Finalizable> finalize;
    public readonly int Number;
    long a, b, c, d;

    public Finalizable(int number, Action<Finalizable> finalize) {
        Number = number;
        this.finalize = finalize;
    }

    ~Finalizable() {
        finalize(this);
    }
}

static class Reliability {
    static int ran; // finalizers that have run

    static int Main(string[] arguments) {
        string situation = arguments.Length > 0 ? arguments[0] : "";
        int argument = arguments.Length > 1 ? int.Parse(arguments[1]) : 0;
        int limit = int.Parse(Environment.GetEnvironmentVariable("LIMIT_S") ?? "30");
        var watchdog = new Thread(() => {
            Thread.Sleep(limit * 1000);
            Console.WriteLine("the watchdog ended this run after {0} s; ran={1}", limit, ran);
            End(3);
        });
        watchdog.IsBackground = true;
        watchdog.Start();
        switch (situation) {
            case "version": Console.WriteLine(Environment.Version); break;
            case "blocked": Blocked(argument); break;
            case "throws": Throws(false); break;
            case "throws-handler": Throws(true); break;
            case "interrupt": Interrupt(); break;
            case "threads": ThreadsFail(); break;
            case "register-within": RegisterWithin(); break;
            case "collect-within": CollectWithin(); break;
            case "wait-within": WaitWithin(); break;
            case "wait": Wait(); break;
            case "rearming": Rearming(); break;
            case "storm": Storm(argument == 0 ? 1000000 : argument); break;
            case "idle": Idle(); break;
            case "exit": Exit(); break;
            case "exit-queued": ExitQueued(); break;
            case "exit-blocked": ExitBlocked(argument == 1); break;
            case "stop": Stop(); break;
            case "stop-queued": StopQueued(); break;
            case "resurrect": Resurrect(); break;
            default:
                Console.Error.WriteLine("usage: Reliability SITUATION [ARGUMENT]");
                return 2;
        }
        // An ordinary end waits for the finalizer thread; only these situations are about that.
        if (!situation.StartsWith("exit")) End(0);
        return 0;
    }

    [DllImport("libc", EntryPoint = "_exit")]
    static extern void End(int status);

    // ---- Something goes wrong in a finalizer ----

    // Among 2,000 finalizers, the k-th that is run blocks for ever.
    static void Blocked(int k) {
        int started = 0;
        Populate(2000, o => {
            if (Interlocked.Increment(ref started) == k) Thread.Sleep(Timeout.Infinite);
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        int first = Settle();
        GC.Collect();
        int second = Settle();
        Populate(100, o => Interlocked.Increment(ref ran));
        GC.Collect();
        int third = Settle();
        bool waited = Task.Run(() => GC.WaitForPendingFinalizers()).Wait(3000);
        Console.WriteLine("number {0} to run blocks: {1} of 1,999 others ran; after another collection {2}; after 100 new objects died {3}; "
            + "GC.WaitForPendingFinalizers returned within 3 s: {4}", k, first, second, third, waited);
    }

    // One of 2,000 throws. What comes of the process is for the caller to see.
    static void Throws(bool handler) {
        if (handler) {
            AppDomain.CurrentDomain.UnhandledException += (sender, e) => {
                Console.Write("the handler of unhandled exceptions was called, and threw; ");
                throw new InvalidOperationException("the handler failed");
            };
        }
        int started = 0;
        Populate(2000, o => {
            if (Interlocked.Increment(ref started) == 1000) throw new InvalidOperationException("a finalizer threw");
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        Console.WriteLine("the process lives; {0} of 1,999 others ran", Settle());
    }

    // The finalizer thread cannot be aborted, but another thread can interrupt it while it waits.
    static void Interrupt() {
        Thread finalizerThread = null;
        Populate(2000, o => {
            if (finalizerThread == null) {
                finalizerThread = Thread.CurrentThread;
                Thread.Sleep(2000);
            }
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        Within(5, () => finalizerThread != null);
        Console.Write("interrupted while a finalizer slept: ");
        finalizerThread.Interrupt();
        Console.WriteLine("the process lives; {0} of 2,000 ran", Settle());
    }

    // Under a limit on the number of threads (see run.sh): the finalizer thread is made at the start.
    static void ThreadsFail() {
        var threads = new List<Thread>();
        string failure = "nothing";
        var over = new ManualResetEvent(false);
        try {
            while (threads.Count < 1000) {
                var thread = new Thread(() => over.WaitOne());
                thread.IsBackground = true;
                thread.Start();
                threads.Add(thread);
            }
        } catch (Exception thrown) {
            failure = thrown.GetType().Name;
        }
        Populate(1000, o => Interlocked.Increment(ref ran));
        GC.Collect();
        Console.WriteLine("after {0} threads a further one failed with {1}; then {2} of 1,000 finalizers ran", threads.Count, failure, Settle());
        over.Set();
    }

    // ---- Re-entrancy and waiting ----

    static void RegisterWithin() {
        Populate(1000, o => {
            Interlocked.Increment(ref ran);
            Populate(1, p => Interlocked.Increment(ref ran));
        });
        GC.Collect();
        int first = Settle();
        GC.Collect();
        Console.WriteLine("{0} ran, and after another collection {1} of 2,000", first, Settle());
    }

    static void CollectWithin() {
        Populate(1, o => {
            Populate(100, p => Interlocked.Increment(ref ran));
            GC.Collect();
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        Console.WriteLine("{0} of 101 ran", Settle());
    }

    // A finalizer waits for pending finalizers; another one, five seconds at most, until all others have run.
    static void WaitWithin() {
        int asked = -1, during = -1, started = 0;
        bool gaveUp = false;
        Populate(100, o => {
            int number = Interlocked.Increment(ref started);
            if (number == 30) {
                GC.WaitForPendingFinalizers();
                asked = ran;
            }
            if (number == 50) {
                gaveUp = !Within(5, () => ran == 99);
                during = ran;
            }
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        Within(10, () => ran == 100);
        Console.WriteLine("GC.WaitForPendingFinalizers within the 30th of 100 returned at once: {0}, when {1} had run; one that waits for the others by itself had to give up after 5 s: {2}, when {3} had run",
            asked >= 0, asked, gaveUp, during);
    }

    static void Wait() {
        Populate(1000, o => {
            Thread.Sleep(1);
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        int before = ran;
        GC.WaitForPendingFinalizers();
        int after = ran;
        var pending = typeof(GCMemoryInfo).GetProperty("FinalizationPendingCount");
        Console.WriteLine("GC.WaitForPendingFinalizers returned when {0} of 1,000 had run ({1} before); it takes no deadline and returns nothing; a count of pending finalizers as of the last collection: {2}",
            after, before, pending == null ? "not in this version" : "GCMemoryInfo.FinalizationPendingCount");
    }

    static void Rearming() {
        bool over = false;
        Populate(1, o => {
            Interlocked.Increment(ref ran);
            if (!over) {
                GC.ReRegisterForFinalize(o);
                Populate(1, p => {});
                o = null;
            }
        });
        GC.Collect();
        bool plain = Task.Run(() => GC.WaitForPendingFinalizers()).Wait(3000);
        int ranPlain = ran;
        over = true;
        Populate(1, Again);
        GC.Collect();
        bool collecting = Task.Run(() => GC.WaitForPendingFinalizers()).Wait(3000);
        Console.WriteLine("GC.WaitForPendingFinalizers ended with a finalizer that registers itself again: {0} (it ran {1} time(s)); with one that makes another object of its kind and collects: {2} ({3} times)",
            plain, ranPlain, collecting, ran - ranPlain);
    }

    static void Again(Finalizable o) {
        Interlocked.Increment(ref ran);
        Populate(1, Again);
        GC.Collect();
    }

    // ---- Load and lifecycle ----

    // Objects with a finalizer of 10 us each, allocated as fast as the program can.
    static void Storm(int n) {
        long before = Memory("VmRSS:");
        var clock = System.Diagnostics.Stopwatch.StartNew();
        int peak = 0;
        for (int i = 0; i < n; i++) {
            Populate(1, Spin);
            if (i % 1024 == 0) peak = Math.Max(peak, i - Volatile.Read(ref ran));
        }
        peak = Math.Max(peak, n - Volatile.Read(ref ran));
        double allocated = clock.Elapsed.TotalSeconds;
        GC.Collect();
        Within(60, () => Volatile.Read(ref ran) >= n);
        Console.WriteLine("{0} allocated in {1:F1} s; peak registered but not run {2}; all but {3} run after {4:F1} s; memory {5} -> peak {6} MiB",
            n, allocated, peak, n - ran, clock.Elapsed.TotalSeconds, before, Memory("VmHWM:"));
    }

    static void Spin(Finalizable o) {
        long until = System.Diagnostics.Stopwatch.GetTimestamp() + System.Diagnostics.Stopwatch.Frequency / 100000;
        while (System.Diagnostics.Stopwatch.GetTimestamp() < until) {
        }
        Interlocked.Increment(ref ran);
    }

    static void Idle() {
        var ids = new HashSet<int>();
        for (int round = 0; round < 3; round++) {
            Populate(2000, o => {
                lock (ids) ids.Add(Thread.CurrentThread.ManagedThreadId);
                Interlocked.Increment(ref ran);
            });
            GC.Collect();
            Settle();
            Thread.Sleep(round * 3000);
        }
        Console.WriteLine("{0} finalizers in 3 loads, with idle seconds between: on {1} thread(s), the same one throughout", ran, ids.Count);
    }

    static void Exit() {
        Populate(1000, o => Console.Write("."));
        Console.Write("Main returned with 1,000 finalizers not yet queued; dots printed by them: ");
    }

    static void ExitQueued() {
        Populate(1000, o => {
            Thread.Sleep(10);
            Console.Write(".");
        });
        Console.Write("Main returned 105 ms after 1,000 finalizers of 10 ms were queued; dots printed by them: ");
        GC.Collect();
        Thread.Sleep(105);
    }

    static void ExitBlocked(bool asks) {
        Populate(1, o => Thread.Sleep(Timeout.Infinite));
        GC.Collect();
        Thread.Sleep(500);
        Console.Write(asks ? "Environment.Exit(0) was called" : "Main returned");
        Console.Write(" while a finalizer was blocked: ");
        if (asks) Environment.Exit(0);
    }

    // ---- Knowing and deciding ----

    static void Stop() {
        var kept = new Finalizable[1000];
        for (int i = 0; i < kept.Length; i++) kept[i] = new Finalizable(i, o => Interlocked.Increment(ref ran));
        foreach (var o in kept) GC.SuppressFinalize(o);
        kept = null;
        GC.Collect();
        Console.WriteLine("GC.SuppressFinalize before death: {0} of 1,000 ran; it returns nothing", Settle());
    }

    // Finalizers are suppressed when they are queued, but wait behind a stuck one. A weak reference that
    // tracks resurrection still reaches the objects.
    static void StopQueued() {
        var go = new ManualResetEvent(false);
        int started = 0;
        var weak = new WeakReference[1000];
        PopulateWeak(weak, o => {
            if (Interlocked.Increment(ref started) == 1) go.WaitOne();
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        Thread.Sleep(500);
        int reached = SuppressAll(weak);
        go.Set();
        Console.WriteLine("1,000 queued behind a stuck one; {0} reached through tracking weak references and suppressed; {1} ran", reached, Settle());
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    static void PopulateWeak(WeakReference[] weak, Action<Finalizable> finalize) {
        for (int i = 0; i < weak.Length; i++) weak[i] = new WeakReference(new Finalizable(i, finalize), true);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    static int SuppressAll(WeakReference[] weak) {
        int reached = 0;
        foreach (var reference in weak) {
            object target = reference.Target;
            if (target == null) continue;
            GC.SuppressFinalize(target);
            reached++;
        }
        return reached;
    }

    static Finalizable rescued;

    static void Resurrect() {
        Populate(1, o => {
            rescued = o;
            Interlocked.Increment(ref ran);
        });
        GC.Collect();
        int first = Settle();
        int generation = rescued == null ? -1 : GC.GetGeneration(rescued);
        rescued = null;
        GC.Collect();
        Console.WriteLine("the finalizer ran {0} time(s) and rescued its object: {1}; after a second death it has run {2} time(s)",
            first, generation >= 0, Settle());
    }

    // ---- Helpers ----

    // Makes n objects with a finalizer each, and drops them.
    [MethodImpl(MethodImplOptions.NoInlining)]
    static void Populate(int n, Action<Finalizable> finalize) {
        for (int i = 0; i < n; i++) new Finalizable(i, finalize);
    }

    // Waits until no finalizer has run for a second, ten seconds at most; says how many have run.
    static int Settle() {
        int last = Volatile.Read(ref ran);
        var all = System.Diagnostics.Stopwatch.StartNew();
        var since = System.Diagnostics.Stopwatch.StartNew();
        while (since.ElapsedMilliseconds < 1000 && all.ElapsedMilliseconds < 10000) {
            Thread.Sleep(10);
            int now = Volatile.Read(ref ran);
            if (now != last) {
                last = now;
                since.Restart();
            }
        }
        return last;
    }

    static bool Within(int seconds, Func<bool> condition) {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (!condition() && clock.ElapsedMilliseconds < seconds * 1000) Thread.Sleep(1);
        return condition();
    }

    // A line of /proc/self/status in MiB: VmRSS now, VmHWM at the peak.
    static long Memory(string key) {
        foreach (string line in File.ReadAllLines("/proc/self/status")) {
            if (line.StartsWith(key)) return long.Parse(line.Substring(key.Length).Replace("kB", "").Trim()) / 1024;
        }
        return 0;
    }
}
