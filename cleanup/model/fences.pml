/*
 * What the fences of ../PROTOCOL.md are for. One publisher and one worker, the only one there may be, on a memory
 * that delays stores.
 *
 * A store goes into a slot of its own in the thread's buffer, and reaches memory whenever `memory` likes; two slots
 * of one buffer may be emptied in either order. A fence waits until the thread's own buffer is empty. Modelled so
 * are the stores that the protocol's pairs are about: the publisher's addition to `length`, and the worker's stores
 * to `asleep` and `workers`, together with the release of the lock behind them, which takes effect after them.
 * Everything else is as in queue.pml, and takes effect at once: claims, which are read-modify-writes of memory, the
 * taking of the lock, what a waker does under it, and the flag to park on.
 *
 * Features, by -D:
 *   DEATH       the worker dies once, after it has run a block
 *   RETIRE      it may time out when it sleeps, and then leaves if nobody has chosen it
 *
 * Mutants: NO_PUBLISH_FENCE, NO_SLEEP_FENCE, NO_LOSS_FENCE; and RETIRE_NO_LOOK with WORKERS_FIRST, see README.md.
 */

#define BLOCKS 2
#define EMPTY 7                             /* no store waits in the slot */

byte length;
byte asleep;
byte workers = 1;
bool locked;
bool sleeping;                              /* the list of sleepers: it is on it, or not */
bool called;                                /* the flag to park on */
byte ran;                                   /* blocks that have been run */
bool died;

/* The publisher's buffer. An addition, and so 0 is an empty slot. */
byte add_out;

/* The worker's buffer. */
byte asleep_out = EMPTY;
byte workers_out = EMPTY;
bool unlock_out;

active proctype memory() {
end_idle:
    do
    :: add_out > 0 -> d_step { length = length + add_out; add_out = 0 }
    :: asleep_out != EMPTY -> d_step { asleep = asleep_out; asleep_out = EMPTY }
    :: workers_out != EMPTY -> d_step { workers = workers_out; workers_out = EMPTY }
    :: asleep_out == EMPTY && workers_out == EMPTY && unlock_out ->
        d_step { locked = false; unlock_out = false }
    od
}

inline acquire() {
    atomic { !locked -> locked = true }
}

/* ---- the publisher ------------------------------------------------------------------------------------------- */

/* W1 to W5. Whoever wakes sees its own addition, wherever that is. */
inline wake(seen) {
    acquire();                                                                              /* W1 */
    if
    :: seen > 0 ->                                                                          /* W2 */
        if
        :: sleeping -> d_step { sleeping = false; asleep = 0; woken = true }                /* W3 */
        :: else ->
            if
            :: workers == 0 -> workers = 1; demanded = true                                 /* W4 */
            :: else -> skip
            fi
        fi
    :: else -> skip
    fi;
    atomic { add_out == 0 -> locked = false };                                              /* W5 */
    if
    :: woken -> d_step { called = true; woken = false }
    :: demanded -> atomic { run worker(); demanded = false }
    :: else -> skip
    fi
}

proctype publisher() {
    byte published; bool woken; bool demanded;
    do
    :: published < BLOCKS ->
        atomic { add_out == 0 -> add_out = 1; published++ };                                /* P2 */
#ifndef NO_PUBLISH_FENCE
        add_out == 0;                                                                       /* P3 */
#endif
        if
        :: length + add_out > 0 ->                                                          /* P4 */
            if
            :: asleep > 0 -> wake(length + add_out)
            :: else ->
                if
                :: workers < 1 -> wake(length + add_out)
                :: else -> skip
                fi
            fi
        :: else -> skip
        fi
    :: else -> break
    od;
    /* If a block is never run, this is where Spin finds it stuck. */
    ran == BLOCKS
}

/* ---- the worker ---------------------------------------------------------------------------------------------- */

inline store(slot, value) {
    atomic { slot == EMPTY -> slot = value }
}

inline fence() {
    asleep_out == EMPTY && workers_out == EMPTY && !unlock_out
}

/* Under the lock the release is not in the buffer yet, so that SleepFence and LossFence are the same fence. */
inline lost() {
    unlock_out = true;
#ifndef NO_LOSS_FENCE
    fence();
#endif
    if
    :: length > 0 -> wake(length)                                                           /* L2 */
    :: else -> skip
    fi
}

proctype worker() {
    bool found; bool woken; bool demanded;
claim:
    if
    :: atomic { length > 0 -> length--; ran++ }                                             /* C1 */
    :: else -> goto sleep
    fi;
#ifdef DEATH
    if
    :: !died ->
        died = true;
        acquire();
        store(workers_out, 0);                                                              /* L1 */
        lost();
        goto left
    :: true
    fi;
#endif
    goto claim;

sleep:
    acquire();                                                                              /* S1 */
    store(asleep_out, 1);                                                                   /* S2 */
#ifndef NO_SLEEP_FENCE
    fence();                                                                                /* S3 */
#endif
    found = (length > 0);                                                                   /* S4 */
    if
    :: found -> store(asleep_out, 0); atomic { found = false; unlock_out = true }; goto claim
    :: else -> atomic { sleeping = true; unlock_out = true }                                /* S5 */
    fi;

end_parked:
    if
    :: atomic { called -> called = false }                                                  /* S6 */
#ifdef RETIRE
    :: true ->                                      /* The time is up. */
        acquire();
        if
        :: sleeping ->
            sleeping = false;
#ifdef WORKERS_FIRST
            store(workers_out, 0);
            store(asleep_out, 0);
#else
            store(asleep_out, 0);
            store(workers_out, 0);                                                          /* L1 */
#endif
#ifdef RETIRE_NO_LOOK
            unlock_out = true;
#else
            lost();
#endif
            goto left
        :: else -> unlock_out = true; atomic { called -> called = false }
        fi
#endif
    fi;
    goto claim;

left:
    skip
}

init {
    atomic { run publisher(); run worker() }
}
