/*
 * The Boehm peer: Sexton's kinds of work on the heap of the Boehm-Demers-Weiser collector, with its finalizers as
 * cleanups (GC_register_finalizer_no_order, on demand).
 *
 *     boehm --list       the rows that it measures
 *     boehm --version    the collector's
 *     boehm ROW SIZE     measures a row and those that belong to it, and prints "ROW VALUE" for each
 *
 * ../README.md says what each row means, how it is had from this collector, and what is unfair about it.
 *
 * Its sweep has two parts. At once, with the event of reclaiming, it takes back blocks that are empty and lists the
 * others; those are swept when an allocation wants them. W2 is both: the second part is forced by GC_try_to_collect,
 * which sweeps all that is listed before it marks, and is told to give up when it would mark. W2c begins with the end
 * of marking, so it includes finding the finalizers that are due; their objects stay until the next collection.
 */
#define GC_THREADS
#include <errno.h>
#include <gc/gc.h>
#include <gc/gc_inline.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Plain objects have no pointers, pairs have two; both are of 32 bytes. */
typedef struct { long words[4]; } plain;
typedef struct pair { struct pair *left, *right; long words[2]; } pair;

/* ---- Helpers ---- */

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void pause_for(long nanos) {
    struct timespec left = {nanos / 1000000000, nanos % 1000000000};
    while (nanosleep(&left, &left) != 0) {
    }
}

static double per(long nanos, long n) { return (double)nanos / (n > 0 ? n : 1); }

static _Noreturn void fail(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vfprintf(stderr, format, words);
    putc('\n', stderr);
    exit(1);
}

static void *or_fail(void *memory) {
    if (memory == NULL) fail("out of memory");
    return memory;
}

/* xorshift64*, from the same state each time. */
static unsigned long state;

static void seed(void) { state = 0x5e370b5e; }

static unsigned long next_random(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dUL;
}

static double next_share(void) { return (next_random() >> 11) * 0x1p-53; }

static long below(long n) { return (long)((unsigned __int128)next_random() * n >> 64); }

/* Overwrites the stack below, so that it holds no pointers of calls that have returned. */
static __attribute__((noinline)) void clear_stack(void) {
    volatile char stale[8192];
    memset((char *)stale, 0, sizeof stale);
}

/* When the phases of the latest collection began and ended. */
static long event_at[16];

static void on_event(GC_EventType event) {
    if ((unsigned)event < 16) event_at[event] = now();
}

static void *list_of(long n) { return or_fail(GC_MALLOC_IGNORE_OFF_PAGE(n * sizeof(void *))); }

/* ---- W1 ---- */

static plain *volatile sink;

static void garbage(long n) {
    for (long i = 0; i < n; i++) {
        plain *object = or_fail(GC_MALLOC_ATOMIC(sizeof(plain)));
        *object = (plain){{i, i, i, i}};
        sink = object;
    }
}

static void w1(long n, double *values) {
    for (int round = 0; round < 2; round++) {
        long start = now();
        garbage(n);
        values[0] = per(now() - start, n);
    }
}

static void w1_inline(long n, double *values) {
    static void *free_lists[GC_TINY_FREELISTS];
    for (int round = 0; round < 2; round++) {
        long start = now();
        for (long i = 0; i < n; i++) {
            plain *object;
            GC_MALLOC_ATOMIC_WORDS(object, 4, free_lists);
            or_fail(object);
            *object = (plain){{i, i, i, i}};
            sink = object;
        }
        values[0] = per(now() - start, n);
    }
}

/* ---- W2, W2c, W2r: flat heaps ---- */

static plain **living;
static long finalized;

static void count(void *object, void *word) {
    (void)object, (void)word;
    finalized++;
}

/* Makes n objects of which a share lives, and a share carries a finalizer. Returns how many do not live. */
static __attribute__((noinline)) long fill(long n, double live, double with_finalizer) {
    long kept = 0;
    seed();
    for (long i = 0; i < n; i++) {
        plain *object = or_fail(GC_MALLOC_ATOMIC(sizeof(plain)));
        *object = (plain){{i, i, i, i}};
        if (next_share() < live) living[kept++] = object;
        if (next_share() < with_finalizer) GC_register_finalizer_no_order(object, count, (void *)1, 0, 0);
    }
    return n - kept;
}

/* How the sweep of listed blocks is watched: before each block, and when it would mark, the collector asks to stop. */
static long blocks, listed_from, listed_to;

static int at_block(void) {
    if (event_at[GC_EVENT_MARK_START] > event_at[GC_EVENT_START]) return 1; /* nothing is listed any more */
    if (event_at[GC_EVENT_START] == 0) return 0;                            /* before the collection */
    if (blocks++ == 0) listed_from = now();
    /* A look at the clock now and then: at each block it would be a good part of what is measured. */
    if (blocks % 64 == 0) listed_to = now();
    return 0;
}

static long sweep_listed(void) {
    blocks = listed_from = listed_to = 0;
    event_at[GC_EVENT_START] = event_at[GC_EVENT_MARK_START] = 0;
    GC_try_to_collect(at_block);
    return listed_to > listed_from ? listed_to - listed_from : 0;
}

typedef enum { SWEEP, SWEEP_WITH_FINALIZERS, REFILL } flat_kind;

static double flat(flat_kind kind, long n, double live) {
    double value = 0;
    if (living == NULL) living = list_of(n);
    for (int round = 0; round < 2; round++) {
        GC_disable();
        long dead = fill(n, live, kind == SWEEP_WITH_FINALIZERS ? 0.1 : 0);
        clear_stack();
        sink = NULL;
        GC_enable();
        GC_gcollect();
        if (kind == REFILL) {
            GC_disable();
            long start = now();
            garbage(dead);
            value = per(now() - start, dead);
            GC_enable();
        } else {
            long from = event_at[kind == SWEEP ? GC_EVENT_RECLAIM_START : GC_EVENT_MARK_END];
            long at_once = event_at[GC_EVENT_RECLAIM_END] - from;
            value = per(at_once + sweep_listed(), n);
        }
        memset(living, 0, n * sizeof *living);
        GC_invoke_finalizers();
        GC_gcollect();
        GC_gcollect();
    }
    return value;
}

static void w2(long n, double *values) {
    values[0] = flat(SWEEP, n, 0);
    values[1] = flat(SWEEP, n, 0.1);
    values[2] = flat(SWEEP, n, 0.5);
    values[3] = flat(SWEEP, n, 0.9);
}

static void w2c(long n, double *values) {
    values[0] = flat(SWEEP_WITH_FINALIZERS, n, 0);
    values[1] = flat(SWEEP_WITH_FINALIZERS, n, 0.5);
}

static void w2r(long n, double *values) {
    values[0] = flat(REFILL, n, 0.5);
    values[1] = flat(REFILL, n, 0.9);
}

/* ---- W3 ---- */

static pair *volatile root; /* volatile: the compiler sees no reader of it */

static void shuffle(pair **all, long n) {
    seed();
    for (long i = n - 1; i > 0; i--) {
        long j = below(i + 1);
        pair *one = all[i];
        all[i] = all[j];
        all[j] = one;
    }
}

static void chain(pair **all, long n) {
    for (long i = 0; i + 1 < n; i++) all[i]->left = all[i + 1];
}

/* A chain through all in random order, so that all are live, and a random edge more from each. */
static void link_random(pair **all, long n) {
    shuffle(all, n);
    chain(all, n);
    for (long i = 0; i < n; i++) all[i]->right = all[below(n)];
}

static void link_shuffled(pair **all, long n) {
    shuffle(all, n);
    chain(all, n);
}

static void link_tree(pair **all, long n) {
    for (long i = 0; i < n; i++) {
        if (2 * i + 1 < n) all[i]->left = all[2 * i + 1];
        if (2 * i + 2 < n) all[i]->right = all[2 * i + 2];
    }
}

static double graph(long n, void (*link)(pair **, long)) {
    GC_disable();
    pair **all = list_of(n);
    for (long i = 0; i < n; i++) {
        all[i] = or_fail(GC_MALLOC(sizeof(pair)));
        all[i]->words[0] = all[i]->words[1] = i & 0xff; /* nothing that looks like a pointer */
    }
    link(all, n);
    root = all[0];
    GC_FREE(all);
    all = NULL;
    GC_enable();
    double value = 0;
    for (int round = 0; round < 3; round++) {
        GC_gcollect();
        value = per(event_at[GC_EVENT_MARK_END] - event_at[GC_EVENT_START], n);
    }
    root = NULL;
    return value;
}

static void w3_random(long n, double *values) { values[0] = graph(n, link_random); }
static void w3_list(long n, double *values) { values[0] = graph(n, chain); }
static void w3_shuffled(long n, double *values) { values[0] = graph(n, link_shuffled); }
static void w3_tree(long n, double *values) { values[0] = graph(n, link_tree); }

/* ---- W4, W5 ---- */

/* Makes n objects, and then gives each its finalizer. Returns the nanoseconds that the latter took. */
static __attribute__((noinline)) long enlist(long n, GC_finalization_proc finalizer) {
    GC_disable();
    plain **all = list_of(n);
    for (long i = 0; i < n; i++) all[i] = or_fail(GC_MALLOC_ATOMIC(sizeof(plain)));
    long start = now();
    for (long i = 0; i < n; i++) GC_register_finalizer_no_order(all[i], finalizer, (void *)i, 0, 0);
    long took = now() - start;
    memset(all, 0, n * sizeof *all);
    GC_FREE(all);
    GC_enable();
    return took;
}

/* Fails unless nearly all have run: a stale word may keep an object, or a few. */
static void expect_nearly(long ran, long n) {
    if (ran < n - n / 1000 - 8) fail("%ld of %ld finalizers ran; the others' objects were kept", ran, n);
}

static void w4(long n, double *values) {
    for (int round = 0; round < 2; round++) {
        finalized = 0;
        values[0] = per(enlist(n, count), n);
        clear_stack();
        long start = now();
        GC_gcollect();
        while (GC_should_invoke_finalizers()) GC_invoke_finalizers();
        values[1] = per(now() - start, finalized);
        expect_nearly(finalized, n);
        GC_gcollect();
    }
}

static void w5(long n, double *values) {
    plain *object = or_fail(GC_MALLOC_ATOMIC(sizeof(plain)));
    for (int round = 0; round < 2; round++) {
        long start = now();
        for (long i = 0; i < n; i++) {
            GC_register_finalizer_no_order(object, count, (void *)i, 0, 0);
            GC_register_finalizer_no_order(object, 0, 0, 0, 0);
        }
        values[0] = per(now() - start, n);
    }
    GC_reachable_here(object);
}

/* ---- W6, W8: finalizers on threads of their own ---- */

static sem_t work, ended;
static int workers;

static void wait_for(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0 && errno == EINTR) {
    }
}

static void notify(void) {
    for (int i = 0; i < workers; i++) sem_post(&work);
}

static void *worker(void *unused) {
    (void)unused;
    for (;;) {
        wait_for(&work);
        GC_invoke_finalizers();
        sem_post(&ended); /* nothing is left for this thread */
    }
    return NULL;
}

static void start_workers(int number) {
    sem_init(&work, 0, 0);
    sem_init(&ended, 0, 0);
    for (; workers < number; workers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, NULL) != 0) fail("a thread for finalizers could not be made");
    }
    GC_set_finalizer_notifier(notify);
}

static atomic_long started_at;

static void note(void *object, void *word) {
    (void)object, (void)word;
    started_at = now();
}

static __attribute__((noinline)) void alone(void) {
    GC_register_finalizer_no_order(or_fail(GC_MALLOC_ATOMIC(sizeof(plain))), note, 0, 0, 0);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* From the end of marking, with the world still stopped, to the start of the only finalizer there is. */
static void w6(long n, double *values) {
    enum { UNMEASURED = 20 };
    double *times = or_fail(malloc(n * sizeof *times));
    long kept = 0;
    start_workers(1);
    for (long i = 0; i < n + UNMEASURED; i++) {
        started_at = 0;
        alone();
        clear_stack();
        pause_for(1000000); /* so that the worker is asleep again */
        GC_gcollect();
        long marked = event_at[GC_EVENT_MARK_END];
        for (long patience = now() + 100000000; started_at == 0 && now() < patience;) pause_for(100000);
        if (started_at == 0) {
            /* A stale word keeps the object: it is the next round's, or that of one after that. */
            kept++;
            if (kept > 100) expect_nearly(0, 1000);
            i--;
        } else if (i >= UNMEASURED) {
            times[i - UNMEASURED] = started_at - marked;
        }
    }
    qsort(times, n, sizeof *times, ascending);
    values[0] = times[(long)(0.5 * (n - 1))];
    values[1] = times[(long)(0.99 * (n - 1))];
    free(times);
}

static atomic_long ran;

static void spin(void) {
    for (long start = now(); now() - start < 1000;) {
    }
}

static void busy(void *object, void *word) {
    (void)object, (void)word;
    spin();
    ran++;
}

static void stall(void *object, void *word) {
    (void)object;
    if ((long)word % 1000 == 0) {
        pause_for(1000000);
    } else {
        spin();
    }
    ran++;
}

static double shared(long n, int threads, GC_finalization_proc finalizer) {
    double value = 0;
    start_workers(threads);
    for (int round = 0; round < 2; round++) {
        ran = 0;
        enlist(n, finalizer);
        clear_stack();
        long start = now();
        GC_gcollect();
        for (int i = 0; i < threads; i++) wait_for(&ended);
        value = per(now() - start, ran);
        expect_nearly(ran, n);
        GC_set_finalizer_notifier(0); /* for the few objects that a stale word has kept */
        GC_gcollect();
        GC_invoke_finalizers();
        GC_set_finalizer_notifier(notify);
    }
    return value;
}

static void w8(long n, double *values) {
    values[0] = shared(n, 2, busy);
    values[1] = shared(n, 4, stall);
}

/* ---- Memory ---- */

/* A line of the process's status, in bytes. */
static double status(const char *key) {
    char line[256];
    long kib = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') kib = atol(line + strlen(key) + 1);
    }
    if (file) fclose(file);
    if (kib < 0) fail("no %s in /proc/self/status", key);
    return kib * 1024.0;
}

/* What the process holds when the collector has given back all it can. */
static double resident(void) {
    GC_gcollect_and_unmap();
    return status("VmRSS");
}

static void **holder(long n) {
    void **all = list_of(n);
    void *some = or_fail(GC_MALLOC_ATOMIC(sizeof(plain)));
    for (long i = 0; i < n; i++) all[i] = some; /* so that no page of it is fresh */
    return all;
}

static void memory_object(long n, double *values) {
    void **all = holder(n);
    double before = resident();
    for (long i = 0; i < n; i++) {
        all[i] = or_fail(GC_MALLOC_ATOMIC(sizeof(plain)));
        *(plain *)all[i] = (plain){{i, i, i, i}};
    }
    values[0] = (resident() - before) / n;
    GC_reachable_here(all);
}

static void memory_cleanup(long n, double *values) {
    void **all = holder(n);
    for (long i = 0; i < n; i++) all[i] = or_fail(GC_MALLOC_ATOMIC(sizeof(plain)));
    double before = resident();
    for (long i = 0; i < n; i++) GC_register_finalizer_no_order(all[i], count, (void *)i, 0, 0);
    values[0] = (resident() - before) / n;
    GC_reachable_here(all);
}

/* ---- W7: binary-trees, one thread ---- */

typedef struct tree { struct tree *left, *right; } tree;

static tree *bottom_up(int depth) {
    tree *left = NULL, *right = NULL;
    if (depth > 0) {
        left = bottom_up(depth - 1);
        right = bottom_up(depth - 1);
    }
    tree *made = or_fail(GC_NEW(tree));
    made->left = left;
    made->right = right;
    return made;
}

static long check(const tree *t) { return t->left == NULL ? 1 : 1 + check(t->left) + check(t->right); }

static void expect(long nodes, int depth, long trees) {
    long want = trees * ((2L << depth) - 1);
    if (nodes != want) fail("%ld trees of depth %d have %ld nodes; expected were %ld", trees, depth, nodes, want);
}

static void w7(long depth, double *values) {
    for (int round = 0; round < 2; round++) {
        long start = now();
        expect(check(bottom_up(depth + 1)), depth + 1, 1);
        tree *long_lived = bottom_up(depth);
        for (int k = 4; k <= depth; k += 2) {
            long trees = 1L << (depth + 4 - k), nodes = 0;
            for (long i = 0; i < trees; i++) nodes += check(bottom_up(k));
            expect(nodes, k, trees);
        }
        expect(check(long_lived), depth, 1);
        values[0] = (now() - start) / 1e6;
    }
    values[1] = status("VmHWM") / 1e6;
}

/* ---- GCBench, by Ellis, Kovac and Boehm ---- */

enum { STRETCH = 18, LONG_LIVED = 16, ARRAY = 500000, LEAST = 4, MOST = 16 };

typedef struct node { struct node *left, *right; int i, j; } node;

/* Builds the tree from its root downwards. */
static void populate(int depth, node *top) {
    if (depth <= 0) return;
    top->left = or_fail(GC_NEW(node));
    top->right = or_fail(GC_NEW(node));
    populate(depth - 1, top->left);
    populate(depth - 1, top->right);
}

/* Builds it from its leaves upwards. */
static node *make(int depth) {
    node *left = NULL, *right = NULL;
    if (depth > 0) {
        left = make(depth - 1);
        right = make(depth - 1);
    }
    node *top = or_fail(GC_NEW(node));
    top->left = left;
    top->right = right;
    return top;
}

static node *volatile made;

static void gcbench(long unused, double *values) {
    (void)unused;
    for (int round = 0; round < 2; round++) {
        long start = now();
        made = make(STRETCH);
        made = NULL;
        node *long_lived = or_fail(GC_NEW(node));
        populate(LONG_LIVED, long_lived);
        double *array = or_fail(GC_MALLOC_ATOMIC(ARRAY * sizeof(double)));
        for (int i = 1; i < ARRAY / 2; i++) array[i] = 1.0 / i;
        for (int depth = LEAST; depth <= MOST; depth += 2) {
            int trees = 2 * ((2 << STRETCH) - 1) / ((2 << depth) - 1);
            for (int i = 0; i < trees; i++) {
                node *top = or_fail(GC_NEW(node));
                populate(depth, top);
                made = top;
            }
            for (int i = 0; i < trees; i++) made = make(depth);
            made = NULL;
        }
        if (long_lived->left == NULL || array[1000] != 1.0 / 1000) fail("GCBench: the long-lived data are wrong");
        values[0] = (now() - start) / 1e6;
    }
}

/* ---- The rows ---- */

/* Rows that are measured together, with a blank between two ids. */
static const struct group {
    const char *ids;
    void (*measure)(long size, double *values);
    int markers; /* 0: as the collector decides */
} groups[] = {
    {"W1", w1, 0},
    {"W1@inline", w1_inline, 0},
    {"W2.0 W2.10 W2.50 W2.90", w2, 0},
    {"W2c.0 W2c.50", w2c, 0},
    {"W2r.50 W2r.90", w2r, 0},
    {"W3.random", w3_random, 0},
    {"W3.list", w3_list, 0},
    {"W3.shuffled", w3_shuffled, 0},
    {"W3.tree", w3_tree, 0},
    {"W3.random@1", w3_random, 1},
    {"W3.list@1", w3_list, 1},
    {"W3.shuffled@1", w3_shuffled, 1},
    {"W3.tree@1", w3_tree, 1},
    {"W4.register W4.run", w4, 0},
    {"W5", w5, 0},
    {"W6.p50 W6.p99", w6, 0},
    {"W7.wall W7.rss", w7, 0},
    {"GCBench.wall", gcbench, 0},
    {"W8.plain W8.stalls", w8, 0},
    {"memory.object", memory_object, 0},
    {"memory.cleanup", memory_cleanup, 0},
};

enum { GROUPS = sizeof groups / sizeof *groups };

static bool has(const char *ids, const char *id) {
    size_t length = strlen(id), next;
    for (; *ids; ids += next + (ids[next] == ' ')) {
        next = strcspn(ids, " ");
        if (next == length && strncmp(ids, id, length) == 0) return true;
    }
    return false;
}

int main(int argc, char **argv) {
    const char *row = argc > 1 ? argv[1] : "";
    if (strcmp(row, "--list") == 0) {
        for (int g = 0; g < GROUPS; g++) puts(groups[g].ids);
        return 0;
    }
    if (strcmp(row, "--version") == 0) {
        unsigned version = GC_get_version();
        printf("libgc %u.%u.%u, gcc %s\n", version >> 16, version >> 8 & 0xff, version & 0xff, __VERSION__);
        return 0;
    }
    const struct group *group = groups;
    while (group < groups + GROUPS && !has(group->ids, row)) group++;
    if (argc != 3 || group == groups + GROUPS) fail("row \"%s\"; valid is a row that --list prints, and a size", row);
    GC_set_all_interior_pointers(0);
    if (group->markers) GC_set_markers_count(group->markers);
    GC_INIT();
    GC_set_finalize_on_demand(1);
    GC_set_on_collection_event(on_event);
    double values[4];
    group->measure(atol(argv[2]), values);
    char ids[64];
    strcpy(ids, group->ids);
    int i = 0;
    for (char *id = strtok(ids, " "); id; id = strtok(NULL, " ")) printf("%s %.4f\n", id, values[i++]);
    return 0;
}
