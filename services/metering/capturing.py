"""What new events take of the holds that they name, under their customers' locks."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from billing.charging import Captures, Charge
from billing.credit_holds import Hold, capture
from db import credit_holds as rows
from db.credit_holds import CaptureRow, HoldKey
from db.session import Connection

Holds = dict[HoldKey, Hold]


def naming(charges: Iterable[Charge]) -> list[Charge]:
    """Those of the charges whose events name a hold."""
    return [charge for charge in charges if charge.event.hold_id is not None]


def lock(connection: Connection, charges: Sequence[Charge]) -> Holds:
    """Lock the holds that these events name and their customers have, in order. The caller holds the wallets."""
    return rows.lock(connection, sorted({_key_of(charge) for charge in charges}))


def take(holds: Holds, charges: Iterable[Charge], now: datetime) -> Captures:
    """Take from each hold what the events that name it cost, one after the other. The holds stand as after it."""
    return {
        (c.event.tenant_id, c.event.key): capture(holds.get(_key_of(c)), c.wallet_id, c.rated.cost, now)
        for c in charges
    }


def write(connection: Connection, holds: Holds, charges: Iterable[Charge], captures: Captures, now: datetime) -> None:
    """Write what was taken, and how the holds and what the wallets reserve stand after it."""
    written = []
    for charge in charges:
        tenant_id, customer_id, hold_id = _key_of(charge)
        captured = captures[tenant_id, charge.event.key]
        written.append(CaptureRow(tenant_id, charge.event.key, customer_id, hold_id, captured))
    rows.capture(connection, holds, written, now)


def _key_of(charge: Charge) -> HoldKey:
    event = charge.event
    assert event.hold_id is not None
    return event.tenant_id, event.customer_id, event.hold_id
