"""What ends a wait: a new card, or a person."""

from datetime import datetime
from functools import partial

from billing.payments import ENDS_WITH_A_CARD
from db import collecting
from db.session import Connection, in_transaction

REPAIRED_AT_ONCE = 500


def find_cards_after_all(now: datetime) -> int:
    """Re-open what waits for a card although there is one; for how many customers.

    A payment that found no card and a card that found no payment may have passed one another, uncommitted.
    """
    found = in_transaction(lambda connection: collecting.with_a_card_after_all(connection, REPAIRED_AT_ONCE))
    for tenant_id, customer_id in found:
        in_transaction(partial(new_card, tenant_id=tenant_id, customer_id=customer_id, now=now))
    return len(found)


def new_card(connection: Connection, tenant_id: str, customer_id: str, now: datetime) -> int:
    """A customer has another card: what waits for one is due at once; how many payments.

    Takes the locks of payments, so call it after any lock of wallets.
    """
    collecting.release(connection, tenant_id, customer_id, [reason.value for reason in ENDS_WITH_A_CARD])
    return collecting.reopen(connection, tenant_id, customer_id, now, source="card", why="there is a new card")
