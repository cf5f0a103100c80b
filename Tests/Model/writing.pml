/*
 * A request's changes become part of the session: R6 to R13.
 */

#ifdef CREATE
/* R16: v, then d, then the cookie. R11: v is never set. */
inline create_session() {
    do
    :: atomic {
        if
#ifdef BREAK_R11
        :: v = 16; result = STORED
        :: unknowns > 0 -> unknowns--; result = UNKNOWN; if :: v = 16 :: late = LATE_SET_V :: skip fi
#else
        :: v == 0 -> v = 16; result = STORED
        :: v != 0 -> result = STORED
        :: unknowns > 0 -> unknowns--; result = UNKNOWN; if :: v == 0 -> v = 16 :: late = LATE_ADD_V :: skip fi
#endif
        fi;
        if :: wall < 32 -> wall = 32 :: else fi };
        if :: result == STORED -> break :: else fi
    od;
    atomic { write_d(RECORD, 0, 16, 0, 0); n = 0; keep_copy(0, 16, 0, 0); created = true; result = 0 }
}
#endif

/* The handler: reads both attributes, and writes its client's own. */
inline handle() {
    atomic {
        ALIVE;
#if EXPIRIES > 0
        if
        :: copy[n].due -> ending = true; judging = true; judged_home = n; judged_epoch = copy[n].epoch; tries = 0;
            goto expire
        :: else
        fi;
#endif
        read_x = copy[n].x; read_y = copy[n].y; tries = 0; asked = false;
        if
        :: op == READ -> goto answer
        :: op == INVALIDATE -> ending = true; goto bury
        :: op == ROTATE -> ending = true; goto rotate
        :: op == WRITE ->
            written++;
            if :: me == 0 -> dirty_x = written :: else -> dirty_y = written fi
        fi;
#ifdef BREAK_R13
        if :: me == 0 -> acknowledged_x = written :: else -> acknowledged_y = written fi;
#endif
    }
}

/* R7: one swap under the copy's own epoch. */
inline commit() {
    if
    :: !has_token[n] ->
        atomic {
            ALIVE;
            if
            :: kind == NOTHING -> result = MISSING
            :: kind == TOMBSTONE -> goto gone
            :: kind == ALIAS -> goto busy
            :: kind == RECORD && SAME(n) -> has_token[n] = true; copy_token[n] = true; result = STORED      /* R8 */
            :: kind == RECORD && !SAME(n) -> result = CONFLICT
            fi };
        if
        :: result == CONFLICT -> goto merge
        :: result == MISSING -> goto missing
        :: else
        fi
    :: else
    fi;
#ifdef ROAMING
    READ_V;
    raise_v(copy[n].epoch);
#ifdef BREAK_R10
    /* Stays at home where it was: nobody has to be told. */
    swap_d(copy_token[n], RECORD, copy[n].home, new_epoch, copy[n].x, copy[n].y);
#else
    TELL(copy[n].home);
    swap_d(copy_token[n], RECORD, n, new_epoch, copy[n].x, copy[n].y);
#endif
#elif defined(BREAK_R7)
    swap_d(kind == RECORD, RECORD, n, copy[n].epoch, copy[n].x, copy[n].y);
#else
    swap_d(copy_token[n], RECORD, n, copy[n].epoch, copy[n].x, copy[n].y);
#endif
    if
    :: result == STORED ->
        atomic {
            ALIVE;
            copy[n].x = put_x; copy[n].y = put_y;
#ifdef ROAMING
            copy[n].epoch = new_epoch;
            if :: noticed[n] -> copy[n].suspect = 1 :: else -> copy[n].suspect = 0 fi;
#ifndef BREAK_R10
            copy[n].home = n;
#endif
#endif
            has_token[n] = false; copy_token[n] = false;
            goto answer }
    :: result == CONFLICT -> skip
    :: result == MISSING -> goto missing
    :: result == UNKNOWN ->
#ifdef BREAK_R12
        atomic {
            ALIVE;
            copy[n].x = put_x; copy[n].y = put_y; has_token[n] = false; copy_token[n] = false;
            leave(); clean_up(); goto next }
#else
        goto busy                                           /* R12 */
#endif
    fi
}

/* R9: the changes of this request, and nothing else, on the newer record; who merges becomes home. */
inline merge_changes() {
    atomic { if :: tries >= ATTEMPTS -> goto busy :: else -> tries++ fi; READ_D };
    READ_V;
    if
    :: found == TOMBSTONE -> goto gone
    :: found == ALIAS -> goto busy                          /* this client's new id must not be taken from it */
    :: found == NOTHING -> goto missing
    :: found == RECORD
    fi;
#ifdef CLUSTER
    goto busy;                                              /* the lock was lost */
#endif
    raise_v(rec.epoch);
#if !defined(BREAK_R6) && !(defined(ROAMING) && defined(BREAK_R10))
    TELL(rec.home);
#endif
#if defined(BREAK_R9)
    atomic { rec.x = copy[n].x; rec.y = copy[n].y };
#endif
#if !(defined(ROAMING) && defined(BREAK_R10)) && !(!defined(ROAMING) && defined(BREAK_R9_HOME))
    rec.home = n;
#endif
    swap_d(read_token[me], RECORD, rec.home, new_epoch, rec.x, rec.y);
    if
    :: result == STORED
#ifndef BREAK_R12_COPY
    :: result == UNKNOWN -> keep_suspect(new_epoch); goto busy
#else
    :: result == UNKNOWN -> goto busy
#endif
    :: result != STORED && result != UNKNOWN -> goto merge
    fi;
#ifdef BREAK_R6
    TELL(rec.home);
#endif
    atomic {
        ALIVE;
#ifdef ROAMING
        keep_copy(rec.home, new_epoch, put_x, put_y);
#else
        if
        :: rec.home == n -> keep_copy(n, new_epoch, put_x, put_y)
        :: else -> forget_copy(n)
        fi;
#endif
        goto answer }
}
