/*
 * What must always hold: the numbered points of the article, section "What you can rely on", as assertions.
 */
byte acknowledged_x = 0, acknowledged_y = 0;    /* the newest write of each attribute that a client was told of */
byte answered_x = 0, answered_y = 0;            /* the newest of each attribute in any answer */
bool ending = false;        /* somebody began to end the session, or to change its id */
bool ended = false;         /* a client was told that it has ended */
bool buried = false;        /* a tombstone or an alias was stored */
byte destroyed = 0;         /* how often `destroyed` was told */
bool undone_x = false, undone_y = false;        /* R25: a delivery came behind a newer write of the same attribute */
bool crashed = false, lost = false, evicted = false;
byte evicted_epoch = 0;
bool created = true;
byte finished = 0;          /* clients */

/* Nothing comes back from the dead: no record follows a tombstone. An expiry ends only what is due. */
inline check_write(c_kind, c_home) {
    assert(!(buried && c_kind == RECORD));
#if ROTATIONS > 0
    /* All that was acknowledged under the old id stands under the new one. */
    if
    :: c_kind == ALIAS ->
        assert(fresh[c_home].x >= d.x && fresh[c_home].y >= d.y);
        assert(fresh[c_home].x >= acknowledged_x && fresh[c_home].y >= acknowledged_y)
    :: else
    fi;
#endif
    if :: c_kind != RECORD -> buried = true :: else fi
}

/* `destroyed` is told once. */
inline check_destroyed() {
    destroyed++;
    assert(destroyed <= 1)
}

/* No answer is older than what this client has seen or written; in roaming mode and under the cluster lock, than what any
 * answer had shown before the request began. With one writer for each attribute, this is linearizability of each attribute.
 * The auditor begins with all that was acknowledged. A cut-off node may serve what is old (R25). */
inline check_answer() {
#if CUTS > 0
    assert(!auditor || ((undone_x || read_x >= own_x) && (undone_y || read_y >= own_y)));
#else
    assert(read_x >= own_x && read_y >= own_y);
#endif
#if defined(ROAMING) || defined(CLUSTER)
    assert(read_x >= floor_x && read_y >= floor_y);
#endif
    assert(!(auditor && ended))
}

/* Nobody is told that there is no session, unless it was ended, or its home died together with the store's memory, or its record
 * was evicted in the middle of a move. */
inline check_not_found() {
    assert(ending || (lost && crashed) || (evicted && v != evicted_epoch))
}
