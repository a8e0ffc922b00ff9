"""Closing a period: from then on nothing counts in it, and its statement can be made at leisure.

The customer's wallets are held while `closed_at` is set, and nothing else is done under them: whoever is recording
usage at that moment comes before it, and is in the statement, or after it, and counts in the next period. What is
closed does not change, so it is summed without a lock.
"""

from datetime import datetime

from config.logging import logger
from db import months as rows
from db import wallets as wallet_rows
from db.session import Connection, in_transaction

log = logger(__name__)

CLOSED_AT_ONCE = 500


def close_due(now: datetime) -> int:
    """Close some of the periods whose grace has passed; how many were due, none when all is done."""

    def work(connection: Connection) -> tuple[int, int]:
        due = rows.to_close(connection, now, CLOSED_AT_ONCE)
        if not due:
            return 0, 0
        wallet_rows.lock_of_customers(connection, sorted({(tenant_id, customer) for tenant_id, customer, _ in due}))
        return len(due), rows.close(connection, due, now)

    found, closed = in_transaction(work)
    if closed:
        log.info("periods closed", periods=closed)
    return found
