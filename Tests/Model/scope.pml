/*
 * The scope of a run: how many of everything, all of them totals. `run` has the scopes that are searched; these defaults are
 * what a scope does not mention.
 */
#ifndef NODES
#define NODES 2
#endif
#ifndef CLIENTS
#define CLIENTS 2           /* client 0 writes attribute x, client 1 writes y: both have the same session */
#endif
#ifndef REQUESTS
#define REQUESTS 2          /* of client 0 */
#endif
#ifndef REQUESTS1
#define REQUESTS1 REQUESTS  /* of client 1 */
#endif
#ifndef STRAYS
#define STRAYS 2            /* requests that the balancer sends to another node than the cookie's */
#endif
#ifndef CRASHES
#define CRASHES 0           /* a node dies and is started anew under its name */
#endif
#ifndef LOSSES
#define LOSSES 0            /* the store forgets everything */
#endif
#ifndef EVICTIONS
#define EVICTIONS 0         /* the store forgets d or v alone */
#endif
#ifndef UNKNOWNS
#define UNKNOWNS 0          /* a write's outcome is unknown: it happened, happens later, or never does */
#endif
#ifndef ENDS
#define ENDS 0              /* requests that invalidate the session */
#endif
#ifndef ROTATIONS
#define ROTATIONS 0         /* requests that change the session's id */
#endif
#ifndef EXPIRIES
#define EXPIRIES 0          /* nobody asks for the session until its idle limit has passed */
#endif
#ifndef LAPSES
#define LAPSES 0            /* a tombstone comes to the end of its own time to live */
#endif
#ifndef CUTS
#define CUTS 0              /* a node is cut off from the store for a while */
#endif
#ifndef LOCK_LOSSES
#define LOCK_LOSSES 0       /* the cluster lock is lost while somebody is in it */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2          /* attempts of a sequence before 503; 5 in the code */
#endif

/*
 * Further switches:
 *   ROAMING     roaming mode                     CLUSTER   the lock's scope is the cluster
 *   CREATE      begins with the creation of the session, not with a session that is there
 *   ANY_ROUTE   a client's first cookie may name any node
 *   EXCEPTION   the store may forget while a change is not yet known to every node: the documented exception
 *   SLOW        a request may take longer than the two polls that R19 waits
 *   BREAK_Rn…   a rule is not kept: README.md has the list
 */

/* What key d holds. */
#define NOTHING   0
#define RECORD    1
#define TOMBSTONE 2
#define ALIAS     3         /* R24: what is left of an id that was changed */

/* What became of a store operation. */
#define STORED   0
#define CONFLICT 1
#define MISSING  2
#define UNKNOWN  3

/* What a request does. */
#define READ       0
#define WRITE      1
#define INVALIDATE 2
#define ROTATE     3
