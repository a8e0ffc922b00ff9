"""What ends a wait: a new card, or a person."""

from datetime import datetime

from billing.payments import ENDS_WITH_A_CARD
from db import collecting
from db.session import Connection


def new_card(connection: Connection, tenant_id: str, customer_id: str, now: datetime) -> int:
    """A customer has another card: what waits for one is due at once; how many payments.

    Takes the locks of payments, so call it after any lock of wallets.
    """
    collecting.release(connection, tenant_id, customer_id, [reason.value for reason in ENDS_WITH_A_CARD])
    return collecting.reopen(connection, tenant_id, customer_id, now, source="card", why="there is a new card")
