/*
 * The two protocols of ../PROTOCOL.md, step by step: how a published block finds a worker, and how a worker
 * without a block goes to sleep. The names and step numbers in the comments are that page's.
 *
 * Memory is sequentially consistent here; what the fences are for is in fences.pml. Every read and write that
 * others can see without the lock is a step of its own; what only the lock's holder sees shares a step with
 * its neighbour.
 *
 * Size, by -D:
 *   MAX         the most workers, 1 to 3
 *   BLOCKS      blocks to be published
 *   PUBLISHERS  1 or 2; they share the blocks out evenly
 *
 * Features, by -D. Without them nobody dies, retires or is told to leave, and every worker can be started:
 *   HELPER      a thread that is no worker claims a block, and runs it or puts it back
 *   DEATHS=n    up to n workers die while running a block
 *   FAILS=n     up to n workers cannot be started; somebody waits, and looks once, when all is published
 *   WAIT_EARLY  with FAILS: instead of that, the last publisher waits for its blocks, and looks once at first
 *   RETIRE      a committed sleeper may time out at any moment, and leaves if nobody has chosen it
 *   LOWER       the bound is lowered by one at any moment; surplus workers leave before their next claim
 *   SHUTDOWN    a shutdown begins at any moment; with SHUTDOWN_LAST, when all is published
 *
 * Repairs of what README.md lists under "What the model found":
 *   ONE_SECTION     a worker that is gone lowers `workers` and looks at `length` in one critical section
 *   LAST_LOOK       who waits until the last worker has left starts one for what is in the list then
 *   HELPER_DRAINS   a helper that has put a block back discards it if the pool is closed
 *   LOOK_AGAIN      who waits looks again after a failed start
 *
 * Mutants, each a step that is broken, are named where they break it.
 */

#ifndef MAX
#define MAX 2
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef PUBLISHERS
#define PUBLISHERS 1
#endif

/* ---- the shared state ---------------------------------------------------------------------------------- */

chan list = [BLOCKS] of { byte };           /* the full list */
byte length;                                /* its unclaimed blocks */

bool locked;                                /* the lock */
byte asleep;                                /* written under the lock, read without */
byte workers;                               /* written under the lock, read without */
byte max = MAX;                             /* the bound; with LOWER, written and read like `workers` */
byte sleeping;                              /* the list of sleepers, a bit for each; under the lock */
byte vacant = (1 << MAX) - 1;               /* the indices no worker has, a bit for each; under the lock */
bool down;                                  /* the pool is shutting down; under the lock */
bool called[MAX];                           /* each index's own flag, to park on */
bool closed;                                /* after a shutdown: blocks are discarded, not run */

/* ---- what only the properties speak of -------------------------------------------------------------------- */

byte busy;                                  /* see STRANDED */
byte gone;                                  /* blocks that have been run or discarded */
bool ran[BLOCKS];
bool returned[BLOCKS];                      /* its publisher has returned */
bool promised[BLOCKS];                      /* its publisher had returned when the shutdown began */
bool put_back[BLOCKS];                      /* a helper has taken it and put it back */
byte finished;                              /* publishers that will publish no more */
bool start_failed;                          /* a start has failed, and nobody has looked since */
byte deaths;
byte fails;

#define COUNT(set) ((set & 1) + ((set >> 1) & 1) + ((set >> 2) & 1))
#define BIT(index) (1 << (index))

/*
 * What the proof rules out. Busy are workers that are neither on the list of sleepers nor in a cleanup, and
 * whoever is between P2 and the end of W5. With nobody busy, a block is unclaimed: then somebody must not be
 * asleep beside it, and no vacancy be open, but after a failed start or in a shutdown.
 */
#define STRANDED (busy == 0 && length > 0 && (sleeping != 0 || (workers < max && !start_failed && !down)))

/* Somebody who was busy no longer is. */
inline rests() {
    atomic { busy--; assert(!STRANDED) }
}

/* ---- the lock -------------------------------------------------------------------------------------------- */

inline acquire() {
    atomic { !locked -> locked = true }
}

inline release() {
    d_step {
#if !defined(UNCOMMITTED_SIGNAL) && !defined(WOKEN_LOWERS)
        assert(asleep == COUNT(sleeping));          /* with the lock free, `asleep` is exact */
#endif
        assert(workers == MAX - COUNT(vacant));     /* and so is `workers` */
        locked = false
    }
}

/* A worker's post is vacated. With the lock held. */
inline vacate(index) {
    d_step { workers--; vacant = vacant + BIT(index) }
}

/* ---- waking ------------------------------------------------------------------------------------------------ */

/* What a waker has in hand; all zero when it has not. */
#define HANDS byte waiting; byte n; byte woken; byte openings; byte i

inline take_it() {
    sleeping = sleeping - i;
    woken = woken + i;
    busy++;
    n--
}

/* W3: takes `n` sleepers off the list, any of them, and lowers `asleep` on their behalf. */
inline take_sleepers() {
    atomic {
#if defined(TRUST_ESTIMATE)
        /* Mutant: `n` is what it was before the lock was taken. */
#elif defined(UNCOMMITTED_SIGNAL)
        /* Mutant: a worker that is announced, and not on the list yet, counts as woken. */
        n = (waiting < asleep -> waiting : asleep);
#else
        n = (waiting < COUNT(sleeping) -> waiting : COUNT(sleeping));
#endif
#ifndef WOKEN_LOWERS
        asleep = asleep - n;
#endif
        waiting = waiting - n;
        do
        :: n > 0 && (sleeping & 1) -> i = 1; take_it()
        :: n > 0 && (sleeping & 2) -> i = 2; take_it()
        :: n > 0 && (sleeping & 4) -> i = 4; take_it()
        :: n == 0 || sleeping == 0 -> break
        od;
        n = 0; i = 0
    }
}

/* W4: what is left over is demand, up to the bound. Each worker demanded has an index, and is counted. */
inline demand(replace) {
    d_step {
        do
        :: (!down || replace) && waiting > 0 && workers < max ->
            i = (vacant & 1 -> 1 : (vacant & 2 -> 2 : 4));
            vacant = vacant - i;
            openings = openings + i;
            workers++;
            busy++;
            waiting--
        :: else -> break
        od;
        assert(workers <= MAX);
        waiting = 0; i = 0
    }
}

/* W5: unparks the ones taken off, starts the ones demanded. */
inline unpark_and_start() {
    do
    :: woken != 0 ->
        d_step {
            i = (woken & 1 -> 0 : (woken & 2 -> 1 : 2));
            woken = woken - BIT(i);
            called[i] = true;
            i = 0
        }
    :: woken == 0 && openings != 0 ->
        d_step {
            i = (openings & 1 -> 0 : (openings & 2 -> 1 : 2));
            openings = openings - BIT(i)
        };
        if
        :: atomic { run worker(i); i = 0 }
#ifdef FAILS
        :: fails < FAILS ->
            acquire();
            vacate(i);                                                              /* L1, and no L2 */
            atomic { i = 0; fails++; start_failed = true; rests() };
            release()
#endif
        fi
    :: woken == 0 && openings == 0 -> break
    od
}

/* W2 to W5, with the lock held. `replace`: a worker is demanded even in a shutdown. */
inline wake_locked(replace) {
#ifndef TRUST_ESTIMATE
    waiting = length;                                                               /* W2 */
#endif
    take_sleepers();                                                                /* W3 */
    demand(replace);                                                                /* W4 */
    release();                                                                      /* W5 */
    unpark_and_start()
}

inline wake(replace) {
#ifdef TRUST_ESTIMATE
    /* Mutant: what was read without the lock is not read again under it. */
    waiting = length;
    n = (asleep < waiting -> asleep : waiting);
#endif
    acquire();                                                                      /* W1 */
    wake_locked(replace)
}

/* P4: three reads, of which each may be out of date when the next is made. */
inline look() {
    if
    :: atomic { length > 0 -> start_failed = false };
        if
        :: asleep > 0 -> wake(false)
        :: else ->
            if
            :: workers < max -> wake(false)
            :: else -> skip
            fi
        fi
    :: else -> skip
    fi
}

/* A look by somebody who publishes nothing. */
inline look_once() {
    busy++;
    look();
    rests()
}

/* ---- publishing -------------------------------------------------------------------------------------------- */

/* Takes the block that a claim stands for. */
inline pop() {
    atomic { assert(len(list) > 0); list ? b }
}

/* Discards what is in the list. Only after a shutdown. */
inline drain() {
    do
    :: atomic { length > 0 -> length-- };
        atomic {
            pop();
            /* What was published before the shutdown is run, unless a helper had it in hand. */
            assert(!promised[b] || put_back[b]);
            gone++; b = 0
        }
    :: else -> break
    od
}

proctype publisher(byte next; byte last) {
    HANDS; byte b; byte size;
    do
    :: next < last ->
        /* A publication of one block, or of all the rest. */
        if
        :: size = 1
        :: last - next > 1 -> size = last - next
        fi;
#ifdef LENGTH_BEFORE_PUSH
        atomic { length = length + size; busy++ };  /* Mutant: P2 before P1. */
#endif
        do
        :: b < size -> atomic { list ! next + b; b++ }                              /* P1 */
        :: else -> b = 0; break
        od;
#if defined(LENGTH_AFTER_LOOK)
        /* Mutant: P4's look at `asleep` and `workers` before P2. */
        busy++;
        if
        :: asleep > 0 -> length = length + size; wake(false)
        :: else ->
            if
            :: workers < max -> length = length + size; wake(false)
            :: else -> length = length + size
            fi
        fi;
#else
#if !defined(LENGTH_BEFORE_PUSH)
        atomic { length = length + size; busy++ };                                  /* P2 */
#endif
        look();                                                                     /* P4 */
#endif
#ifdef SHUTDOWN
        if
        :: closed -> drain()
        :: else -> skip
        fi;
#endif
        atomic {
            do
            :: size > 0 -> returned[next] = true; next++; size--
            :: else -> break
            od;
            rests()
        }
    :: else -> break
    od;
    finished++;
#ifdef WAIT_EARLY
    if
    :: last == BLOCKS ->
        size = fails;
        look_once();
        do
        :: ran[last - 1] -> break
#ifdef LOOK_AGAIN
        :: fails != size -> size = fails; look_once()       /* Repair. */
#endif
        od
    :: else -> skip
    fi
#endif
}

/* Waits for all blocks, when all is published. If one never goes, this is where Spin finds it stuck. */
proctype waiter() {
    HANDS;
    finished == PUBLISHERS;
#if defined(FAILS) && !defined(WAIT_EARLY)
    look_once();
#endif
    gone == BLOCKS
}

#ifdef HELPER
/* No worker, and so it never sleeps; and it may stop before the end of a block. */
proctype helper() {
    HANDS; byte b;
end_idle:
    atomic { length > 0 -> length-- };                                              /* C1 */
    pop();                                                                          /* C2 */
    if
    :: d_step { assert(!ran[b]); ran[b] = true; gone++; b = 0 }
    :: atomic { list ! b; put_back[b] = true };                                     /* P1 */
        atomic { length++; busy++; b = 0 };                                         /* P2 */
        look();                                                                     /* P4 */
#ifdef HELPER_DRAINS
        if
        :: closed -> drain()                        /* Repair: as a publisher does. */
        :: else -> skip
        fi;
#endif
        rests()
    fi
}
#endif

/* ---- a worker ---------------------------------------------------------------------------------------------- */

/* A worker that is gone, or about to go. With the lock held. */
inline lost() {
    vacate(me);                                                                     /* L1 */
#ifdef ONE_SECTION
    wake_locked(true);                              /* Repair: L2 without letting go of the lock. */
#else
    release();
    if
    :: length > 0 -> wake(true)                                                     /* L2 */
    :: else -> skip
    fi;
#endif
    rests()
}

/* Leaves without L2. With the lock held. */
inline leave() {
    atomic { vacate(me); rests() };
    release()
}

proctype worker(byte me) {
    HANDS; byte b; bool found;
claim:
#ifdef LOWER
    if
    :: workers > max ->
        acquire();
        if
        :: workers > max ->
#ifdef SURPLUS_NO_LOOK
            leave();            /* Mutant: it may have been woken for a block, and nobody else was. */
#else
            lost();
#endif
            goto left
        :: else -> release()
        fi
    :: else -> skip
    fi;
#endif
    if
    :: atomic { length > 0 -> length-- }                                            /* C1 */
    :: else -> goto sleep
    fi;
    pop();                                                                          /* C2 */

    rests();                                        /* in a cleanup, for as long as that likes */
    if
    :: d_step { assert(!ran[b]); ran[b] = true; gone++; b = 0; busy++ }
#ifdef DEATHS
    :: atomic { deaths < DEATHS -> deaths++; busy++ };
        /* Dies. The rest of the block goes back to the list; then the worker is missed. */
        list ! b;                                                                   /* P1 */
        atomic { length++; b = 0 };                                                 /* P2 */
        look();                                                                     /* P4 */
        acquire();
#ifdef LOSS_NO_LOOK
        leave();                                    /* Mutant: L2 is left out. */
#else
        lost();
#endif
        goto left
#endif
    fi;
    goto claim;

sleep:
#ifdef LEAVE_UNDRAINED
    acquire();
    if
    :: down -> leave(); goto left                   /* Mutant: in a shutdown, S4 is left out. */
    :: else -> release()
    fi;
#endif
#ifdef ANNOUNCE_AFTER_READ
    found = (length > 0);                           /* Mutant: S4 before S1, decided upon after S2. */
#endif
    acquire();                                                                      /* S1 */
#ifdef RECHECK_BEFORE_ANNOUNCE
    found = (length > 0);                           /* Mutant: S4 before S2, both under the lock. */
#endif
    asleep++;                                                                       /* S2 */
#ifdef UNCOMMITTED_SIGNAL
    release();                                      /* Mutant: it lets go of the lock before it is on the list. */
#endif
#if defined(NO_RECHECK)
    skip;                                           /* Mutant: S4 is left out. */
#elif !defined(RECHECK_BEFORE_ANNOUNCE) && !defined(ANNOUNCE_AFTER_READ)
    found = (length > 0);                                                           /* S4 */
#endif
#ifdef UNCOMMITTED_SIGNAL
    acquire();
#endif
    if
    :: found -> atomic { found = false; asleep-- }; release(); goto claim
    :: else -> skip
    fi;
    if
    :: down -> asleep--; leave(); goto left
    :: else ->
        d_step { assert(!(sleeping & BIT(me))); sleeping = sleeping + BIT(me); rests() } /* S5 */
    fi;
    release();

end_parked:
    if
    :: atomic { called[me] -> called[me] = false };                                 /* S6 */
#ifdef WOKEN_LOWERS
        acquire(); asleep--; release()              /* Mutant: it does what its waker should have done. */
#endif
#ifdef RETIRE
    :: true ->                                      /* The time is up. */
        acquire();
        if
#ifdef RETIRE_UNCHECKED
        :: true ->                                  /* Mutant: a waker may have chosen it. */
            d_step { sleeping = sleeping & (7 - BIT(me)); busy++ };
#else
        :: sleeping & BIT(me) ->
            d_step { sleeping = sleeping - BIT(me); busy++ };
#endif
#if defined(RETIRE_NO_LOOK) && defined(WORKERS_FIRST)
            workers--;
            atomic { asleep--; vacant = vacant + BIT(me); rests() };
            release();
#elif defined(RETIRE_NO_LOOK)
            asleep--;
            leave();                                /* Mutant: L2 is left out. */
#else
            asleep--;
            lost();
#endif
            goto left
#ifndef RETIRE_UNCHECKED
        :: else ->
            release();
#ifndef UNPARK_LEFT_BEHIND
            /* A waker has chosen it: its unpark is here, or on the way. */
            atomic { called[me] -> called[me] = false }
#endif
#endif
        fi
#endif
    fi;
    goto claim;

left:
    skip
}

/* ---- the bound is lowered ---------------------------------------------------------------------------------- */

#ifdef LOWER
proctype lower() {
    acquire();
    max--;
    release()
}
#endif

/* ---- a shutdown -------------------------------------------------------------------------------------------- */

#ifdef SHUTDOWN
inline begin() {
    d_step {
        down = true;
        do
        :: b < BLOCKS -> promised[b] = returned[b]; b++
        :: else -> b = 0; break
        od
    }
}

proctype shutdown() {
    HANDS; byte b;
#ifdef SHUTDOWN_LAST
    finished == PUBLISHERS;
#endif
    look_once();                                    /* a last chance after a failed start */
#ifdef FLAG_BEFORE_LOCK
    begin();                                        /* Mutant: set without the lock, before it is taken. */
#endif
    acquire();
#if !defined(FLAG_BEFORE_LOCK) && !defined(FLAG_AFTER_LOCK)
    begin();
#endif
    d_step { woken = sleeping; busy = busy + COUNT(sleeping); sleeping = 0; asleep = 0 };
    release();
#ifdef FLAG_AFTER_LOCK
    begin();                                        /* Mutant: set without the lock, after it was released. */
#endif
    unpark_and_start();
left:
    atomic { workers == 0 && !locked };             /* waits, with the lock, until all have left */
#ifdef LAST_LOOK
    if
    :: len(list) > 0 ->                             /* Repair. Somebody may be between P1 and P2. */
        len(list) == 0 || length > 0;
        busy++;
        wake(true);
        rests();
        goto left
    :: else -> skip
    fi;
#endif
    closed = true;
    assert(workers == 0);                           /* none has been started in the meantime */
    drain()
}
#endif

init {
    atomic {
        run waiter();
#if PUBLISHERS == 1
        run publisher(0, BLOCKS);
#else
        run publisher(0, BLOCKS / 2);
        run publisher(BLOCKS / 2, BLOCKS);
#endif
#ifdef HELPER
        run helper();
#endif
#ifdef LOWER
        run lower();
#endif
#ifdef SHUTDOWN
        run shutdown()
#endif
    }
}

/* ---- liveness, under weak fairness ------------------------------------------------------------------------- */

#ifdef LIVENESS
ltl every_block_goes { <> (gone == BLOCKS) }
ltl nobody_sleeps_beside_work { ! <> [] (length > 0 && sleeping != 0) }
ltl all_leave { [] (down -> <> (workers == 0)) }
#endif
