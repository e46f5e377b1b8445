/*
 * What the finalizers of the Boehm-Demers-Weiser collector do when something goes wrong: one situation a run,
 *
 *     reliability SITUATION [ARGUMENT]
 *
 * which prints one line. An alarm ends every run, so nothing here hangs. Where a run cannot go on because the
 * program's only thread is stuck, an earlier alarm says how far it came.
 *
 * By default finalizers run on whatever thread allocates or collects ("implicit"). With
 * GC_set_finalize_on_demand(1) they run where the program calls GC_invoke_finalizers ("on demand"); a thread
 * of the program's that does nothing else is the arrangement that its manual recommends.
 */
#define GC_THREADS
#include <gc/gc.h>
#include <gc/javaxfc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct object {
    struct object *link;
    long data[7];
} object;

static atomic_int ran;        /* finalizers that have run to their end */
static atomic_int started;    /* finalizers that were called */
static int block_at;          /* the finalizer whose call has this number is the odd one */

/* ---- Helpers ---- */

static void millis(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0) {
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Not async-signal-safe, strictly; the thread that it interrupts is one that sleeps, spins or waits. */
static void on_alarm(int signal) {
    (void)signal;
    printf("the watchdog ended this run; started=%d ran=%d\n", started, ran);
    fflush(stdout);
    _exit(3);
}

static void on_stuck(int signal) {
    (void)signal;
    printf("the thread that allocates is stuck in the finalizer: %d of the others ran\n", ran);
    fflush(stdout);
    _exit(0);
}

static void report_if_stuck(int seconds) {
    signal(SIGALRM, on_stuck);
    alarm(seconds);
}

static long memory(const char *key) {
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0) kib = atol(line + strlen(key) + 1);
    }
    if (file) fclose(file);
    return kib / 1024;
}

/* Collects until nothing more is found; the collector is conservative, a few objects may stay. */
static void collect(void) {
    for (int i = 0; i < 3; i++) GC_gcollect();
}

typedef void (*finalizer)(void *, void *);

static __attribute__((noinline)) void make_one(finalizer f) {
    object *o = GC_MALLOC(sizeof *o);
    GC_REGISTER_FINALIZER(o, f, NULL, NULL, NULL);
}

/* Makes n objects with a finalizer each, and drops them; no collection comes in between. */
static __attribute__((noinline)) void populate(long n, finalizer f) {
    GC_disable();
    for (long i = 0; i < n; i++) make_one(f);
    GC_enable();
}

/* Overwrites what frames of `populate` have left below, so that less is kept by chance. */
static __attribute__((noinline)) void clear_stack(void) {
    volatile char space[4096];
    memset((char *)space, 0, sizeof space);
}

static void count(void *o, void *data) {
    (void)o, (void)data;
    started++;
    ran++;
}

/* A thread of the program's that runs finalizers, and nothing else, until the process ends. */
static void *finalizer_thread(void *unused) {
    for (;;) {
        GC_invoke_finalizers();
        millis(1);
    }
    return unused;
}

static void start(void *(*body)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, NULL) != 0) printf("no thread; ");
}

/* ---- Something goes wrong in a finalizer ---- */

static void block(void *o, void *data) {
    (void)o, (void)data;
    if (++started == block_at) {
        for (;;) millis(1000);
    }
    ran++;
}

static void blocked(int k) {
    block_at = k;
    report_if_stuck(3);
    populate(2000, block);
    clear_stack();
    collect();
    printf("it did not block: %d ran\n", ran);
}

static void blocked_on_demand(int k) {
    block_at = k;
    GC_set_finalize_on_demand(1);
    start(finalizer_thread);
    populate(2000, block);
    clear_stack();
    collect();
    millis(1000);
    int first = ran;
    collect();
    millis(1000);
    int second = ran;
    start(finalizer_thread);
    millis(1000);
    printf("number %d to run blocks: %d of 1,999 others ran on one thread; after another collection %d; after a second thread was started %d; the allocating thread goes on\n",
           k, first, second, ran);
}

static jmp_buf out;
static int jump_at; /* a finalizer leaves by longjmp each time the count of calls is a multiple of this */

static void jump(void *o, void *data) {
    (void)o, (void)data;
    if (++started % jump_at == 0) longjmp(out, 1);
    ran++;
}

/* C has no exceptions; leaving by longjmp is the nearest thing. throws.cc throws. */
static void jumps_on_demand(int every) {
    volatile int left = 0;
    jump_at = every;
    GC_set_finalize_on_demand(1);
    populate(2000, jump);
    clear_stack();
    collect();
    while (setjmp(out)) left++;
    GC_invoke_finalizers();
    printf("finalizers left %d calls of GC_invoke_finalizers by longjmp; %d others ran when it was called again, of 2,000\n", left, ran);
}

/* The same in collections: does the collector go on to call finalizers by itself? */
static void jumps(int every) {
    volatile int left = 0;
    volatile int i;
    jump_at = every;
    populate(2000, jump);
    clear_stack();
    for (i = 0; i < 100; i++) {
        if (setjmp(out)) left++;
        else GC_gcollect();
    }
    int before = ran;
    jump_at = 1 << 30;
    populate(2000, jump);
    clear_stack();
    for (i = 0; i < 100; i++) GC_gcollect();
    int implicit = ran - before;
    GC_invoke_finalizers();
    printf("%d calls were left by longjmp, %d others ran, in 100 collections; then of the %d left and 2,000 well-behaved ones, in 100 collections, %d ran by themselves, %d more when asked for\n",
           left, before, 2000 - left - before, implicit, ran - before - implicit);
}

static void leave(void *o, void *data) {
    (void)o, (void)data;
    if (++started == block_at) pthread_exit(NULL);
    ran++;
}

static void thread_dies(int unused) {
    (void)unused;
    block_at = 1000;
    GC_set_finalize_on_demand(1);
    populate(2000, leave);
    clear_stack();
    collect();
    start(finalizer_thread);
    millis(1000);
    int first = ran;
    start(finalizer_thread);
    millis(1000);
    printf("a finalizer ended its thread: %d of 1,999 others had run; a second thread then ran the rest: %d\n", first, ran);
}

/* Under a limit on the number of threads (see run.sh): the collector's own threads help to mark only. */
static void threads_fail(int unused) {
    (void)unused;
    populate(1000, count);
    clear_stack();
    collect();
    printf("the process lives; %d of 1,000 ran\n", ran);
}

/* ---- Re-entrancy and waiting ---- */

static void register_again(void *o, void *data) {
    (void)o, (void)data;
    ran++;
    populate(1, count);
}

static void register_within(int unused) {
    (void)unused;
    populate(1000, register_again);
    clear_stack();
    collect();
    int first = ran;
    collect();
    printf("%d ran, and after another collection %d of 2,000\n", first, ran);
}

static void collect_again(void *o, void *data) {
    (void)o, (void)data;
    populate(100, count);
    GC_gcollect();
    ran++;
}

static void collect_within(int unused) {
    (void)unused;
    populate(1, collect_again);
    clear_stack();
    collect();
    printf("%d of 101 ran\n", ran);
}

static int depth, deepest;

static void wait_for_all(void *o, void *data) {
    (void)o, (void)data;
    if (++depth > deepest) deepest = depth;
    GC_invoke_finalizers(); /* the only call that waits for finalizers is the one that runs them */
    depth--;
    ran++;
}

static void wait_within(int n) {
    GC_set_finalize_on_demand(1);
    populate(n, wait_for_all);
    clear_stack();
    collect();
    printf("%d finalizers that each wait for all others: ", n);
    fflush(stdout);
    GC_invoke_finalizers();
    printf("%d ran, nested %d deep\n", ran, deepest);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int refused;

static void take_lock(void *o, void *data) {
    (void)o, (void)data;
    if (pthread_mutex_trylock(&lock) != 0) refused++; /* pthread_mutex_lock would hang here */
    else pthread_mutex_unlock(&lock);
    ran++;
}

/* A finalizer takes a lock that the allocating thread holds while it allocates. */
static void lock_held(int unused) {
    (void)unused;
    populate(1000, take_lock);
    clear_stack();
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 1000000 && ran < 900; i++) (void)GC_MALLOC(64);
    pthread_mutex_unlock(&lock);
    printf("%d ran while their own thread allocated with a lock held: %d of them would have waited for it for ever\n", ran, refused);
}

static void wait_all(int unused) {
    (void)unused;
    GC_set_finalize_on_demand(1);
    populate(1000, count);
    clear_stack();
    collect();
    int returned = GC_invoke_finalizers();
    printf("GC_invoke_finalizers returned %d, %d had run; no deadline can be given, nor the backlog's length read\n", returned, ran);
}

static void rearm(void *o, void *data) {
    (void)o, (void)data;
    ran++;
    populate(1, rearm);
    clear_stack();
    GC_gcollect();
}

static void on_endless(int signal) {
    (void)signal;
    printf("GC_invoke_finalizers had not returned after 3 s; the finalizer had run %d times\n", ran);
    fflush(stdout);
    _exit(0);
}

static void rearming(int unused) {
    (void)unused;
    GC_set_finalize_on_demand(1);
    populate(10, rearm);
    clear_stack();
    collect();
    signal(SIGALRM, on_endless);
    alarm(3);
    int returned = GC_invoke_finalizers();
    printf("GC_invoke_finalizers returned %d\n", returned);
}

/* ---- Load and lifecycle ---- */

static void spin(void *o, void *data) {
    (void)o, (void)data;
    for (double until = now() + 10e-6; now() < until;) {
    }
    ran++;
}

static void storm_of(long n, const char *where) {
    long before = memory("VmRSS:");
    double begin = now();
    int peak = 0;
    for (long i = 0; i < n; i++) {
        make_one(spin);
        if (i % 1024 == 0 && i - ran > peak) peak = i - ran;
    }
    if (n - ran > peak) peak = n - ran;
    double allocated = now() - begin;
    clear_stack();
    GC_gcollect();
    while (n - ran > 100 && now() - begin < 60) millis(10);
    GC_gcollect();
    printf("%s: %ld allocated in %.1f s; peak registered but not run %d; all but %ld run after %.1f s; memory %ld -> peak %ld MiB\n",
           where, n, allocated, peak, n - ran, now() - begin, before, memory("VmHWM:"));
}

static void storm(int n) {
    storm_of(n, "implicit");
}

static void storm_on_demand(int n) {
    GC_set_finalize_on_demand(1);
    start(finalizer_thread);
    storm_of(n, "on a thread of the program's");
}

static void dot(void *o, void *data) {
    (void)o, (void)data;
    write(1, ".", 1);
}

static void at_exit(int unused) {
    (void)unused;
    printf("main returned with 1,000 finalizers not yet run; dots printed by them: ");
    populate(1000, dot);
}

static void finalize_all(int unused) {
    (void)unused;
    static object *kept[1000];
    populate(1000, count);
    for (int i = 0; i < 1000; i++) {
        kept[i] = GC_MALLOC(sizeof(object));
        GC_REGISTER_FINALIZER(kept[i], count, NULL, NULL, NULL);
    }
    GC_finalize_all();
    printf("GC_finalize_all ran %d, of 1,000 for dead objects and 1,000 for live ones; it takes no deadline\n", ran);
}

static pthread_t runner;

static void note_runner(void *o, void *data) {
    (void)o, (void)data;
    runner = pthread_self();
    ran++;
}

static atomic_int notified;

static void notify(void) {
    notified++;
}

static void own_thread(int unused) {
    (void)unused;
    GC_set_finalize_on_demand(1);
    GC_set_finalizer_notifier(notify);
    populate(1000, note_runner);
    clear_stack();
    collect();
    int before = ran;
    GC_invoke_finalizers();
    printf("the notifier was called %d time(s), %d had run before the program's own loop asked; it ran %d, on its own thread: %s\n",
           notified, before, ran, pthread_equal(runner, pthread_self()) ? "yes" : "no");
}

/* ---- Knowing and deciding ---- */

static int warnings;

static void warn(char *text, GC_word argument) {
    (void)argument;
    if (strstr(text, "inalization cycle")) warnings++;
}

static __attribute__((noinline)) void with_self_pointer(int how) {
    object *o = GC_MALLOC(sizeof *o);
    o->link = o;
    if (how == 0) GC_REGISTER_FINALIZER_IGNORE_SELF(o, count, NULL, NULL, NULL);
    if (how == 1) GC_REGISTER_FINALIZER_NO_ORDER(o, count, NULL, NULL, NULL);
    if (how == 2) {
        o->link = NULL;
        GC_REGISTER_FINALIZER(o, count, o, NULL, NULL);
    }
    if (how == 3) GC_REGISTER_FINALIZER(o, count, NULL, NULL, NULL);
}

static void keeps_itself(int unused) {
    static const char *names[] = {"points to itself, ignore_self", "the same, no_order", "client data is the object", "points to itself"};
    (void)unused;
    GC_set_warn_proc(warn);
    for (int how = 0; how < 4; how++) {
        int before = ran, warned = warnings;
        for (int i = 0; i < 100; i++) with_self_pointer(how);
        clear_stack();
        collect();
        printf("%s%s: %d of 100 ran, %d warnings in 3 collections", how ? "; " : "", names[how], ran - before, warnings - warned);
    }
    printf("\n");
}

static void stop(int unused) {
    static object *kept[1000];
    int told = 0;
    (void)unused;
    for (int i = 0; i < 1000; i++) {
        kept[i] = GC_MALLOC(sizeof(object));
        GC_REGISTER_FINALIZER(kept[i], count, NULL, NULL, NULL);
    }
    for (int i = 0; i < 1000; i++) {
        GC_finalization_proc old;
        void *data;
        GC_REGISTER_FINALIZER(kept[i], NULL, NULL, &old, &data);
        if (old != NULL) told++;
        if (old != NULL && i < 500) old(kept[i], data); /* run early: the caller's own call */
    }
    memset(kept, 0, sizeof kept);
    collect();
    printf("1,000 stopped, of which %d were told that they were in time; 500 of them then run early by hand; %d ran in all\n", told, ran);
}

static void stop_queued(int unused) {
    static GC_hidden_pointer hidden[1000];
    int told = 0;
    (void)unused;
    GC_set_finalize_on_demand(1);
    for (int i = 0; i < 1000; i++) {
        object *o = GC_MALLOC(sizeof *o);
        GC_REGISTER_FINALIZER(o, count, NULL, NULL, NULL);
        hidden[i] = GC_HIDE_POINTER(o);
        o = NULL;
    }
    clear_stack();
    collect();
    for (int i = 0; i < 1000; i++) {
        GC_finalization_proc old;
        GC_REGISTER_FINALIZER(GC_REVEAL_POINTER(hidden[i]), NULL, NULL, &old, NULL);
        if (old != NULL) told++;
    }
    GC_invoke_finalizers();
    printf("1,000 stopped when they were queued (through hidden pointers): %d were in time, %d ran\n", told, ran);
}

static object *rescued;

static void rescue(void *o, void *data) {
    (void)data;
    rescued = o;
    ran++;
}

static __attribute__((noinline)) void one_to_rescue(void) {
    object *o = GC_MALLOC(sizeof *o);
    o->data[0] = 42;
    GC_REGISTER_FINALIZER(o, rescue, NULL, NULL, NULL);
}

static void resurrect(int unused) {
    (void)unused;
    for (int i = 0; i < 10; i++) one_to_rescue();
    clear_stack();
    collect();
    collect();
    printf("%d finalizers ran, each was given its object; the last one rescued it: it holds %ld\n", ran, rescued ? rescued->data[0] : -1);
}

int main(int count_of, char **arguments) {
    static const struct {
        const char *name;
        void (*body)(int);
        int argument;
    } situations[] = {
        {"blocked", blocked, 1000},
        {"blocked-on-demand", blocked_on_demand, 1000},
        {"jumps", jumps, 100},
        {"jumps-on-demand", jumps_on_demand, 100},
        {"thread-dies", thread_dies, 0},
        {"threads", threads_fail, 0},
        {"register-within", register_within, 0},
        {"collect-within", collect_within, 0},
        {"wait-within", wait_within, 1000},
        {"lock-held", lock_held, 0},
        {"wait", wait_all, 0},
        {"rearming", rearming, 0},
        {"storm", storm, 1000000},
        {"storm-on-demand", storm_on_demand, 1000000},
        {"exit", at_exit, 0},
        {"finalize-all", finalize_all, 0},
        {"own-thread", own_thread, 0},
        {"keeps-itself", keeps_itself, 0},
        {"stop", stop, 0},
        {"stop-queued", stop_queued, 0},
        {"resurrect", resurrect, 0},
    };
    setvbuf(stdout, NULL, _IONBF, 0);
    const char *situation = count_of > 1 ? arguments[1] : "";
    signal(SIGALRM, on_alarm);
    alarm(getenv("LIMIT_S") ? atoi(getenv("LIMIT_S")) : 30);
    GC_INIT();
    for (size_t i = 0; i < sizeof situations / sizeof *situations; i++) {
        if (strcmp(situations[i].name, situation) == 0) {
            situations[i].body(count_of > 2 ? atoi(arguments[2]) : situations[i].argument);
            return 0;
        }
    }
    fprintf(stderr, "usage: reliability SITUATION [ARGUMENT]\n");
    return 2;
}
