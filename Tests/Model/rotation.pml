/*
 * The session gets another id: R24.
 */
#if ROTATIONS > 0
Record fresh[CLIENTS];      /* what a client's rotation stored under a new id, which nobody knows before the alias is there */
bool rotated = false;       /* a client was told its new id */
byte rotations = ROTATIONS;

inline rotate_id() {
    /* The record of the new id, with this request's changes: none, to keep the model small. From here on the old id is not
     * read from memory: either the alias comes, or the next request finds out. */
    atomic {
        ALIVE;
        fresh[me].x = copy[n].x; fresh[me].y = copy[n].y; fresh[me].home = copy[n].home; fresh[me].epoch = copy[n].epoch;
        copy[n].suspect = 1 };
swap_again:
    atomic { if :: tries > ATTEMPTS -> goto busy :: else -> tries++ fi; READ_D };
    READ_V;
    if
    :: found == TOMBSTONE -> goto gone
#ifdef BREAK_R24_NONCE
    :: found == ALIAS -> goto new_id
#else
    :: found == ALIAS && rec.home == me -> goto new_id      /* its own nonce: an unknown outcome is settled */
    :: found == ALIAS && rec.home != me -> goto busy        /* another one was first; the fresh record is deleted */
#endif
#ifdef BREAK_R24_MISSING
    :: found == NOTHING -> add_d(ALIAS, me, 0, copy[n].x, copy[n].y)
#else
    :: found == NOTHING -> goto busy                        /* lost: whoever has it puts it back */
#endif
    :: found == RECORD ->
#ifndef BREAK_R24_CARRY
        /* Changed elsewhere meanwhile: the newer attributes are carried over. */
        if
        :: rec.home != fresh[me].home || rec.epoch != fresh[me].epoch ->
            atomic { ALIVE; fresh[me].x = rec.x; fresh[me].y = rec.y }
        :: else
        fi;
#endif
        raise_v(rec.epoch);
        TELL(rec.home);
        swap_d(read_token[me], ALIAS, me, 0, rec.x, rec.y)
    fi;
    if
    :: result == STORED -> goto new_id
    :: else -> goto swap_again
    fi
}

/* Nobody gets the new id through the old one, and at most one rotation wins. */
inline tell_new_id() {
    atomic {
        ALIVE;
        assert(d.home == me && !rotated);
        rotated = true; ended = true;
        forget_copy(n); leave(); clean_up(); break }
}

/* The old id reads the session as it was, for ten seconds; then it is a tombstone. */
inline read_alias() {
    atomic {
        ALIVE;
        if
        :: op == READ && !auditor -> read_x = rec.x; read_y = rec.y;
#ifdef BREAK_R24_ALIAS
            goto new_id;
#endif
            check_answer();
            own_x = read_x; own_y = read_y;
            forget_copy(n); leave(); clean_up(); goto next
        :: goto gone
        fi }
}
#else
inline rotate_id() { skip }
inline tell_new_id() { skip }
inline read_alias() { skip }
#endif
