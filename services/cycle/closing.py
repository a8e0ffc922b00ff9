"""Closing a period: from then on nothing counts in it, and its statement can be made at leisure.

The customer's wallets are held while `closed_at` is set, and nothing else is done under them: whoever is recording
usage at that moment comes before it, and is in the statement, or after it, and counts in the next period. What is
closed does not change, so it is summed without a lock.
"""

from collections.abc import Sequence
from datetime import datetime

from billing.payments import AlertKind
from config.logging import logger
from db import months as rows
from db import wallets as wallet_rows
from db.months import PeriodKey
from db.session import LOCK_TRIES_OF_PARTS, Connection, in_transaction
from services import alone
from services.alone import Identity

log = logger(__name__)

CLOSED_AT_ONCE = 500


def close_due(now: datetime) -> int:
    """Close some of the periods whose grace has passed; how many were due, none when all is done.

    A customer who is held keeps nobody else's open.
    """
    due: dict[Identity, PeriodKey] = {}
    customers: list[Identity] = []

    def together(connection: Connection) -> int:
        due.clear()
        due.update((key[:2], key) for key in rows.to_close(connection, now, CLOSED_AT_ONCE))
        customers[:] = sorted(due)
        return _close(connection, list(due.values()), now)

    return alone.worked(
        lambda: in_transaction(together, lock_tries=LOCK_TRIES_OF_PARTS),
        lambda identity: in_transaction(
            lambda connection: _close(connection, [due[identity]], now), lock_tries=LOCK_TRIES_OF_PARTS
        ),
        customers,
        lambda identity, error: alone.tell(identity, AlertKind.MONTH_FAILS, "a period can't be closed", error, now),
    )


def _close(connection: Connection, due: Sequence[PeriodKey], now: datetime) -> int:
    if not due:
        return 0
    wallet_rows.lock_of_customers(connection, sorted(key[:2] for key in due))
    closed = rows.close(connection, due, now)
    if closed:
        log.info("periods closed", periods=closed)
    return len(due)
