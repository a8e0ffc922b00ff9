"""A usage worker the way people usually write it: one Celery task, one row and one transaction per event.

The lower of the two fixed points that the project is measured against. It is meant to be honest: no step
is there to slow it down, and where a competent author would tune, it is tuned.

- Celery prefork with two children, `acks_late`, JSON, no results, no events, no gossip, no mingle, no
  heartbeats, logs at `WARNING`. Prefetch multipliers 1, 4, 32 and 128 were tried: on two cores, which the
  children, Celery's main process and the servers fill, all came out alike; 4 stays, Celery's own default.
- SQLAlchemy Core on psycopg 3, statements built once and prepared by the server; the same steps through the
  ORM took four times the CPU. One connection per child, kept open. Prices cached in the child. A Postgres
  with its default durability.
- The event is stored with its priced items; the wallet is locked, debited and has a ledger with running
  balances; the month's tokens are counted; a payment row is made for each tier that is crossed; a key that
  was seen before is charged no second time.

Frozen like the ceiling: it imports nothing of the project, and to change it is to lose the comparison.
"""
