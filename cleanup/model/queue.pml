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
 *   PUBLISHERS  1 to 3; they share the blocks out evenly
 *
 * Features, by -D. Without them no worker dies, retires or is told to leave, and every worker can be started:
 *   HELPER      a thread that is no worker claims a block, and runs it or puts it back
 *   DEATHS=n    up to n workers die while running a block
 *   FAILS=n     up to n workers cannot be started
 *   MONITOR     with FAILS: a monitor, which a failed start calls, and which tries again
 *   WAIT        when all is published, a process waits with a ticket, and helps if there is no worker
 *   WAIT_EARLY  instead of that, the last publisher waits so as soon as it has published
 *   RETIRE      a committed sleeper may time out at any moment, and leaves if no waker has chosen it
 *   LOWER=n     the bound is lowered by one at any moment, n times; surplus workers leave before their next claim
 *   RAISE       with LOWER: then it is raised again, to what it was
 *   SHUTDOWN    a shutdown begins at any moment; with SHUTDOWN_LAST, when all is published
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
#if defined(WAIT) || defined(WAIT_EARLY)
#define WAITS
#endif

/* ---- the shared state ---------------------------------------------------------------------------------- */

chan list = [BLOCKS] of { byte };           /* the full list */
byte length;                                /* its unclaimed blocks */

bool locked;                                /* the lock */
byte asleep;                                /* written under the lock, read without */
byte workers;                               /* written under the lock, read without */
byte max = MAX;                             /* the bound; written and read like `workers` */
byte sleeping;                              /* the list of sleepers, a bit for each; under the lock */
byte vacant = (1 << MAX) - 1;               /* the indices no worker has, a bit for each; under the lock */
bool down;                                  /* the pool is shutting down; under the lock */
bool called[MAX];                           /* each index's own flag, to park on */
bool starving;                              /* a worker could not be started, and the monitor has not tried again */
bool summoned;                              /* the monitor has been called */
bool nudged;                                /* who waits with a ticket is to look again */
bool closed;                                /* after a shutdown: blocks are discarded, not run */

/* ---- what only the properties speak of -------------------------------------------------------------------- */

byte busy;                                  /* see STRANDED */
byte gone;                                  /* blocks that have been run or discarded */
bool ran[BLOCKS];
bool returned[BLOCKS];                      /* its publisher has returned */
bool promised[BLOCKS];                      /* its publisher had returned when the shutdown began */
bool put_back[BLOCKS];                      /* a helper has taken it and put it back */
byte finished;                              /* publishers that will publish no more */
bool start_failed;                          /* a start has failed, and no thread has looked since */
byte deaths;
byte fails;

#define COUNT(set) ((set & 1) + ((set >> 1) & 1) + ((set >> 2) & 1))
#define BIT(index) (1 << (index))

/*
 * The states that the proof rules out. Busy are workers that are neither on the list of sleepers
 * nor in a cleanup, and publishers between P2 and the end of W5. No thread is busy and a block is
 * unclaimed, while a worker is asleep beside it or a slot of a worker is vacant. A failed start and a
 * shutdown are the exceptions.
 */
#define STRANDED (busy == 0 && length > 0 && (sleeping != 0 || (workers < max && !start_failed && !down)))

/* One process fewer is busy. */
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

/* A worker's slot is vacated. With the lock held. */
inline vacate(index) {
    d_step { workers--; vacant = vacant + BIT(index) }
}

/* ---- waking ------------------------------------------------------------------------------------------------ */

/* What a waker has in hand; all zero when it has not. */
#ifdef FAILS
#define HANDS byte waiting; byte n; byte woken; byte openings; byte i; bool failed
#else
#define HANDS byte waiting; byte n; byte woken; byte openings; byte i
#endif

inline take_it() {
    sleeping = sleeping - i;
    woken = woken + i;
    busy++;
    n--
}

/* Takes `n` sleepers off the list, any of them. */
inline take_any() {
    do
    :: n > 0 && (sleeping & 1) -> i = 1; take_it()
    :: n > 0 && (sleeping & 2) -> i = 2; take_it()
    :: n > 0 && (sleeping & 4) -> i = 4; take_it()
    :: n == 0 || sleeping == 0 -> break
    od;
    n = 0; i = 0
}

/* W3: takes sleepers off the list, and lowers `asleep` on their behalf. */
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
        take_any()
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

/* A worker is gone. Without one, who waits with a ticket is to look again, and to help. */
inline nudge() {
#if defined(WAITS) && !defined(NO_NUDGE)
    if
    :: length > 0 ->
        if
        :: atomic { !locked && workers == 0 -> nudged = true }
        :: !locked && workers > 0
        fi
    :: else -> skip
    fi
#else
    skip                                            /* No thread waits; or a mutant: the waiters are not told. */
#endif
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
            atomic { i = 0; fails++; start_failed = true; failed = true; rests() };
            release();
            nudge()
#endif
        fi
    :: woken == 0 && openings == 0 -> break
    od
#ifdef FAILS
    ;
    if
    :: failed ->
        atomic { failed = false; starving = true };
        if
#if defined(MONITOR) && !defined(NO_CALL)
        :: length > 0 && max > 0 -> summoned = true /* Mutant: the monitor is not called. */
#endif
        :: else -> skip
        fi
    :: else -> skip
    fi
#endif
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

/* Two reads, of `workers` and `max`, and no order between them. The answer is in `n`. */
inline has_vacancy() {
#ifdef LOWER
    if
    :: n = workers; n = (n < max -> 1 : 0)
    :: n = max; n = (workers < n -> 1 : 0)
    fi
#else
    n = (workers < max -> 1 : 0)
#endif
}

inline has_surplus() {
    if
    :: n = workers; n = (n > max -> 1 : 0)
    :: n = max; n = (workers > n -> 1 : 0)
    fi
}

/* P4: reads of which each may be out of date when the next is made. */
inline look() {
    if
    :: atomic { length > 0 -> start_failed = false };
#ifdef LOOK_IN_DISORDER
        has_vacancy();                              /* Mutant: `asleep` is read last. */
        if
        :: atomic { asleep > 0 -> n = 1 }
        :: else -> skip
        fi;
#else
        if
        :: atomic { asleep > 0 -> n = 1 }
        :: else -> has_vacancy()
        fi;
#endif
        if
        :: atomic { n == 1 -> n = 0 }; wake(false)
        :: else -> skip
        fi
    :: else -> skip
    fi
}

/* A look by a process that publishes nothing. */
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

inline run_it() {
    d_step { assert(!ran[b]); ran[b] = true; gone++; b = 0 }
}

/* No worker, and none to be had: who waits runs what is unclaimed, until `enough`. */
inline help(enough) {
    do
    :: enough -> break
    :: else ->
        if
        :: !locked && workers > 0 -> break
        :: !locked && workers == 0 ->
            if
            :: atomic { length > 0 -> length-- }                                    /* C1 */
            :: else -> break
            fi;
            pop();                                                                  /* C2 */
            run_it()
        fi
    od
}

/* Waits with a ticket. If what it waits for never comes, this is where Spin finds it stuck. */
inline wait_for(end) {
    do
    :: end -> break
    :: else ->
        nudged = false;                             /* before the look: who is nudged during it looks once more */
        look_once();
        help(end);
        if
        :: end -> break
        :: nudged -> help(end)
        fi
    od
}

/* Discards what is in the list. Only after a shutdown. */
inline drain() {
    do
    :: atomic { length > 0 -> length-- };
        atomic {
            pop();
            /* What was published before the shutdown is run, unless a helper had it in hand, or there may be no
               worker. */
            assert(!promised[b] || put_back[b] || max == 0);
            gone++; b = 0
        }
    :: else -> break
    od
}

/* Who publishes when the pool is closed discards what is there. */
inline discard_if_closed() {
#ifdef SHUTDOWN
    if
    :: closed -> drain()
    :: else -> skip
    fi
#else
    skip
#endif
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
#if defined(LOWER) && defined(WAIT_EARLY)
        if
        :: max == 0 -> nudge()
        :: else -> skip
        fi;
#endif
        discard_if_closed();
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
    :: last == BLOCKS -> wait_for(gone == BLOCKS)
    :: else -> skip
    fi
#endif
}

/* Waits for all blocks, when all is published. If one never goes, this is where Spin finds it stuck. */
proctype waiter() {
    HANDS; byte b;
    finished == PUBLISHERS;
#ifdef WAIT
    wait_for(gone == BLOCKS);
#endif
    gone == BLOCKS
}

#ifdef MONITOR
/* It ticks until no start is left to be tried again; here it falls dormant at once. */
proctype monitor() {
    HANDS;
end_dormant:
    atomic { summoned -> summoned = false };
    do
    :: starving ->
        if
        :: length > 0 -> starving = false; look_once()
        :: else -> goto end_dormant
        fi
    :: else -> goto end_dormant
    od
}
#endif

#ifdef HELPER
/* No worker, and so it never sleeps; and it may stop before the end of a block. */
proctype helper() {
    HANDS; byte b;
end_idle:
    atomic { length > 0 -> length-- };                                              /* C1 */
    pop();                                                                          /* C2 */
    if
    :: run_it()
    :: atomic { list ! b; put_back[b] = true };                                     /* P1 */
        atomic { length++; busy++; b = 0 };                                         /* P2 */
        look();                                                                     /* P4 */
#ifndef NO_DISCARD
        discard_if_closed();                        /* Mutant: it does not look whether the pool is closed. */
#endif
        rests()
    fi
}
#endif

/* ---- a worker ---------------------------------------------------------------------------------------------- */

/* A worker that is gone without having been told to leave. With the lock held. */
inline lost() {
    vacate(me);                                                                     /* L1 */
#ifdef TWO_SECTIONS
    release();                                      /* Mutant: it lets go of the lock between L1 and L2. */
    if
    :: length > 0 -> wake(true)                                                     /* L2 */
    :: else -> skip
    fi;
#else
    wake_locked(true);                                                              /* L2 */
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
    has_surplus();
    if
    :: atomic { n == 1 -> n = 0 };
        acquire();
        if
        :: workers > max ->
            leave();
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
    :: atomic { run_it(); busy++ }
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
#ifndef SURPLUS_SLEEPS                                /* Mutant: a surplus worker joins the list of sleepers. */
    :: !down && workers > max -> asleep--; leave(); goto left
#endif
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
        acquire();                                                                  /* R1 */
        if
#ifdef RETIRE_UNCHECKED
        :: true ->                                  /* Mutant: a waker may have chosen it. */
            d_step { sleeping = sleeping & (7 - BIT(me)); busy++ };
#else
        :: sleeping & BIT(me) ->
            d_step { sleeping = sleeping - BIT(me); busy++ };                       /* R3 */
#endif
#ifdef RETIRE_IN_DISORDER
            asleep--;                               /* Mutant: `asleep` before `workers`. */
            leave();
#else
            vacate(me);
            atomic { asleep--; rests() };
            release();
#endif
            goto left
#ifndef RETIRE_UNCHECKED
        :: else ->
            release();                                                              /* R2 */
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
    nudge()
}

/* ---- the bound is changed ---------------------------------------------------------------------------------- */

#ifdef LOWER
/* It counts as busy: who raises the bound is still to look at `length`. */
inline set_max(to) {
    busy++;
    acquire();
    max = to;
    atomic {
        n = (workers > max -> workers - max : 0);
        n = (n < COUNT(sleeping) -> n : COUNT(sleeping));
#ifdef LOWER_WAKES_NOBODY
        n = 0;                                      /* Mutant: surplus workers that sleep are left to sleep. */
#endif
        asleep = asleep - n;
        take_any()
    };
    release();
    unpark_and_start();
#ifndef RAISE_NO_LOOK
    look();                                         /* Mutant: it does not look. */
#endif
    rests()
}

proctype setter() {
    HANDS; byte times;
    do
    :: times < LOWER -> times++; set_max(max - 1)
    :: else -> break
    od;
#ifdef RAISE
    set_max(MAX)
#endif
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
#ifdef FAILS
    if
    :: starving && length > 0 && max > 0 -> help(false)
    :: else -> skip
    fi;
#endif
#ifndef NO_LAST_LOOK
    if                                              /* Mutant: the last look is left out. */
    :: max > 0 && len(list) > 0 ->                  /* A publisher may be between P1 and P2. */
        len(list) == 0 || length > 0;
        busy++;
        if
        :: length > 0 -> wake(true)
        :: else -> skip
        fi;
        rests();
#ifndef ONE_LOOK
        goto left
#else                                               /* Mutant: it does not look again if a worker has come and gone. */
        if
        :: !locked && workers > 0 -> goto left
        :: !locked && workers == 0                  /* None could be started; or one has come and gone. */
        fi
#endif
    :: else -> skip
    fi;
#ifdef FAILS
    if
    :: starving && length > 0 && max > 0 -> goto left
    :: else -> skip
    fi;
#endif
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
#elif PUBLISHERS == 2
        run publisher(0, BLOCKS / 2);
        run publisher(BLOCKS / 2, BLOCKS);
#else
        run publisher(0, BLOCKS / 3);
        run publisher(BLOCKS / 3, BLOCKS - BLOCKS / 3);
        run publisher(BLOCKS - BLOCKS / 3, BLOCKS);
#endif
#ifdef HELPER
        run helper();
#endif
#ifdef LOWER
        run setter();
#endif
#ifdef MONITOR
        run monitor();
#endif
#ifdef SHUTDOWN
        run shutdown()
#endif
    }
}

/* ---- liveness, under weak fairness ------------------------------------------------------------------------- */

/*
 * Each is false when something stays so for ever, which is what Spin finds in a run that comes to a stop, too. (Of the
 * negation of `<> [] p` it does not, under fairness: a run that stops with `p` false would pass.)
 */

#ifdef LIVENESS
ltl every_block_goes { <> (gone == BLOCKS) }
ltl nobody_sleeps_beside_work { ! <> [] (length > 0 && sleeping != 0) }
ltl all_leave { [] (down -> <> (workers == 0)) }
ltl surplus_leaves { ! <> [] (workers > max) }
#endif
