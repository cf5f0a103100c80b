/*
 * What goes wrong, at any moment that the scope allows.
 */
byte crashes = CRASHES, losses = LOSSES, evictions = EVICTIONS, lock_losses = LOCK_LOSSES, expiries = EXPIRIES, lapses = LAPSES;

/* Outside of the documented exception, the store forgets only what every node has heard of. */
#ifdef EXCEPTION
#define MAY_FORGET created
#else
#define MAY_FORGET (created && POLLED && RESOLVED)
#endif

/* Counters that are not there count as changed (R17). */
inline forget_counters() {
#ifdef BREAK_R17_COUNTER
    moved[0] = false; moved[1] = false;
#if NODES > 2
    moved[2] = false;
#endif
#else
    moved[0] = true; moved[1] = true; sweeping[0] = true; sweeping[1] = true;
#if NODES > 2
    moved[2] = true; sweeping[2] = true;
#endif
#endif
}

#if EXPIRIES > 0
inline age_copy(q) { copy[q].due = copy[q].has }
#endif

proctype Faults()
{
    byte q = 0;
end:
    do
    :: false                    /* a scope may have no faults at all */
#if CRASHES > 0
    :: atomic { crashes > 0 ->
            if
            :: q = 0
            :: q = 1
#if NODES > 2
            :: q = 2
#endif
            fi;
            crashes--; crashed = true; incarnation[q] = !incarnation[q];
            forget_copy(q); lock[q] = false; noticed[q] = false; moved[q] = false; asking[q] = false; sweeping[q] = false;
            q = 0 }
#endif
#if LOSSES > 0
    :: atomic { losses > 0 && MAY_FORGET ->
            losses--; lost = true;
            forget_d(); v = 0; forget_counters();
#ifdef EXCEPTION
            buried = false; ended = false;                  /* the exception: an end may be undone */
#endif
        }
#endif
#if EVICTIONS > 0
    :: atomic { evictions > 0 && MAY_FORGET ->
            evictions--;
            if
            :: kind != NOTHING -> evicted = true; evicted_epoch = d.epoch; forget_d()
            :: v != 0 -> v = 0
            fi }
#endif
#if UNKNOWNS > 0
    :: atomic { late != 0 ->
            if
            :: late == LATE_SWAP && late_token && kind != NOTHING -> write_d(late_kind, late_d.home, late_d.epoch, late_d.x, late_d.y)
            :: late == LATE_ADD && kind == NOTHING -> write_d(late_kind, late_d.home, late_d.epoch, late_d.x, late_d.y)
            :: late == LATE_INCREMENT && v != 0 -> v = v + 1; CLOCK_AHEAD
            :: late == LATE_SET_V -> v = 16
            :: late == LATE_ADD_V && v == 0 -> v = 16
            :: skip
            fi;
            late = 0; late_token = false; late_kind = 0; late_d.home = 0; late_d.epoch = 0; late_d.x = 0; late_d.y = 0 }
#endif
#if LOCK_LOSSES > 0
    :: atomic { lock_losses > 0 && l != 0 -> lock_losses--; l = 0 }
#endif
#if CUTS > 0
    :: atomic { cuts > 0 && !lock[0] && !polling[0] -> cuts--; cut[0] = true }
    :: atomic { cuts > 0 && !lock[1] && !polling[1] -> cuts--; cut[1] = true }
    :: cut[0] -> cut[0] = false
    :: cut[1] -> cut[1] = false
#endif
#if EXPIRIES > 0
    /* Nobody asks for as long as the idle limit, or for as long as a foreign judge allows: whatever exists is due. */
    :: atomic { expiries > 0 && IDLE && kind == RECORD ->
            expiries--;
            if :: due = 1 :: due = 2 fi;
            age_copy(0); age_copy(1)
#if NODES > 2
            ; age_copy(2)
#endif
        }
#endif
#if LAPSES > 0
    /* A tombstone lives as long as a session: whatever is older has expired with it (R15). A node may have been asleep for
     * all that time. */
    :: atomic { lapses > 0 && IDLE && kind == TOMBSTONE ->
            lapses--;
            forget_d(); v = 0;
#ifndef BREAK_R15_LIFE
            forget_copy(0); forget_copy(1)
#endif
        }
#endif
    od
}
