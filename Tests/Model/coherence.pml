/*
 * The session coherence protocol as a model: one session, two or three nodes, one or two clients, and what may go wrong.
 *
 * The article Coherence (Sources/Limpet/Limpet.docc) is the text; R1 to R25 beside a line name the rule that the line models.
 * README.md tells what is checked, what is left out, and what was found. Nobody types the commands below: `run` does.
 *
 *     spin -a -DLOSSES=1 coherence.pml && cc -O2 -DSAFETY -DNOFAIR -DCOLLAPSE -o pan pan.c && ./pan -m300000
 *     spin -t -p -g -DLOSSES=1 coherence.pml                 # tells the story of the error that was found
 */
#include "scope.pml"
#include "node.pml"
#include "store.pml"
#include "properties.pml"
#include "degraded.pml"
#include "reading.pml"
#include "missing.pml"
#include "writing.pml"
#include "ending.pml"
#include "rotation.pml"
#include "requests.pml"
#include "watch.pml"
#include "faults.pml"

init {
    atomic {
#ifdef CREATE
        created = false;
#else
        /* Node 0 is home, and everything is in order. */
        v = 16; wall = 32;
        kind = RECORD; d.home = 0; d.epoch = 16;
        copy[0].has = true; copy[0].home = 0; copy[0].epoch = 16;
#endif
        run Watch(0);
        run Watch(1);
#if NODES > 2
        run Watch(2);
#endif
#if CUTS > 0
        run Courier(0);
        run Courier(1);
#endif
        run Faults();
        run Client(0, false);
#if CLIENTS > 1
        run Client(1, false);
#endif
    };
    /* Everybody has finished, and every node has polled: one more read, anywhere, sees all that was acknowledged. */
    atomic { finished == CLIENTS && POLLED && DELIVERED -> run Client(CLIENTS, true) }
}
