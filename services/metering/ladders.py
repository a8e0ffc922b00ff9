"""Ladders that add up over a period: how far a customer has climbed decides what the next unit costs.

That is known only under the customer's lock, so events with such prices are rated again there. The costs
telescope: whatever the order of events, a period's sum is the ladder's cost of its total quantity. Each price
has a climb of its own: one that changes within the month starts at its first rung, and late events of the old
one go on where that stood.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from billing import rating
from billing.charging import Charge
from billing.rating import adds_up
from db import periods as period_rows
from db import usage as usage_rows
from db.periods import Climb
from db.session import Connection
from services.metering.preparing import items_as_json

PeriodKey = tuple[str, str, datetime]
"""tenant, customer, start"""


def climb(connection: Connection, charges: Iterable[Charge]) -> bool:
    """Rate again, in place, what depends on the period so far; whether anything did.

    The caller holds the customers' wallets.
    """
    climbing = [charge for charge in charges if any(adds_up(line) for line in charge.rated.lines)]
    if not climbing:
        return False
    added: defaultdict[Climb, Decimal] = defaultdict(Decimal)
    for charge in climbing:
        for line in filter(adds_up, charge.rated.lines):
            assert line.price is not None
            added[*_period_of(charge), line.price.price_id] += line.item.quantity
    reached = period_rows.climb(connection, dict(sorted(added.items())))
    before: defaultdict[PeriodKey, dict[int, Decimal]] = defaultdict(dict)
    for key, quantity in added.items():
        before[key[:3]][key[3]] = reached[key] - quantity
    for charge in climbing:
        charge.rated = rating.climb(charge.rated, before[_period_of(charge)])
    _write(connection, climbing)
    return True


def _write(connection: Connection, climbing: Sequence[Charge]) -> None:
    costs = [(c.event.tenant_id, c.event.key, items_as_json(c.rated.lines), c.rated.cost) for c in climbing]
    usage_rows.set_costs(connection, costs)


def _period_of(charge: Charge) -> PeriodKey:
    tally = charge.tally
    return tally.tenant_id, tally.customer_id, tally.period.starts_at
