"""The proof of nodes that stand still: one that owns a migration in flight is stopped for twice its lease, and woken.

`python -m jivsd.proof.woken --rounds 200` on private PostgreSQL and Redis servers and three real daemons. Others have
gone on with the migration by then; what the woken node writes, into the journal or into the migration's target, would
be written under a stale epoch. Both databases note who writes what, and afterwards that is compared with who could.
"""
