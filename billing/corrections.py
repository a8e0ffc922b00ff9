"""Corrections: what is done to an event after it was charged, in terms of what it has burned. Pure.

What an event has burned is kept by grant and debt, in signed amounts as a ledger entry's parts have it: a grant that
lost 3 is `-3`, debt that grew by 2 is `2`. Together they come to what the event costs. A correction leaves something
else of it, and that is kept with the correction: so the next one knows what there is to undo.
"""

from collections.abc import Mapping
from decimal import Decimal

from billing.grants import DEBT, Grant, in_burn_order
from billing.money import ZERO

Burned = dict[str, Decimal]
"""grant or debt: signed amount"""


def cost_of_burned(burned: Mapping[str, Decimal]) -> Decimal:
    """What was burned in all.

    >>> cost_of_burned({"g": Decimal(-3), "debt": Decimal(2)})
    Decimal('5')
    """
    return sum((amount if name == DEBT else -amount for name, amount in burned.items()), ZERO)


def less(burned: Mapping[str, Decimal], amount: Decimal, grants: Mapping[str, Grant]) -> Burned:
    """What is left of a burn when so much of it was given back: as `billing.grants.give_back` undoes it.

    Debt first, then the grant that was burned last.
    """
    left = dict(burned)
    of_debt = min(amount, left.get(DEBT, ZERO))
    rest = amount - of_debt
    if of_debt:
        left[DEBT] -= of_debt
    named = [grants[name] for name in burned if name != DEBT]
    for grant in reversed(in_burn_order(named)):
        given = min(rest, -left[grant.grant_id])
        left[grant.grant_id] += given
        rest -= given
    return {name: amount for name, amount in left.items() if amount}


def more(burned: Mapping[str, Decimal], parts: Mapping[str, Decimal]) -> Burned:
    """What is burned when a further burn has moved these parts."""
    total = dict(burned)
    for name, amount in parts.items():
        total[name] = total.get(name, ZERO) + amount
    return {name: amount for name, amount in total.items() if amount}


def debt_nobody_knows(
    burned: Mapping[str, Decimal], amount: Decimal, debt: Decimal, grants: Mapping[str, Grant]
) -> Decimal:
    """How much of the debt to be undone is neither owed any more, nor was paid by a grant.

    Above zero only for what was used before grants were kept: its entry calls all of it debt.
    """
    of_debt = min(amount, burned.get(DEBT, ZERO))
    return max(ZERO, of_debt - debt - sum((grant.paid_debt for grant in grants.values()), ZERO))
