/*
 * Degraded mode: R25, for a node that is cut off from the store and goes on alone.
 */
#if CUTS > 0
bool cut[NODES];
byte unsent_x[NODES], unsent_y[NODES];      /* acknowledged here and never sent: the newest of each attribute; 0: nothing */
byte cuts = CUTS;
#define NOT_CUT(q) !cut[q]
#define UNSENT(q) (unsent_x[q] + unsent_y[q] > 0)
#define DELIVERED (!UNSENT(0) && !UNSENT(1) && !cut[0] && !cut[1])

/* From the copy alone; what is written waits. An end or a new id cannot wait: 503. */
inline serve_degraded() {
    atomic {
        if
        :: op == READ -> read_x = copy[n].x; read_y = copy[n].y; own_x = read_x; own_y = read_y; route = n
        :: op == WRITE ->
            written++;
            if
            :: me == 0 -> copy[n].x = written; unsent_x[n] = written; acknowledged_x = written; own_x = written
            :: else -> copy[n].y = written; unsent_y[n] = written; acknowledged_y = written; own_y = written
            fi;
            route = n
        :: else
        fi;
        leave(); clean_up(); goto next }
}

/* Delivers what could not be sent, when the store can be asked again: a commit like any other, by R7 or R9. */
proctype Courier(byte n)
{
    byte me = CLIENTS + 1 + n, found = 0, seen_v = 0, new_epoch = 0, result = 0;
    byte dirty_x = 0, dirty_y = 0, put_x = 0, put_y = 0;
    bool mine = false;
    Record rec;
end:
    do
    :: atomic { UNSENT(n) && !cut[n] && !lock[n] -> lock[n] = true; dirty_x = unsent_x[n]; dirty_y = unsent_y[n] };
deliver:
        atomic { READ_D };
        READ_V;
        if
        :: found == RECORD ->
            if
            :: copy[n].has && rec.home == copy[n].home && rec.epoch == copy[n].epoch -> new_epoch = rec.epoch
            :: else ->
                raise_v(rec.epoch);
                TELL(rec.home)
            fi;
#ifdef BREAK_R25
            if :: copy[n].has -> rec.x = copy[n].x; rec.y = copy[n].y :: else fi;
#endif
#ifdef BREAK_R25_SWAP
            atomic { OVERLAY(rec.x, rec.y); write_d(RECORD, n, new_epoch, put_x, put_y); result = STORED };
#else
            swap_d(read_token[me], RECORD, n, new_epoch, rec.x, rec.y);
#endif
            if
            :: result != STORED -> goto deliver
            :: else
            fi;
            atomic {
                /* Of two writes of an attribute the later commit wins, and this is it: the exception for degraded sessions. */
                if :: dirty_x && dirty_x < rec.x -> undone_x = true :: else fi;
                if :: dirty_y && dirty_y < rec.y -> undone_y = true :: else fi;
                keep_copy(n, new_epoch, put_x, put_y) }
        :: else -> forget_copy(n)           /* ended meanwhile: dropped */
        fi;
        atomic {
            unsent_x[n] = 0; unsent_y[n] = 0; lock[n] = false; noticed[n] = false;
            found = 0; seen_v = 0; new_epoch = 0; result = 0; dirty_x = 0; dirty_y = 0; put_x = 0; put_y = 0;
            rec.home = 0; rec.epoch = 0; rec.x = 0; rec.y = 0; read_token[me] = false }
    od;
aborted:
    skip
}
#else
#define NOT_CUT(q) true
#define UNSENT(q) false
#define DELIVERED true
#endif
