"""Ladders that add up over a period: how far a customer has climbed decides what the next unit costs.

That is known only under the customer's lock, so events with such prices are rated again there. The costs
telescope: whatever the order of events, a period's sum is the ladder's cost of its total quantity. Each price
has a climb of its own: one that changes within the month starts at its first rung, and late events of the old
one go on where that stood.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from msgspec.structs import replace

from billing.charging import Charge
from billing.money import ZERO
from billing.prices import cost_of
from billing.rating import Line, total
from db import periods as period_rows
from db import usage as usage_rows
from db.periods import Climb
from db.session import Connection
from services.preparing import items_as_json


def climb(connection: Connection, charges: Iterable[Charge]) -> bool:
    """Rate again, in place, what depends on the period so far; whether anything did.

    The caller holds the customers' wallets.
    """
    climbing = [charge for charge in charges if any(_adds_up(line) for line in charge.rated.lines)]
    if not climbing:
        return False
    added: defaultdict[Climb, Decimal] = defaultdict(Decimal)
    for charge in climbing:
        for line in filter(_adds_up, charge.rated.lines):
            added[_climb_of(charge, line)] += line.item.quantity
    reached = period_rows.climb(connection, dict(sorted(added.items())))
    before = {key: reached[key] - quantity for key, quantity in added.items()}
    for charge in climbing:
        _rate_again(charge, before)
    _write(connection, climbing)
    return True


def _rate_again(charge: Charge, before: dict[Climb, Decimal]) -> None:
    lines = []
    for line in charge.rated.lines:
        if not _adds_up(line):
            lines.append(line)
            continue
        assert line.price is not None
        key = _climb_of(charge, line)
        lines.append(replace(line, cost=cost_of(line.price, line.item.quantity, before[key])))
        before[key] += line.item.quantity
    charge.rated = replace(charge.rated, lines=tuple(lines), cost=total(lines))


def _write(connection: Connection, climbing: Sequence[Charge]) -> None:
    costs = [(c.event.tenant_id, c.event.key, items_as_json(c.rated.lines), c.rated.cost) for c in climbing]
    usage_rows.set_costs(connection, costs)


def _adds_up(line: Line) -> bool:
    return line.price is not None and line.price.adds_up_over_period and line.item.quantity > ZERO


def _climb_of(charge: Charge, line: Line) -> Climb:
    assert line.price is not None
    tally = charge.tally
    return tally.tenant_id, tally.customer_id, tally.period.starts_at, line.price.price_id
